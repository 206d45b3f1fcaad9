//! The one error of jug: what failed, why it probably did, and what to do next.
//!
//! An error crosses the fork whole: the child encodes it, the parent decodes it, and the caller reads the child's own
//! words. This room must not log: an error is returned once and printed once, at the door.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What failed (one lower-case sentence), and where we know them the likely cause and the next step.
///
/// `errno` is the error number of the system call underneath, 0 when there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    errno: i32,
    what: String,
    why: Option<String>,
    next: Option<String>,
}

impl Error {
    pub fn new(what: impl Into<String>) -> Self {
        Self { errno: 0, what: what.into(), why: None, next: None }
    }

    /// A failed system call: `call` is the call with its arguments, as `sys` prints it.
    pub fn call(call: impl fmt::Display, errno: i32) -> Self {
        Self { errno, what: format!("{call}: {}", errno_words(errno)), why: None, next: None }
    }

    /// An error of std's: the system call's in our words, and its own where there was none.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::call(what, errno),
            None => Self::new(format!("{what}: {error}")),
        }
    }

    /// The likely cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// A cause that is known for certain, in the same line.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.what = format!("{}: {cause}", self.what);
        self
    }

    /// The next step for the person who reads it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Puts what was being done in front: `doing: what`.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }

    /// The error number of the failed system call; 0 when no call was involved.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    /// Bytes for the way across the fork: `errno`, then each text with its length, all little-endian u32.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.errno.to_le_bytes().to_vec();
        for text in [Some(&self.what), self.why.as_ref(), self.next.as_ref()] {
            let text = text.map_or("", String::as_str).as_bytes();
            let text = &text[..text.len().min(MAX_TEXT)];
            bytes.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
            bytes.extend(text);
        }
        bytes
    }

    /// The inverse of [`Error::encode`]; bytes that are none of ours become an error that says so.
    pub fn decode(bytes: &[u8]) -> Self {
        fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
            let (head, tail) = rest.split_at_checked(n)?;
            *rest = tail;
            Some(head)
        }
        fn text(rest: &mut &[u8]) -> Option<String> {
            let len = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
            Some(String::from_utf8_lossy(take(rest, len)?).into_owned())
        }
        fn all(mut rest: &[u8]) -> Option<Error> {
            let errno = i32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let what = text(&mut rest)?;
            let why = text(&mut rest)?;
            let next = text(&mut rest)?;
            let some = |s: String| (!s.is_empty()).then_some(s);
            Some(Error { errno, what, why: some(why), next: some(next) })
        }
        all(bytes)
            .unwrap_or_else(|| Error::new(format!("container init sent {} unreadable bytes", bytes.len())))
    }
}

/// Longest text that crosses the fork, in bytes.
const MAX_TEXT: usize = 8192;

/// The kernel's words for an error number, in lower case as every caller of an OCI runtime expects them.
pub fn errno_words(errno: i32) -> String {
    let words = nix::errno::Errno::from_raw(errno).desc();
    let mut chars = words.chars();
    match chars.next() {
        // "RPC version wrong" and "I/O error" keep their capitals; ordinary sentences lose the first one.
        Some(first) if chars.as_str().starts_with(|c: char| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => words.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\nwhy: {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\nnext: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_the_fork_whole() {
        let error = Error::call("openat2([5], \"proc\", O_PATH)", libc::ENOENT)
            .why("the root file system has no /proc")
            .next("create the directory");
        assert_eq!(Error::decode(&error.encode()), error);
        assert_eq!(error.what(), "openat2([5], \"proc\", O_PATH): no such file or directory");
    }

    #[test]
    fn damaged_bytes_are_an_error_of_their_own() {
        let bytes = Error::new("x").encode();
        for cut in 0..bytes.len() {
            assert!(Error::decode(&bytes[..cut]).what().contains("unreadable"));
        }
    }
}
