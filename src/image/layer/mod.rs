//! A layer: a tar of changes that becomes a directory (or one EROFS image) of its own, and back.
//!
//! ```text
//! blob -> decompress -> hash -> entries -> apply            (in a confined process of its own: worker)
//! upper directory -> changes -> entries -> tar              (write)
//! ```
//!
//! A layer is unpacked alone, beside its lower layers and not onto them, so that layers can be unpacked in any order
//! and several at once. Whiteouts become what overlayfs reads: a character device 0/0, and an xattr on an opaque
//! directory. This room knows nothing of the store: it is given open files, and makes nothing durable.

mod adopt;
mod apply;
mod below;
mod borrow;
pub mod confine;
pub(super) mod content;
mod decompress;
pub(super) mod dirs;
pub(crate) mod name;
pub mod owners;
mod pax;
mod sparse;
pub mod tar;
pub mod tree;
pub mod worker;
pub mod write;

pub use adopt::adopt;
pub use worker::{make_image, unpack};

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};

/// The compressed bytes of a layer, read from the file's beginning.
#[derive(Debug)]
pub struct Blob {
    pub file: File,
    /// The file is still being written: each u64 (little-endian) on this pipe says how many of its bytes are there by
    /// now, `u64::MAX` says that it is complete, and an end of file before that says that it never will be.
    pub growing: Option<OwnedFd>,
}

/// What shall become of the blob.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The digest of the uncompressed tar.
    pub diff_id: &'a Digest,
    pub form: Form,
    pub ids: Ids,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The tree itself, in the staging directory.
    #[default]
    Directory,
    /// One file, [`EROFS_NAME`], in the staging directory. A layer that lower ones add to stays a tree beside it,
    /// [`TREE_NAME`], of which [`make_image`] makes the file after [`adopt`].
    Erofs,
}

/// The name of the image in the staging directory of [`Form::Erofs`].
pub const EROFS_NAME: &str = "layer.erofs";

/// The name of the tree there.
pub const TREE_NAME: &str = worker::TREE;

/// Whom the files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The owners that the tar names.
    Kept,
    /// Everything belongs to the caller, who has only one user and one group; devices cannot be made and are left
    /// out.
    Single,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// The highest user or group that the tar names.
    pub highest_id: u32,
    /// The digest of the tree as it stands, as `tree::digest` computes it from the directory alone.
    pub tree: Digest,
    /// Directories that no entry names, but that entries lie in (empty: the root): where a lower layer has them,
    /// their owner and mode come from there. See [`adopt`].
    pub implied: Vec<PathBuf>,
    /// Names that are hard links to files of lower layers, and the path of each there. See [`adopt`].
    pub borrowed: Vec<(PathBuf, PathBuf)>,
    /// What could not be kept, a sentence each.
    pub warnings: Vec<String>,
}

/// The xattr by which a directory of a layer says that nothing below it is seen: an unprivileged overlay has one of
/// its own (overlayfs.rst, `userxattr`).
pub fn overlay_xattr(rootless: bool) -> &'static [u8] {
    if rootless { b"user.overlay.opaque" } else { b"trusted.overlay.opaque" }
}
