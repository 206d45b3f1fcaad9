//! Locks per object: flock(2) on a file in `locks/`, so that the kernel releases them when their holder dies.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::Store;
use crate::error::Result;
use crate::sys::{fd, path};

/// One object, locked until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

/// How long to wait.
pub(super) enum Wait<'a> {
    /// Not at all.
    No,
    /// Until it is free; before that, this is called once.
    AndSay(&'a dyn Fn()),
}

impl Store {
    /// Locks `locks/NAME`; `None` when somebody else has it and the caller does not wait.
    pub(super) fn lock(&self, name: &str, wait: Wait<'_>) -> Result<Option<Lock>> {
        let name = format!("locks/{name}");
        let mut said = false;
        loop {
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
            let file = path::openat(self.root(), Path::new(&name), flags, 0o600)?;
            if !fd::flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB)? {
                let Wait::AndSay(say) = &wait else { return Ok(None) };
                if !said {
                    say();
                    said = true;
                }
                fd::flock(file.as_fd(), libc::LOCK_EX)?;
            }
            // gc removes locks that nobody holds: then the next one has another file under this name.
            if self.still_named(&file, &name)? {
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// Whether a name still means the open file.
    pub(super) fn still_named(&self, file: &OwnedFd, name: &str) -> Result<bool> {
        let own = path::stat(file.as_fd(), Path::new(""))?;
        match path::stat(self.root(), Path::new(name)) {
            Ok(named) => Ok((own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)),
            Err(e) if e.errno() == libc::ENOENT => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The lease of the whole store, for the moment in which metadata or a lease is written: gc waits for it.
    pub(super) fn shared(&self) -> Result<OwnedFd> {
        self.store_lock(libc::LOCK_SH)
    }

    /// The same, alone: held while things are marked and renamed, never while they are unlinked.
    pub(super) fn alone(&self) -> Result<OwnedFd> {
        self.store_lock(libc::LOCK_EX)
    }

    fn store_lock(&self, kind: i32) -> Result<OwnedFd> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
        let file = path::openat(self.root(), Path::new("lock"), flags, 0o600)?;
        fd::flock(file.as_fd(), kind)?;
        Ok(file)
    }
}
