//! The root of an image's container: its layers below, what it writes on top.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::container::{Container, remove_tree};
use super::place::io;
use crate::error::{Error, Result};
use crate::host;
use crate::image::snapshot::{self, Options, Upper};

/// The root as a detached mount. What is written goes to the container's `upper`; one that is to be removed at its end
/// need not survive a crash of the machine.
pub fn open(container: &Container) -> Result<OwnedFd> {
    let directory = |name: &str, mode: u32| -> Result<PathBuf> {
        let path = container.path.join(name);
        match DirBuilder::new().mode(mode).create(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
            other => other.map(|()| path.clone()).map_err(io(format_args!("mkdir({path:?})"))),
        }
    };
    if host::is_rootless() {
        return Err(Error::new("containers of images need root, for now")
            .why("the layers have to be mounted in a user namespace that every later verb can enter")
            .next("as an unprivileged user, unpack the image and use --rootfs DIR"));
    }
    directory("rootfs", 0o755)?;
    if container.record.settings.rm {
        // A volatile mount leaves a mark by which the next one is refused; what it was about is still whole here.
        remove_tree(&container.path.join("work"))?;
    }
    let (upper, work) = (directory("upper", 0o755)?, directory("work", 0o700)?);
    let options = Options {
        volatile: container.record.settings.rm,
        rootless: host::is_rootless(),
        ..Options::default()
    };
    snapshot::mount(&container.record.layers, Some(&Upper { upper: &upper, work: &work }), &options)
}

/// The same to be looked at only, beside a container that runs.
pub fn look(container: &Container) -> Result<OwnedFd> {
    let mut layers = container.record.layers.clone();
    layers.push(container.path.join("upper"));
    snapshot::mount(&layers, None, &Options { rootless: host::is_rootless(), ..Options::default() })
}
