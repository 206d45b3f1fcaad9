//! One layer: its entries in the order in which an archive holds them.
//!
//! Whiteouts are entries here as they are in the archive (image-spec layer.md#whiteouts); only `rootfs` obeys them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::entry::{Data, Entry, Kind, Meta, Mtime, clean_path, shown};
use crate::error::{Doing, Error, Result};
use crate::recipe::{Content, FileRecipe, LayerRecipe, Source};
use crate::source::{self, Workshop};

pub const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// `verbatim` holds the bytes of a tarball that is to be the layer as it is.
#[derive(Debug, Clone)]
pub struct Layer {
    pub entries: Vec<Entry>,
    pub verbatim: Option<Arc<File>>,
}

/// Makes the layer that the recipe describes.
pub fn make(recipe: &LayerRecipe, shop: &Workshop) -> Result<Layer> {
    let mut layer = match &recipe.from {
        Some(from) => source::read(from, shop)?,
        None => Layer { entries: Vec::new(), verbatim: None },
    };
    let added = recipe.files.len() + recipe.whiteouts.len() + recipe.opaque.len();
    if layer.verbatim.is_some() {
        if added > 0 {
            return Err(Error::new(
                "a layer from a verbatim tarball takes no `files`, `whiteouts` or `opaque`",
            )
            .next("put them into a layer of their own"));
        }
        return Ok(layer);
    }
    let mut added = Vec::new();
    for file in &recipe.files {
        added.push(file_entry(file, shop)?);
    }
    for path in &recipe.whiteouts {
        added.push(whiteout(path, shop.mtime())?);
    }
    for path in &recipe.opaque {
        added.push(opaque(path, shop.mtime())?);
    }
    if from_archive(recipe) {
        layer.entries.extend(sort(added)?);
    } else {
        layer.entries.extend(added);
        layer.entries = sort(layer.entries)?;
    }
    Ok(layer)
}

/// An archive's order is part of what it says: a path may go through a link that an earlier entry made. It is an input,
/// so keeping it is reproducible.
fn from_archive(recipe: &LayerRecipe) -> bool {
    matches!(recipe.from, Some(Source::Tar { .. } | Source::Debian(_)))
}

/// Sorted by path, the last of two entries with one path wins, and hard links come after everything they may point to.
pub fn sort(entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let mut by_path: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for entry in entries {
        by_path.insert(entry.path.clone(), entry);
    }
    let links: Vec<Vec<u8>> =
        by_path.values().filter(|e| matches!(e.kind, Kind::Hardlink(_))).map(|e| e.path.clone()).collect();
    for path in &links {
        let end = link_end(&by_path, path)?;
        if let Some(link) = by_path.get_mut(path) {
            link.kind = Kind::Hardlink(end);
        }
    }
    let (links, rest): (Vec<_>, Vec<_>) =
        by_path.into_values().partition(|entry| matches!(entry.kind, Kind::Hardlink(_)));
    Ok(rest.into_iter().chain(links).collect())
}

/// Where a chain of hard links ends, so that no link needs another one before it.
fn link_end(by_path: &BTreeMap<Vec<u8>, Entry>, from: &[u8]) -> Result<Vec<u8>> {
    let mut path = from;
    for _ in 0..=by_path.len() {
        match by_path.get(path).map(|entry| &entry.kind) {
            Some(Kind::Hardlink(target)) => path = target,
            _ => return Ok(path.to_vec()),
        }
    }
    Err(Error::new(format!("the hard link {} leads back to itself", shown(from))))
}

fn file_entry(recipe: &FileRecipe, shop: &Workshop) -> Result<Entry> {
    let (kind, mode) = match &recipe.content {
        Content::Text(text) => (Kind::File(Data::bytes(text)), 0o644),
        Content::Zeros(len) => (Kind::File(zeros(*len)?), 0o644),
        Content::Copy(path) => copy(&shop.path(path))?,
        Content::Symlink(target) => (Kind::Symlink(target.clone().into_bytes()), 0o777),
        Content::Hardlink(target) => (Kind::Hardlink(target.clone()), 0o644),
        Content::Dir => (Kind::Dir, 0o755),
        &Content::Device { block, major, minor } => (Kind::Device { block, major, minor }, 0o644),
        Content::Fifo => (Kind::Fifo, 0o644),
    };
    let mtime = recipe.mtime.map_or(shop.mtime(), |(secs, nanos)| Mtime { secs, nanos });
    let meta = Meta {
        mode: recipe.mode.unwrap_or(mode),
        uid: recipe.uid,
        gid: recipe.gid,
        mtime,
        xattrs: recipe.xattrs.clone(),
    };
    Ok(Entry { path: recipe.path.clone(), kind, meta })
}

/// The mode follows the host file only in whether it can be executed: the rest depends on somebody's umask.
fn copy(path: &Path) -> Result<(Kind, u32)> {
    let file = File::open(path).doing(|| format!("open {}", path.display()))?;
    let stat = file.metadata().doing(|| format!("stat {}", path.display()))?;
    if !stat.is_file() {
        return Err(Error::new(format!("{} is not a regular file", path.display()))
            .next("copy a directory with `from = { dir = \"...\" }`"));
    }
    let mode = if stat.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    Ok((Kind::File(Data::Range { file: Arc::new(file), offset: 0, len: stat.len() }), mode))
}

/// A sparse file without a name reads as zeros and takes no room.
fn zeros(len: u64) -> Result<Data> {
    let file = tempfile::tempfile().doing(|| "make a temporary file".into())?;
    file.set_len(len).doing(|| format!("make a file of {len} bytes"))?;
    Ok(Data::Range { file: Arc::new(file), offset: 0, len })
}

/// `/etc/old` becomes `etc/.wh.old`.
fn whiteout(path: &str, mtime: Mtime) -> Result<Entry> {
    let mut path = clean_path(path.as_bytes())?;
    if path.is_empty() {
        return Err(Error::new("the root itself cannot be whited out").next("use `opaque = [\"/\"]`"));
    }
    let name = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    path.splice(name..name, WHITEOUT.iter().copied());
    Ok(marker(path, mtime))
}

/// `/var/cache` becomes `var/cache/.wh..wh..opq`.
fn opaque(path: &str, mtime: Mtime) -> Result<Entry> {
    let mut path = clean_path(path.as_bytes())?;
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(OPAQUE);
    Ok(marker(path, mtime))
}

fn marker(path: Vec<u8>, mtime: Mtime) -> Entry {
    Entry { path, kind: Kind::File(Data::bytes(b"")), meta: Meta::root(0o644, mtime) }
}
