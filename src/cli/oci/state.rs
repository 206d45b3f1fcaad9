//! `state`: the container as JSON.

use clap::Args;

use super::Globals;
use super::quick::Words;
use crate::cli::log;
use crate::container::{Container, record::Id};
use crate::error::{Error, Result};

/// Print the state of a container
#[derive(Debug, Args)]
pub struct State {
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl State {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { id: words.id(|_, _| None)? })
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let container = Container::load(&globals.root()?, &id)?;
        let text = serde_json::to_string_pretty(&container.state()?)
            .map_err(|e| Error::new(format!("writing the state: {e}")))?;
        log::print(&text);
        Ok(0)
    }
}
