//! Waiting for many descriptors at once (epoll(7)).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, errno, shown};
use crate::error::{Error, Result};

/// How many announcements one wait returns at most.
pub const BATCH: usize = 16;

/// A set of descriptors, each with a word of the caller's that says which one it is.
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> Result<Self> {
        // SAFETY: plain call that returns a descriptor.
        let fd = check!(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll_create1()")?;
        Ok(Self(owned(fd.into())))
    }

    pub fn add(&self, fd: BorrowedFd<'_>, events: i32, word: u64) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, word)
    }

    pub fn change(&self, fd: BorrowedFd<'_>, events: i32, word: u64) -> Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, word)
    }

    /// A descriptor that is closed leaves by itself, unless somebody else has it open too.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, events: i32, word: u64) -> Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: word };
        check!(
            // SAFETY: event lives across the call.
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) },
            "epoll_ctl({operation}, {})",
            shown(fd)
        )?;
        Ok(())
    }

    /// On which words something has happened, and how many these are. None, when `timeout` (milliseconds; -1: never)
    /// ends or a signal comes.
    pub fn wait(&self, timeout: i32, words: &mut [u64; BATCH]) -> Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let fd = self.0.as_raw_fd();
        // SAFETY: the array has room for BATCH announcements.
        let n = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), BATCH as i32, timeout) };
        if n < 0 {
            return if errno() == libc::EINTR { Ok(0) } else { Err(Error::call("epoll_wait()", errno())) };
        }
        for (word, event) in words.iter_mut().zip(&events[..n as usize]) {
            *word = event.u64;
        }
        Ok(n as usize)
    }
}
