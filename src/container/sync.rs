//! What parent and child say to each other between the clone and the program: five words, and errors whole.
//!
//! ```text
//! parent                         child
//!   | -- Build  (ids are mapped) --> |    only with a new user namespace
//!   | <-- Mounted ------------------ |    only with hooks of the runtime namespace
//!   | -- Pivot  (hooks have run) --> |
//!   | <-- Ready  (confined) -------- |
//!   | -- Keep   (recorded) --------> |    end of file instead: the parent died, and so does the child
//!   | <-- end of file -------------- |    execve closed the socket (run, exec), or the child waits for start
//! ```
//! In between the child may send a descriptor (console, seccomp listener), and at any point its own error, its last word.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::socket;

const LIMIT: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    Build = b'B',
    Mounted = b'M',
    Pivot = b'P',
    Console = b'C',
    Listener = b'L',
    Ready = b'R',
    Keep = b'K',
    Error = b'E',
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Sync(OwnedFd);

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    Word(Word, Option<OwnedFd>),
    /// The other side is gone without a word.
    Silence,
}

impl Sync {
    pub fn pair() -> Result<(Self, Self)> {
        socket::pair().map(|(a, b)| (Self(a), Self(b)))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn say(&self, word: Word) -> Result<()> {
        socket::send(self.0.as_fd(), &[word as u8], None)
    }

    pub fn hand(&self, word: Word, fd: BorrowedFd<'_>) -> Result<()> {
        socket::send(self.0.as_fd(), &[word as u8], Some(fd))
    }

    /// The child's last word. That nobody hears it any more is no further error.
    pub fn fail(&self, error: &Error) {
        let mut bytes = vec![Word::Error as u8];
        bytes.extend(error.encode());
        let _ = socket::send(self.0.as_fd(), &bytes, None);
    }

    /// The next word; an error that the other side sent is this side's error.
    pub fn hear(&self) -> Result<Heard> {
        let (bytes, fd) = socket::receive(self.0.as_fd(), LIMIT)?;
        const WORDS: [Word; 7] =
            [Word::Build, Word::Mounted, Word::Pivot, Word::Console, Word::Listener, Word::Ready, Word::Keep];
        match bytes.first() {
            None => Ok(Heard::Silence),
            Some(b'E') => Err(Error::decode(&bytes[1..])),
            Some(byte) => match WORDS.into_iter().find(|word| *word as u8 == *byte) {
                Some(word) => Ok(Heard::Word(word, fd)),
                None => Err(Error::new(format!("unexpected word {byte:#x} between runtime and container"))),
            },
        }
    }

    /// Waits for exactly this word, as the child does; silence means that the runtime was killed.
    pub fn expect(&self, word: Word) -> Result<()> {
        match self.hear()? {
            Heard::Word(heard, _) if heard == word => Ok(()),
            Heard::Word(heard, _) => Err(Error::new(format!("expected {word:?} and heard {heard:?}"))),
            Heard::Silence => Err(Error::new("the runtime is gone")),
        }
    }
}
