//! A tree as an EROFS image: one file for a layer, which the kernel mounts as it is (Linux 6.12 and newer mount a
//! file).
//!
//! Format: linux/fs/erofs/erofs_fs.h. Extended inodes, data in whole blocks behind one another, nothing compressed.
//! Only trees that were unpacked and validated here become images: one that comes from a registry is never mounted.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::layer::content;
use super::layer::dirs::open_own;
use super::layer::name::MAX_DEPTH;
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

const BLOCK: u64 = 4096;
/// Where the superblock lies, and how long it is.
const SUPER: u64 = 1024;
const SUPER_LEN: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Times are those of the content, and not of the inode (EROFS_FEATURE_COMPAT_MTIME).
const COMPAT_MTIME: u32 = 2;
/// What an inode is counted in: its number is its place.
const SLOT: u64 = 32;
const INODE: usize = 64;
const DIRENT: usize = 12;

/// Writes the tree below `root` into an empty file, and leaves the tree to be removed. Nothing is made durable.
pub fn write(root: BorrowedFd<'_>, file: &File) -> Result<()> {
    let mut image = Image { file, next: 1, room: 0, at: 0, inodes: 0, links: HashMap::new() };
    let node = Node::read(root, Path::new(""))?;
    let place = image.place(&node)?;
    image.dir(root, &node, place, place, 0)?;
    image.superblock(place)?;
    file.set_len(u64::from(image.next) * BLOCK).map_err(|e| Error::io("ftruncate(the image)", &e))
}

struct Image<'a> {
    file: &'a File,
    /// The next free block.
    next: u32,
    /// Where the next inode goes, and how many bytes are left there.
    at: u64,
    room: u64,
    inodes: u64,
    /// The places of files with several names, by device and inode.
    links: HashMap<(u64, u64), u64>,
}

struct Node {
    st: libc::stat,
    /// The xattrs as they follow the inode; empty when there are none.
    xattrs: Vec<u8>,
}

struct Dirent {
    name: Vec<u8>,
    place: u64,
    kind: u8,
}

impl Node {
    fn read(dir: BorrowedFd<'_>, name: &Path) -> Result<Self> {
        let st = path::stat(dir, name)?;
        let mut entries = Vec::new();
        for key in xattr::list(dir, name)?.iter().filter(|key| !key.starts_with(xattr::SELINUX)) {
            let Some((index, rest)) = prefix(key) else { continue };
            let value = xattr::get(dir, name, key)?.unwrap_or_default();
            let len =
                u16::try_from(value.len()).map_err(|_| Error::new("an xattr is longer than 65535 bytes"))?;
            entries.extend([rest.len() as u8, index]);
            entries.extend(len.to_le_bytes());
            entries.extend(rest);
            entries.extend(value);
            entries.resize(entries.len().next_multiple_of(4), 0);
        }
        // struct erofs_xattr_ibody_header: no filter, nothing shared.
        let xattrs = if entries.is_empty() { entries } else { [vec![0; 12], entries].concat() };
        Ok(Self { st, xattrs })
    }

    fn len(&self) -> u64 {
        (INODE + self.xattrs.len()) as u64
    }
}

/// EROFS_XATTR_INDEX_*, and what is left of the name.
fn prefix(key: &[u8]) -> Option<(u8, &[u8])> {
    match key {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, word)| Some((index, key.strip_prefix(word)?)))
}

impl Image<'_> {
    /// The place of an inode, of which nothing is written yet.
    fn place(&mut self, node: &Node) -> Result<u64> {
        if self.room < node.len() {
            let blocks = node.len().div_ceil(BLOCK);
            self.at = u64::from(self.blocks(blocks)?) * BLOCK;
            self.room = blocks * BLOCK;
        }
        let place = self.at;
        let len = node.len().next_multiple_of(SLOT);
        self.at += len;
        self.room = self.room.saturating_sub(len);
        self.inodes += 1;
        Ok(place)
    }

    /// The first of so many blocks behind one another.
    fn blocks(&mut self, n: u64) -> Result<u32> {
        let first = self.next;
        let next = u64::from(first) + n;
        self.next =
            u32::try_from(next).map_err(|_| Error::new("the layer is too large for an EROFS image"))?;
        Ok(first)
    }

    fn dir(&mut self, dir: BorrowedFd<'_>, node: &Node, place: u64, parent: u64, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new("a directory is too deep"));
        }
        let mut entries = vec![
            Dirent { name: b".".to_vec(), place, kind: 2 },
            Dirent { name: b"..".to_vec(), place: parent, kind: 2 },
        ];
        let (mut names, mut dirs) = (path::list(dir)?, 0);
        names.sort();
        for name in names {
            let (place, kind) = self.child(dir, Path::new(&name), place, depth)?;
            dirs += u32::from(kind == 2);
            entries.push(Dirent { name: name.into_vec(), place, kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let bytes = dir_data(&entries);
        let first = self.blocks((bytes.len() as u64).div_ceil(BLOCK))?;
        self.write(&bytes, u64::from(first) * BLOCK)?;
        self.inode(node, place, bytes.len() as u64, first, 2 + dirs)
    }

    /// Writes a name's inode and what it holds; returns its place and its kind (EROFS_FT_*).
    fn child(&mut self, dir: BorrowedFd<'_>, name: &Path, parent: u64, depth: usize) -> Result<(u64, u8)> {
        let node = Node::read(dir, name)?;
        let kind = match node.st.st_mode & libc::S_IFMT {
            libc::S_IFREG => 1,
            libc::S_IFDIR => 2,
            libc::S_IFCHR => 3,
            libc::S_IFBLK => 4,
            libc::S_IFIFO => 5,
            libc::S_IFLNK => 7,
            _ => return Err(Error::new(format!("{} is of a kind that no layer has", name.display()))),
        };
        let (id, several) = ((node.st.st_dev, node.st.st_ino), node.st.st_nlink > 1 && kind != 2);
        if let Some(place) = self.links.get(&id).filter(|_| several) {
            return Ok((*place, kind));
        }
        let place = self.place(&node)?;
        if several {
            self.links.insert(id, place);
        }
        let links = u32::try_from(node.st.st_nlink).unwrap_or(u32::MAX);
        match kind {
            1 => {
                let len = u64::try_from(node.st.st_size).unwrap_or(0);
                let first = self.blocks(len.div_ceil(BLOCK))?;
                let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
                let file = File::from(open_own(dir, name, flags)?.0);
                let begin = u64::from(first) * BLOCK;
                content::pieces(&file, len, |offset, bytes| self.write(bytes, begin + offset))?;
                self.inode(&node, place, len, first, links)?;
            }
            2 => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let (inner, _) = open_own(dir, name, flags)?;
                self.dir(inner.as_fd(), &node, place, parent, depth + 1)?;
            }
            7 => {
                let target = path::readlinkat(dir, name)?;
                let target = target.as_os_str().as_bytes();
                let first = self.blocks(1)?;
                self.write(target, u64::from(first) * BLOCK)?;
                self.inode(&node, place, target.len() as u64, first, links)?;
            }
            _ => self.inode(&node, place, 0, device(node.st.st_rdev), links)?,
        }
        Ok((place, kind))
    }

    /// struct erofs_inode_extended; `word` is the first block of the data, or the number of a device.
    fn inode(&self, node: &Node, place: u64, size: u64, word: u32, links: u32) -> Result<()> {
        const EXTENDED: u16 = 1;
        let st = &node.st;
        let slots = if node.xattrs.is_empty() { 0 } else { (node.xattrs.len() - 12) / 4 + 1 };
        let slots =
            u16::try_from(slots).map_err(|_| Error::new("a file has more xattrs than EROFS can hold"))?;
        let mut bytes = Vec::with_capacity(INODE + node.xattrs.len());
        bytes.extend(EXTENDED.to_le_bytes());
        bytes.extend(slots.to_le_bytes());
        bytes.extend((st.st_mode as u16).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(size.to_le_bytes());
        bytes.extend(word.to_le_bytes());
        bytes.extend(((place / SLOT) as u32).to_le_bytes());
        bytes.extend(st.st_uid.to_le_bytes());
        bytes.extend(st.st_gid.to_le_bytes());
        bytes.extend(st.st_mtime.to_le_bytes());
        bytes.extend((st.st_mtime_nsec as u32).to_le_bytes());
        bytes.extend(links.to_le_bytes());
        bytes.resize(INODE, 0);
        bytes.extend(&node.xattrs);
        self.write(&bytes, place)
    }

    /// struct erofs_super_block. Inodes are counted from the image's beginning, so that their data may lie between
    /// them.
    fn superblock(&self, root: u64) -> Result<()> {
        let mut bytes = [0u8; SUPER_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT_MTIME.to_le_bytes());
        put(12, &[BLOCK.trailing_zeros() as u8]);
        put(14, &((root / SLOT) as u16).to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.next.to_le_bytes());
        self.write(&bytes, SUPER)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| Error::io("pwrite(the image)", &e))
    }
}

/// Blocks of entries, each with its names behind them; a name that would not fit begins the next block.
fn dir_data(entries: &[Dirent]) -> Vec<u8> {
    let (mut data, mut rest) = (Vec::new(), entries);
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest.iter().take_while(|entry| {
            used += DIRENT + entry.name.len();
            used <= BLOCK as usize
        });
        let (these, others) = rest.split_at(fits.count());
        data.resize(data.len().next_multiple_of(BLOCK as usize), 0);
        let mut name = these.len() * DIRENT;
        for entry in these {
            data.extend((entry.place / SLOT).to_le_bytes());
            data.extend((name as u16).to_le_bytes());
            data.extend([entry.kind, 0]);
            name += entry.name.len();
        }
        these.iter().for_each(|entry| data.extend(&entry.name));
        rest = others;
    }
    data
}

/// The kernel's encoding of a device number (new_encode_dev, linux/kdev_t.h).
fn device(rdev: u64) -> u32 {
    let (major, minor) = (libc::major(rdev), libc::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
