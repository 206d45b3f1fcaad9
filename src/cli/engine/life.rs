//! The verbs that end, freeze, rename and remove containers: each is flags and one call.

use clap::Args;

use super::Global;
use super::each::{each, find, place};
use crate::engine::container::Container;
use crate::engine::life;
use crate::error::{Error, Result};
use crate::sys::signal;

/// Stop containers: ask first, kill after a while
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds to wait before killing; -1 to wait for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Signal by which they are asked [default: the container's --stop-signal]
    #[arg(short, long)]
    signal: Option<String>,
    /// All that run
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    names: Vec<String>,
}

impl Stop {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let signal = self.signal.as_deref().map(number).transpose()?;
        each(global, &names_or_all(global, self.names, self.all)?, |container| {
            life::stop(&container, signal, self.time).map(|()| None)
        })
    }
}

/// Send a signal to containers
#[derive(Debug, Args)]
pub struct Kill {
    /// Name or number of the signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// All that run
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    names: Vec<String>,
}

/// The number of a signal that somebody named.
fn number(name: &str) -> Result<i32> {
    let number = signal::number(name).filter(|number| *number > 0);
    number.ok_or_else(|| Error::new(format!("invalid signal: {name}")))
}

/// Those that were named, or the ids of all that run.
fn names_or_all(global: &Global, names: Vec<String>, all: bool) -> Result<Vec<String>> {
    if !all {
        return Ok(names);
    }
    let running = Container::all(&place(global)?)?.into_iter();
    let running = running.filter(|container| container.status().is_ok_and(|status| status.is_up()));
    Ok(running.map(|container| container.id().to_owned()).collect())
}

impl Kill {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let number = number(&self.signal)?;
        each(global, &names_or_all(global, self.names, self.all)?, |container| {
            life::kill(&container, number).map(|()| None)
        })
    }
}

/// Remove containers
#[derive(Debug, Args)]
pub struct Rm {
    /// Remove running ones too; one that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes as well
    #[arg(short, long)]
    volumes: bool,
    /// All of them
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    names: Vec<String>,
}

impl Rm {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let place = place(global)?;
        let mut names = self.names;
        // What was killed half made is swept by looking at all.
        let all = Container::all(&place)?;
        if self.all {
            names = all.iter().map(|container| container.id().to_owned()).collect();
        }
        if self.force {
            names.retain(|name| Container::find(&place, name).is_ok());
        }
        each(global, &names, |container| life::remove(container, self.force, self.volumes).map(|()| None))
    }
}

/// Wait for containers to end, and print their exit codes
#[derive(Debug, Args)]
pub struct Wait {
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Wait {
    pub fn perform(self, global: &Global) -> Result<u8> {
        each(global, &self.names, |container| life::wait(&container).map(|code| Some(code.to_string())))
    }
}

/// Freeze containers
#[derive(Debug, Args)]
pub struct Pause {
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Pause {
    pub fn perform(self, global: &Global) -> Result<u8> {
        each(global, &self.names, |container| life::pause(&container, true).map(|()| None))
    }
}

/// Let frozen containers go on
#[derive(Debug, Args)]
pub struct Unpause {
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Unpause {
    pub fn perform(self, global: &Global) -> Result<u8> {
        each(global, &self.names, |container| life::pause(&container, false).map(|()| None))
    }
}

/// Give a container another name
#[derive(Debug, Args)]
pub struct Rename {
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "NAME")]
    name: String,
}

impl Rename {
    pub fn perform(self, global: &Global) -> Result<u8> {
        find(global, &self.container)?.rename(&self.name).map(|()| 0)
    }
}
