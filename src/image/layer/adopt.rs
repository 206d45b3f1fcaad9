//! What a layer takes from the layers below, once they are there. Directories that it does not name get what they have
//! there: such a layer (ko, Bazel and others make them) puts a file into /tmp and does not mean to change /tmp's mode.
//! Hard links to files of lower layers get their content.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::apply::is_kept;
use super::below::Below;
use super::dirs::as_path;
use super::{borrow, name, tree};
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

/// Settles the `implied` directories and `borrowed` files of a layer in `staging` (`Applied`), once the layers below
/// it (bottom first) are unpacked and settled themselves. Returns the digest of the tree as it is now, where something
/// changed.
pub fn adopt(
    staging: BorrowedFd<'_>,
    implied: &[PathBuf],
    borrowed: &[(PathBuf, PathBuf)],
    lowers: &[BorrowedFd<'_>],
) -> Result<Option<Digest>> {
    borrow::fill(staging, borrowed, lowers)?;
    let mut changed = !borrowed.is_empty();
    // Bottom up, so that a directory is settled after what is in it.
    for path in implied.iter().rev() {
        changed |= settle(staging, path, lowers).map_err(|e| e.context(path.display()))?;
    }
    if changed { tree::digest(staging, &HashMap::new()).map(Some) } else { Ok(None) }
}

fn settle(staging: BorrowedFd<'_>, path: &Path, lowers: &[BorrowedFd<'_>]) -> Result<bool> {
    let parts = name::components(path.as_os_str().as_encoded_bytes())?;
    let mut below = Below::new(lowers)?;
    let mut dir = opened(staging, Path::new("."))?;
    for part in parts {
        match below.look(as_path(part))? {
            Some((_, inner)) if inner.top().is_some() => below = inner,
            _ => return Ok(false),
        }
        dir = opened(dir.as_fd(), as_path(part))?;
    }
    let Some(model) = below.top() else { return Ok(false) };
    let st = path::stat(model, Path::new(""))?;
    match path::fchown(dir.as_fd(), st.st_uid, st.st_gid) {
        // A layer of a single id: everything is the caller's already.
        Err(e) if e.errno() == libc::EPERM => {}
        other => other?,
    }
    path::fchmod(dir.as_fd(), st.st_mode & 0o7777)?;
    for key in xattr::list(model, Path::new(""))?.iter().filter(|key| is_kept(key)) {
        let value = xattr::get(model, Path::new(""), key)?.unwrap_or_default();
        xattr::fset(dir.as_fd(), key, &value)?;
    }
    let time = (st.st_mtime, u32::try_from(st.st_mtime_nsec).unwrap_or(0));
    path::set_times_of(dir.as_fd(), time, time)?;
    Ok(true)
}

fn opened(dir: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    path::openat(dir, name, flags, 0).map_err(|e: Error| e.context("a directory of the layer"))
}
