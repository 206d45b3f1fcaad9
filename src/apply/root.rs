//! The root of a container as one descriptor. Nothing below an untrusted root is ever touched by a joined path: every
//! look-up is an openat2(2) that cannot leave the root, and every name is made in a directory held open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::path::{self, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};

/// Most links that one look-up may go through (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub struct RootDir(OwnedFd);

impl RootDir {
    pub fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what is there, symbolic links resolved inside the root.
    pub fn open(&self, path: &Path, flags: i32) -> Result<OwnedFd> {
        path::openat2(self.fd(), or_itself(path), flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    }

    /// Opens what may be absent, or not for this user to see: then `None`.
    pub fn open_existing(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
        match path::openat2_errno(self.fd(), path, libc::O_PATH, 0, resolve)? {
            Ok(fd) => Ok(Some(fd)),
            Err(libc::ENOENT | libc::ENOTDIR | libc::EACCES) => Ok(None),
            Err(e) => Err(Error::call(format_args!("openat2(root, {path:?}, O_PATH)"), e)),
        }
    }

    /// Opens what is there, or nothing.
    fn open_if_there(&self, path: &Path, flags: i32) -> Result<Option<OwnedFd>> {
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
        match path::openat2_errno(self.fd(), or_itself(path), flags, 0, resolve)? {
            Ok(fd) => Ok(Some(fd)),
            Err(libc::ENOENT) => Ok(None),
            Err(e) => Err(Error::call(format_args!("openat2(root, {path:?}, {flags:#x})"), e)),
        }
    }

    /// Opens a directory that must stand there as itself: no link on the way (CVE-2019-19921 and its kin).
    pub fn open_plain_dir(&self, path: &Path) -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        path::openat2(self.fd(), path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    }

    /// Opens a directory, making what is missing of it (mode 0755).
    pub fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.make_dir_counted(path, 0)
    }

    fn make_dir_counted(&self, path: &Path, links: usize) -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        if let Some(there) = self.open_if_there(path, flags)? {
            return Ok(there);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.open(path, flags);
        };
        let above = self.make_dir_counted(parent, links)?;
        match path::mkdirat(above.as_fd(), Path::new(name), 0o755) {
            Err(e) if e.errno() == libc::EEXIST => {}
            other => other?,
        }
        match self.open_if_there(path, flags)? {
            Some(dir) => Ok(dir),
            // A link that leads nowhere yet: make what it points to, still inside.
            None => {
                self.make_dir_counted(&self.follow(above.as_fd(), parent, Path::new(name), links)?, links + 1)
            }
        }
    }

    /// Opens a file to mount onto, making an empty one and its directories where nothing is.
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        if let Some(there) = self.open_if_there(path, libc::O_PATH)? {
            return Ok(there);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.open(path, libc::O_PATH);
        };
        let above = self.make_dir(parent)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
        match path::openat(above.as_fd(), Path::new(name), flags, 0o755) {
            Err(e) if e.errno() == libc::EEXIST => {
                let target = self.follow(above.as_fd(), parent, Path::new(name), 0)?;
                let above = self.make_dir(target.parent().unwrap_or(Path::new("")))?;
                let name = target.file_name().ok_or_else(|| Error::new(format!("{path:?} is no file")))?;
                path::openat(above.as_fd(), Path::new(name), flags, 0o755).map(drop)?;
            }
            other => drop(other?),
        }
        self.open(path, libc::O_PATH)
    }

    /// Where the link `name` in `parent` points to, as a path of this root.
    fn follow(&self, above: BorrowedFd<'_>, parent: &Path, name: &Path, links: usize) -> Result<PathBuf> {
        if links >= MAX_LINKS {
            return Err(Error::call(format_args!("resolving {:?}", parent.join(name)), libc::ELOOP));
        }
        let target = path::readlinkat(above, name)?;
        Ok(crate::plan::lexical(&if target.is_absolute() { target } else { parent.join(target) }))
    }
}

/// The empty path means the directory that is held.
fn or_itself(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}
