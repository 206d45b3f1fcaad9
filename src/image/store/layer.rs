//! Layers: unpacked into a directory of their own in `staging`, and renamed when they are whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::image::{Digest, DigestAlgorithm};
use serde::{Deserialize, Serialize};

use super::lock::Wait;
use super::{Lock, Store, unique};
use crate::error::{Error, Result};
use crate::host;
use crate::image::digest;
use crate::image::layer::{self, EROFS_NAME, Form, TREE_NAME};
use crate::sys::{path, xattr};

/// What is known of an unpacked layer; it is written beside it before the layer gets its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The chain ID of the layer below.
    pub parent: Option<Digest>,
    /// The blob that it was unpacked from.
    pub blob: Digest,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// The highest user or group that owns something in it.
    #[serde(default)]
    pub highest_id: u32,
    /// The digest of the tree (or of the file system image) that was made, for `jug system fsck --deep`.
    pub tree: Digest,
}

/// A layer that is there.
#[derive(Debug, Clone)]
pub struct Layer {
    pub meta: Meta,
    /// The directory, or the EROFS image.
    pub path: PathBuf,
}

/// The two forms of a layer, by the name that they have in its directory.
const FORMS: [&str; 2] = [TREE_NAME, EROFS_NAME];

/// A layer that is being unpacked, and its lock.
pub struct Staged {
    dir: OwnedFd,
    name: String,
    chain: Digest,
    _lock: Lock,
}

impl Store {
    /// A layer by its chain ID, if it is there.
    pub fn layer(&self, chain: &Digest) -> Result<Option<Layer>> {
        let name = directory(chain)?;
        let Some(meta) = self.read::<Meta>(&format!("{name}/meta"))? else { return Ok(None) };
        for form in FORMS {
            let there = format!("{name}/{form}");
            match path::stat(self.root(), Path::new(&there)) {
                Ok(_) => return Ok(Some(Layer { meta, path: self.path().join(there) })),
                Err(e) if e.errno() == libc::ENOENT => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(format!("layer {chain} has no files"))
            .next("jug system fsck --repair unpacks or fetches it again"))
    }

    /// Locks a layer. Waits, after a call of `waiting`, while another pull unpacks the same; then look again.
    pub fn lock_layer(&self, chain: &Digest, waiting: &dyn Fn()) -> Result<Lock> {
        directory(chain)?;
        let lock = self.lock(&lock_name(chain), Wait::AndSay(waiting))?;
        lock.ok_or_else(|| Error::new("no lock"))
    }

    /// The same; `None` where another pull has it.
    pub fn try_lock_layer(&self, chain: &Digest) -> Result<Option<Lock>> {
        directory(chain)?;
        self.lock(&lock_name(chain), Wait::No)
    }

    /// An empty directory in which a layer is unpacked. What a killed pull left there is removed.
    pub fn stage_layer(&self, chain: &Digest, lock: Lock) -> Result<Staged> {
        let name = format!("staging/layer-{}", chain.digest());
        self.discard(&name)?;
        path::mkdirat(self.root(), Path::new(&name), 0o700)?;
        let dir = path::openat(self.root(), Path::new(&name), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        if let Some(label) = host::layer_label() {
            // What is made in it has the same one.
            match xattr::fset(dir.as_fd(), xattr::SELINUX, label.as_bytes()) {
                Err(e) if e.errno() != libc::EOPNOTSUPP => {
                    return Err(e.context(format!("the label {label:?}")));
                }
                _ => {}
            }
        }
        Ok(Staged { dir, name, chain: chain.clone(), _lock: lock })
    }
}

/// The chain IDs of layers, bottom first, from their diff IDs (config.md#layer-chainid).
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(match chains.last() {
            None => diff_id.clone(),
            Some(below) => digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chains
}

/// Where a layer lies. Diff IDs are sha256 wherever there are images; another algorithm would need a directory of its
/// own.
pub(super) fn directory(chain: &Digest) -> Result<String> {
    match chain.algorithm() {
        DigestAlgorithm::Sha256 => Ok(format!("layers/{}", chain.digest())),
        other => Err(Error::new(format!("layer {chain} is of the algorithm {other}, not sha256"))),
    }
}

/// The lock of a layer.
pub(super) fn lock_name(chain: &Digest) -> String {
    format!("layer-{}", chain.digest())
}

impl Staged {
    /// Where the layer is unpacked: the directory `tree`, made now, or the one that `layer.erofs` is made in.
    pub fn place(&self, form: Form) -> Result<OwnedFd> {
        let tree = Path::new(FORMS[0]);
        match form {
            Form::Erofs => path::openat(self.dir(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0),
            Form::Directory => {
                path::mkdirat(self.dir(), tree, 0o755)?;
                path::openat(self.dir(), tree, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
            }
        }
    }

    /// The tree that was made, where it is one.
    pub fn tree(&self) -> Result<Option<OwnedFd>> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match path::openat(self.dir(), Path::new(FORMS[0]), flags, 0) {
            Ok(tree) => Ok(Some(tree)),
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes the one file of a layer of which only the tree is there, and throws that away.
    pub fn make_image(&self, tree: &OwnedFd, store: &Store) -> Result<()> {
        layer::make_image(&self.dir, tree)?;
        let to = format!("trash/{}", unique());
        path::rename_between(self.dir(), Path::new(TREE_NAME), store.root(), Path::new(&to))?;
        store.empty_trash()
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Throws away what was made, to begin again.
    pub fn clear(&self, store: &Store) -> Result<()> {
        for name in path::list(self.dir())? {
            let to = format!("trash/{}", unique());
            path::rename_between(self.dir(), Path::new(&name), store.root(), Path::new(&to))?;
        }
        store.empty_trash()
    }

    /// Gives the layer its name. It is not durable before the barrier that comes before an image's record.
    pub fn publish(self, store: &Store, meta: &Meta) -> Result<Layer> {
        let bytes = serde_json::to_vec(meta).map_err(|e| Error::new(format!("meta: {e}")))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = path::openat(self.dir(), Path::new("meta"), flags, 0o600)?;
        crate::sys::fd::write_all(file.as_fd(), &bytes)?;
        let to = directory(&self.chain)?;
        path::renameat(store.root(), Path::new(&self.name), Path::new(&to), libc::RENAME_NOREPLACE)?;
        store.layer(&self.chain)?.ok_or_else(|| Error::new(format!("layer {} is gone", self.chain)))
    }

    /// Throws away what was made.
    pub fn abandon(self, store: &Store) -> Result<()> {
        store.discard(&self.name)
    }
}
