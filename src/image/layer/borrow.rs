//! Hard links to files of lower layers. A layer is unpacked without those, so an empty file keeps the place of such a
//! name; when the lower layers are there, it becomes a copy of what they show.
//!
//! A copy, and not the file itself: overlayfs parts such links at the first write, too (overlayfs.rst, "index"). All
//! names that one layer gives to the same file are one file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::apply::is_kept;
use super::below::Below;
use super::dirs::{Dirs, as_path, open_own, split};
use super::{content, name};
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

/// Most bytes of such names.
const MAX_NAMES: usize = 8 << 20;

/// The places that are kept while a layer is unpacked.
#[derive(Default)]
pub struct Borrowed {
    /// By inode, the path in the lower layers.
    targets: HashMap<u64, Vec<u8>>,
    /// Every name that such an inode was given, in their order; later entries may have taken some away.
    names: Vec<(Vec<u8>, u64)>,
    /// The newest inode of each path in the lower layers, and its first name.
    newest: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    bytes: usize,
}

impl Borrowed {
    /// An empty file was made under `real` for `target`.
    pub fn made(&mut self, inode: u64, real: Vec<u8>, target: &[u8]) -> Result<()> {
        self.bytes += target.len();
        self.targets.insert(inode, target.to_vec());
        self.newest.insert(target.to_vec(), (real.clone(), inode));
        self.linked(inode, real)
    }

    /// An inode has another name.
    pub fn linked(&mut self, inode: u64, real: Vec<u8>) -> Result<()> {
        if !self.targets.contains_key(&inode) {
            return Ok(());
        }
        self.bytes += real.len();
        self.names.push((real, inode));
        if self.bytes > MAX_NAMES {
            return Err(Error::new("the layer has too many hard links to files of lower layers"));
        }
        Ok(())
    }

    /// The inode is that of a file with a content of its own: one that kept a place is gone, and its number was free.
    pub fn is_own(&mut self, inode: u64) {
        self.targets.remove(&inode);
    }

    /// A name that `target` has here already.
    pub fn first(&self, target: &[u8], dirs: &mut Dirs) -> Result<Option<Vec<u8>>> {
        match self.newest.get(target) {
            Some((real, inode)) if self.targets.contains_key(inode) && is_there(dirs, real, *inode)? => {
                Ok(Some(real.clone()))
            }
            _ => Ok(None),
        }
    }

    /// The names that are left, each with its path in the lower layers.
    pub fn left(self, dirs: &mut Dirs) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut left = Vec::new();
        for (real, inode) in self.names {
            let Some(target) = self.targets.get(&inode).cloned() else { continue };
            if is_there(dirs, &real, inode)? {
                left.push((OsString::from_vec(real).into(), OsString::from_vec(target).into()));
            }
        }
        Ok(left)
    }
}

/// Whether a name still means the empty file.
fn is_there(dirs: &mut Dirs, real: &[u8], inode: u64) -> Result<bool> {
    let (parent, name) = split(real);
    let dir = match dirs.walk(parent, false) {
        Ok(Some(dir)) => dir,
        Ok(None) => return Ok(false),
        // Later entries made something else of the way to it.
        Err(e) if matches!(e.errno(), libc::ENOTDIR | libc::ELOOP) => return Ok(false),
        Err(e) => return Err(e),
    };
    match path::stat(dirs.fd(&dir), as_path(name)) {
        Ok(st) => Ok(st.st_ino == inode && st.st_mode & libc::S_IFMT == libc::S_IFREG && st.st_size == 0),
        Err(e) if e.errno() == libc::ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives each of the `borrowed` names of the tree in `staging` what the layers below (bottom first) show.
pub fn fill(
    staging: BorrowedFd<'_>,
    borrowed: &[(PathBuf, PathBuf)],
    lowers: &[BorrowedFd<'_>],
) -> Result<()> {
    let mut filled = HashSet::new();
    for (link, target) in borrowed {
        fill_one(staging, link, target, lowers, &mut filled).map_err(|e| e.context(link.display()))?;
    }
    Ok(())
}

fn fill_one(
    staging: BorrowedFd<'_>,
    link: &Path,
    target: &Path,
    lowers: &[BorrowedFd<'_>],
    filled: &mut HashSet<u64>,
) -> Result<()> {
    let (dir, name) = parent_of(staging, link)?;
    let st = path::stat(dir.as_fd(), name)?;
    if st.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::new("a name that is kept for a file of a lower layer is none"));
    }
    if filled.contains(&st.st_ino) {
        return Ok(());
    }
    let missing = || {
        Error::new(format!("{} to be linked to is not in the layer before this", target.display()))
            .why("nor do the layers below have it, under a path without links")
    };
    let mut below = Below::new(lowers)?;
    let mut parts = name::components(target.as_os_str().as_encoded_bytes())?;
    let last = as_path(parts.pop().ok_or_else(missing)?);
    for part in parts {
        below = below.look(as_path(part))?.map(|(_, inner)| inner).ok_or_else(missing)?;
    }
    let (from, model) = below.holder(last)?.ok_or_else(missing)?;
    if model.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Error::new(format!("{} cannot be linked to from another layer", target.display()))
            .why("it is no regular file"));
    }
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let source = File::from(open_own(from, last, flags)?.0);
    let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::from(path::openat(dir.as_fd(), name, flags, 0)?);
    copy(&source, &model, &file, (from, last))?;
    filled.insert(st.st_ino);
    Ok(())
}

/// Content, owner, mode, xattrs (of a name in a directory) and time, in the order that `apply` has them.
fn copy(source: &File, model: &libc::stat, file: &File, named: (BorrowedFd<'_>, &Path)) -> Result<()> {
    let len = u64::try_from(model.st_size).unwrap_or(0);
    content::pieces(source, len, |at, piece| {
        file.write_all_at(piece, at)
            .map_err(|e| Error::call("pwrite(the file)", e.raw_os_error().unwrap_or(0)))
    })?;
    file.set_len(len).map_err(|e| Error::call("ftruncate(the file)", e.raw_os_error().unwrap_or(0)))?;
    match path::fchown(file.as_fd(), model.st_uid, model.st_gid) {
        // A layer of a single id: everything is the caller's already.
        Err(e) if e.errno() == libc::EPERM => {}
        other => other?,
    }
    path::fchmod(file.as_fd(), model.st_mode & 0o7777)?;
    for key in xattr::list(named.0, named.1)?.iter().filter(|key| is_kept(key)) {
        let value = xattr::get(named.0, named.1, key)?.unwrap_or_default();
        xattr::fset(file.as_fd(), key, &value)?;
    }
    let time = (model.st_mtime, u32::try_from(model.st_mtime_nsec).unwrap_or(0));
    path::set_times_of(file.as_fd(), time, time)
}

/// The directory of a plain path below `root`, nothing followed, and the last name.
fn parent_of<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a Path)> {
    let mut parts = name::components(path.as_os_str().as_encoded_bytes())?;
    let last = parts.pop().ok_or_else(|| Error::new("a path without a name"))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut dir = path::openat(root, Path::new("."), flags, 0)?;
    for part in parts {
        dir = path::openat(dir.as_fd(), as_path(part), flags, 0)?;
    }
    Ok((dir, as_path(last)))
}
