//! What parent and child say to each other between the clone and the program: a few words, and errors whole.
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
//! A child that has borrowed the runtime's memory says and hears none of these words: nobody is awake.
//! In between the child may send the descriptor of its console, and at any point its own error, its last word.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::{fd, socket};

/// Longest message, in bytes; the longest is the state of a container for a seccomp agent.
const LIMIT: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    Build = b'B',
    Mounted = b'M',
    Pivot = b'P',
    Console = b'C',
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
    Word(Word, Vec<u8>, Option<OwnedFd>),
    /// The other side is gone without a word.
    Silence,
}

impl Sync {
    pub fn pair() -> Result<(Self, Self)> {
        socket::pair().map(|(a, b)| (Self(a), Self(b)))
    }

    /// Closes this end in a child that has this memory but descriptors of its own: only the parent's is left.
    pub fn leave(&self) {
        let number = self.0.as_raw_fd();
        let _ = fd::close_between(number, number as u32);
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The same end under a number of at least `least`.
    pub fn raise(self, least: i32) -> Result<Self> {
        fd::duplicate_above(self.0.as_fd(), least).map(Self)
    }

    pub fn say(&self, word: Word) -> Result<()> {
        self.tell(word, &[])
    }

    /// A word with something to remember.
    pub fn tell(&self, word: Word, payload: &[u8]) -> Result<()> {
        socket::send(self.0.as_fd(), &[&[word as u8], payload].concat(), None)
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
        let (mut bytes, fd) = socket::receive(self.0.as_fd(), LIMIT)?;
        const WORDS: [Word; 6] =
            [Word::Build, Word::Mounted, Word::Pivot, Word::Console, Word::Ready, Word::Keep];
        match bytes.first() {
            None => Ok(Heard::Silence),
            Some(b'E') => Err(Error::decode(&bytes[1..])),
            Some(byte) => match WORDS.into_iter().find(|word| *word as u8 == *byte) {
                Some(word) => Ok(Heard::Word(word, bytes.split_off(1), fd)),
                None => Err(Error::new(format!("unexpected word {byte:#x} between runtime and container"))),
            },
        }
    }

    /// Silence that does not wait: an error when the other side is gone.
    pub fn still_there(&self) -> Result<()> {
        // Who lends its memory says nothing.
        match fd::poll(&[(self.0.as_fd(), libc::POLLIN)], 0)?[0] {
            false => Ok(()),
            true => Err(Error::new("the runtime is gone")),
        }
    }

    /// Waits for this word with a descriptor.
    pub fn take(&self, word: Word) -> Result<OwnedFd> {
        match self.hear()? {
            Heard::Word(heard, _, Some(fd)) if heard == word => Ok(fd),
            Heard::Word(heard, ..) => Err(Error::new(format!("expected {word:?} and heard {heard:?}"))),
            Heard::Silence => Err(Error::new("the runtime is gone")),
        }
    }

    /// Waits for exactly this word, as the child does; silence means that the runtime was killed.
    pub fn expect(&self, word: Word) -> Result<Vec<u8>> {
        match self.hear()? {
            Heard::Word(heard, payload, _) if heard == word => Ok(payload),
            Heard::Word(heard, ..) => Err(Error::new(format!("expected {word:?} and heard {heard:?}"))),
            Heard::Silence => Err(Error::new("the runtime is gone")),
        }
    }
}
