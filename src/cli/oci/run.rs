//! `run`: create and start in one, in the foreground unless `--detach`.

use std::os::fd::AsFd;

use clap::Args;

use super::create::check_console;
use super::quick::Words;
use super::{CreateFlags, Globals};
use crate::cli::log;
use crate::container::foreground::Foreground;
use crate::container::{self, record::Id};
use crate::error::Result;
use crate::sys::seal;

/// Create and run a container
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    flags: CreateFlags,
    /// Return as soon as the container runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container's record after it ended
    #[arg(long)]
    keep: bool,
    /// Do not take over the orphans of the container
    #[arg(long)]
    no_subreaper: bool,
}

impl Run {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        let mut run = Self { flags: CreateFlags::none(), detach: false, keep: false, no_subreaper: false };
        run.flags.id = words.id(|words, name| {
            match name {
                "d" | "detach" => run.detach = words.switch()?,
                "keep" => run.keep = words.switch()?,
                "no-subreaper" => run.no_subreaper = words.switch()?,
                _ => run.flags.quick(words, name)?,
            }
            Some(())
        })?;
        Some(run)
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.flags.id)?;
        if self.flags.print_plan {
            return self.flags.print_plan(globals).map(|()| 0);
        }
        seal::ensure()?;
        let (bundle, options) = self.flags.prepare(globals)?;
        // Never freed: the process ends with it.
        let bundle = std::mem::ManuallyDrop::new(bundle);
        check_console(&bundle, self.flags.console_socket.is_some(), self.detach)?;
        let root = globals.make_root()?;
        let foreground = if self.detach { None } else { Some(Foreground::new(!self.no_subreaper)?) };
        let mut made = container::run(&root, &id, &bundle, &options, &self.flags.handles())
            .map_err(|e| e.context("unable to start container process"))?;
        let relay = made.relay.take();
        let Some(foreground) = foreground else {
            if let Some(relay) = relay
                && let Err(e) = relay.wait(made.child.pidfd.as_fd(), made.child.pid)
            {
                log::warn(&format!("NOTIFY_SOCKET: {e}"));
            }
            return Ok(0);
        };
        let exit = foreground.wait(&made.child, made.console.as_ref(), relay.as_ref())?;
        if !self.keep
            && let Err(e) = container::undo::finish(&mut made.container)
        {
            log::warn(&format!("the container ended, and could not be removed: {e}"));
        }
        Ok(exit.code())
    }
}
