//! Removing: renamed out of sight first, unlinked after, so that nothing half removed has a name that counts. What a
//! kill leaves in `trash`, the next one removes.

use std::os::fd::AsFd;
use std::path::Path;

use super::{Store, unique};
use crate::error::Result;
use crate::sys::path;

impl Store {
    /// Renames something into the trash; `false` when it is gone already.
    pub(super) fn throw_away(&self, name: &str) -> Result<bool> {
        let to = format!("trash/{}", unique());
        match path::renameat(self.root(), Path::new(name), Path::new(&to), libc::RENAME_NOREPLACE) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == libc::ENOENT => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes something now.
    pub(super) fn discard(&self, name: &str) -> Result<()> {
        if self.throw_away(name)? { self.empty_trash() } else { Ok(()) }
    }

    /// Unlinks everything in the trash. A directory in a directory is renamed up into the trash before it is entered:
    /// so no depth of a hostile image costs a descriptor or a stack, and no path is ever joined. Several processes may
    /// do this at once.
    pub(super) fn empty_trash(&self) -> Result<()> {
        loop {
            let names = self.list("trash")?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                self.remove_one(&format!("trash/{name}"))?;
            }
        }
    }

    fn remove_one(&self, name: &str) -> Result<()> {
        let name = Path::new(name);
        match path::remove_if_there(self.root(), name, 0) {
            Err(e) if matches!(e.errno(), libc::EISDIR | libc::EPERM) => {}
            other => return other.map(drop),
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = match path::openat(self.root(), name, flags, 0) {
            Ok(dir) => dir,
            Err(e) if e.errno() == libc::ENOENT => return Ok(()),
            // A directory that its owner may not read, in an image that a user unpacked.
            Err(e) if e.errno() == libc::EACCES => {
                std::fs::set_permissions(
                    self.path().join(name),
                    std::os::unix::fs::PermissionsExt::from_mode(0o700),
                )
                .map_err(|_| e)?;
                path::openat(self.root(), name, flags, 0)?
            }
            Err(e) => return Err(e),
        };
        path::fchmod(dir.as_fd(), 0o700)?;
        let entries = match path::list(dir.as_fd()) {
            // Somebody else removed it after it was opened (getdents(2)).
            Err(e) if e.errno() == libc::ENOENT => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = Path::new(&entry);
            match path::remove_if_there(dir.as_fd(), entry, 0) {
                Err(e) if matches!(e.errno(), libc::EISDIR | libc::EPERM) => self.lift(dir.as_fd(), entry)?,
                other => drop(other?),
            }
        }
        match path::remove_if_there(self.root(), name, libc::AT_REMOVEDIR) {
            // Somebody lifts something out of it at the same time: the next round sees it.
            Err(e) if e.errno() == libc::ENOTEMPTY => Ok(()),
            other => other.map(drop),
        }
    }

    /// Renames a directory up into the trash. An unprivileged caller must be able to write to it, since its `..` is
    /// about to change (rename(2), EACCES).
    fn lift(&self, dir: std::os::fd::BorrowedFd<'_>, entry: &Path) -> Result<()> {
        let to = format!("trash/{}", unique());
        let lifted = path::rename_between(dir, entry, self.root(), Path::new(&to));
        let lifted = match lifted {
            Err(e) if e.errno() == libc::EACCES => {
                path::chmodat(dir, entry, 0o700)?;
                path::rename_between(dir, entry, self.root(), Path::new(&to))
            }
            other => other,
        };
        match lifted {
            Err(e) if e.errno() == libc::ENOENT => Ok(()),
            other => other,
        }
    }
}
