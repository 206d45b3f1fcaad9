//! `delete`: removes a container and everything it held.

use clap::Args;

use super::Globals;
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
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        container::delete(globals.root().ok().as_ref(), &id, self.force)?;
        Ok(0)
    }
}
