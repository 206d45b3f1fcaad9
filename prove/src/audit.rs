//! Is anything left? Mounts of the worker's namespace, cgroups that carry its tag, its descendants (it is a child
//! subreaper, so none gets away), files in the only two places that can be written. A namespace lives by a process, a
//! mount or an open descriptor: without processes and mounts only a descriptor of this worker could hold one, and those
//! are counted too. Must not take anything away but what carries the tag.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::place::DIR;

/// What was there before.
pub struct Audit {
    tag: String,
    mounts: BTreeMap<String, String>,
    files: BTreeSet<String>,
    fds: usize,
    hierarchies: Vec<PathBuf>,
}

impl Audit {
    pub fn new(tag: &str) -> Self {
        let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let hierarchies = info.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup").then(|| left.split(' ').nth(4).map(PathBuf::from)).flatten()
        });
        Self {
            tag: tag.to_owned(),
            mounts: mounts(),
            files: files(),
            fds: fds(),
            hierarchies: hierarchies.collect(),
        }
    }

    /// Everything that is new, in words; processes are given a moment to be gone.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        found.extend(self.new_mounts().iter().map(|point| format!("mount {point}")));
        // Elsewhere the machine's other processes may take theirs away, which takes them from here, too.
        let (before, now) = (&self.mounts, mounts());
        let gone = before.iter().filter(|(key, point)| !now.contains_key(*key) && point.starts_with(DIR));
        found.extend(gone.map(|(_, point)| format!("mount {point} is gone")));
        found.extend(self.cgroups().iter().map(|path| format!("cgroup {}", path.display())));
        found.extend(processes(Duration::from_millis(500)));
        let now = files();
        found.extend(now.difference(&self.files).map(|file| format!("file {file}")));
        found.extend(self.files.difference(&now).map(|file| format!("file {file} is gone")));
        if fds() != self.fds {
            found.push(format!("{} descriptors of the driver's instead of {}", fds(), self.fds));
        }
        found
    }

    /// Where they are. Whoever renames a directory, anywhere on the machine, renames what is mounted below it here,
    /// too: a mount that was there before is no new one.
    fn new_mounts(&self) -> Vec<String> {
        mounts()
            .into_iter()
            .filter(|(key, _)| !self.mounts.contains_key(key))
            .map(|(_, point)| point)
            .collect()
    }

    /// Cgroups with the tag, the deepest first.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            let top = fs::read_dir(hierarchy).into_iter().flatten().flatten();
            let own = top.filter(|entry| entry.file_name().to_string_lossy().contains(&self.tag));
            let mut waiting: Vec<PathBuf> = own.map(|entry| entry.path()).collect();
            while let Some(dir) = waiting.pop() {
                let below = fs::read_dir(&dir).into_iter().flatten().flatten();
                let dirs = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                waiting.extend(dirs.map(|entry| entry.path()));
                found.push(dir);
            }
        }
        found.sort();
        found.reverse();
        found
    }

    /// Takes away what was left, so that one failure does not become many.
    pub fn sweep(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !processes(Duration::ZERO).is_empty() && Instant::now() < deadline {
            for pid in descendants() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for cgroup in self.cgroups() {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            for _ in 0..200 {
                if fs::remove_dir(&cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for point in self.new_mounts() {
            let _ = umount2(Path::new(&point), MntFlags::MNT_DETACH);
        }
        for file in files().difference(&self.files).collect::<Vec<_>>().into_iter().rev() {
            let _ = fs::remove_file(file).or_else(|_| fs::remove_dir(file));
        }
    }
}

/// What a mount is, by its number, device and root, and where.
fn mounts() -> BTreeMap<String, String> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        Some((
            format!("{} {} {}", fields.first()?, fields.get(2)?, fields.get(3)?),
            (*fields.get(4)?).to_owned(),
        ))
    };
    info.lines().filter_map(line).collect()
}

fn fds() -> usize {
    fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0)
}

/// Every file that can be written to, but what the driver itself writes.
fn files() -> BTreeSet<String> {
    let own = ["out", "err", "log", "bundle/config.json", "files/pid"].map(|name| format!("{DIR}/{name}"));
    let mut found = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = ["/run", "/tmp"].map(PathBuf::from).into();
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            let path = entry.path().to_string_lossy().into_owned();
            // The state root itself stays, as it does for every runtime.
            if !own.contains(&path) && path != format!("{DIR}/state") {
                found.insert(path);
            }
        }
    }
    found
}

/// All descendants of this process.
fn descendants() -> Vec<i32> {
    below(std::process::id().cast_signed())
}

/// All descendants of a process.
pub fn below(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut waiting = vec![pid];
    while let Some(pid) = waiting.pop() {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        let children: Vec<i32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        found.extend(&children);
        waiting.extend(children);
    }
    found
}

/// Reaps what has ended, and names what has not within `moment`.
pub fn processes(moment: Duration) -> Vec<String> {
    let deadline = Instant::now() + moment;
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let left = descendants();
        if left.is_empty() || Instant::now() >= deadline {
            let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            return left
                .iter()
                .map(|pid| format!("process {pid} {}", name(pid).replace('\0', " ")))
                .collect();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
