//! Makes small reproducible root file systems, OCI layouts and archives from a recipe.
//!
//! ```text
//! recipe -> source -> layer -> image  -> oci, docker_archive       (layers stay apart)
//!                           -> rootfs -> tree, tar, initramfs, disk (layers become one)
//! ```
//!
//! The same recipe and the same inputs are the same bytes: entries are sorted, times are SOURCE_DATE_EPOCH (0 when
//! it is not set), owners are numbers, JSON keys have a fixed order, and compressed streams carry neither name nor
//! time. (A disk is the same files only, see `disk`.)

pub mod archive;
pub mod blob;
pub mod cli;
pub mod disk;
pub mod docker_archive;
pub mod entry;
pub mod error;
pub mod image;
pub mod initramfs;
pub mod layer;
pub mod oci;
pub mod output;
pub mod recipe;
pub mod rootfs;
pub mod source;
pub mod tree;
