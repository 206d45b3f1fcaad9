//! containerd's shim: its words, and the runtime's command line behind them. One process serves all containers of a
//! pod; it clones none of them, starts no thread, and waits for nobody.
//!
//! `bootstrap` starts it, `serve` is its loop, `task` its methods; `job` runs jug-oci, `end` tells how processes end;
//! `cleanup` is for a shim that was killed.

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

use std::process::ExitCode;

use self::flags::{Action, Flags};
use crate::cli::log;

/// The door. What fails is said on stderr, which containerd hands on.
pub fn main() -> ExitCode {
    let done = Flags::read(std::env::args_os().skip(1)).and_then(|flags| match flags.action {
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
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::fatal(&format!("containerd-shim-jug-v2: {e}"));
            ExitCode::FAILURE
        }
    }
}
