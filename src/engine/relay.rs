//! Pipes between a program and the caller's own streams. SELinux lets no confined program use a file of the host's, nor
//! always a terminal: the kernel would quietly put its null device there (selinux(8)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use super::place::io;
use crate::error::Result;
use crate::sys::{fd, path};

/// A pipe takes as much without blocking once it takes anything (PIPE_BUF, pipe(7)).
const PIECE: usize = 4096;

pub struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    /// There is something to read; now there must be room for it.
    full: bool,
    input: bool,
}

/// Gives a command pipes in the place of those streams of the caller's that are none yet.
pub fn between(command: &mut Command, interactive: bool) -> Result<Vec<Relay>> {
    let mut relays = Vec::new();
    for number in i32::from(!interactive)..3 {
        let Some(own) = fd::inherited(number) else { continue };
        let kind = path::stat(own, Path::new(""))?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFIFO || kind == libc::S_IFSOCK {
            continue;
        }
        let own = own.try_clone_to_owned().map_err(io("dup"))?;
        let (read, write) = fd::pipe()?;
        let relay = |from, to| Relay { from, to, full: false, input: number == 0 };
        relays.push(match number {
            0 => {
                command.stdin(Stdio::from(read));
                relay(own, write)
            }
            1 => {
                command.stdout(Stdio::from(write));
                relay(read, own)
            }
            _ => {
                command.stderr(Stdio::from(write));
                relay(read, own)
            }
        });
    }
    Ok(relays)
}

/// What is waited for until the next piece can go.
pub fn waits(relays: &[Relay]) -> impl Iterator<Item = (BorrowedFd<'_>, i16)> {
    relays.iter().map(|relay| match relay.full {
        true => (relay.to.as_fd(), libc::POLLOUT),
        false => (relay.from.as_fd(), libc::POLLIN),
    })
}

/// Moves what can be moved; who has reached its end goes. `ready` is the answer to [`waits`].
pub fn carry(relays: &mut Vec<Relay>, ready: &[bool]) {
    let mut ready = ready.iter();
    relays.retain_mut(|relay| match (ready.next(), relay.full) {
        (Some(true), true) => {
            relay.full = false;
            let mut piece = [0; PIECE];
            // Where nobody reads any more, and at the end, there is nothing left to do.
            let moved = fd::read(relay.from.as_fd(), &mut piece)
                .and_then(|n| fd::write_all(relay.to.as_fd(), &piece[..n]).map(|()| n));
            moved.is_ok_and(|n| n > 0)
        }
        (Some(true), false) => {
            relay.full = true;
            true
        }
        _ => true,
    });
}

/// The program has ended: what it has said goes on to the caller; what those say that it left behind does not.
pub fn finish(mut relays: Vec<Relay>) -> Result<()> {
    relays.retain(|relay| !relay.input);
    loop {
        let ready = fd::poll(&waits(&relays).collect::<Vec<_>>(), 0)?;
        if !ready.contains(&true) {
            return Ok(());
        }
        carry(&mut relays, &ready);
    }
}
