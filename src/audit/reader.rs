//! The files of one process below /proc, through one descriptor of its directory: once the process is gone, every read
//! is an error (ESRCH), whoever has its number then.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::sys::{fd, path};

const LIMIT: usize = 16 << 20;

pub struct Reader {
    dir: OwnedFd,
    status: String,
}

impl Reader {
    pub fn open(pid: i32) -> Result<Self> {
        let dir = path::open(Path::new(&format!("/proc/{pid}")), libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut reader = Self { dir, status: String::new() };
        reader.status = reader.text("status")?;
        Ok(reader)
    }

    /// A file of the kernel's in the directory, as text.
    pub fn text(&self, file: &str) -> Result<String> {
        let file = path::openat(self.dir.as_fd(), Path::new(file), libc::O_RDONLY, 0)?;
        let bytes = fd::read_to_end(file.as_fd(), LIMIT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The value of a line of proc_pid_status(5).
    pub fn status(&self, name: &str) -> Result<&str> {
        let find = |line: &'_ str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let line = self.status.lines().find(|line| find(line));
        line.map(|line| line[name.len() + 1..].trim())
            .ok_or_else(|| Error::new(format!("/proc/PID/status has no line {name}")))
    }

    /// Device and inode of what a magic link of the directory leads to.
    pub fn identity(&self, link: &str) -> Result<(u64, u64)> {
        let file = path::openat(self.dir.as_fd(), Path::new(link), libc::O_PATH, 0)?;
        let st = path::stat(file.as_fd(), Path::new(""))?;
        Ok((st.st_dev, st.st_ino))
    }

    /// The root of the process: what lies below is looked up without leaving it.
    pub fn root(&self) -> Result<RootDir> {
        path::openat(self.dir.as_fd(), Path::new("root"), libc::O_PATH | libc::O_DIRECTORY, 0)
            .map(RootDir::new)
    }

    /// Its open descriptors: number, what each is, and the mount it lies on.
    pub fn descriptors(&self) -> Result<Vec<(i32, libc::stat, u64)>> {
        let list = path::openat(self.dir.as_fd(), Path::new("fd"), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut found = Vec::new();
        for name in path::list(list.as_fd())? {
            let name = PathBuf::from(name);
            let Some(number) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            // Closed meanwhile: the process lives on while it is read.
            let Ok(file) = path::openat(list.as_fd(), &name, libc::O_PATH, 0) else { continue };
            found.push((number, path::stat(file.as_fd(), Path::new(""))?, mount_of(&file)?));
        }
        found.sort_by_key(|(number, ..)| *number);
        Ok(found)
    }
}

/// The number of the mount that an open file lies on (proc_pid_fdinfo(5)), as mountinfo has it.
pub fn mount_of(file: &OwnedFd) -> Result<u64> {
    use std::os::fd::AsRawFd;
    let text = crate::host::read(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::new("/proc/self/fdinfo has no mnt_id"))
}
