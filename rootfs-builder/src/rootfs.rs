//! The layers made into one file system, in memory.
//!
//! Symbolic links in the paths of entries and whiteouts are followed here, inside the root, where no host path
//! exists to be reached. What comes out holds no path through a link: each parent is a directory that the result
//! itself contains.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::entry::{Entry, Kind, Meta, Mtime, clean_path, shown, split_path};
use crate::error::{Error, Result};
use crate::layer::{Layer, OPAQUE, WHITEOUT};

/// As the kernel has it (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Names and what they name; two names of one node are hard links.
pub struct Rootfs {
    names: BTreeMap<Vec<u8>, usize>,
    nodes: Vec<(Kind, Meta)>,
    /// The time of directories that no layer describes.
    mtime: Mtime,
}

impl Rootfs {
    pub fn new(mtime: Mtime) -> Self {
        let mut rootfs = Self { names: BTreeMap::new(), nodes: Vec::new(), mtime };
        rootfs.put(Vec::new(), Kind::Dir, Meta::root(0o755, mtime));
        rootfs
    }

    /// All layers, the lowest first.
    pub fn of(layers: &[Layer], mtime: Mtime) -> Result<Self> {
        let mut rootfs = Self::new(mtime);
        for (index, layer) in layers.iter().enumerate() {
            rootfs
                .apply(layer)
                .map_err(|error| error.context(format!("cannot apply layer {}", index + 1)))?;
        }
        Ok(rootfs)
    }

    /// Whiteouts first, wherever they stand in the archive: they hide lower layers, never their own
    /// (image-spec layer.md#whiteouts).
    pub fn apply(&mut self, layer: &Layer) -> Result<()> {
        let mut added = Vec::new();
        for entry in &layer.entries {
            let path = clean_path(&entry.path)?;
            match Marker::of(&path)? {
                Some(marker) => self.hide(marker)?,
                None => added.push((path, entry)),
            }
        }
        for (path, entry) in added {
            self.add(&path, entry).map_err(|error| error.context(shown(&path)))?;
        }
        Ok(())
    }

    /// Entries in the order of a layer: sorted, hard links last, the first name of a node is the one with the data.
    pub fn into_entries(self) -> Vec<Entry> {
        let mut first_names: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut entries = Vec::new();
        let mut links = Vec::new();
        for (path, id) in self.names {
            let (kind, meta) = self.nodes[id].clone();
            match first_names.get(&id) {
                Some(first) => links.push(Entry { path, kind: Kind::Hardlink(first.clone()), meta }),
                None => {
                    first_names.insert(id, path.clone());
                    entries.push(Entry { path, kind, meta });
                }
            }
        }
        entries.append(&mut links);
        entries
    }

    fn add(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        if path.is_empty() {
            return match entry.kind {
                Kind::Dir => {
                    self.nodes[self.names[path]].1 = entry.meta.clone();
                    Ok(())
                }
                _ => Err(Error::new("the root can only be a directory")),
            };
        }
        let place = self.place(path)?;
        if let Kind::Hardlink(target) = &entry.kind {
            let id = self.link_target(target)?;
            if self.names.get(&place) != Some(&id) {
                self.remove(&place);
                self.names.insert(place, id);
            }
            return Ok(());
        }
        match (self.node(&place), &entry.kind) {
            // A directory over a directory is new metadata for it; over anything else it takes its place.
            (Some((id, Kind::Dir)), Kind::Dir) => self.nodes[id].1 = entry.meta.clone(),
            _ => {
                self.remove(&place);
                self.put(place, entry.kind.clone(), entry.meta.clone());
            }
        }
        Ok(())
    }

    fn link_target(&mut self, target: &[u8]) -> Result<usize> {
        let clean = clean_path(target)?;
        let (dir, name) = split_path(&clean);
        let place = self.directory(dir, false)?.map(|dir| join(&dir, name));
        match place.and_then(|place| self.node(&place).map(|(id, kind)| (id, matches!(kind, Kind::Dir)))) {
            Some((id, false)) => Ok(id),
            Some((_, true)) => {
                Err(Error::new(format!("the target {} of the hard link is a directory", shown(target))))
            }
            None => Err(Error::new(format!("the target {} of the hard link does not exist", shown(target)))),
        }
    }

    /// A marker for what no lower layer has is no error: engines write them freely.
    fn hide(&mut self, marker: Marker) -> Result<()> {
        let (dir, name) = match marker {
            Marker::Ignored => return Ok(()),
            Marker::Opaque { dir } => (dir, None),
            Marker::Whiteout { dir, name } => (dir, Some(name)),
        };
        let Some(dir) = self.directory(dir, false)? else {
            return Ok(());
        };
        match name {
            Some(name) => self.remove(&join(&dir, name)),
            None => self.remove_below(&dir),
        }
        Ok(())
    }

    fn node(&self, path: &[u8]) -> Option<(usize, &Kind)> {
        self.names.get(path).map(|&id| (id, &self.nodes[id].0))
    }

    fn put(&mut self, path: Vec<u8>, kind: Kind, meta: Meta) {
        self.names.insert(path, self.nodes.len());
        self.nodes.push((kind, meta));
    }

    fn remove(&mut self, path: &[u8]) {
        if self.names.remove(path).is_some() {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, dir: &[u8]) {
        let prefix = if dir.is_empty() { Vec::new() } else { [dir, b"/"].concat() };
        let below = self.names.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let below: BTreeSet<Vec<u8>> =
            below.map(|(name, _)| name.clone()).filter(|n| !n.is_empty()).collect();
        for name in below {
            self.names.remove(&name);
        }
    }

    /// Where the last component of `path` really is; missing directories on the way are made.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (dir, name) = split_path(path);
        let dir = self.directory(dir, true)?;
        Ok(join(&dir.unwrap_or_default(), name))
    }

    /// Walks to a directory as chroot(2) would make the kernel walk: links are followed, `..` stops at the root.
    ///
    /// `None` when it does not exist and is not to be made.
    fn directory(&mut self, path: &[u8], make: bool) -> Result<Option<Vec<u8>>> {
        let mut ahead: VecDeque<Vec<u8>> = parts(path).collect();
        let mut here = Vec::new();
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part == b".." {
                here = split_path(&here).0.to_vec();
                continue;
            }
            let next = join(&here, &part);
            match self.node(&next).map(|(_, kind)| kind) {
                Some(Kind::Dir) => here = next,
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::new(format!(
                            "{} goes through too many symbolic links",
                            shown(path)
                        )));
                    }
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                        ahead.push_front(part);
                    }
                }
                None if make => {
                    self.put(next.clone(), Kind::Dir, Meta::root(0o755, self.mtime));
                    here = next;
                }
                None => return Ok(None),
                Some(_) if !make => return Ok(None),
                Some(_) => return Err(Error::new(format!("its parent {} is not a directory", shown(&next)))),
            }
        }
        Ok(Some(here))
    }
}

/// What a name that begins with `.wh.` says.
enum Marker<'a> {
    Whiteout {
        dir: &'a [u8],
        name: &'a [u8],
    },
    Opaque {
        dir: &'a [u8],
    },
    /// AUFS's own bookkeeping (`.wh..wh.plnk`, `.wh..wh.aufs`), which old engines left in layers.
    Ignored,
}

impl<'a> Marker<'a> {
    fn of(path: &'a [u8]) -> Result<Option<Self>> {
        let (dir, name) = split_path(path);
        let aufs = [WHITEOUT, WHITEOUT].concat();
        if name == OPAQUE {
            return Ok(Some(Self::Opaque { dir }));
        }
        if path.split(|&b| b == b'/').any(|part| part.starts_with(&aufs)) {
            return Ok(Some(Self::Ignored));
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(None),
            Some(b"" | b"." | b"..") => {
                Err(Error::new(format!("the whiteout {} is refused", shown(path))).why("it names no file"))
            }
            Some(name) => Ok(Some(Self::Whiteout { dir, name })),
        }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
