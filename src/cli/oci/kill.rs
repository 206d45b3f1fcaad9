//! `kill`: a signal for the container's first process, or for all.

use clap::Args;

use super::Globals;
use super::quick::{Word, Words};
use crate::container::{self, Container, record::Id};
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
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        let (mut id, mut signal, mut all) = (None, None, false);
        loop {
            match words.next()? {
                Word::Plain(word) if id.is_none() => id = Some(word.to_owned()),
                Word::Plain(word) if signal.is_none() => signal = Some(word.to_owned()),
                Word::Flag("a" | "all") => all = words.switch()?,
                Word::End => break,
                _ => return None,
            }
        }
        Some(Self { id: id?, signal: signal.unwrap_or_else(|| "TERM".to_owned()), all })
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let root = globals.root()?;
        let name = if self.signal.is_empty() { "TERM" } else { &self.signal };
        let Some(number) = signal::number(name) else {
            // That there is no such container is the first thing to say.
            Container::load(&root, &id)?;
            return Err(Error::new(format!("unknown signal {:?}", self.signal))
                .next("use a name such as TERM, or 0 to 64"));
        };
        container::kill(&root, &id, number, self.all)?;
        Ok(0)
    }
}
