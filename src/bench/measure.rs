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
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
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

impl Default for Watchdog {
    fn default() -> Self {
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
}

impl Watchdog {
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
    let milliseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    Ok(milliseconds(usage.user_time()) + milliseconds(usage.system_time()))
}

/// Runs `command` to its end and gives its output; what the caller has not piped is empty.
pub fn output(command: &mut Command, watchdog: &Watchdog) -> io::Result<Output> {
    let child = command.process_group(0).spawn()?;
    let group = child.id();
    watchdog.list().push((group, Instant::now()));
    let output = child.wait_with_output();
    watchdog.list().retain(|(watched, _)| *watched != group);
    output
}

/// Runs `command`, which has to exit with `code`; if not, the error has what it said.
pub fn expect(command: &mut Command, code: i32, watchdog: &Watchdog) -> io::Result<()> {
    let output = output(command.stderr(Stdio::piped()), watchdog)?;
    if output.status.code() == Some(code) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}, not {code}: {}", output.status, said.trim())))
}

/// The sum in a table of `strace -c`.
pub fn system_calls(table: &str) -> Option<u64> {
    // 100.00    0.001234           1       745        12 total
    let total = table.lines().rfind(|line| line.ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

/// The children of a process, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The process and everything below it.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children(*pid));
        at += 1;
    }
    found
}

/// CPU time that a living process has used, all its threads, in milliseconds: proc_pid_schedstat.
pub fn cpu_of(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    stats.filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e6
}

/// CPU time in milliseconds of everything that was started: what has ended and been waited for, and what lives. The
/// difference of two looks is what happened between them; of one child that ends between them RUSAGE_CHILDREN tells its
/// whole life. What a living process has waited for itself is known by the tick only.
pub fn cpu_so_far() -> f64 {
    let own = std::process::id();
    let living = tree(own).into_iter().filter(|pid| *pid != own);
    cpu_of_children().unwrap_or(0.0) + living.map(|pid| cpu_of(pid) + cpu_waited_for(pid)).sum::<f64>()
}

/// proc_pid_stat(5): cutime and cstime, in milliseconds.
fn cpu_waited_for(pid: u32) -> f64 {
    const TICK: f64 = 10.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(13).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK
}

/// The share of memory of a living process, in KiB: what it has alone, and its part of what it has with others.
pub fn proportional_memory(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

/// The processes without those whose memory is that of another one of them: the helpers of user-mode Linux are
/// processes of their own with one memory (CLONE_VM), and each shows all of it. The payload asks the kernel.
pub fn with_own_memory(payload: &std::path::Path, mut pids: Vec<u32>) -> Vec<u32> {
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pid in &pids {
        alike.entry(layout(*pid)).or_default().push(pid.to_string());
    }
    let lists: Vec<String> =
        alike.values().filter(|list| list.len() > 1).map(|list| list.join(",")).collect();
    if lists.is_empty() {
        return pids;
    }
    let answer = Command::new(payload).arg("same").args(lists).output();
    let text = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    let others: BTreeSet<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    pids.retain(|pid| !others.contains(pid));
    pids
}

/// Where a program lies in its memory: at random, so that only who was cloned is alike. proc_pid_stat(5): startcode,
/// endcode, startstack.
fn layout(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(23).take(3);
    fields.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell and its forked copy have the same layout and each their own memory: without kcmp(2) both count.
    #[test]
    fn who_is_cloned_has_the_same_layout() {
        let mut shell = Command::new("sh")
            .args(["-c", "(sleep 9; :) & wait"])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh");
        let begun = Instant::now();
        let copy = loop {
            match children(shell.id()).first() {
                Some(copy) => break *copy,
                None => assert!(begun.elapsed() < Duration::from_secs(5), "no copy"),
            }
        };
        let layouts = [shell.id(), copy, std::process::id()].map(layout);
        let _ = killpg(Pid::from_raw(shell.id().cast_signed()), Signal::SIGKILL);
        let _ = shell.wait();
        assert_eq!(layouts[0], layouts[1]);
        assert_ne!(layouts[0], layouts[2]);
        assert_eq!(layouts[0].split(' ').count(), 3);
    }
}
