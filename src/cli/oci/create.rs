//! `create`: a container whose process waits for `start`.

use clap::Args;

use super::quick::Words;
use super::{CreateFlags, Globals};
use crate::container::{self, record::Id};
use crate::error::{Error, Result};
use crate::sys::seal;

/// Create a container
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    flags: CreateFlags,
}

impl Create {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        let mut flags = CreateFlags::none();
        flags.id = words.id(|words, name| flags.quick(words, name))?;
        Some(Self { flags })
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
        check_console(&bundle, self.flags.console_socket.is_some(), true)?;
        let root = globals.make_root()?;
        container::create(&root, &id, &bundle, &options, &self.flags.handles())
            .map_err(|e| e.context("unable to start container process"))?;
        Ok(0)
    }
}

/// A terminal needs somebody who holds its master: the caller by a socket, or a runtime that stays.
pub fn check_console(bundle: &crate::bundle::Bundle, socket: bool, detached: bool) -> Result<()> {
    let terminal = bundle.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    console_rules(terminal, socket, detached)
}

pub fn console_rules(terminal: bool, socket: bool, detached: bool) -> Result<()> {
    if detached && terminal && !socket {
        return Err(Error::new("cannot allocate tty if runc will detach without setting console socket")
            .next("give --console-socket, or set process.terminal to false"));
    }
    if socket && !(detached && terminal) {
        return Err(Error::new("cannot use console socket if runc will not detach or allocate tty")
            .next("leave --console-socket out, or set process.terminal to true"));
    }
    Ok(())
}
