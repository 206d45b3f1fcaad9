//! `start`, `restart` and `attach`.

use clap::Args;

use super::Global;
use super::each::{each, find};
use super::run::follow;
use crate::cli::log;
use crate::engine::attach::{self, Attached};
use crate::engine::container::Container;
use crate::engine::{launch, life, monitor};
use crate::error::{Error, Result};
use crate::sys::socket;

/// Start containers that are created or have ended
#[derive(Debug, Args)]
pub struct Start {
    /// Show the output, and end with the program's exit code
    #[arg(short, long)]
    attach: bool,
    /// Hand the input on too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Start {
    pub fn perform(self, global: &Global) -> Result<u8> {
        if !self.attach && !self.interactive {
            return each(global, &self.names, |container| {
                if container.status()?.is_up() {
                    return Ok(None);
                }
                launch::start(container, false).map(|_| None).map_err(|(_, e)| e)
            });
        }
        let [name] = self.names.as_slice() else {
            return Err(Error::new("you cannot start and attach multiple containers at once"));
        };
        let container = find(global, name)?;
        let keys = keys(self.detach_keys.as_deref(), &container)?;
        let tty = container.record.settings.tty;
        let attached = Attached { tty, interactive: self.interactive, keys: &keys, forward: true };
        match launch::start(container, true) {
            Ok(Some(monitor)) => follow(&attached, &monitor),
            Ok(None) => Ok(0),
            Err((code, error)) => {
                log::fatal(&format!("Error: {error}"));
                Ok(code)
            }
        }
    }
}

fn keys(said: Option<&str>, container: &Container) -> Result<Vec<u8>> {
    let own = container.record.settings.detach_keys.as_deref();
    attach::keys(said.or(own))
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub struct Restart {
    /// Seconds to wait before killing
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

impl Restart {
    pub fn perform(self, global: &Global) -> Result<u8> {
        each(global, &self.names, |container| {
            life::stop(&container, None, self.time)?;
            launch::start(container, false).map(|_| None).map_err(|(_, e)| e)
        })
    }
}

/// Show the output of a running container, and type into it
#[derive(Debug, Args)]
pub struct Attach {
    /// Do not hand the input on
    #[arg(long)]
    no_stdin: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl Attach {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let container = find(global, &self.name)?;
        if !container.status()?.is_up() {
            return Err(Error::new("you cannot attach to a stopped container").next("start it first"));
        }
        let keys = keys(self.detach_keys.as_deref(), &container)?;
        let monitor = socket::connect_packets(&container.path.join(monitor::ATTACH)).map_err(|e| {
            e.why(
                "it runs in the foreground of another terminal without a monitor, or its monitor was killed",
            )
        })?;
        let settings = &container.record.settings;
        let interactive = settings.interactive && !self.no_stdin;
        follow(&Attached { tty: settings.tty, interactive, keys: &keys, forward: true }, &monitor)
    }
}
