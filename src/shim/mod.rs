//! containerd's shim: its words, and the runtime's command line behind them. One process serves all containers of a
//! pod; it clones none of them, starts no thread, and waits for nobody.
//!
//! `bootstrap` starts it, `serve` is its loop, `task` its methods; `job` runs jug-oci, `at_once` does what needs no
//! run; `end` tells how processes end; `cleanup` is for a shim that was killed.

mod at_once;
pub mod bootstrap;
pub mod cleanup;
pub mod end;
pub mod event;
pub mod flags;
pub mod job;
mod layers;
pub mod message;
pub mod metrics;
pub mod options;
pub mod process;
pub mod rootfs;
pub mod runtime;
pub mod serve;
pub mod stdio;
pub mod task;
pub mod terminal;
pub mod ttrpc;

use self::flags::{Action, Flags};
use crate::cli::log;
use crate::sys;

/// The door: the exit code. What fails is said on stderr, which containerd hands on.
pub fn main() -> i32 {
    sys::signal::ignore_pipe();
    let flags = sys::fd::ensure_stdio().and_then(|()| Flags::read(std::env::args_os().skip(1)));
    let done = flags.and_then(|flags| match flags.action {
        Action::Help => {
            log::print(flags::HELP);
            Ok(())
        }
        Action::Version => {
            log::print(&flags::version());
            Ok(())
        }
        Action::Info => bootstrap::info(),
        Action::Start => bootstrap::start(&flags),
        Action::Delete => cleanup::delete(&flags),
        Action::Serve => bootstrap::serve(&flags),
    });
    match done {
        Ok(()) => 0,
        Err(e) => {
            log::fatal(&format!("containerd-shim-jug-v2: {e}"));
            1
        }
    }
}
