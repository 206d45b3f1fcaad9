//! The directories of a layer that is being applied, held open, and the way to them.
//!
//! Every step is one plain name in a directory held open, never followed by the kernel: links are resolved here, as a
//! container would see them, so that no path can lead out. A bounded number of directories is open; one that leaves
//! gets back the times and the mode that it shall have, whatever was made in it meanwhile.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::name::MAX_DEPTH;
use super::pax::shown;
use crate::error::{Error, Result};
use crate::sys::path::{self, Time};

/// Most directories that are open beside those of a path on its way.
const OPEN: usize = 128;
/// Most links that one look-up may go through (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Most bytes of the names of directories that no entry names.
const MAX_IMPLIED: usize = 8 << 20;

/// A directory's path from the root, without a link in it: what a look-up leads to.
pub type Real = Rc<[u8]>;

struct Dir {
    fd: OwnedFd,
    used: u64,
    mtime: Time,
    /// The mode that it gets when it leaves, where the caller could not work in it with that.
    mode: Option<u32>,
}

pub struct Dirs {
    open: HashMap<Real, Dir>,
    clock: u64,
    /// Directories that were made although no entry names them.
    pub implied: Vec<PathBuf>,
    implied_bytes: usize,
}

impl Dirs {
    /// `root` is where the layer goes, an empty directory.
    pub fn new(root: OwnedFd) -> Self {
        let root = Dir { fd: root, used: 0, mtime: (0, 0), mode: None };
        let open = HashMap::from([(Real::from(&b""[..]), root)]);
        Self { open, clock: 0, implied: Vec::new(), implied_bytes: 0 }
    }

    /// The directory under a clean path, opened, links on the way resolved; made where it is missing, if `make`.
    pub fn walk(&mut self, path: &[u8], make: bool) -> Result<Option<Real>> {
        self.walk_counted(path, make, &mut 0)
    }

    /// One that was walked to just now.
    pub fn fd(&self, real: &Real) -> BorrowedFd<'_> {
        self.open[real].fd.as_fd()
    }

    fn walk_counted(&mut self, path: &[u8], make: bool, links: &mut usize) -> Result<Option<Real>> {
        if let Some(real) = self.touch(path) {
            return Ok(Some(real));
        }
        let (parent, name) = split(path);
        let Some(above) = self.walk_counted(parent, make, links)? else { return Ok(None) };
        self.step(&above, name, make, links)
    }

    /// From an open directory to what `name` in it leads to.
    fn step(&mut self, above: &Real, name: &[u8], make: bool, links: &mut usize) -> Result<Option<Real>> {
        let real = join(above, name);
        if let Some(real) = self.touch(&real) {
            return Ok(Some(real));
        }
        let depth = real.iter().filter(|byte| **byte == b'/').count();
        if depth >= MAX_DEPTH || real.len() >= libc::PATH_MAX as usize {
            return Err(Error::new(format!("{} is too deep", shown(&real))));
        }
        let (dir, file) = (self.fd(above), as_path(name));
        let st = match path::stat(dir, file) {
            Ok(st) => st,
            Err(e) if e.errno() == libc::ENOENT && !make => return Ok(None),
            Err(e) if e.errno() == libc::ENOENT => {
                path::mkdirat(dir, file, 0o755)?;
                return self.imply(above, name, real).map(Some);
            }
            Err(e) => return Err(e),
        };
        match st.st_mode & libc::S_IFMT {
            libc::S_IFDIR => self.hold(above, name, real).map(Some),
            libc::S_IFLNK => {
                let target = path::readlinkat(dir, file)?.into_os_string().into_vec();
                self.follow(above, &target, make, links)
            }
            _ if is_whiteout(&st) && !make => Ok(None),
            _ if is_whiteout(&st) => {
                path::unlinkat(dir, file, 0)?;
                path::mkdirat(dir, file, 0o755)?;
                self.imply(above, name, real).map(Some)
            }
            _ => Err(Error::call(format_args!("{} is no directory", shown(&real)), libc::ENOTDIR)),
        }
    }

    /// Where a link in `above` leads to: an absolute one begins at the root, and nothing is above that.
    fn follow(&mut self, above: &Real, target: &[u8], make: bool, links: &mut usize) -> Result<Option<Real>> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Error::call("following links", libc::ELOOP));
        }
        let mut at = if target.starts_with(b"/") { Real::from(&b""[..]) } else { above.clone() };
        for part in target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
            let next = match part {
                b".." => self.walk_counted(split(&at).0, make, links)?,
                _ => {
                    self.walk_counted(&at, make, links)?;
                    self.step(&at, part, make, links)?
                }
            };
            let Some(next) = next else { return Ok(None) };
            at = next;
        }
        self.walk_counted(&at, make, links)
    }

    /// Opens the directory `name` in `above` and keeps it, with the times that it has now.
    pub fn hold(&mut self, above: &Real, name: &[u8], real: Vec<u8>) -> Result<Real> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let (dir, file) = (self.fd(above), as_path(name));
        let st = path::stat(dir, file)?;
        let (fd, mode) = open_own(dir, file, flags)?;
        self.make_room()?;
        self.clock += 1;
        let real = Real::from(real);
        let dir = Dir { fd, used: self.clock, mtime: (st.st_mtime, st.st_mtime_nsec as u32), mode };
        self.open.insert(real.clone(), dir);
        Ok(real)
    }

    fn imply(&mut self, above: &Real, name: &[u8], real: Vec<u8>) -> Result<Real> {
        self.implied_bytes += real.len();
        if self.implied_bytes > MAX_IMPLIED {
            return Err(Error::new("the layer's entries lie in too many directories that it does not name"));
        }
        self.implied.push(PathBuf::from(std::ffi::OsString::from_vec(real.clone())));
        let real = self.hold(above, name, real)?;
        // Nobody says when it was made; the same layer shall always be the same tree.
        self.shall_have(&real, (0, 0), None);
        Ok(real)
    }

    /// What a directory shall have in the end.
    pub fn shall_have(&mut self, real: &Real, mtime: Time, mode: Option<u32>) {
        if let Some(dir) = self.open.get_mut(real) {
            dir.mtime = mtime;
            dir.mode = mode;
        }
    }

    /// An entry names a directory that was implied before.
    pub fn named(&mut self, real: &Real) {
        self.implied.retain(|implied| implied.as_os_str().as_bytes() != &**real);
    }

    /// Removes `name` in `above` and everything below it; says whether it was a directory.
    pub fn remove(&mut self, above: &Real, name: &[u8]) -> Result<bool> {
        let real = join(above, name);
        let below = [&real[..], b"/"].concat();
        self.open.retain(|path, _| **path != *real && !path.starts_with(&below));
        self.implied.retain(|path| {
            let path = path.as_os_str().as_bytes();
            path != real && !path.starts_with(&below)
        });
        remove_tree(self.fd(above), as_path(name), 0)
    }

    /// Gives every directory that is still open what it shall have.
    pub fn finish(&mut self) -> Result<()> {
        self.open.values().try_for_each(Dir::settle)
    }

    fn touch(&mut self, path: &[u8]) -> Option<Real> {
        self.clock += 1;
        let (real, _) = self.open.get_key_value(path)?;
        let real = real.clone();
        self.open.get_mut(path)?.used = self.clock;
        Some(real)
    }

    /// Lets the one go that was not used for the longest time; the root stays.
    fn make_room(&mut self) -> Result<()> {
        if self.open.len() < OPEN {
            return Ok(());
        }
        let oldest = self.open.iter().filter(|(path, _)| !path.is_empty()).min_by_key(|(_, dir)| dir.used);
        let oldest = oldest.map(|(path, _)| path.clone());
        match oldest.and_then(|path| self.open.remove(&path)) {
            Some(dir) => dir.settle(),
            None => Ok(()),
        }
    }
}

impl Dir {
    fn settle(&self) -> Result<()> {
        if let Some(mode) = self.mode {
            path::fchmod(self.fd.as_fd(), mode)?;
        }
        path::set_times_of(self.fd.as_fd(), self.mtime, self.mtime)
    }
}

/// Removes a name and everything below it; says whether it was a directory.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &Path, depth: usize) -> Result<bool> {
    if path::stat(dir, name)?.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return path::unlinkat(dir, name, 0).map(|()| false);
    }
    if depth > MAX_DEPTH {
        return Err(Error::new("a directory is too deep to be removed"));
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let (inner, _) = open_own(dir, name, flags)?;
    for name in path::list(inner.as_fd())? {
        remove_tree(inner.as_fd(), Path::new(&name), depth + 1)?;
    }
    path::unlinkat(dir, name, libc::AT_REMOVEDIR).map(|()| true)
}

/// Opens a name of our own tree, which its mode may close even to us: without CAP_DAC_OVERRIDE it is opened up for
/// that. Then its mode comes back with it, and is to be restored: of a directory when what is in it was reached.
pub fn open_own(dir: BorrowedFd<'_>, name: &Path, flags: i32) -> Result<(OwnedFd, Option<u32>)> {
    match path::openat(dir, name, flags, 0) {
        Err(e) if e.errno() == libc::EACCES => {
            let mode = path::stat(dir, name)?.st_mode & 0o7777;
            path::chmodat(dir, name, mode | 0o700)?;
            Ok((path::openat(dir, name, flags, 0)?, Some(mode)))
        }
        other => Ok((other?, None)),
    }
}

/// A character device 0/0: overlayfs's whiteout (overlayfs.rst, "whiteouts and opaque directories").
pub fn is_whiteout(st: &libc::stat) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == 0
}

pub fn as_path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The parent of a clean path, and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
