//! `pause` and `resume`: the container's processes stand still, and go on.

use clap::Args;

use super::Globals;
use crate::container::{self, record::Id};
use crate::error::Result;

/// Suspend every process of a container
#[derive(Debug, Args)]
pub struct Pause {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

/// Let a paused container go on
#[derive(Debug, Args)]
pub struct Resume {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl Pause {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        freeze(&self.id, globals, true)
    }
}

impl Resume {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        freeze(&self.id, globals, false)
    }
}

fn freeze(id: &str, globals: &Globals, freeze: bool) -> Result<i32> {
    let id = Id::new(id)?;
    container::pause(&globals.root()?, &id, freeze)?;
    Ok(0)
}
