//! The root of an image's container: its layers below, what it writes on top.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::container::{Container, remove_tree};
use super::place::io;
use crate::error::Result;
use crate::host;
use crate::image::snapshot::{self, Options, Upper};

/// The directory of the mount points that a read-only root lacks, see `points`.
pub const POINTS: &str = "points";

fn directory(container: &Container, name: &str, mode: u32) -> Result<PathBuf> {
    let path = container.path.join(name);
    match DirBuilder::new().mode(mode).create(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
        other => other.map(|()| path.clone()).map_err(io(format_args!("mkdir({path:?})"))),
    }
}

/// The root as a detached mount. What is written goes to the container's `upper`; one that is to be removed at its end
/// need not survive a crash of the machine. A read-only root has nothing on top but the mount points: it stays an
/// overlay, of two layers at least, which nobody can make writable, as a bind of an image's only layer could be.
///
/// As an unprivileged user, call `rootless::enter` first.
pub fn open(container: &Container) -> Result<OwnedFd> {
    directory(container, "rootfs", 0o755)?;
    let upper = directory(container, "upper", 0o755)?;
    let passing = container.record.settings.rm;
    let options = Options { volatile: passing, rootless: host::is_rootless(), ..Options::default() };
    let mut layers = container.record.layers.clone();
    if container.record.settings.read_only {
        layers.push(directory(container, POINTS, 0o755)?);
        return snapshot::mount(&layers, None, &options);
    }
    if passing {
        // A volatile mount leaves a mark by which the next one is refused; what it was about is still whole here.
        remove_tree(&container.path.join("work"))?;
    }
    let work = directory(container, "work", 0o700)?;
    snapshot::mount(&layers, Some(&Upper { upper: &upper, work: &work }), &options)
}

/// The same to be looked at only, beside a container that runs.
pub fn look(container: &Container) -> Result<OwnedFd> {
    let mut layers = container.record.layers.clone();
    layers.push(container.path.join("upper"));
    snapshot::mount(&layers, None, &Options { rootless: host::is_rootless(), ..Options::default() })
}
