//! A process's terminal: bytes between its pseudo-terminal and the FIFOs of the client. Never waits: each side is read
//! only when the other one has taken what it got.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Result;
use crate::sys;
use crate::sys::epoll::Epoll;

/// How much is on its way in each direction at most, in bytes.
const BUFFER: usize = 4096;
/// After so many buffers others get their turn.
const TURN: usize = 16;

pub struct Terminal {
    master: Option<OwnedFd>,
    output: Option<OwnedFd>,
    input: Option<OwnedFd>,
    /// From the process, and to it.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// The word of the first of the three descriptors; the others follow.
    word: u64,
    /// What is waited for on each.
    waits: [i32; 3],
}

/// How many words a terminal takes.
pub const WORDS: u64 = 3;

impl Terminal {
    /// Copies between `master` and both others, which must not block.
    pub fn new(master: OwnedFd, input: Option<OwnedFd>, output: OwnedFd, word: u64) -> Result<Self> {
        for fd in [Some(&master), Some(&output), input.as_ref()].into_iter().flatten() {
            sys::fd::set_blocking(fd.as_fd(), false)?;
        }
        Ok(Self {
            master: Some(master),
            output: Some(output),
            input,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            word,
            waits: [0; 3],
        })
    }

    /// Whether `word` is one of this terminal's.
    pub fn has(&self, word: u64) -> bool {
        (self.word..self.word + WORDS).contains(&word)
    }

    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.master.as_ref().map_or(Ok(()), |master| sys::tty::set_size(master.as_fd(), height, width))
    }

    /// Copies what there is, and asks to be told of what comes.
    pub fn copy(&mut self, epoll: &Epoll) -> Result<()> {
        for _ in 0..TURN {
            if !self.copy_out() {
                break;
            }
        }
        for _ in 0..TURN {
            if !self.copy_in() {
                break;
            }
        }
        self.ask(epoll)
    }

    /// One buffer from the process. `false`: nothing more goes now.
    fn copy_out(&mut self) -> bool {
        if let (Some(output), false) = (&self.output, self.outgoing.is_empty()) {
            match sys::fd::write_some(output.as_fd(), &self.outgoing) {
                Ok(Some(n)) => drop(self.outgoing.drain(..n)),
                Ok(None) => return false,
                // The disk is full, say: the process must not wait for that.
                Err(_) => self.output = None,
            }
            if self.output.is_some() && !self.outgoing.is_empty() {
                return true;
            }
        }
        self.outgoing = Vec::new();
        let Some(master) = &self.master else {
            self.output = None;
            return false;
        };
        let mut buffer = [0; BUFFER];
        match sys::fd::read_some(master.as_fd(), &mut buffer) {
            Ok(Some(n)) if n > 0 => self.outgoing = buffer[..n].to_vec(),
            Ok(None) => return false,
            // EIO: the last process that had the terminal has closed it (pty(7)).
            _ => (self.master, self.output) = (None, None),
        }
        self.master.is_some()
    }

    fn copy_in(&mut self) -> bool {
        let Some(master) = &self.master else {
            self.input = None;
            return false;
        };
        if !self.incoming.is_empty() {
            match sys::fd::write_some(master.as_fd(), &self.incoming) {
                Ok(Some(n)) => drop(self.incoming.drain(..n)),
                Ok(None) => return false,
                Err(_) => self.incoming.clear(),
            }
            return true;
        }
        self.incoming = Vec::new();
        let Some(input) = &self.input else { return false };
        let mut buffer = [0; BUFFER];
        match sys::fd::read_some(input.as_fd(), &mut buffer) {
            Ok(Some(n)) if n > 0 => self.incoming = buffer[..n].to_vec(),
            Ok(None) => return false,
            _ => self.input = None,
        }
        self.input.is_some()
    }

    /// A side that is not waited for is taken out: it would announce its end again and again.
    fn ask(&mut self, epoll: &Epoll) -> Result<()> {
        let when = |yes: bool, events: i32| if yes { events } else { 0 };
        let wants = [
            when(self.outgoing.is_empty(), libc::EPOLLIN) | when(!self.incoming.is_empty(), libc::EPOLLOUT),
            when(!self.outgoing.is_empty(), libc::EPOLLOUT),
            when(self.incoming.is_empty(), libc::EPOLLIN),
        ];
        let fds: [Option<BorrowedFd<'_>>; 3] =
            [&self.master, &self.output, &self.input].map(|fd| fd.as_ref().map(AsFd::as_fd));
        for (side, fd) in fds.into_iter().enumerate() {
            let Some(fd) = fd else {
                self.waits[side] = 0;
                continue;
            };
            let word = self.word + side as u64;
            match (self.waits[side], wants[side]) {
                (before, now) if before == now => {}
                (0, now) => epoll.add(fd, now, word)?,
                (_, 0) => epoll.remove(fd)?,
                (_, now) => epoll.change(fd, now, word)?,
            }
            self.waits[side] = wants[side];
        }
        Ok(())
    }
}
