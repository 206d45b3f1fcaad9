//! `run` and `create`: a new container from an image or a directory.

use clap::{Args, ValueEnum as _};

use super::Global;
use super::pull::{self, Wanted, When};
use super::transfer::Shown;
use crate::cli::log;
use crate::engine::attach::{self, Attached, Ended};
use crate::engine::launch::{self, Root};
use crate::engine::place::Place;
use crate::engine::rootless;
use crate::engine::settings::Settings;
use crate::error::{Error, Result};
use crate::image::source::Access;
use crate::image::store::Store;

/// Create a container and run a program in it
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// Run in the background, and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    new: New,
}

/// Create a container, to be started later
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Create {
    #[command(flatten)]
    new: New,
}

#[derive(Debug, Args)]
struct New {
    #[command(flatten)]
    settings: Settings,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image, then the program and its arguments; with --rootfs the program at once
    #[arg(value_name = "IMAGE [COMMAND [ARG...]]", trailing_var_arg = true)]
    words: Vec<String>,
}

impl New {
    fn prepare(&self, global: &Global) -> Result<launch::Prepared> {
        let place = Place::new(global.root.as_deref(), global.runroot.as_deref())?;
        match &self.settings.rootfs {
            Some(dir) => {
                if self.settings.others().next().is_some() {
                    rootless::enter_for(&place, &self.settings)?;
                }
                launch::create(&place, &self.settings, Root::directory(dir)?, &self.words)
            }
            None => {
                let Some((image, words)) = self.words.split_first() else {
                    return Err(Error::new("no image was named")
                        .next("jug run IMAGE, or jug run --rootfs DIR PROGRAM"));
                };
                rootless::enter_for(&place, &self.settings)?;
                let root = self.image(&place, image)?;
                launch::create(&place, &self.settings, root, words)
            }
        }
    }
}

impl New {
    /// From the store, or from where it comes from, as `--pull` says.
    fn image(&self, place: &Place, name: &str) -> Result<Root> {
        let platform = self.settings.platform.as_deref();
        let when =
            When::from_str(&self.settings.pull, true).map_err(|e| Error::new(format!("--pull: {e}")))?;
        let store = Store::open(&place.root)?;
        if let (When::Missing | When::Never, None, Ok(image)) = (when, platform, store.find(name)) {
            return Root::image(store, image, name);
        }
        let access = Access::default();
        let wanted = Wanted { access: &access, platform, when, layers: pull::Layers::default() };
        let image = pull::image(&store, name, &wanted, &Shown::new())?;
        Root::image(store, image, name)
    }
}

impl Create {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let prepared = self.new.prepare(global)?;
        log::print(&format!("{}\n", prepared.container.id()));
        Ok(0)
    }
}

impl Run {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let settings = &self.new.settings;
        let keys = attach::keys(settings.detach_keys.as_deref())?;
        let prepared = self.new.prepare(global)?;
        if settings.rm && !settings.tty && !self.detach {
            return launch::direct(prepared);
        }
        let id = prepared.container.id().to_owned();
        match launch::monitored(prepared, !self.detach) {
            Ok(None) => {
                log::print(&format!("{id}\n"));
                Ok(0)
            }
            Ok(Some(monitor)) => {
                let attached = Attached {
                    tty: settings.tty,
                    interactive: settings.interactive,
                    keys: &keys,
                    forward: true,
                };
                follow(&attached, &monitor)
            }
            Err((code, error)) => {
                log::fatal(&format!("Error: {error}"));
                Ok(code)
            }
        }
    }
}

/// Stays attached to the end; the exit code is the program's.
pub fn follow(attached: &Attached, monitor: &std::os::fd::OwnedFd) -> Result<u8> {
    match attached.carry(monitor)? {
        Ended::Exit(code) => Ok(code as u8),
        Ended::Detached => Ok(0),
        Ended::Lost => {
            Err(Error::new("the container's monitor is gone").next("`jug ps -a` shows what became of it"))
        }
    }
}
