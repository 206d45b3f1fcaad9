//! `kill`: a signal for the container's first process, or for all.

use clap::Args;

use super::Globals;
use crate::container::{self, record::Id};
use crate::error::{Error, Result};
use crate::sys::signal;

/// Send a signal to a container
#[derive(Debug, Args)]
pub struct Kill {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
    /// Name or number of the signal
    #[arg(value_name = "signal", default_value = "TERM")]
    signal: String,
    /// Send it to every process of the container; runc hides it, and engines still use it
    #[arg(short, long, hide = true)]
    all: bool,
}

impl Kill {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let root = globals.root()?;
        let number = signal::number(&self.signal).ok_or_else(|| {
            Error::new(format!("unknown signal {:?}", self.signal))
                .next("use a name such as TERM, or 1 to 64")
        })?;
        container::kill(&root, &id, number, self.all)?;
        Ok(0)
    }
}
