//! Sources: where the entries of a layer come from.
//!
//! A source reads the host and makes entries; it writes nothing but its cache.

pub mod busybox;
pub mod debian;
pub mod directory;
pub mod elf;
pub mod probe;
pub mod tarball;

use std::path::{Path, PathBuf};

use crate::entry::Mtime;
use crate::error::Result;
use crate::layer::Layer;
use crate::recipe::Source;

/// What every source needs to know.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// Where relative paths start.
    pub dir: PathBuf,
    /// SOURCE_DATE_EPOCH, if it is set.
    pub epoch: Option<i64>,
    /// As Go names it.
    pub arch: String,
    pub cache: PathBuf,
    /// Fail rather than fetch what the cache lacks.
    pub offline: bool,
}

/// What Go, and so an image, calls an architecture of Rust's.
pub fn go_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Workshop {
    /// The time of everything that has none of its own: SOURCE_DATE_EPOCH, else 0.
    pub fn mtime(&self) -> Mtime {
        Mtime::from_secs(self.epoch.unwrap_or(0))
    }

    pub fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }
}

pub fn read(source: &Source, shop: &Workshop) -> Result<Layer> {
    let entries = match source {
        Source::Busybox { path } => busybox::read(path.as_deref(), shop)?,
        Source::Probe => probe::read(shop)?,
        Source::Dir { path, owner } => directory::read(&shop.path(path), *owner, shop.mtime())?,
        Source::Debian(debian) => debian::read(debian, shop)?,
        Source::Tar { path, verbatim: true } => return tarball::read_verbatim(&shop.path(path)),
        Source::Tar { path, verbatim: false } => tarball::read(&shop.path(path), shop.epoch)?,
    };
    Ok(Layer { entries, verbatim: None })
}
