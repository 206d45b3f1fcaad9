//! `diff` and `export`: what a container has written, and its whole tree.

use std::collections::HashSet;
use std::fs::File;
use std::io::{IsTerminal as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::each::find;
use crate::cli::log;
use crate::engine::container::Container;
use crate::engine::{rootless, snapshot};
use crate::error::{Error, Result};
use crate::image::layer::write::{self, Change, Kind};
use crate::image::snapshot::root_of as root_of_layer;
use crate::sys::path;

/// List what a container changed in its root
#[derive(Debug, Args)]
pub struct Diff {
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl Diff {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let container = find(global, &self.name)?;
        if container.record.layers.is_empty() {
            return Err(Error::new("a container of --rootfs has nothing to compare with"));
        }
        rootless::enter()?;
        let upper = snapshot::written(&container)?;
        let layers = container.record.layers.iter();
        let lowers = layers.map(|layer| root_of_layer(layer)).collect::<Result<Vec<OwnedFd>>>()?;
        let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
        for change in own(write::changes(upper.as_fd(), &lowers)?, &mount_points(&container)) {
            let letter = match change.kind {
                Kind::Added => 'A',
                Kind::Changed => 'C',
                Kind::Deleted => 'D',
            };
            log::print(&format!("{letter} /{}\n", change.path.display()));
        }
        Ok(0)
    }
}

/// Without what was made to mount on, which is none of the program's changes (Docker and Podman leave it out too), and
/// without the directories in which nothing else changed.
fn own(changes: Vec<Change>, mounted: &HashSet<PathBuf>) -> Vec<Change> {
    let mut left: Vec<Change> = Vec::new();
    // What is in a directory comes after it.
    for change in changes.into_iter().rev() {
        let only_led_there = || {
            change.is_as_below
                && mounted.iter().any(|point| point.starts_with(&change.path))
                && left.last().is_none_or(|next| !next.path.starts_with(&change.path))
        };
        if !(change.kind == Kind::Added && mounted.contains(&change.path) || only_led_there()) {
            left.push(change);
        }
    }
    left.reverse();
    left
}

/// Where something was mounted.
fn mount_points(container: &Container) -> HashSet<PathBuf> {
    let text = crate::host::read(container.path.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let places = mounts.filter_map(|mount| mount["destination"].as_str());
    places.map(|place| PathBuf::from(place.trim_start_matches('/'))).collect()
}

/// Write the root of a container as a tar archive
#[derive(Debug, Args)]
pub struct Export {
    /// File to write, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl Export {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let container = find(global, &self.name)?;
        let root = root_of(&container)?;
        let owners = snapshot::owners(&container);
        match &self.output {
            Some(name) => {
                let file = File::create(name).map_err(crate::engine::place::io(name.display()))?;
                let mut file = std::io::BufWriter::with_capacity(128 << 10, file);
                write::tar_of(root.as_fd(), owners.as_ref(), &mut file)?;
                file.flush().map_err(crate::engine::place::io(name.display()))?;
            }
            None => {
                let stdout = std::io::stdout();
                if stdout.is_terminal() {
                    return Err(Error::new("refusing to write an archive to a terminal")
                        .next("use -o FILE, or a pipe"));
                }
                let mut out = std::io::BufWriter::with_capacity(128 << 10, stdout.lock());
                write::tar_of(root.as_fd(), owners.as_ref(), &mut out)?;
                out.flush().map_err(crate::engine::place::io("write to stdout"))?;
            }
        }
        Ok(0)
    }
}

/// The tree as it is now, to be read only.
fn root_of(container: &Container) -> Result<OwnedFd> {
    match &container.record.rootfs {
        Some(dir) => path::open(dir, libc::O_RDONLY | libc::O_DIRECTORY),
        None => {
            rootless::enter()?;
            snapshot::look(container)
        }
    }
}
