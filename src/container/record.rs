//! The record: the directory of a container below the state root, and what stands in it.
//!
//! ```text
//! ROOT/ID/            locked (flock) by whoever changes the container
//!         record      a line of JSON for each step; the last whole line counts. The first is an intent, written before
//!                     anything outside is touched. An update puts one line in the place of all
//!         config.json the config as it was at create, byte for byte
//!         notify/     the directory that the container sees as /run/notify, where its maker had a NOTIFY_SOCKET
//!         start       a FIFO that the created process holds locked; execve lets go of the lock
//! ```
//! Status is never stored: the kernel is asked. Whoever is killed at any instant leaves a record from which `delete -f`
//! can undo everything, because the record comes first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::cgroup::Traces;
use crate::error::{Error, Result};
use crate::sys;

const STATE: &str = "record";
const CONFIG: &str = "config.json";
pub const START: &str = "exec.fifo";
const RECORD_LIMIT: usize = 8 << 20;

/// A container's name, checked before any path is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    pub fn new(id: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        let ok = !id.is_empty() && id != "." && id != ".." && id.len() <= 255 && id.chars().all(allowed);
        if ok {
            Ok(Self(id.to_owned()))
        } else if id.is_empty() {
            Err(Error::new("container id cannot be empty"))
        } else {
            Err(Error::new("invalid container ID format").why(format!(
                "{:?} is not 1 to 255 of A-Z a-z 0-9 _ + - .",
                id.chars().take(300).collect::<String>()
            )))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far the container's life has been written down.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// An intent: something may have been made, nothing is promised.
    Creating,
    Created,
}

/// Facts about a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub phase: Phase,
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    pub owner: u32,
    /// 0 before there is a process.
    pub pid: i32,
    /// What tells the process from a later one with its number, see [`identity`].
    pub identity: u64,
    /// The boot in which the pid means something.
    pub boot_id: String,
    pub cgroup: Traces,
    /// CLONE_NEW* flags of the namespaces that are not the host's.
    pub namespaces: i32,
    /// Hooks before the start have begun: poststop hooks are owed.
    pub hooks_begun: bool,
    /// `true` also where it is not known: in records of older versions.
    #[serde(default = "perhaps")]
    pub has_poststart: bool,
    pub has_poststop: bool,
    pub no_new_keyring: bool,
    pub annotations: Vec<(String, String)>,
    /// The limits since the last update; `None`: those of the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<LinuxResources>>,
    /// Descriptors from 3 on that the program was given.
    #[serde(default)]
    pub preserve_fds: u32,
    /// The groups of resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::apply::rdt::Traces>,
}

fn perhaps() -> bool {
    true
}

/// The directory of all containers.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    pub path: PathBuf,
}

impl Root {
    /// Opens the state root, making it (0700) when `make`.
    pub fn open(path: &Path, make: bool) -> Result<Self> {
        match sys::path::open(path, libc::O_RDONLY | libc::O_DIRECTORY) {
            Ok(dir) => Ok(Self { dir, path: path.to_owned() }),
            Err(e) if e.errno() == libc::ENOENT && make => {
                make_private(path)?;
                Self::open(path, false)
            }
            Err(e) if e.errno() == libc::ENOENT => Err(missing()),
            Err(e) => Err(e.context("state root")),
        }
    }

    pub fn make_sticky(&self) -> Result<()> {
        sys::path::fchmod(self.dir.as_fd(), 0o1700)
    }

    /// Makes the directory of a new container and locks it; the caller writes the intent next.
    pub fn claim(&self, id: &Id) -> Result<Entry> {
        let name = Path::new(id.as_str());
        for _ in 0..8 {
            match sys::path::mkdirat(self.dir.as_fd(), name, 0o700) {
                Ok(()) => {}
                Err(e) if e.errno() == libc::EEXIST => {
                    if self.sweep(id)? {
                        continue;
                    }
                    return Err(Error::new("container with given ID already exists")
                        .why(format!("{} is in use", self.path.join(name).display()))
                        .next(format!("choose another id, or remove it: delete --force {}", id.as_str())));
                }
                Err(e) => return Err(e),
            }
            // A `delete -f` may take the still empty directory away between these two calls: then make it again.
            let Ok(dir) = self.enter(name) else { continue };
            if sys::fd::flock(dir.as_fd(), libc::LOCK_EX | libc::LOCK_NB)? && self.is_current(name, &dir)? {
                let root = self.dir.try_clone().map_err(io("dup"))?;
                return Ok(Entry::new(dir, root, id, true));
            }
        }
        Err(Error::new("container with given ID already exists")
            .why("another process is making or deleting it"))
    }

    /// Removes the directory of a create that died before its intent: nothing outside was touched. `false`: it is in
    /// use.
    fn sweep(&self, id: &Id) -> Result<bool> {
        let Some(entry) = self.try_entry(id)? else { return Ok(true) };
        if !entry.lock(false)? || entry.record()?.is_some() {
            return Ok(false);
        }
        entry.erase()?;
        Ok(true)
    }

    /// The directory of a container, unlocked; an error that says so when there is none.
    pub fn entry(&self, id: &Id) -> Result<Entry> {
        self.try_entry(id)?.ok_or_else(missing)
    }

    pub fn try_entry(&self, id: &Id) -> Result<Option<Entry>> {
        match self.enter(Path::new(id.as_str())) {
            Ok(dir) => {
                let root = self.dir.try_clone().map_err(io("dup"))?;
                Ok(Some(Entry::new(dir, root, id, false)))
            }
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<Id>> {
        let mut names: Vec<String> =
            sys::path::list(self.dir.as_fd())?.into_iter().filter_map(|n| n.into_string().ok()).collect();
        names.sort();
        Ok(names.iter().filter_map(|name| Id::new(name).ok()).collect())
    }

    fn enter(&self, name: &Path) -> Result<OwnedFd> {
        let resolve = sys::path::RESOLVE_BENEATH | sys::path::RESOLVE_NO_SYMLINKS;
        sys::path::openat2(self.dir.as_fd(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0, resolve)
    }

    /// Whether the open directory is still the one under its name.
    fn is_current(&self, name: &Path, dir: &OwnedFd) -> Result<bool> {
        let here = sys::path::stat(dir.as_fd(), Path::new(""))?;
        Ok(sys::path::stat(self.dir.as_fd(), name).is_ok_and(|st| st.st_ino == here.st_ino))
    }
}

fn missing() -> Error {
    Error::new("container does not exist").next("`list` shows the containers under this --root")
}

fn io(call: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::call(call, e.raw_os_error().unwrap_or(0))
}

fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::call(format_args!("mkdir({path:?})"), e.raw_os_error().unwrap_or(0)))
}

/// The directory of one container.
#[derive(Debug)]
pub struct Entry {
    dir: OwnedFd,
    root: OwnedFd,
    pub id: Id,
    /// This process holds the lock by this very descriptor.
    locked: std::cell::Cell<bool>,
    /// The record, open for its next line, and how long this process has made it.
    journal: std::cell::RefCell<Option<(OwnedFd, u64)>>,
}

impl Entry {
    fn new(dir: OwnedFd, root: OwnedFd, id: &Id, locked: bool) -> Self {
        Self { dir, root, id: id.clone(), locked: locked.into(), journal: None.into() }
    }

    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Takes the lock that every change of the container needs; it goes with this value. `Ok(false)`: held by another.
    pub fn lock(&self, wait: bool) -> Result<bool> {
        let got = sys::fd::flock(self.dir.as_fd(), libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB })?;
        self.locked.set(got);
        Ok(got)
    }

    /// The same, for at most so long.
    pub fn lock_within(&self, time: Duration) -> Result<bool> {
        let deadline = Instant::now() + time;
        while !self.lock(false)? {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(true)
    }

    pub fn is_locked(&self) -> bool {
        self.locked.get()
    }

    pub fn unlock(&self) -> Result<()> {
        self.locked.set(false);
        sys::fd::flock(self.dir.as_fd(), libc::LOCK_UN).map(drop)
    }

    /// The record: the last whole line. `None`: a create died before its intent was whole, and so before it touched
    /// anything.
    pub fn record(&self) -> Result<Option<Record>> {
        let bytes = match self.read(STATE) {
            Ok(bytes) => bytes,
            Err(e) if e.errno() == libc::ENOENT => return Ok(None),
            Err(e) => return Err(e),
        };
        last_line(&bytes)
            .map_err(|e| Error::new(format!("the record of container {} is damaged: {e}", self.id.as_str())))
    }

    /// Appends the record as it is now. The state root is a tmpfs as a rule, so no fsync.
    pub fn write(&self, record: &Record) -> Result<()> {
        let line = line(record)?;
        let mut journal = self.journal.borrow_mut();
        let (file, length) = match journal.take() {
            Some(open) => open,
            None => (self.open(STATE, libc::O_APPEND)?, 0),
        };
        self.fill(STATE, &file, &line)?;
        *journal = Some((file, length + line.len() as u64));
        Ok(())
    }

    /// Whether the record is still what this process alone has written: then it need not be read again.
    pub fn is_mine(&self) -> Result<bool> {
        let journal = self.journal.borrow();
        let Some((file, length)) = journal.as_ref() else { return Ok(false) };
        let mine = sys::path::stat(file.as_fd(), Path::new(""))?;
        Ok(sys::path::stat(self.dir.as_fd(), Path::new(STATE))
            .is_ok_and(|there| (there.st_ino, there.st_size as u64) == (mine.st_ino, *length)))
    }

    /// Puts the record in the place of all its lines, whole or not at all: updates may come by the thousand.
    pub fn replace(&self, record: &Record) -> Result<()> {
        const NEXT: &str = "record.next";
        self.put(NEXT, libc::O_TRUNC, &line(record)?)?;
        sys::path::renameat(self.dir.as_fd(), Path::new(NEXT), Path::new(STATE), 0)
    }

    pub fn write_config(&self, raw: &[u8]) -> Result<()> {
        self.put(CONFIG, libc::O_TRUNC, raw)
    }

    /// The config as it was at create.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file =
            sys::path::openat(self.dir.as_fd(), Path::new(name), libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
        sys::fd::read_to_end(file.as_fd(), RECORD_LIMIT)
    }

    fn put(&self, name: &str, how: i32, bytes: &[u8]) -> Result<()> {
        self.fill(name, &self.open(name, how)?, bytes)
    }

    fn open(&self, name: &str, how: i32) -> Result<OwnedFd> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW | how;
        sys::path::openat(self.dir.as_fd(), Path::new(name), flags, 0o600)
    }

    fn fill(&self, name: &str, file: &OwnedFd, bytes: &[u8]) -> Result<()> {
        sys::fd::write_all(file.as_fd(), bytes)
            .map_err(|e| e.context(format_args!("writing {name} of container {}", self.id.as_str())))
    }

    /// Removes the directory with everything in it; what is gone already is no error.
    pub fn erase(&self) -> Result<()> {
        let remove = |name: &Path| sys::path::remove_if_there(self.dir.as_fd(), name, 0).map(drop);
        let name = Path::new(self.id.as_str());
        let remove_dir = || sys::path::remove_if_there(self.root.as_fd(), name, libc::AT_REMOVEDIR).map(drop);
        remove(Path::new(CONFIG))?;
        remove(Path::new(START))?;
        // From here on nothing outside is ours, and a directory without a record is taken away by whoever meets it.
        remove(Path::new(STATE))?;
        match remove_dir() {
            Err(e) if e.errno() == libc::ENOTEMPTY => {}
            other => return other,
        }
        for other in sys::path::list(self.dir.as_fd())? {
            remove_deep(self.dir.as_fd(), Path::new(&other), 4)?;
        }
        remove_dir()
    }
}

/// The last whole line of a record: whoever was killed in the middle of one had not done yet what it announces.
pub fn last_line(bytes: &[u8]) -> serde_json::Result<Option<Record>> {
    let whole = &bytes[..bytes.iter().rposition(|b| *b == b'\n').unwrap_or(0)];
    match whole.rsplit(|b| *b == b'\n').next().filter(|line| !line.is_empty()) {
        None => Ok(None),
        Some(line) => serde_json::from_slice(line).map(Some),
    }
}

pub fn line(record: &Record) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record).map_err(|e| Error::new(format!("writing the record: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// Removes a file, or a directory with what is in it. Ours are flat; `depth` bounds what a container with power over
/// the host could have put there.
fn remove_deep(dir: BorrowedFd<'_>, name: &Path, depth: u32) -> Result<()> {
    match sys::path::remove_if_there(dir, name, 0) {
        Err(e) if e.errno() == libc::EISDIR && depth > 0 => {}
        other => return other.map(drop),
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let inner = sys::path::openat(dir, name, flags, 0)?;
    for name in sys::path::list(inner.as_fd())? {
        remove_deep(inner.as_fd(), Path::new(&name), depth - 1)?;
    }
    sys::path::unlinkat(dir, name, libc::AT_REMOVEDIR)
}

/// The id of this boot.
pub fn boot_id() -> Result<String> {
    Ok(crate::host::read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What tells a process from a later one with the same number: the inode of its pidfd, or on older kernels its start
/// time in clock ticks since boot (proc_pid_stat(5), field 22). `None` when it is gone.
pub fn identity(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Option<u64>> {
    match sys::process::pidfd_identity(pidfd)? {
        Some(inode) => Ok(Some(inode)),
        None => Ok(start_time(pid)),
    }
}

fn start_time(pid: i32) -> Option<u64> {
    let text = crate::host::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: what counts stands behind the last one.
    text[text.rfind(')')? + 1..].split_whitespace().nth(19)?.parse().ok()
}

/// A time as RFC 3339 in UTC with nanoseconds; without trailing zeros, as Go prints it.
pub fn rfc3339((seconds, nanoseconds): (i64, u32)) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1970-01-01 to a civil date, counting years from March (Howard Hinnant, "chrono-compatible dates").
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text =
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if nanoseconds > 0 {
        let fraction = format!(".{nanoseconds:09}");
        text += fraction.trim_end_matches('0');
    }
    text + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_root_are_none() {
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a\n", "a\0", "ä", long.as_str()] {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "-x", "A_b+c.d-9", "...", &"x".repeat(255)] {
            assert!(Id::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn times_as_go_prints_them() {
        assert_eq!(rfc3339((0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339((951_827_696, 5_000_000)), "2000-02-29T12:34:56.005Z");
        assert_eq!(rfc3339((4_102_444_799, 123_456_789)), "2099-12-31T23:59:59.123456789Z");
    }
}
