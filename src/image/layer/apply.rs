//! Entries to files, by descriptor below the staging directory; and the owner, mode, xattrs and times of each.
//!
//! Nothing is followed but by `dirs`: what an entry names is a plain name in a directory held open. Later entries
//! replace earlier ones. A whiteout hides what lower layers have, in whatever order it comes, and never what this
//! layer has.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::borrow::Borrowed;
use super::content::Content;
use super::dirs::{Dirs, Real, as_path, is_whiteout, join};
use super::name::{self, Name};
use super::pax::shown;
use super::tar::{Entry, Kind, MAX_ENTRIES, Meta, Reader, Stream};
use super::{Ids, overlay_xattr};
use crate::error::{Error, Result, errno_words};
use crate::sys::{path, xattr};

/// Most files whose digests are kept; those of more are read again.
const MAX_CONTENTS: usize = 1 << 18;
const MAX_WARNINGS: usize = 16;

pub struct Applier {
    dirs: Dirs,
    ids: Ids,
    /// Whose xattr marks an opaque directory.
    rootless: bool,
    /// Whether an entry names the root.
    root_named: bool,
    pub entries: u64,
    /// The highest user or group so far.
    pub highest_id: u32,
    /// The content of regular files, by inode.
    pub contents: HashMap<u64, [u8; 32]>,
    warnings: BTreeSet<String>,
    borrowed: Borrowed,
}

impl Applier {
    pub fn new(staging: OwnedFd, ids: Ids, rootless: bool) -> Self {
        Self {
            dirs: Dirs::new(staging),
            ids,
            rootless,
            root_named: false,
            entries: 0,
            highest_id: 0,
            contents: HashMap::new(),
            warnings: BTreeSet::new(),
            borrowed: Borrowed::default(),
        }
    }

    /// Applies a whole archive. What it says it could not keep, and the directories that it does not name.
    pub fn apply<S: Stream>(&mut self, reader: &mut Reader<S>) -> Result<()> {
        while let Some(entry) = reader.next_entry()? {
            self.entries += 1;
            self.entry(reader, &entry).map_err(|e| e.context(shown(&entry.path)))?;
            if self.entries + self.dirs.implied.len() as u64 > MAX_ENTRIES {
                return Err(Error::new(format!("the layer makes more than {MAX_ENTRIES} files")));
            }
        }
        self.dirs.finish()
    }

    pub fn implied(&mut self) -> Vec<PathBuf> {
        let root = (!self.root_named).then(PathBuf::new);
        root.into_iter().chain(std::mem::take(&mut self.dirs.implied)).collect()
    }

    /// Names of files that are to be those of lower layers, and the path of each there.
    pub fn borrowed(&mut self) -> Result<Vec<(PathBuf, PathBuf)>> {
        std::mem::take(&mut self.borrowed).left(&mut self.dirs)
    }

    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings).into_iter().collect()
    }

    fn entry<S: Stream>(&mut self, reader: &mut Reader<S>, entry: &Entry) -> Result<()> {
        match name::parse(&entry.path)? {
            Name::Ignored => Ok(()),
            Name::Root if entry.kind == Kind::Dir => {
                let root = self.dir(b"")?;
                self.root_named = true;
                self.dress_dir(&root, &entry.meta)
            }
            Name::Root => Err(Error::new("the root is a directory, and nothing else")),
            Name::Opaque { dir } => {
                let dir = self.dir(&dir)?;
                self.make_opaque(&dir)
            }
            Name::Whiteout { parent, name } => {
                let dir = self.dir(&parent)?;
                self.whiteout(&dir, &name)
            }
            Name::Plain { parent, name } => {
                let dir = self.dir(&parent)?;
                match &entry.kind {
                    Kind::Dir => self.make_dir(&dir, &name, &entry.meta),
                    Kind::File { size, extents } => {
                        let file = self.make_file(&dir, &name)?;
                        self.fill(reader, &file, *size, extents)?;
                        self.dress_file(&file, &entry.meta)
                    }
                    _ => self.make_other(&dir, &name, entry),
                }
            }
        }
    }

    fn dir(&mut self, path: &[u8]) -> Result<Real> {
        self.dirs.walk(path, true)?.ok_or_else(|| Error::call("opening a directory", libc::ENOENT))
    }

    fn make_opaque(&mut self, dir: &Real) -> Result<()> {
        xattr::fset(self.dirs.fd(dir), overlay_xattr(self.rootless), b"y")
    }

    fn whiteout(&mut self, dir: &Real, name: &[u8]) -> Result<()> {
        let file = as_path(name);
        match path::stat(self.dirs.fd(dir), file) {
            Err(e) if e.errno() == libc::ENOENT => {
                path::mknodat(self.dirs.fd(dir), file, libc::S_IFCHR, (0, 0))?;
                // The same layer is the same tree, whenever it is unpacked.
                path::set_times(self.dirs.fd(dir), file, (0, 0), (0, 0))
            }
            Err(e) => Err(e),
            // Only the lower layers' is hidden: from a directory of this layer it would show through.
            Ok(st) if st.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                let real = self.dir(&join(dir, name))?;
                self.make_opaque(&real)
            }
            Ok(_) => Ok(()),
        }
    }

    fn make_dir(&mut self, dir: &Real, name: &[u8], meta: &Meta) -> Result<()> {
        let mut hides = false;
        match path::mkdirat(self.dirs.fd(dir), as_path(name), 0o700) {
            Err(e) if e.errno() == libc::EEXIST => {
                let st = path::stat(self.dirs.fd(dir), as_path(name))?;
                if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
                    // What was there hid the lower layers' directory of this name, and so does this one.
                    self.dirs.remove(dir, name)?;
                    path::mkdirat(self.dirs.fd(dir), as_path(name), 0o700)?;
                    hides = true;
                }
            }
            other => other?,
        }
        let real = self.dir(&join(dir, name))?;
        self.dirs.named(&real);
        if hides {
            self.make_opaque(&real)?;
        }
        self.dress_dir(&real, meta)
    }

    fn make_file(&mut self, dir: &Real, name: &[u8]) -> Result<File> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = self.replacing(dir, name, |fd, name| path::openat(fd, name, flags, 0o600))?;
        Ok(File::from(file))
    }

    /// Makes a name; what an earlier entry made under it goes.
    fn replacing<T>(
        &mut self,
        dir: &Real,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>, &Path) -> Result<T>,
    ) -> Result<T> {
        match make(self.dirs.fd(dir), as_path(name)) {
            Err(e) if e.errno() == libc::EEXIST => {
                self.dirs.remove(dir, name)?;
                make(self.dirs.fd(dir), as_path(name))
            }
            other => other,
        }
    }

    fn fill<S: Stream>(
        &mut self,
        reader: &mut Reader<S>,
        file: &File,
        size: u64,
        extents: &[(u64, u64)],
    ) -> Result<()> {
        let (mut content, mut at) = (Content::default(), 0);
        for &(offset, len) in extents {
            content.skip(offset - at);
            at = offset;
            reader.read(len, |piece| {
                content.update(piece);
                file.write_all_at(piece, at)
                    .map_err(|e| Error::call("pwrite(the file)", e.raw_os_error().unwrap_or(0)))?;
                at += piece.len() as u64;
                Ok(())
            })?;
        }
        content.skip(size - at);
        if at < size {
            file.set_len(size)
                .map_err(|e| Error::call("ftruncate(the file)", e.raw_os_error().unwrap_or(0)))?;
        }
        let inode = path::stat(file.as_fd(), Path::new(""))?.st_ino;
        self.borrowed.is_own(inode);
        if self.contents.len() < MAX_CONTENTS || self.contents.contains_key(&inode) {
            self.contents.insert(inode, content.finish());
        }
        Ok(())
    }

    fn make_other(&mut self, dir: &Real, name: &[u8], entry: &Entry) -> Result<()> {
        match &entry.kind {
            Kind::Link(target) => return self.link(dir, name, target),
            Kind::Symlink(target) => {
                self.replacing(dir, name, |fd, name| path::symlinkat(as_path(target), fd, name))?;
            }
            Kind::Fifo => self.replacing(dir, name, |fd, name| {
                path::mknodat(fd, name, libc::S_IFIFO | entry.meta.mode, (0, 0))
            })?,
            // An image that has overlayfs's whiteout as a device of its own would hide files by it: there is none.
            Kind::Device { block: false, major: 0, minor: 0 } => return Ok(()),
            Kind::Device { .. } if self.rootless => {
                self.warn("devices are left out: an unprivileged user cannot make them");
                return Ok(());
            }
            Kind::Device { block, major, minor } => {
                let kind = if *block { libc::S_IFBLK } else { libc::S_IFCHR };
                self.replacing(dir, name, |fd, name| {
                    path::mknodat(fd, name, kind | entry.meta.mode, (*major, *minor))
                })?;
            }
            Kind::Dir | Kind::File { .. } => return Err(Error::new("no entry of this kind")),
        }
        self.dress_name(dir, name, &entry.kind, &entry.meta)
    }

    /// A link to what an earlier entry of this layer made, or else to a file of the lower layers: these are not at
    /// hand while a layer is unpacked, so that an empty file keeps the place ([`super::adopt`]).
    fn link(&mut self, dir: &Real, name: &[u8], target: &[u8]) -> Result<()> {
        let (parent, file) = name::target(target)?;
        let Some(from) = self.dirs.walk(&parent, false)? else {
            return self.borrow(dir, name, &join(&parent, &file));
        };
        let inode = match path::stat(self.dirs.fd(&from), as_path(&file)) {
            Ok(st) if is_whiteout(&st) => return Err(missing(target)),
            Ok(st) if st.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                return Err(Error::new(format!("{} is a directory and cannot be linked to", shown(target))));
            }
            Err(e) if e.errno() == libc::ENOENT => return self.borrow(dir, name, &join(&parent, &file)),
            other => other?.st_ino,
        };
        let real = join(&from, &file);
        if real == join(dir, name) {
            return Err(Error::new("a file that is a link to itself"));
        }
        // Replacing a directory takes what is below it along, maybe the target.
        let dir = self.dir(dir)?;
        match self.link_at(&from, &file, &dir, name) {
            Err(e) if e.errno() == libc::EEXIST => {
                self.dirs.remove(&dir, name)?;
                let Some(from) = self.dirs.walk(&parent, false)? else { return Err(missing(target)) };
                self.dir(&dir)?;
                self.link_at(&from, &file, &dir, name)?;
            }
            other => other?,
        }
        self.borrowed.linked(inode, join(&dir, name))
    }

    /// A name for the file of the lower layers; where it has one here already, another one of that.
    fn borrow(&mut self, dir: &Real, name: &[u8], target: &[u8]) -> Result<()> {
        if target.len() >= libc::PATH_MAX as usize {
            return Err(missing(target));
        }
        if target == join(dir, name) {
            return Err(Error::new("a file that is a link to itself"));
        }
        if let Some(first) = self.borrowed.first(target, &mut self.dirs)?
            && first != join(dir, name)
        {
            return self.link(dir, name, &first);
        }
        let dir = self.dir(dir)?;
        let file = self.make_file(&dir, name)?;
        let inode = path::stat(file.as_fd(), Path::new(""))?.st_ino;
        self.borrowed.made(inode, join(&dir, name), target)
    }

    fn link_at(&self, from: &Real, file: &[u8], dir: &Real, name: &[u8]) -> Result<()> {
        path::linkat(self.dirs.fd(from), as_path(file), self.dirs.fd(dir), as_path(name))
    }

    // The order of what follows matters: chown(2) takes set-user-ID and security.capability away, chmod(2) changes an
    // ACL's mask, and everything changes times.

    fn dress_file(&mut self, file: &File, meta: &Meta) -> Result<()> {
        let fd = file.as_fd();
        if self.chowns(meta) {
            path::fchown(fd, meta.uid, meta.gid).map_err(|e| unmapped(e, meta))?;
        }
        path::fchmod(fd, meta.mode)?;
        self.set_xattrs(meta, |key, value| xattr::fset(fd, key, value))?;
        path::set_times_of(fd, meta.mtime, meta.mtime)
    }

    fn dress_dir(&mut self, dir: &Real, meta: &Meta) -> Result<()> {
        if self.chowns(meta) {
            path::fchown(self.dirs.fd(dir), meta.uid, meta.gid).map_err(|e| unmapped(e, meta))?;
        }
        // Without privileges the caller must be able to work in it until it leaves.
        let closed = self.ids == Ids::Single && meta.mode & 0o700 != 0o700;
        path::fchmod(self.dirs.fd(dir), if closed { meta.mode | 0o700 } else { meta.mode })?;
        self.dirs.shall_have(dir, meta.mtime, closed.then_some(meta.mode));
        let fd = self.dirs.fd(dir).try_clone_to_owned();
        let fd = fd.map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e.raw_os_error().unwrap_or(0)))?;
        self.set_xattrs(meta, |key, value| xattr::fset(fd.as_fd(), key, value))
    }

    fn dress_name(&mut self, dir: &Real, name: &[u8], kind: &Kind, meta: &Meta) -> Result<()> {
        let file = as_path(name);
        if self.chowns(meta) {
            path::chownat(self.dirs.fd(dir), file, meta.uid, meta.gid).map_err(|e| unmapped(e, meta))?;
        }
        if !matches!(kind, Kind::Symlink(_)) {
            path::chmodat(self.dirs.fd(dir), file, meta.mode)?;
        }
        if !meta.xattrs.is_empty() {
            let fd = self.dirs.fd(dir).try_clone_to_owned();
            let fd = fd.map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e.raw_os_error().unwrap_or(0)))?;
            self.set_xattrs(meta, |key, value| xattr::set(fd.as_fd(), file, key, value))?;
        }
        path::set_times(self.dirs.fd(dir), file, meta.mtime, meta.mtime)
    }

    fn chowns(&mut self, meta: &Meta) -> bool {
        self.highest_id = self.highest_id.max(meta.uid).max(meta.gid);
        if self.ids == Ids::Single && (meta.uid, meta.gid) != (0, 0) {
            self.warn(
                "files of other owners than root belong to you now: you have only one user and one group (a range \
                 in /etc/subuid and /etc/subgid, and newuidmap, keep their owners)",
            );
        }
        self.ids == Ids::Kept
    }

    fn set_xattrs(&mut self, meta: &Meta, set: impl Fn(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        for (key, value) in meta.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            match set(key, value) {
                Ok(()) => {}
                Err(e) if self.may_lack(e.errno()) => {
                    self.warn(&format!(
                        "the xattr {} could not be kept: {}",
                        shown(key),
                        errno_words(e.errno())
                    ));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A file system without xattrs, or a kind of file that has none, is no reason to refuse the image; nor is what
    /// an unprivileged user may not set.
    fn may_lack(&self, errno: i32) -> bool {
        match errno {
            libc::ENOTSUP => true,
            libc::EPERM | libc::EINVAL => self.ids == Ids::Single || self.rootless,
            _ => false,
        }
    }

    fn warn(&mut self, words: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.insert(words.to_owned());
        }
    }
}

fn missing(target: &[u8]) -> Error {
    Error::new(format!("{} to be linked to is not in the layer before this", shown(target)))
}

/// In a user namespace only some ids exist.
fn unmapped(error: Error, meta: &Meta) -> Error {
    if error.errno() != libc::EINVAL {
        return error;
    }
    error
        .why(format!("{}:{} is not among the ids that the user namespace has", meta.uid, meta.gid))
        .next("have a larger range given to you in /etc/subuid and /etc/subgid")
}

/// The xattrs that mean the same everywhere. Left out are the words between overlayfs and its layers (`trusted.*`,
/// `user.overlay.*`), by which an image could hide or redirect what it does not own, and the labels of the machine
/// that the image was built on (`security.selinux`, `.ima`, `.evm` and the like).
pub fn is_kept(key: &[u8]) -> bool {
    let user = key.starts_with(b"user.") && !key.starts_with(b"user.overlay.");
    user || matches!(key, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}
