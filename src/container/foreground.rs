//! A runtime that stays: `run` and `exec` without `--detach` forward signals, carry the terminal, and wait.

use std::os::fd::{AsFd, OwnedFd};

use super::notify::Relay;
use crate::error::Result;
use crate::sys::clone::Child;
use crate::sys::process::{self, Exit};
use crate::sys::{fd, signal, tty};

/// What must be ready before the process is: signals that arrive meanwhile wait.
pub struct Foreground {
    signals: OwnedFd,
}

impl Foreground {
    pub fn new(subreaper: bool) -> Result<Self> {
        if subreaper {
            process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
        }
        Ok(Self { signals: signal::block_all()? })
    }

    /// Waits for the end of the process. `relay` carries its readiness, with the number of this process: it is the one
    /// that a service manager has started and whose end it can see.
    pub fn wait(&self, child: &Child, console: Option<&OwnedFd>, mut relay: Option<&Relay>) -> Result<Exit> {
        let terminal = console.map(Terminal::new);
        loop {
            let mut watched = vec![(child.pidfd.as_fd(), libc::POLLIN), (self.signals.as_fd(), libc::POLLIN)];
            if let Some(terminal) = &terminal {
                watched.extend(terminal.watched());
            }
            watched.extend(relay.map(|relay| (relay.fd(), libc::POLLIN)));
            let ready = fd::poll(&watched, -1)?;
            if let Some(terminal) = &terminal {
                terminal.carry(&ready[2..]);
            }
            if let (Some(carrier), Some(true)) = (relay, ready[2..].last()) {
                // What the program says later is read as well: it must not wait for a reader.
                if let Err(e) = carrier.carry(process::pid()) {
                    crate::cli::log::warn(&format!("NOTIFY_SOCKET: {e}"));
                    relay = None;
                }
            }
            if ready[1] {
                self.forward(child, terminal.as_ref())?;
            }
            if ready[0]
                && let Some(exit) = process::wait(child.pidfd.as_fd(), false)?
            {
                if let Some(terminal) = &terminal {
                    terminal.drain();
                }
                return Ok(exit);
            }
        }
    }

    fn forward(&self, child: &Child, terminal: Option<&Terminal<'_>>) -> Result<()> {
        while let Some(number) = signal::next(self.signals.as_fd())? {
            match number {
                libc::SIGCHLD => process::reap_orphans(child.pid),
                libc::SIGWINCH if terminal.is_some() => {
                    if let Some(terminal) = terminal {
                        terminal.resize();
                    }
                }
                libc::SIGPIPE | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU => {}
                // It may be gone already: its exit is the next thing seen.
                number => drop(process::pidfd_kill(child.pidfd.as_fd(), number)),
            }
        }
        Ok(())
    }
}

/// The caller's terminal, raw while it is carried to the container's.
struct Terminal<'a> {
    console: &'a OwnedFd,
    input_open: std::cell::Cell<bool>,
    _raw: Option<tty::RawMode>,
}

const STDIN: i32 = 0;
const STDOUT: i32 = 1;

impl<'a> Terminal<'a> {
    fn new(console: &'a OwnedFd) -> Self {
        let raw = fd::inherited(STDIN)
            .and_then(|stdin| stdin.try_clone_to_owned().ok())
            .and_then(tty::RawMode::with_newlines);
        let terminal = Self { console, input_open: std::cell::Cell::new(true), _raw: raw };
        terminal.resize();
        terminal
    }

    /// The container's terminal gets the size of the caller's, if the caller has one.
    fn resize(&self) {
        if let Some((rows, columns)) = fd::inherited(STDIN).and_then(|stdin| tty::size(stdin).ok()) {
            let _ = tty::set_size(self.console.as_fd(), rows, columns);
        }
    }

    fn watched(&self) -> Vec<(std::os::fd::BorrowedFd<'_>, i16)> {
        let mut list = vec![(self.console.as_fd(), libc::POLLIN)];
        if let (true, Some(stdin)) = (self.input_open.get(), fd::inherited(STDIN)) {
            list.push((stdin, libc::POLLIN));
        }
        list
    }

    fn carry(&self, ready: &[bool]) {
        if ready.first() == Some(&true) {
            self.output();
        }
        if ready.get(1) == Some(&true) {
            self.input();
        }
    }

    /// Carries one piece; false when the other side is closed (EIO) or has nothing.
    fn output(&self) -> bool {
        let mut buffer = [0; 8192];
        match (fd::read(self.console.as_fd(), &mut buffer), fd::inherited(STDOUT)) {
            (Ok(n), Some(stdout)) if n > 0 => fd::write_all(stdout, &buffer[..n]).is_ok(),
            _ => false,
        }
    }

    fn input(&self) {
        let mut buffer = [0; 8192];
        let Some(stdin) = fd::inherited(STDIN) else { return };
        match fd::read(stdin, &mut buffer) {
            Ok(n) if n > 0 => drop(fd::write_all(self.console.as_fd(), &buffer[..n])),
            _ => {
                // End of input is a control-D for whoever reads the terminal.
                self.input_open.set(false);
                let _ = fd::write_all(self.console.as_fd(), &[4]);
            }
        }
    }

    /// What was written before the end is still shown.
    fn drain(&self) {
        let ready = || fd::poll(&[(self.console.as_fd(), libc::POLLIN)], 0).is_ok_and(|r| r[0]);
        while ready() && self.output() {}
    }
}
