//! `delete`: removes a container and everything it held.

use clap::Args;

use super::Globals;
use super::quick::Words;
use crate::container::{self, record::Id};
use crate::error::Result;

/// Delete a container that is not running
#[derive(Debug, Args)]
pub struct Delete {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
    /// Kill it first if it runs; a missing one is no error
    #[arg(short, long)]
    force: bool,
}

impl Delete {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        let mut force = false;
        let id = words.id(|words, name| {
            force = (name == "f" || name == "force").then(|| words.switch())??;
            Some(())
        })?;
        Some(Self { id, force })
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        container::delete(globals.root().ok().as_ref(), &id, self.force)?;
        Ok(0)
    }
}
