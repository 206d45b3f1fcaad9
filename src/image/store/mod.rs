//! The store: blobs by digest, layers by chain ID, images by id, names. It is safe against a kill at any instant and
//! against power loss, and has neither a database nor a lock that anybody waits long for.
//!
//! ```text
//! ROOT/blobs/sha256/HEX      as they were received
//! ROOT/layers/HEX/           a layer by its chain ID: `tree/` or `layer.erofs`, and `meta`
//! ROOT/images/HEX            an image by its id (the digest of its config): what it consists of, as JSON
//! ROOT/names/HEX             a name (its digest is the file's): which image it means, as JSON
//! ROOT/pins/OWNER            the image that a container was made from; a link where no boot is to be outlived
//! ROOT/staging/              what is being received and unpacked, each under a lock of its own
//! ROOT/leases/ID             what a running pull will name, under its lock
//! ROOT/locks/, trash/, quarantine/, boot
//! ```
//!
//! *Metadata never names bytes that are not durable*: one syncfs(2) comes before the file of an image is written, and a
//! name comes after its image. Blobs and layers that no image names yet are complete, since they got their name by a
//! rename when they were, but they may not be durable: they are believed in the boot in which they were written, and
//! the first who opens the store after a boot throws them out (`gc::recover`), blobs back into `staging`, where they
//! are hashed again.

mod blob;
mod fsck;
mod gc;
mod images;
mod layer;
mod lock;
mod spool;
mod trash;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::sys::{cwd, fd, path, process};

pub use blob::{Incoming, Receive, check};
pub use fsck::Damage;
pub use gc::{Collected, Lease, Usage};
pub use images::{Arrival, Image, Name, Pin, repository};
pub use layer::{Layer, Meta, Staged, chain_ids};
pub use lock::Lock;
pub use spool::Spool;

/// The directories of a store.
const DIRECTORIES: [&str; 12] = [
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "images",
    "layers",
    "leases",
    "locks",
    "names",
    "pins",
    "quarantine",
    "staging",
    "trash",
];

/// The longest file of metadata that is read, in bytes.
const LONGEST_RECORD: usize = 4 << 20;

#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens the store at `root`, making what is missing of it.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root)
            .map_err(|e| Error::call(format_args!("mkdir({root:?})"), e.raw_os_error().unwrap_or(0)))?;
        let dir = path::open(root, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let store = Self { path: path::name_of(dir.as_fd())?, root: dir };
        for name in DIRECTORIES {
            match path::mkdirat(store.root(), Path::new(name), 0o700) {
                Err(e) if e.errno() != libc::EEXIST => return Err(e),
                _ => {}
            }
        }
        store.recover()?;
        Ok(store)
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until everything that was written is on the disk. EIO tells of a write that failed since the store was
    /// opened (syncfs(2)).
    pub fn barrier(&self) -> Result<()> {
        fd::syncfs(self.root()).map_err(|e| e.context("making the store durable"))
    }

    /// Has what was written so far brought to the disk. [`Store::barrier`] still hears of a write that failed: the
    /// kernel tells each open descriptor once, and this one is nobody's.
    pub fn write_back(&self) -> Result<()> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        fd::syncfs(path::openat(self.root(), Path::new("."), flags, 0)?.as_fd())
    }

    /// Opens a file for reading; `None` when there is none.
    fn open_if_there(&self, name: &str) -> Result<Option<OwnedFd>> {
        match path::openat(self.root(), Path::new(name), libc::O_RDONLY | libc::O_NOFOLLOW, 0) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A file of metadata; `None` when there is none.
    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(file) = self.open_if_there(name)? else { return Ok(None) };
        let bytes = fd::read_to_end(file.as_fd(), LONGEST_RECORD)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::new(format!("{}/{name} is damaged: {e}", self.path.display()))
                .next("jug system fsck --repair moves it aside")
        })
    }

    /// Writes a file of metadata: whole and durable under its name, or not at all. Its directory is durable, too. The
    /// caller shares the store's lease, so that nobody sweeps the temporary file.
    fn write(&self, name: &str, what: &impl serde::Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(what).map_err(|e| Error::new(format!("{name}: {e}")))?;
        bytes.push(b'\n');
        let temporary = format!("staging/file-{}", unique());
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = path::openat(self.root(), Path::new(&temporary), flags, 0o600)?;
        let written = fd::write_all(file.as_fd(), &bytes)
            .and_then(|()| fd::fsync(file.as_fd()))
            .and_then(|()| path::renameat(self.root(), Path::new(&temporary), Path::new(name), 0));
        if written.is_err() {
            let _ = path::remove_if_there(self.root(), Path::new(&temporary), 0);
        }
        written.map_err(|e| e.context(format_args!("writing {name}")))?;
        self.sync_directory(Path::new(name.rsplit_once('/').map_or(".", |(directory, _)| directory)))
    }

    fn sync_directory(&self, name: &Path) -> Result<()> {
        let dir = path::openat(self.root(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        fd::fsync(dir.as_fd())
    }

    /// The names in one of the store's directories, sorted.
    fn list(&self, name: &str) -> Result<Vec<String>> {
        let dir = path::openat(self.root(), Path::new(name), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut names: Vec<String> =
            path::list(dir.as_fd())?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

/// Where the store is by default: below /var/lib for root of the machine, below the user's data directory for anybody
/// else.
pub fn default_root() -> Result<PathBuf> {
    if !crate::host::is_rootless() {
        return Ok("/var/lib/jug".into());
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("jug"))
        .ok_or_else(|| Error::new("neither XDG_DATA_HOME nor HOME names a directory").next("use --root DIR"))
}

/// A name that nobody else has taken: process, time and a counter.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (seconds, nanoseconds) = process::now();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{seconds}-{nanoseconds}-{next}", process::pid())
}

/// The id of this boot (random(4), /proc/sys/kernel/random/boot_id).
fn boot_id() -> Result<String> {
    let file = path::openat(cwd(), Path::new("/proc/sys/kernel/random/boot_id"), libc::O_RDONLY, 0)?;
    let bytes = fd::read_to_end(file.as_fd(), 64)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
