//! Where `jug bench` works: a mount namespace with a plain cgroup v2 view and a tmpfs, and a PID namespace, so that
//! when the measuring process ends, however it ends, everything that it started ends with it. A guard waits outside
//! for that, however it comes, and removes what the kernel does not: cgroups and directories. Nothing of the machine's
//! is changed, but KSM switched on while machines are measured with it; the guard puts it back.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::machine::read;
use super::measure;
use crate::error::{Error, Result};

/// Names the directory to the process inside.
const INSIDE: &str = "JUG_BENCH_PLACE";

/// Names the process whose run it guards, and KSM's state before, to the guard.
const GUARD: &str = "JUG_BENCH_GUARD";

const KSM: &str = "/sys/kernel/mm/ksm/run";

/// On a hybrid host a second process keeps the namespace as it was, for containers that shall have a memory cgroup.
const SETUP: &str = r#"set -e
mount -t tmpfs -o mode=755 jug-bench "$1"
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    unshare --mount sleep infinity & echo $! >"$1/hybrid"
    sleep 0.1
    umount -R /sys/fs/cgroup 2>/dev/null || umount -R -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
shift
exec "$@""#;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The end of a run that somebody wished for.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Error::new("interrupted").next("run the same command again: it goes on where it was"));
    }
    Ok(())
}

/// The signals that end a run in good order. Blocked in every thread from here on; children begin with none blocked.
fn wishes_to_end() -> Result<SigSet> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|why| Error::call("pthread_sigmask()", why as i32))?;
    Ok(signals)
}

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// The directory of this run, if this is the process inside.
pub fn inside() -> Result<Option<PathBuf>> {
    let Some(dir) = std::env::var_os(INSIDE) else { return Ok(None) };
    let signals = wishes_to_end()?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(Some(dir.into()))
}

/// The process that cleans up, if this is it: it reads a pipe of which the run has the other end, and so learns of any
/// end of it. True when it is done.
pub fn guard() -> bool {
    let Some(of) = std::env::var(GUARD).ok() else { return false };
    let Some((outside, folding)) = of.split_once(' ') else { return true };
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    if let Ok(outside) = outside.parse() {
        sweep(outside);
    }
    if !folding.is_empty() && read(KSM) != folding {
        let _ = fs::write(KSM, folding);
    }
    true
}

/// KSM is on until this is dropped; what it folded is then told apart again, unless it was on before.
pub struct Folding(String);

/// Switches KSM on.
pub fn fold() -> Result<Folding> {
    let before = read(KSM);
    fs::write(KSM, "1")
        .map_err(|why| Error::new(format!("{KSM}: {why}")).why("KSM cannot be switched on"))?;
    Ok(Folding(before))
}

impl Drop for Folding {
    fn drop(&mut self) {
        if self.0 != "1" {
            let _ = fs::write(KSM, "2").and_then(|()| fs::write(KSM, &self.0));
        }
    }
}

/// Runs this program again with the same arguments, inside, and has it cleaned up behind. Its exit code.
pub fn enclose() -> Result<u8> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("jug bench needs root")
            .why("contenders are started as their engines start them, and memory is counted for the whole machine")
            .next("run it with sudo; jug bench compare needs no root"));
    }
    let failed = |why: io::Error| Error::new(format!("unshare --mount --pid: {why}"));
    let outside = std::process::id();
    let dir = PathBuf::from(format!("/tmp/{}", name(outside)));
    fs::create_dir_all(&dir).map_err(failed)?;
    let signals = wishes_to_end()?;
    let own = std::env::current_exe().map_err(failed)?;
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut guard = Command::new(&own)
        .args(std::env::args_os().skip(1))
        .env(GUARD, format!("{outside} {}", read(KSM)))
        .stdin(reader)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // setpriv(1): if this process is killed outright, the ones inside follow.
    let enclosed = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", SETUP, "sh"])
        .arg(&dir)
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, &dir)
        .spawn();
    let status = enclosed.and_then(|mut child| {
        let unshare = child.id();
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                for inside in measure::children(unshare) {
                    let _ = kill(Pid::from_raw(inside.cast_signed()), Signal::SIGTERM);
                }
            }
        });
        child.wait()
    });
    drop(writer);
    let _ = guard.wait();
    let status = status.map_err(failed)?;
    Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1) as u8)
}

/// What everything of a run is called: directory, containers and so their cgroups.
fn name(outside: u32) -> String {
    format!("jug-bench-{outside}")
}

/// The name for this run, from inside.
pub fn prefix(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "jug-bench".into(), |name| name.to_string_lossy().into_owned())
}

/// Removes what a run leaves: its directories, and its cgroups, bottom up, in every hierarchy. Its processes are gone
/// or get killed.
fn sweep(outside: u32) {
    // A child that was just being made may come after the first look.
    for _ in 0..100 {
        let found: Vec<PathBuf> =
            hierarchies().iter().flat_map(|dir| cgroups(dir, &format!("{}-", name(outside)))).collect();
        for cgroup in &found {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            let _ = fs::remove_dir(cgroup);
        }
        let directories = ["/tmp", "/var/tmp"].map(|dir| Path::new(dir).join(name(outside)));
        let there = directories.iter().filter(|dir| fs::metadata(dir).is_ok()).count();
        if found.is_empty() && there == 0 {
            return;
        }
        for dir in directories {
            let _ = fs::remove_dir_all(dir);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The mount points of cgroup hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = read("/proc/self/mountinfo");
    let cgroup = mounts.lines().filter(|line| line.contains(" - cgroup"));
    cgroup.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// All cgroups below `dir` with that beginning of their name, or below such a one; the deepest first.
fn cgroups(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let mine = entry.file_name().to_string_lossy().starts_with(prefix);
            found.extend(cgroups(&entry.path(), if mine { "" } else { prefix }));
            found.extend(mine.then(|| entry.path()));
        }
    }
    found
}

/// What a run has standing on the machine besides memory.
#[derive(Clone, Copy, Default)]
pub struct Standing {
    pub processes: i64,
    pub cgroups: i64,
    pub dying_cgroups: i64,
    pub mounts: i64,
}

impl Standing {
    pub fn now(prefix: &str) -> Self {
        let dying = read("/sys/fs/cgroup/cgroup.stat");
        let dying = dying.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
        let mut all = hierarchies();
        all.sort_unstable_by_key(|dir| {
            fs::metadata(dir).map(|meta| (meta.dev(), meta.ino())).unwrap_or_default()
        });
        all.dedup();
        Self {
            processes: measure::tree(std::process::id()).len() as i64,
            cgroups: all.iter().map(|dir| cgroups(dir, prefix).len() as i64).sum(),
            dying_cgroups: dying.and_then(|count| count.parse().ok()).unwrap_or(0),
            mounts: read("/proc/self/mountinfo").lines().count() as i64,
        }
    }

    /// What is there more than before. What died before may be gone by now, which is no debt.
    pub fn since(self, before: Self) -> Self {
        Self {
            processes: self.processes - before.processes,
            cgroups: self.cgroups - before.cgroups,
            dying_cgroups: (self.dying_cgroups - before.dying_cgroups).max(0),
            mounts: self.mounts - before.mounts,
        }
    }

    pub fn is_nothing(self) -> bool {
        [self.processes, self.cgroups, self.dying_cgroups, self.mounts].iter().all(|count| *count <= 0)
    }
}
