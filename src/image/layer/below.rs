//! What the lower layers show, read from their directories as overlayfs reads them: the topmost name counts, a
//! whiteout ends the look, and directories lie upon one another until one is opaque. Nothing is followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::dirs::is_whiteout;
use super::overlay_xattr;
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

/// One directory of the lower layers: those of each layer that has it, the topmost first. Empty: none has.
#[derive(Default)]
pub struct Below(Vec<OwnedFd>);

impl Below {
    /// The roots of layers, bottom first as everywhere else.
    pub fn new(layers: &[BorrowedFd<'_>]) -> Result<Self> {
        let copy = |dir: &BorrowedFd<'_>| {
            dir.try_clone_to_owned()
                .map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e.raw_os_error().unwrap_or(0)))
        };
        Ok(Self(layers.iter().rev().map(copy).collect::<Result<_>>()?))
    }

    /// What is seen under a plain name, and, when it is a directory, what is in that.
    pub fn look(&self, name: &Path) -> Result<Option<(libc::stat, Below)>> {
        let mut seen: Option<(libc::stat, Below)> = None;
        for dir in &self.0 {
            let st = match path::stat(dir.as_fd(), name) {
                Ok(st) => st,
                Err(e) if e.errno() == libc::ENOENT => continue,
                Err(e) => return Err(e),
            };
            let is_dir = st.st_mode & libc::S_IFMT == libc::S_IFDIR;
            if is_whiteout(&st) || (seen.is_some() && !is_dir) {
                break;
            }
            let (_, below) = seen.get_or_insert((st, Below::default()));
            if !is_dir {
                break;
            }
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let inner = path::openat(dir.as_fd(), name, flags, 0)?;
            let opaque = is_opaque(inner.as_fd())?;
            below.0.push(inner);
            if opaque {
                break;
            }
        }
        Ok(seen)
    }

    /// The directory in which a plain name that is seen lies, and what it is.
    pub fn holder(&self, name: &Path) -> Result<Option<(BorrowedFd<'_>, libc::stat)>> {
        for dir in &self.0 {
            match path::stat(dir.as_fd(), name) {
                Ok(st) if is_whiteout(&st) => return Ok(None),
                Ok(st) => return Ok(Some((dir.as_fd(), st))),
                Err(e) if e.errno() == libc::ENOENT => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The topmost of these directories.
    pub fn top(&self) -> Option<BorrowedFd<'_>> {
        self.0.first().map(AsFd::as_fd)
    }

    /// All names that are seen, sorted.
    pub fn names(&self) -> Result<Vec<std::ffi::OsString>> {
        let mut names = std::collections::BTreeSet::new();
        for dir in &self.0 {
            for name in path::list(dir.as_fd())? {
                if !names.contains(&name) && self.look(Path::new(&name))?.is_some() {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }
}

/// Whether nothing of the layers below is seen in this directory.
pub fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    for rootless in [false, true] {
        if xattr::get(dir, Path::new(""), overlay_xattr(rootless))?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}
