//! `restore`: a container from the images of a checkpoint, through criu(8).

use std::path::PathBuf;

use clap::Args;

use super::checkpoint::{CriuFlags, warn_rootless};
use super::create::check_console;
use super::{Globals, notify_socket};
use crate::cli::log;
use crate::container::foreground::Foreground;
use crate::container::{self, Handles, record::Id};
use crate::criu::Options;
use crate::error::Result;

/// Make a container run again from a checkpoint, with criu
#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    common: CriuFlags,
    /// Unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Directory of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    bundle: PathBuf,
    /// Return as soon as the container runs
    #[arg(short, long)]
    detach: bool,
    /// File that receives the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Do not take over the orphans of the container
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted for runc's sake: criu enters the root by its own way
    #[arg(long)]
    no_pivot: bool,
    /// Security profile to run with
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// Security context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Unique name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl Restore {
    /// Runs unsealed: it is criu that enters the container, never this program.
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        warn_rootless("restore");
        let mut bundle = crate::bundle::load(&self.bundle)?;
        check_console(&bundle, self.console_socket.is_some(), self.detach)?;
        if notify_socket().is_some() {
            container::notify::extend(&mut bundle.spec, &globals.root, &self.id);
        }
        let options = Options {
            lsm_profile: self.lsm_profile.filter(|text| !text.is_empty()),
            lsm_mount_context: self.lsm_mount_context.filter(|text| !text.is_empty()),
            ..self.common.options()?
        };
        let handles = Handles {
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            pidfd_socket: None,
            notify_socket: notify_socket(),
        };
        let plan_options = crate::plan::Options {
            no_pivot: self.no_pivot,
            systemd_cgroup: globals.systemd_cgroup,
            ..Default::default()
        };
        let root = globals.make_root()?;
        let foreground = if self.detach { None } else { Some(Foreground::new(!self.no_subreaper)?) };
        let mut made = container::restore::restore(&root, &id, &bundle, &plan_options, &options, &handles)?;
        let Some(foreground) = foreground else { return Ok(0) };
        let exit = foreground.wait(&made.child, made.console.as_ref(), None)?;
        if let Err(e) = container::undo::finish(&mut made.container) {
            log::warn(&format!("the container ended, and could not be removed: {e}"));
        }
        Ok(exit.code())
    }
}
