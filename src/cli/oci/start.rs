//! `start`: the process of a created container becomes its program.

use clap::Args;

use super::Globals;
use super::quick::Words;
use crate::container::{self, record::Id};
use crate::error::Result;

/// Start a created container
#[derive(Debug, Args)]
pub struct Start {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl Start {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { id: words.id(|_, _| None)? })
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        container::start(&globals.root()?, &id, super::notify_socket().as_deref())?;
        Ok(0)
    }
}
