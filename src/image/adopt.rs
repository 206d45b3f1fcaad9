//! Directories that a layer has only because something lies in them: no entry of its archive says whose they are, so the
//! lower layer says it. Without this an upper layer would give `/tmp` or `/root` away, since a merged directory has the
//! owner and the mode of the uppermost layer that has it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::layer::tree;
use crate::error::{Error, Result};
use crate::sys::path::{self, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};

/// Gives `implied` directories of the tree in `upper` the owner and the mode that they have in the uppermost of `lowers`
/// (bottom first) that has them. Returns the new digest of the tree, if anything changed.
pub fn adopt(upper: BorrowedFd<'_>, implied: &[PathBuf], lowers: &[PathBuf]) -> Result<Option<Digest>> {
    let lowers: Vec<OwnedFd> = lowers
        .iter()
        .rev()
        .filter_map(|lower| path::open(lower, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW).ok())
        .collect();
    let mut changed = false;
    for name in implied {
        let Some(own) = open(upper, name)? else { continue };
        for lower in &lowers {
            let Some(below) = open(lower.as_fd(), name)? else { continue };
            changed |= take(own.as_fd(), below.as_fd())?;
            break;
        }
    }
    if changed { tree::digest(upper, &HashMap::new()).map(Some) } else { Ok(None) }
}

/// A directory that stands there as itself; `None` where there is none.
fn open(root: BorrowedFd<'_>, name: &Path) -> Result<Option<OwnedFd>> {
    let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
    let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    match path::openat2_errno(root, name, libc::O_RDONLY | libc::O_DIRECTORY, 0, resolve)? {
        Ok(dir) => Ok(Some(dir)),
        Err(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
        Err(errno) => Err(Error::call(format_args!("openat2(layer, {name:?})"), errno)),
    }
}

fn take(own: BorrowedFd<'_>, below: BorrowedFd<'_>) -> Result<bool> {
    let (has, wanted) = (path::stat(own, Path::new(""))?, path::stat(below, Path::new(""))?);
    if (has.st_uid, has.st_gid, has.st_mode) == (wanted.st_uid, wanted.st_gid, wanted.st_mode) {
        return Ok(false);
    }
    path::fchown(own, wanted.st_uid, wanted.st_gid)?;
    // After the owner, whose change takes the set-id bits away (chown(2)).
    path::fchmod(own, wanted.st_mode & 0o7777)?;
    Ok(true)
}
