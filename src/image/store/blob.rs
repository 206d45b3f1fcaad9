//! Blobs: received into a file in `staging` that outlives a killed pull, checked while they stream, and renamed when
//! they are whole.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::image::{Descriptor, Digest};

use super::lock::Wait;
use super::{Lock, Store};
use crate::error::{Error, Result};
use crate::image::digest::{self, Hasher};
use crate::sys::{fd, path};

/// What became of the wish to receive a blob.
pub enum Receive {
    /// It is there already, or somebody else brought it while we waited.
    There(File),
    Missing(Box<Incoming>),
}

/// A blob on its way in. What is dropped before it is finished stays, and the next one to receive it goes on from
/// there.
pub struct Incoming {
    file: File,
    name: String,
    wanted: Descriptor,
    hasher: Hasher,
    length: u64,
    /// How many bytes were there when we came.
    found: u64,
    growing: Option<(OwnedFd, u64)>,
    _lock: Lock,
}

/// How many bytes come before the reader of a growing blob hears of them. A pipe holds 8,192 such words.
const NEWS: u64 = 256 << 10;

/// The word on the pipe that says that the file is whole.
const COMPLETE: u64 = u64::MAX;

impl Store {
    /// A blob, if it is there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        Ok(self.open_if_there(&format!("blobs/{}", digest::path(digest)?))?.map(File::from))
    }

    /// The bytes of a small blob, checked.
    pub fn read_blob(&self, wanted: &Descriptor, limit: usize) -> Result<Vec<u8>> {
        let missing = || Error::new(format!("blob {} is not in the store", wanted.digest()));
        let file = self.blob(wanted.digest())?.ok_or_else(missing)?;
        let bytes = fd::read_to_end(file.as_fd(), limit)?;
        check(wanted, &bytes).map_err(|e| e.next("jug system fsck --repair fetches it again"))?;
        Ok(bytes)
    }

    /// Begins to receive a blob, or goes on where a killed pull left it. Waits, after a call of `waiting`, while
    /// another pull receives the same.
    pub fn receive(&self, wanted: &Descriptor, waiting: &dyn Fn()) -> Result<Receive> {
        if let Some(file) = self.blob(wanted.digest())? {
            return Ok(Receive::There(file));
        }
        let lock = self.lock(&lock_name(wanted.digest()), Wait::AndSay(waiting))?;
        let lock = lock.ok_or_else(|| Error::new("no lock"))?;
        if let Some(file) = self.blob(wanted.digest())? {
            return Ok(Receive::There(file));
        }
        let name = partial_name(wanted.digest());
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
        let file = File::from(path::openat(self.root(), Path::new(&name), flags, 0o600)?);
        let hasher = Hasher::like(wanted.digest())?;
        let mut incoming = Incoming {
            file,
            name,
            wanted: wanted.clone(),
            hasher,
            length: 0,
            found: 0,
            growing: None,
            _lock: lock,
        };
        incoming.take_stock()?;
        Ok(Receive::Missing(Box::new(incoming)))
    }

    /// Puts a small blob in its place.
    pub fn put(&self, wanted: &Descriptor, bytes: &[u8]) -> Result<()> {
        check(wanted, bytes)?;
        match self.receive(wanted, &|| ())? {
            Receive::There(_) => Ok(()),
            Receive::Missing(mut incoming) => {
                incoming.start_over()?;
                incoming.write_all(bytes).map_err(|e| incoming.failed(&e))?;
                incoming.finish(self).map(drop)
            }
        }
    }
}

/// The lock of a blob.
pub(super) fn lock_name(digest: &Digest) -> String {
    format!("blob-{}", digest.digest())
}

/// Where a blob is received.
pub(super) fn partial_name(digest: &Digest) -> String {
    format!("staging/blob-{}-{}.partial", digest.algorithm(), digest.digest())
}

/// Checks bytes against what describes them.
pub fn check(wanted: &Descriptor, bytes: &[u8]) -> Result<()> {
    let mut hasher = Hasher::like(wanted.digest())?;
    hasher.update(bytes);
    let found = hasher.finish();
    if bytes.len() as u64 != wanted.size() {
        return Err(wrong_size(wanted, bytes.len() as u64));
    }
    if found != *wanted.digest() {
        return Err(wrong_digest(wanted, &found));
    }
    Ok(())
}

fn wrong_size(wanted: &Descriptor, found: u64) -> Error {
    let digest = wanted.digest();
    Error::new(format!("blob {digest} has {found} bytes, and its descriptor says {}", wanted.size()))
}

fn wrong_digest(wanted: &Descriptor, found: &Digest) -> Error {
    Error::new(format!("blob {} has the digest {found}", wanted.digest()))
        .why("the source sent other bytes than the image names")
}

impl Incoming {
    /// How many bytes are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.wanted
    }

    /// How many bytes an earlier pull had brought.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Forgets what an earlier pull left. Not while somebody reads the file as it grows.
    pub fn start_over(&mut self) -> Result<()> {
        fd::truncate(self.file.as_fd(), 0)?;
        (self.length, self.found) = (0, 0);
        self.hasher = Hasher::like(self.wanted.digest())?;
        self.file.rewind().map_err(|e| self.failed(&e))
    }

    /// The file for somebody who reads it while it grows, and the pipe that says how far it is: little-endian u64, the
    /// number of bytes there so far, [`u64::MAX`] when it is whole. An end before that means that the download failed.
    pub fn growing(&mut self) -> Result<(File, OwnedFd)> {
        let file = path::openat(
            crate::sys::cwd(),
            Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file))),
            libc::O_RDONLY,
            0,
        )?;
        let (reader, writer) = fd::pipe()?;
        self.growing = Some((writer, 0));
        self.tell(true);
        Ok((file.into(), reader))
    }

    /// Reads and hashes what is there. More than there can be is thrown away.
    fn take_stock(&mut self) -> Result<()> {
        let length = self.file.metadata().map_err(|e| self.failed(&e))?.len();
        if length > self.wanted.size() {
            return self.start_over();
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = self.file.read(&mut buffer).map_err(|e| self.failed(&e))?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.length += n as u64;
        }
        self.found = self.length;
        self.file.seek(SeekFrom::Start(self.length)).map(drop).map_err(|e| self.failed(&e))
    }

    /// Tells the reader how far we are; one that is gone has its own story to tell.
    fn tell(&mut self, now: bool) {
        let length = self.length;
        if let Some((pipe, told)) = &mut self.growing
            && (length >= *told + NEWS || (now && length > *told))
        {
            let _ = fd::write_all(pipe.as_fd(), &length.to_le_bytes());
            *told = length;
        }
    }

    /// Checks size and digest, tells the reader, and gives the blob its name. Wrong bytes are removed.
    pub fn finish(mut self, store: &Store) -> Result<File> {
        if self.length != self.wanted.size() {
            return Err(wrong_size(&self.wanted, self.length).why("the source ended too early"));
        }
        let found = self.hasher.clone().finish();
        if found != *self.wanted.digest() {
            self.start_over()?;
            path::remove_if_there(store.root(), Path::new(&self.name), 0)?;
            return Err(wrong_digest(&self.wanted, &found));
        }
        self.tell(true);
        if let Some((pipe, _)) = self.growing.take() {
            let _ = fd::write_all(pipe.as_fd(), &COMPLETE.to_le_bytes());
        }
        path::fchmod(self.file.as_fd(), 0o400)?;
        let to = format!("blobs/{}", digest::path(self.wanted.digest())?);
        path::renameat(store.root(), Path::new(&self.name), Path::new(&to), libc::RENAME_NOREPLACE)?;
        self.file.rewind().map_err(|e| self.failed(&e))?;
        Ok(self.file)
    }

    /// An error of the file itself, with the blob's name.
    pub fn failed(&self, error: &io::Error) -> Error {
        Error::io(format_args!("receiving blob {}", self.wanted.digest()), error)
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > self.wanted.size() {
            let digest = self.wanted.digest();
            return Err(io::Error::other(format!(
                "blob {digest} is longer than the {} bytes of its descriptor",
                self.wanted.size()
            )));
        }
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.length += n as u64;
        self.tell(false);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tell(true);
        Ok(())
    }
}
