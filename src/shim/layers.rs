//! Layers as a user namespace sees them: a snapshot whose options say `uidmap=` and `gidmap=` belongs to a container
//! with ids of its own, while its layers keep the image's. Must touch nothing in them: they are mounted read-only.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::apply::ids;
use crate::error::{Error, Result};
use crate::plan::ids::Range;
use crate::sys;
use crate::sys::mount::{MOUNT_ATTR_RDONLY, SetAttr};

/// The maps, empty for a snapshot without.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Maps {
    uid: Vec<Range>,
    gid: Vec<Range>,
}

impl Maps {
    /// Takes an option that is one of the two. `false`: it is another.
    pub fn take(&mut self, option: &str) -> Result<bool> {
        let (list, text) = match option.split_once('=') {
            Some(("uidmap", text)) => (&mut self.uid, text),
            Some(("gidmap", text)) => (&mut self.gid, text),
            _ => return Ok(false),
        };
        for range in text.split(',') {
            let fault = || {
                Error::new(format!("the snapshot's option {option:?} is no map"))
                    .next("containerd writes CONTAINER:HOST:SIZE")
            };
            let mut numbers = range.splitn(3, ':').map(|n| n.parse::<u32>());
            let mut next = || numbers.next().and_then(std::result::Result::ok).ok_or_else(fault);
            list.push(Range { container: next()?, host: next()?, size: next()? });
        }
        Ok(true)
    }

    pub fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    pub fn namespace(&self) -> Result<OwnedFd> {
        ids::namespace_with(&self.uid, &self.gid).map_err(|e| e.context("the snapshot's id maps"))
    }
}

/// A copy of what is mounted at `source`, with the owners of the namespace.
pub fn mapped(source: &Path, recursive: bool, userns: &OwnedFd) -> Result<OwnedFd> {
    let tree = sys::mount::open_tree(sys::cwd(), source, recursive, false)?;
    sys::mount::set_idmap(tree.as_fd(), userns.as_fd(), recursive).map_err(|e| {
        e.why("the snapshotter's file system may not support idmapped mounts")
            .next("set the snapshotter's slow_chown, so that containerd changes the owners itself")
    })?;
    Ok(tree)
}

/// Mapped layers below a bundle, there for as long as it takes to mount an overlay of them: that keeps its own.
pub struct Layers {
    dir: PathBuf,
    pub paths: Vec<PathBuf>,
}

impl Layers {
    pub fn mount(bundle: &Path, layers: &[&str], userns: &OwnedFd) -> Result<Self> {
        let dir = place(bundle);
        make(&dir)?;
        let mut mounted = Self { dir, paths: Vec::new() };
        for (number, layer) in layers.iter().enumerate() {
            let tree = mapped(Path::new(layer), false, userns)?;
            // Whoever clears the bundle away after a shim that was killed must not clear the image away.
            let change =
                SetAttr { set: MOUNT_ATTR_RDONLY, propagation: libc::MS_PRIVATE, ..SetAttr::default() };
            sys::mount::set_attributes(tree.as_fd(), change, false)?;
            let path = mounted.dir.join(number.to_string());
            make(&path)?;
            sys::mount::attach_at(tree.as_fd(), &path)?;
            mounted.paths.push(path);
        }
        Ok(mounted)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        let _ = remove(&self.dir);
    }
}

fn place(bundle: &Path) -> PathBuf {
    bundle.join("layers")
}

fn make(dir: &Path) -> Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::call(format_args!("mkdir({dir:?})"), e.raw_os_error().unwrap_or(0)))
        }
        _ => Ok(()),
    }
}

/// What a shim left that was killed between the two.
pub fn clear(bundle: &Path) -> Result<()> {
    remove(&place(bundle))
}

fn remove(dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        while sys::mount::unmount(&path, libc::MNT_DETACH)? {}
        let _ = std::fs::remove_dir(path);
    }
    let _ = std::fs::remove_dir(dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let mut maps = Maps::default();
        assert!(maps.take("uidmap=0:100000:65536,65536:5:1").unwrap() && !maps.is_empty());
        assert!(maps.take("gidmap=0:1:2").unwrap() && !maps.take("index=off").unwrap());
        let range = |container, host, size| Range { container, host, size };
        let uid = vec![range(0, 100_000, 65536), range(65536, 5, 1)];
        assert_eq!(maps, Maps { uid, gid: vec![range(0, 1, 2)] });
        for bad in ["uidmap=", "uidmap=1:2", "gidmap=1:2:x", "gidmap=1:2:3:4", "uidmap=-1:0:1"] {
            assert!(Maps::default().take(bad).is_err(), "{bad}");
        }
    }
}
