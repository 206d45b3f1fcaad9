//! Layers become a root file system: a detached overlay mount, which belongs to no namespace until it is attached.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where the changes of a container go. Both lie on one file system, and `work` is empty.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Options<'a> {
    /// Changes need not survive a crash of the machine: no sync at all.
    pub volatile: bool,
    /// The user namespace whose ids the layers shall appear under.
    pub id_map: Option<BorrowedFd<'a>>,
    /// The caller is not root of the machine: `user.overlay.*` instead of `trusted.overlay.*`.
    pub rootless: bool,
}

/// Mounts layers (bottom first) and, with `upper`, a place for changes. Without one the mount is read-only; one layer
/// alone is then a bind of its directory.
pub fn mount(_layers: &[PathBuf], _upper: Option<&Upper<'_>>, _options: &Options<'_>) -> Result<OwnedFd> {
    Err(Error::new("snapshots cannot be mounted yet"))
}
