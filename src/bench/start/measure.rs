//! One start: its wall time, the CPU time of its whole tree, and what strace and the kernel say about it.
//!
//! This process is a child subreaper, so that no process of a contender, its container included, gets away uncounted:
//! CPU time is what RUSAGE_CHILDREN has grown by when all are reaped. Work that the kernel does later in its own
//! threads, such as taking a network namespace apart, is nobody's.

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A start that takes longer is stopped and counted as failed: youki has been seen to hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Milliseconds.
pub struct Times {
    pub wall: f64,
    pub cpu: f64,
}

/// Stops starts that hang. It looks once a second, so that it costs the measured ones nothing.
#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Vec<(u32, Instant)>>>);

impl Watchdog {
    pub fn new() -> Self {
        let watched = Arc::new(Mutex::new(Vec::<(u32, Instant)>::new()));
        let list = Arc::clone(&watched);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let Ok(list) = list.lock() else { return };
                for (group, _) in list.iter().filter(|(_, since)| since.elapsed() > PATIENCE) {
                    let _ = killpg(Pid::from_raw(*group as i32), Signal::SIGKILL);
                }
            }
        });
        Self(watched)
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(u32, Instant)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs `command` to its end and gives its wall time in milliseconds. Safe to call from several threads.
pub fn wall(command: &mut Command, watchdog: &Watchdog) -> io::Result<f64> {
    command.process_group(0);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    watchdog.list().push((child.id(), begun));
    let status = child.wait();
    let wall = begun.elapsed().as_secs_f64() * 1000.0;
    watchdog.list().retain(|(group, _)| *group != child.id());
    match status? {
        status if status.success() => Ok(wall),
        status => Err(io::Error::other(status.to_string())),
    }
}

/// Wall and CPU time of `command`, which has to be the only one that runs.
pub fn once(command: &mut Command, watchdog: &Watchdog) -> io::Result<Times> {
    reap();
    let before = cpu_of_children()?;
    let wall = wall(command, watchdog)?;
    reap();
    Ok(Times { wall, cpu: cpu_of_children()? - before })
}

/// Waits for whatever has been left to us and has ended.
pub fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// User and system time of all children that have been waited for, and theirs, in milliseconds.
pub fn cpu_of_children() -> io::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let milliseconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    Ok(milliseconds(usage.user_time()) + milliseconds(usage.system_time()))
}

/// `command` behind `prefix`, with the same environment.
fn behind(prefix: &[&Path], command: &Command) -> Command {
    let mut whole = Command::new(prefix[0]);
    whole.args(&prefix[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    whole
}

/// System calls of `command` and everything it starts, as `strace -f -c` counts them.
pub fn count_system_calls(command: &Command, dir: &Path) -> Option<u64> {
    let summary = dir.join("strace");
    let prefix = ["strace".as_ref(), "-f".as_ref(), "-c".as_ref(), "-o".as_ref(), summary.as_path()];
    behind(&prefix, command).output().ok()?;
    let text = fs::read_to_string(summary).ok()?;
    // 100.00    0.001234           1       745        12 total
    let total = text.lines().rfind(|line| line.ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

/// Peak resident memory in KiB of the largest process of `command`'s tree.
pub fn peak_memory(command: &Command, floor: &Path) -> Option<u64> {
    let output = behind(&[floor, "rss".as_ref()], command).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// What `command` says when it fails: for a person.
pub fn complaint(command: &Command) -> String {
    match behind(&["env".as_ref()], command).output() {
        Ok(output) if output.status.success() => "failed once, then worked".into(),
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => error.to_string(),
    }
}
