//! The directory source: a directory of the host, with owners, modes, attributes, hard links and devices.
//!
//! Times are the build's: those of a checkout or a copy say when it was made, which is not an input.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Dev, major, minor};
use rustix::io::Errno;

use crate::entry::{Data, Entry, Kind, Meta, Mtime, shown};
use crate::error::{Doing, Error, Result};

/// Everything below `root` and `root` itself, sorted; sockets are left out, as every archiver does.
pub fn read(root: &Path, owner: Option<(u32, u32)>, mtime: Mtime) -> Result<Vec<Entry>> {
    let stat = root.symlink_metadata().doing(|| format!("stat {}", root.display()))?;
    if !root.is_dir() {
        return Err(Error::new(format!("{} is not a directory", root.display())));
    }
    let mut walk = Walk { root, owner, mtime, first_names: HashMap::new(), entries: Vec::new() };
    if stat.is_dir() {
        walk.add(Vec::new(), &stat)?;
    }
    walk.list(&[])?;
    Ok(walk.entries)
}

struct Walk<'a> {
    root: &'a Path,
    owner: Option<(u32, u32)>,
    mtime: Mtime,
    /// The first name of each file that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn list(&mut self, dir: &[u8]) -> Result<()> {
        let host = self.root.join(OsStr::from_bytes(dir));
        let mut names = Vec::new();
        for item in host.read_dir().doing(|| format!("list {}", host.display()))? {
            names.push(item.doing(|| format!("list {}", host.display()))?.file_name().into_vec());
        }
        names.sort();
        for name in names {
            let stat = host.join(OsStr::from_bytes(&name)).symlink_metadata();
            let stat = stat.doing(|| format!("stat {} in {}", shown(&name), host.display()))?;
            let path = if dir.is_empty() { name } else { [dir, b"/", &name].concat() };
            self.add(path.clone(), &stat)?;
            if stat.is_dir() {
                self.list(&path)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: Vec<u8>, stat: &Metadata) -> Result<()> {
        let host = self.root.join(OsStr::from_bytes(&path));
        if stat.file_type().is_socket() {
            return Ok(());
        }
        let first = (stat.nlink() > 1 && !stat.is_dir())
            .then(|| self.first_names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone()));
        let kind = match first {
            Some(first) if *first != path => Kind::Hardlink(first.clone()),
            _ => kind(&host, stat)?,
        };
        let (uid, gid) = self.owner.unwrap_or((stat.uid(), stat.gid()));
        let meta = Meta { mode: stat.mode() & 0o7777, uid, gid, mtime: self.mtime, xattrs: xattrs(&host)? };
        self.entries.push(Entry { path, kind, meta });
        Ok(())
    }
}

fn kind(host: &Path, stat: &Metadata) -> Result<Kind> {
    let file_type = stat.file_type();
    Ok(if stat.is_dir() {
        Kind::Dir
    } else if stat.is_symlink() {
        let target = host.read_link().doing(|| format!("read the link {}", host.display()))?;
        Kind::Symlink(target.into_os_string().into_vec())
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_block_device() || file_type.is_char_device() {
        let device: Dev = stat.rdev();
        Kind::Device { block: file_type.is_block_device(), major: major(device), minor: minor(device) }
    } else {
        Kind::File(Data::Path { path: host.to_path_buf(), len: stat.len() })
    })
}

/// Attributes of the file itself, not of what a link points to. Those of SELinux belong to the host, not to the tree.
fn xattrs(host: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 * 1024]; // XATTR_LIST_MAX, xattr(7)
    let len = match rustix::fs::llistxattr(host, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error).doing(|| format!("list the attributes of {}", host.display())),
    };
    let mut xattrs = BTreeMap::new();
    for name in names[..len].split(|&b| b == 0) {
        if name.is_empty() || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 * 1024]; // XATTR_SIZE_MAX
        let len = rustix::fs::lgetxattr(host, OsStr::from_bytes(name), &mut value[..])
            .doing(|| format!("read the attribute {} of {}", shown(name), host.display()))?;
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}
