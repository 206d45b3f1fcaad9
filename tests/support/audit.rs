//! Is anything left? Mounts, cgroups, processes and files are found by the bundle's tag, which is unique.
//!
//! Only things that carry the tag are ever touched: the machine belongs to others as well.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually;

/// Everything that outlived the bundle's containers, in words.
pub fn leftovers(tag: &str, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(mounts(dir).into_iter().map(|path| format!("mount {}", path.display())));
    found.extend(cgroups(tag).into_iter().map(|path| format!("cgroup {}", path.display())));
    found.extend(settled(tag).into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
    let states = fs::read_dir(dir.join("root")).into_iter().flatten().flatten();
    found.extend(states.map(|entry| format!("state {}", entry.path().display())));
    found
}

/// Takes away what `leftovers` names, so that one failure does not become many.
pub fn sweep(tag: &str, dir: &Path) {
    for cgroup in cgroups(tag) {
        for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
    }
    for (pid, _) in processes(tag) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for cgroup in cgroups(tag) {
        for _ in 0..100 {
            if fs::remove_dir(&cgroup).is_ok() || !cgroup.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    for mount in mounts(dir) {
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
    }
}

/// Mount points below `dir`, the deepest first.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = info.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.sort();
    below.reverse();
    below
}

/// Cgroup directories that carry the tag, in every hierarchy, the deepest first.
pub fn cgroups(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(PathBuf::from("/sys/fs/cgroup"), false)];
    while let Some((dir, within)) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let within = within || entry.file_name().to_string_lossy().contains(tag);
                if within {
                    found.push(entry.path());
                }
                waiting.push((entry.path(), within));
            }
        }
    }
    found.sort();
    found.reverse();
    found
}

/// Processes whose command line carries the tag: the runtime's own, monitors, hooks.
fn processes(tag: &str) -> Vec<(i32, String)> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(tag).then_some((pid, line))
    })
    .collect()
}

/// The same, once those that were just ending have ended.
fn settled(tag: &str) -> Vec<(i32, String)> {
    for _ in 0..50 {
        if processes(tag).is_empty() {
            return Vec::new();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    processes(tag)
}
