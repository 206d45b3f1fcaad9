//! The root of an image's container: its layers below, what it writes on top.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::container::{Container, remove_tree};
use super::place::io;
use super::spec::Maps;
use super::user;
use crate::apply;
use crate::apply::root::RootDir;
use crate::error::Result;
use crate::host;
use crate::image::layer::owners::Owners;
use crate::image::snapshot::{self, Options, Upper};
use crate::plan::ids::Range;
use crate::sys::{fd, path};

fn directory(container: &Container, name: &str, mode: u32) -> Result<PathBuf> {
    let path = container.path.join(name);
    match DirBuilder::new().mode(mode).create(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
        other => other.map(|()| path.clone()).map_err(io(format_args!("mkdir({path:?})"))),
    }
}

/// The directory of the mount points that a read-only root lacks, see `points`.
pub fn points(container: &Container) -> Result<PathBuf> {
    directory(container, "points", 0o755)
}

/// The root as a detached mount. What is written goes to the container's `upper`; one that is to be removed at its end
/// need not survive a crash of the machine. A read-only root has nothing on top but the mount points: it stays an
/// overlay, of two layers at least, which nobody can make writable, as a bind of an image's only layer could be.
///
/// Where the container has a range of ids of its own, the layers are seen under those, and what it writes has them on
/// the disk, too. (Overlayfs, which makes files there as root, would refuse an upper directory under other ids.)
///
/// As an unprivileged user, call `rootless::enter` first.
pub fn open(container: &Container) -> Result<OwnedFd> {
    directory(container, "rootfs", 0o755)?;
    let upper = directory(container, "upper", 0o755)?;
    let maps = &container.record.maps;
    let userns = namespace(maps, false)?;
    let passing = container.record.settings.rm;
    let options = Options {
        volatile: passing,
        rootless: host::is_rootless(),
        id_map: userns.as_ref().map(AsFd::as_fd),
        label: Some(container.record.selinux.mount.as_str()).filter(|label| !label.is_empty()),
        ..Options::default()
    };
    let mut layers = container.record.layers.clone();
    if container.record.settings.read_only {
        layers.push(points(container)?);
        return snapshot::mount(&layers, None, &options);
    }
    if let (Some(uid), Some(gid)) = (maps.uid.first(), maps.gid.first()) {
        // Once: nobody inside is the host's root. With keep-id it is done by `give`.
        if !host::is_rootless() && path::stat(crate::sys::cwd(), &upper)?.st_uid == 0 {
            path::chownat(crate::sys::cwd(), &upper, uid.1, gid.1)?;
        }
    }
    if passing {
        // A volatile mount leaves a mark by which the next one is refused; what it was about is still whole here.
        remove_tree(&container.path.join("work"))?;
    }
    let work = directory(container, "work", 0o700)?;
    snapshot::mount(&layers, Some(&Upper { upper: &upper, work: &work }), &options)
}

/// The layers alone, under the ids that the image gives them.
pub fn below(container: &Container) -> Result<OwnedFd> {
    directory(container, "rootfs", 0o755)?;
    snapshot::mount(&container.record.layers, None, &Options::default())
}

/// With keep-id, before [`open`]: one layer more, in which all files belong to those who are their owners in the
/// container, and where the caller, with these ids inside, has a name. It takes the room of the whole image, since an
/// ordinary user may not have the layers mounted under other ids.
pub fn give(container: &mut Container, caller: (u32, u32)) -> Result<()> {
    let owned = directory(container, "owned", 0o755)?;
    let work = directory(container, "work", 0o700)?;
    let (upper, own) = (directory(container, "upper", 0o755)?, &container.record.maps);
    if let (Some(uid), Some(gid)) = (own.uid.first(), own.gid.first()) {
        path::chownat(crate::sys::cwd(), &upper, uid.1, gid.1)?;
    }
    let options = Options { volatile: true, rootless: true, ..Options::default() };
    let tree =
        snapshot::mount(&container.record.layers, Some(&Upper { upper: &owned, work: &work }), &options)?;
    let root = path::openat(tree.as_fd(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    Owners { uid: own.uid.clone(), gid: own.gid.clone() }.give(root.as_fd())?;
    user::introduce(&RootDir::new(root), caller)?;
    drop(tree);
    remove_tree(&work)?;
    if !container.record.settings.rm {
        fd::syncfs(path::open(&owned, libc::O_RDONLY | libc::O_DIRECTORY)?.as_fd())?;
    }
    container.record.layers.push(owned);
    Ok(())
}

/// What is to be made of the ids of what [`look`] and [`written`] give, where these could not.
pub fn owners(container: &Container) -> Option<Owners> {
    let maps = &container.record.maps;
    let back =
        |map: &[(u32, u32, u32)]| map.iter().map(|&(inside, here, size)| (here, inside, size)).collect();
    (host::is_rootless() && !maps.uid.is_empty())
        .then(|| Owners { uid: back(&maps.uid), gid: back(&maps.gid) })
}

/// The same as [`open`], under the ids that the image gives its files, to be looked at only, beside a container that
/// runs.
pub fn look(container: &Container) -> Result<OwnedFd> {
    let mut layers = container.record.layers.clone();
    layers.push(container.path.join("upper"));
    let userns = namespace(&container.record.maps, true)?;
    let id_map_of_top = userns.as_ref().map(AsFd::as_fd);
    let options = Options { rootless: host::is_rootless(), id_map_of_top, ..Options::default() };
    snapshot::mount(&layers, None, &options)
}

/// What the container wrote, under the ids that an image of it is to have.
pub fn written(container: &Container) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let upper = path::open(&container.path.join("upper"), flags)?;
    match namespace(&container.record.maps, true)? {
        Some(userns) => {
            let tree = snapshot::mapped(upper.as_fd(), Some(userns.as_fd()))?;
            path::openat(tree.as_fd(), Path::new("."), flags, 0)
        }
        None => Ok(upper),
    }
}

/// A user namespace for idmapped mounts, where the container has ids of its own and the caller may have such: they show
/// an image's ids as the container's or, `inverse`, the container's as the image's.
fn namespace(maps: &Maps, inverse: bool) -> Result<Option<OwnedFd>> {
    if maps.uid.is_empty() || host::is_rootless() {
        return Ok(None);
    }
    let ranges = |list: &[(u32, u32, u32)]| -> Vec<Range> {
        let range = |&(inside, outside, size): &(u32, u32, u32)| match inverse {
            false => Range { container: inside, host: outside, size },
            true => Range { container: outside, host: inside, size },
        };
        list.iter().map(range).collect()
    };
    apply::ids::namespace_with(&ranges(&maps.uid), &ranges(&maps.gid)).map(Some)
}
