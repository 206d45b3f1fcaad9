//! The other way round: the changes of a container as a layer, and a whole tree as a tar. The same tree is always the
//! same bytes: names in order, no user names, no times but those of the files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::apply::is_kept;
use super::below::{self, Below};
use super::dirs::{is_whiteout, join};
use super::name::{MAX_DEPTH, OPAQUE, WHITEOUT};
use super::owners::Owners;
use super::pax::shown;
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    Changed,
    Deleted,
}

/// One path that differs from the layers below, from the root, without a slash at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub path: PathBuf,
    /// A directory with the owner and the mode that it has below: only what is in it may differ.
    pub is_as_below: bool,
}

/// What an upper directory changes in the layers below it (bottom first), in order. A directory in which something
/// changed is changed itself.
pub fn changes(upper: BorrowedFd<'_>, lowers: &[BorrowedFd<'_>]) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    changes_below(upper, &Below::new(lowers)?, Path::new(""), &mut found, 0)?;
    Ok(found)
}

fn changes_below(
    upper: BorrowedFd<'_>,
    below: &Below,
    parent: &Path,
    found: &mut Vec<Change>,
    depth: usize,
) -> Result<()> {
    let opaque = below::is_opaque(upper)?;
    let mut names = names(upper, depth)?;
    if opaque {
        names.extend(below.names()?);
        names.sort();
        names.dedup();
    }
    for name in names {
        let name = Path::new(&name);
        let lower = below.look(name)?;
        let st = match path::stat(upper, name) {
            Ok(st) if !is_whiteout(&st) => st,
            Err(e) if e.errno() != libc::ENOENT => return Err(e),
            _ if lower.is_some() => {
                found.push(Change { kind: Kind::Deleted, path: parent.join(name), is_as_below: false });
                continue;
            }
            _ => continue,
        };
        let kind = if lower.is_some() { Kind::Changed } else { Kind::Added };
        let is_dir = st.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let alike = |there: &libc::stat| {
            (there.st_mode, there.st_uid, there.st_gid) == (st.st_mode, st.st_uid, st.st_gid)
        };
        let is_as_below = is_dir && lower.as_ref().is_some_and(|(there, _)| alike(there));
        found.push(Change { kind, path: parent.join(name), is_as_below });
        if is_dir {
            let below = lower.map(|(_, below)| below).unwrap_or_default();
            changes_below(dir(upper, name)?.as_fd(), &below, &parent.join(name), found, depth + 1)?;
        }
    }
    Ok(())
}

/// An upper directory as a layer: whiteouts as the image specification writes them. The root itself has no entry.
/// `owners`: what the ids of its files are to become.
pub fn layer_of(upper: BorrowedFd<'_>, owners: Option<&Owners>, out: &mut dyn Write) -> Result<()> {
    let mut tar = Tar { out, links: HashMap::new(), layer: true, owners };
    tar.below(upper, b"", 0)?;
    tar.end()
}

/// A whole tree as a tar; `owners` as before.
pub fn tar_of(root: BorrowedFd<'_>, owners: Option<&Owners>, out: &mut dyn Write) -> Result<()> {
    let mut tar = Tar { out, links: HashMap::new(), layer: false, owners };
    let root = dir(root, Path::new("."))?;
    let st = path::stat(root.as_fd(), Path::new(""))?;
    tar.node(root.as_fd(), Path::new(""), b".", &st)?;
    tar.below(root.as_fd(), b"", 0)?;
    tar.end()
}

fn dir(above: BorrowedFd<'_>, name: &Path) -> Result<std::os::fd::OwnedFd> {
    path::openat(above, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
}

fn names(dir: BorrowedFd<'_>, depth: usize) -> Result<Vec<std::ffi::OsString>> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("a directory is deeper than {MAX_DEPTH}")));
    }
    let mut names = path::list(dir)?;
    names.sort();
    Ok(names)
}

struct Tar<'a> {
    out: &'a mut dyn Write,
    /// The first path of files with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Whether overlayfs's words are to become the image specification's.
    layer: bool,
    owners: Option<&'a Owners>,
}

/// The records that a header's fields have no room for.
#[derive(Default)]
struct Pax(Vec<u8>);

impl Tar<'_> {
    fn below(&mut self, above: BorrowedFd<'_>, parent: &[u8], depth: usize) -> Result<()> {
        if self.layer && below::is_opaque(above)? {
            self.mark(&join(parent, OPAQUE))?;
        }
        for name in names(above, depth)? {
            let (file, name) = (Path::new(&name), name.as_bytes());
            let path = join(parent, name);
            if self.layer && name.starts_with(WHITEOUT) {
                return Err(Error::new(format!("{} cannot be in a layer", shown(&path)))
                    .why("names that begin with .wh. mean that something was deleted"));
            }
            let st = path::stat(above, file)?;
            if self.layer && is_whiteout(&st) {
                self.mark(&join(parent, &[WHITEOUT, name].concat()))?;
                continue;
            }
            self.node(above, file, &path, &st).map_err(|e| e.context(shown(&path)))?;
            if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                self.below(dir(above, file)?.as_fd(), &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// An empty file whose name is what it says.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        self.entry(header, path, b"", Pax::default())
    }

    fn node(&mut self, above: BorrowedFd<'_>, name: &Path, path: &[u8], st: &libc::stat) -> Result<()> {
        let (mut header, mut pax) = (Header::new_ustar(), Pax::default());
        header.set_mode(st.st_mode & 0o7777);
        let (uid, gid) = self.owners.map_or(Ok((st.st_uid, st.st_gid)), |owners| owners.of(st))?;
        pax.number(b"uid", uid.into(), 0o7_777_777, |n| header.set_uid(n));
        pax.number(b"gid", gid.into(), 0o7_777_777, |n| header.set_gid(n));
        pax.time(st.st_mtime, st.st_mtime_nsec, &mut header);
        let (kind, link, size) = match st.st_mode & libc::S_IFMT {
            libc::S_IFDIR => (EntryType::Directory, Vec::new(), 0),
            libc::S_IFLNK => {
                let target = path::readlinkat(above, name)?;
                (EntryType::Symlink, target.as_os_str().as_bytes().to_vec(), 0)
            }
            libc::S_IFREG => (EntryType::Regular, Vec::new(), st.st_size as u64),
            libc::S_IFCHR => (EntryType::Char, Vec::new(), 0),
            libc::S_IFBLK => (EntryType::Block, Vec::new(), 0),
            libc::S_IFIFO => (EntryType::Fifo, Vec::new(), 0),
            // A socket is nothing without the process that listens on it.
            _ => return Ok(()),
        };
        header.set_entry_type(kind);
        let is_dir = kind == EntryType::Directory;
        if st.st_nlink > 1 && !is_dir {
            if let Some(first) = self.links.get(&(st.st_dev, st.st_ino)) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.entry(header, path, &first.clone(), pax);
            }
            self.links.insert((st.st_dev, st.st_ino), path.to_vec());
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let numbers = header
                .set_device_major(libc::major(st.st_rdev))
                .and_then(|()| header.set_device_minor(libc::minor(st.st_rdev)));
            numbers.map_err(|e| Error::new(format!("a device number: {e}")))?;
        }
        pax.number(b"size", size, 0o77_777_777_777, |n| header.set_size(n));
        for key in xattr::list(above, name)?.iter().filter(|key| is_kept(key)) {
            let value = xattr::get(above, name, key)?.unwrap_or_default();
            let value = match self.owners {
                Some(owners) => owners.xattr(key, value)?,
                None => value,
            };
            pax.record(&[b"SCHILY.xattr.", &key[..]].concat(), &value);
        }
        let slash: &[u8] = if is_dir { b"/" } else { b"" };
        self.entry(header, &[path, slash].concat(), &link, pax)?;
        if kind == EntryType::Regular { self.content(above, name, size) } else { Ok(()) }
    }

    fn entry(&mut self, mut header: Header, path: &[u8], link: &[u8], mut pax: Pax) -> Result<()> {
        let old = header.as_old_mut();
        pax.name(b"path", path, &mut old.name);
        pax.name(b"linkpath", link, &mut old.linkname);
        header.set_cksum();
        if !pax.0.is_empty() {
            let mut before = Header::new_ustar();
            before.set_entry_type(EntryType::XHeader);
            before.as_old_mut().name[..12].copy_from_slice(b"PaxHeaders/0");
            before.set_mode(0o644);
            before.set_size(pax.0.len() as u64);
            before.set_cksum();
            self.write(before.as_bytes())?;
            self.write(&pax.0)?;
            self.pad(pax.0.len() as u64)?;
        }
        self.write(header.as_bytes())
    }

    fn content(&mut self, above: BorrowedFd<'_>, name: &Path, size: u64) -> Result<()> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = File::from(path::openat(above, name, flags, 0)?).take(size);
        let copied =
            std::io::copy(&mut file, &mut self.out).map_err(|e| Error::io("copying the file", &e))?;
        if copied != size {
            return Err(Error::new("the file became shorter while it was read"));
        }
        self.pad(size)
    }

    fn end(&mut self) -> Result<()> {
        self.write(&[0; 1024])
    }

    fn pad(&mut self, len: u64) -> Result<()> {
        self.write(&[0; 512][..(len.wrapping_neg() % 512) as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("writing the tar", &e))
    }
}

impl Pax {
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let body = key.len() + value.len() + 3;
        let digits = |n: usize| n.to_string().len();
        let len = body + digits(body + digits(body));
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        for part in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// A number in its field, or in a record where it is too large for that.
    fn number(&mut self, key: &[u8], n: u64, most: u64, set: impl FnOnce(u64)) {
        if n > most {
            self.record(key, n.to_string().as_bytes());
        }
        set(if n > most { 0 } else { n });
    }

    /// Seconds before the epoch or a fraction need a record.
    fn time(&mut self, seconds: i64, nanoseconds: i64, header: &mut Header) {
        let fits = (0..=0o77_777_777_777).contains(&seconds);
        header.set_mtime(if fits { seconds as u64 } else { 0 });
        if fits && nanoseconds == 0 {
            return;
        }
        // timespec has -0.5 s as (-1, 500000000); the decimal text has it as -0.5.
        let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
        let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
        self.record(b"mtime", text.trim_end_matches('0').trim_end_matches('.').as_bytes());
    }

    fn name(&mut self, key: &[u8], name: &[u8], field: &mut [u8; 100]) {
        if name.len() > field.len() || !name.is_ascii() {
            self.record(key, name);
        }
        let n = name.len().min(field.len());
        field[..n].copy_from_slice(&name[..n]);
    }
}
