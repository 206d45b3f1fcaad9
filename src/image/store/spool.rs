//! A file of the store's file system that has no digest yet: an archive from a pipe, a tarball that is imported. It is
//! under a lock, so that gc removes it after a kill.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::lock::Wait;
use super::{Lock, Store, unique};
use crate::error::{Error, Result};
use crate::sys::path;

/// An empty directory with room for one file, removed when this is dropped.
pub struct Spool<'s> {
    store: &'s Store,
    name: String,
    path: PathBuf,
    _lock: Lock,
}

impl Store {
    pub fn spool(&self) -> Result<Spool<'_>> {
        let entry = format!("spool-{}", unique());
        let lock = self.lock(&entry, Wait::No)?.ok_or_else(|| Error::new(format!("{entry} is taken")))?;
        let name = format!("staging/{entry}");
        path::mkdirat(self.root(), Path::new(&name), 0o700)?;
        Ok(Spool { store: self, path: self.path().join(&name).join("spool"), name, _lock: lock })
    }
}

impl Spool<'_> {
    /// Where the file is, or will be made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, made now, for reading and writing.
    pub fn file(&self) -> Result<File> {
        let name = format!("{}/spool", self.name);
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        path::openat(self.store.root().as_fd(), Path::new(&name), flags, 0o600).map(File::from)
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        let _ = self.store.discard(&self.name);
    }
}
