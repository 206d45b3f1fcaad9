//! `--init`: the first process of a container that asked for one. It starts the program, hands signals on, and reaps
//! whoever is orphaned. It is this very binary, which is static, bound into the container read-only. The program is a
//! process group of its own, as with tini: a key of the terminal reaches it once, from the terminal.

use std::os::fd::AsFd;
use std::process::Command;

use crate::sys::{process, signal, spawn};

/// Where the binary is in the container, and the name by which it knows what it is.
pub const PATH: &str = "/dev/.jug-init";

/// The program's exit code; 127 and 126 as a shell would say.
pub fn main(words: Vec<String>) -> u8 {
    let Some((program, args)) = words.split_first() else { return 127 };
    let Ok(signals) = signal::block_all() else { return 125 };
    let mut command = Command::new(program);
    spawn::in_front(command.args(args));
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            crate::cli::log::fatal(&format!("exec: {program:?}: {e}"));
            return if e.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 };
        }
    };
    let pid = child.id() as i32;
    let Ok(Some(pidfd)) = process::pidfd_open(pid) else { return 125 };
    loop {
        let _ = crate::sys::fd::poll(&[(signals.as_fd(), libc::POLLIN), (pidfd.as_fd(), libc::POLLIN)], -1);
        if let Ok(Some(exit)) = process::wait(pidfd.as_fd(), false) {
            return exit.code() as u8;
        }
        while let Ok(Some(number)) = signal::next(signals.as_fd()) {
            match number {
                libc::SIGCHLD => process::reap_orphans(pid),
                number => drop(process::pidfd_kill(pidfd.as_fd(), number)),
            }
        }
    }
}
