//! Entries to a directory of the host: the only place that writes below a root.
//!
//! Nothing is written through a joined path. Each parent is opened below the root with openat2(2) RESOLVE_BENEATH and
//! RESOLVE_NO_SYMLINKS, each file is made new, and directories stay closed to others (0700) until all is written.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::entry::{Data, Entry, Kind, Meta, shown, split_path};
use crate::error::{Doing, Error, Result};

/// Writes entries as `Rootfs::into_entries` gives them: parents before children, no path through a link.
///
/// `root` must be missing or empty: what is in it already would be part of the result. Without `chown` everything
/// belongs to the caller.
pub fn write(entries: &[Entry], root: &Path, chown: bool) -> Result<()> {
    let mut tree = Tree { root: make_root(root)?, parent: None, chown };
    for entry in entries {
        tree.make(entry).map_err(|error| error.context(shown(&entry.path)))?;
    }
    // Children before parents: making a child changes its directory's time, and a closed mode would shut us out.
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind, Kind::Dir)) {
        tree.finish_dir(entry).map_err(|error| error.context(shown(&entry.path)))?;
    }
    Ok(())
}

struct Tree {
    root: OwnedFd,
    /// The directory of the last entry, since the next one is mostly in it too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    chown: bool,
}

fn make_root(root: &Path) -> Result<OwnedFd> {
    match std::fs::create_dir(root) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).doing(|| format!("make {}", root.display()));
        }
        _ => {}
    }
    let mut items = std::fs::read_dir(root).doing(|| format!("list {}", root.display()))?;
    if items.next().is_some() {
        return Err(
            Error::new(format!("{} is not empty", root.display())).next("remove it or name another path")
        );
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(root, flags, Mode::empty()).doing(|| format!("open {}", root.display()))
}

impl Tree {
    fn make(&mut self, entry: &Entry) -> Result<()> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let (dir, name) = split_path(&entry.path);
        let chown = self.chown;
        if let Kind::Hardlink(target) = &entry.kind {
            let (target_dir, target_name) = split_path(target);
            let from = self.open_dir(target_dir, OFlags::PATH)?;
            // Without AT_SYMLINK_FOLLOW a link to a symbolic link is a second name of the link itself.
            let (old, new) = (OsStr::from_bytes(target_name), OsStr::from_bytes(name));
            return fs::linkat(&from, old, self.parent(dir)?, new, AtFlags::empty())
                .doing(|| format!("link it to {}", shown(target)));
        }
        let parent = self.parent(dir)?;
        let name = OsStr::from_bytes(name);
        let file_type = match &entry.kind {
            Kind::File(data) => return write_file(parent, name, data, &entry.meta, chown),
            Kind::Dir => return fs::mkdirat(parent, name, Mode::RWXU).doing(|| "make the directory".into()),
            Kind::Hardlink(_) => return Ok(()), // made above
            Kind::Symlink(target) => {
                fs::symlinkat(OsStr::from_bytes(target), parent, name).doing(|| "make the link".into())?;
                FileType::Symlink
            }
            Kind::Device { block, major, minor } => {
                let file_type = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                make_node(parent, name, file_type, fs::makedev(*major, *minor))?
            }
            Kind::Fifo => make_node(parent, name, FileType::Fifo, 0)?,
        };
        set_node_meta(parent, name, file_type, &entry.meta, chown)
    }

    fn parent(&mut self, dir: &[u8]) -> Result<&OwnedFd> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != dir) {
            self.parent = Some((dir.to_vec(), self.open_dir(dir, OFlags::PATH)?));
        }
        Ok(self.parent.as_ref().map_or(&self.root, |(_, fd)| fd))
    }

    fn open_dir(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let name = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat2(&self.root, OsStr::from_bytes(name), flags, Mode::empty(), resolve)
            .doing(|| format!("open the directory {}", shown(path)))
    }

    fn finish_dir(&self, entry: &Entry) -> Result<()> {
        let dir = self.open_dir(&entry.path, OFlags::RDONLY)?;
        set_meta(&dir, &entry.meta, self.chown)
    }
}

fn write_file(parent: &OwnedFd, name: &OsStr, data: &Data, meta: &Meta, chown: bool) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).doing(|| "make the file".into())?;
    let mut out = BufWriter::with_capacity(128 * 1024, File::from(fd));
    data.copy_to(&mut out)?;
    out.flush().doing(|| "write the file".into())?;
    let file = out.into_inner().doing(|| "write the file".into())?;
    set_meta(&OwnedFd::from(file), meta, chown)
}

fn make_node(parent: &OwnedFd, name: &OsStr, file_type: FileType, device: u64) -> Result<FileType> {
    fs::mknodat(parent, name, file_type, Mode::empty(), device).map_err(|error| {
        let what = Error::new(format!("cannot make the device or fifo: {error}"));
        if error == Errno::PERM { what.next("only root makes devices") } else { what }
    })?;
    Ok(file_type)
}

/// Owner first: chown(2) takes away setuid bits and `security.capability`. Time last: everything else changes it.
fn set_meta(fd: &OwnedFd, meta: &Meta, chown: bool) -> Result<()> {
    if chown {
        fs::fchown(fd, uid(meta), gid(meta)).map_err(|error| owner_error(error, meta))?;
    }
    fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).doing(|| "set its mode".into())?;
    for (key, value) in &meta.xattrs {
        fs::fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty())
            .doing(|| format!("set its attribute {}", shown(key)))?;
    }
    fs::futimens(fd, &times(meta)).doing(|| "set its time".into())
}

/// The same for what cannot be opened for writing: links, devices, fifos. The descriptor is O_PATH, and its name in
/// /proc leads to the very file, so that a name swapped meanwhile (the caller may build in a directory that belongs
/// to someone else) misleads nobody. There is no setxattrat(2) before Linux 6.13.
fn set_node_meta(
    parent: &OwnedFd,
    name: &OsStr,
    file_type: FileType,
    meta: &Meta,
    chown: bool,
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(parent, name, flags, Mode::empty()).doing(|| "open what was made".into())?;
    let stat = fs::fstat(&fd).doing(|| "stat what was made".into())?;
    if FileType::from_raw_mode(stat.st_mode) != file_type {
        return Err(Error::new("somebody else put another file in its place"));
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if chown {
        fs::chownat(&fd, "", uid(meta), gid(meta), AtFlags::EMPTY_PATH)
            .map_err(|error| owner_error(error, meta))?;
    }
    if file_type != FileType::Symlink {
        let mode = Mode::from_raw_mode(meta.mode);
        fs::chmod(&path, mode).doing(|| "set its mode".into())?;
    }
    for (key, value) in &meta.xattrs {
        fs::setxattr(&path, OsStr::from_bytes(key), value, XattrFlags::empty())
            .doing(|| format!("set its attribute {}", shown(key)))?;
    }
    fs::utimensat(fs::CWD, &path, &times(meta), AtFlags::empty()).doing(|| "set its time".into())
}

fn uid(meta: &Meta) -> Option<Uid> {
    Some(Uid::from_raw(meta.uid))
}

fn gid(meta: &Meta) -> Option<Gid> {
    Some(Gid::from_raw(meta.gid))
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.secs, tv_nsec: meta.mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn owner_error(error: Errno, meta: &Meta) -> Error {
    let what = Error::new(format!("cannot give it to {}:{}: {error}", meta.uid, meta.gid));
    if error == Errno::PERM {
        return what.next("run as root, or use --no-chown to keep everything in the caller's name");
    }
    what
}
