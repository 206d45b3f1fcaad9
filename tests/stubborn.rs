//! Containers that do not want to die: kill and delete --force take two seconds at most, whatever their processes do.
mod support;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use support::*;

#[track_caller]
fn within_two_seconds<T>(what: &str, deed: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = deed();
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(2), "{what} took {taken:?}");
    println!("{what} took {taken:?}");
    done
}

/// KILL ends it, and delete --force of another one like it needs no kill before.
#[track_caller]
fn dies(make: impl Fn(&Bundle) -> Container<'_>) {
    let b = Bundle::new();
    let c = make(&b);
    let pid = c.pid();
    within_two_seconds("kill --all KILL", || c.call("kill", &["--all"], &["KILL"]).ok());
    within_two_seconds("the end", || gone(pid));
    within_two_seconds("delete --force", || c.verb("delete", &["--force"]).ok());
    let b = Bundle::new();
    let c = make(&b);
    let pid = c.pid();
    within_two_seconds("delete --force", || c.verb("delete", &["--force"]).ok());
    gone(pid);
    assert_eq!(cgroups(b.tag()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_cgroup_at_its_limit_of_processes() {
    needs!(Feature::Controller("pids"));
    dies(|b| {
        b.edit(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 16 }));
        // The shell that forks dies of the limit; what it started stays.
        b.set_args(&["sh", "-c", "(while :; do sleep 1000 & done) 2>/dev/null; exec sleep 1000"]);
        let c = b.running();
        let dir = cgroup_dir(c.pid(), "pids");
        eventually("a full cgroup", || {
            let current = std::fs::read_to_string(dir.join("pids.current")).ok()?;
            (current.trim().parse::<u32>().ok()? >= 15).then_some(())
        });
        c
    });
}

#[test]
fn a_fork_bomb() {
    needs!(Feature::Controller("pids"));
    dies(|b| {
        b.edit(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 64 }));
        b.set_args(&["/bin/probe", "bomb"]);
        let c = b.running();
        let dir = cgroup_dir(c.pid(), "pids");
        eventually("a bomb that has gone off", || {
            let current = std::fs::read_to_string(dir.join("pids.current")).ok()?;
            (current.trim().parse::<u32>().ok()? > 32).then_some(())
        });
        c
    });
}

#[test]
fn a_frozen_cgroup() {
    dies(|b| {
        b.set_args(&["sh", "-c", "sleep 1000 & sleep 1000"]);
        let c = b.running();
        c.verb("pause", &[]).ok();
        c
    });
}

#[test]
fn a_stopped_init() {
    dies(|b| {
        b.set_args(&["sh", "-c", "trap '' TERM; sleep 1000 & wait"]);
        let c = b.running();
        kill(Pid::from_raw(c.pid()), Signal::SIGSTOP).expect("SIGSTOP");
        eventually("a stopped init", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", c.pid())).ok()?;
            stat.contains(") T ").then_some(())
        });
        c
    });
}

/// `delete --force` of what was being created by a runtime that was killed: its child and its hook still hold what it
/// held.
#[test]
fn a_killed_creator() {
    deviates!("runc has no lock that names the creator's cgroup");
    let b = Bundle::new();
    let hook = format!("echo $$ > {}; exec /bin/sleep 1000", b.path("hook"));
    b.edit(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }] });
    });
    let creator = b.verb("create", &[]).spawn();
    let hook =
        eventually("a hook that runs", || std::fs::read_to_string(b.path("hook")).ok()?.trim().parse().ok());
    assert!(b.container().verb("state", &[]).stdout.contains("creating"));
    kill(Pid::from_raw(creator.pid()), Signal::SIGKILL).expect("SIGKILL");
    drop(creator);
    within_two_seconds("delete --force", || b.container().verb("delete", &["--force"]).ok());
    // A hook is a process of the host, and outlives its runtime.
    kill(Pid::from_raw(hook), Signal::SIGKILL).expect("SIGKILL");
}

/// Its runtime is dead, it holds the container, and its next word is long in coming.
#[test]
fn an_orphan_that_is_still_being_made() {
    deviates!("runc has no lock that names the creator's cgroup");
    let b = Bundle::new();
    let hook = format!("echo $$ > {}; exec /bin/sleep 1000", b.path("hook"));
    b.edit(|spec| {
        spec["hooks"] = json!({ "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }] });
    });
    let creator = b.verb("create", &[]).spawn();
    eventually("a hook that runs", || {
        std::fs::read_to_string(b.path("hook")).ok()?.trim().parse::<i32>().ok()
    });
    kill(Pid::from_raw(creator.pid()), Signal::SIGKILL).expect("SIGKILL");
    drop(creator);
    let begun = Instant::now();
    b.container().verb("delete", &["--force"]).ok();
    let most = Duration::from_millis(if in_guest() { 2_000 } else { 900 });
    assert!(begun.elapsed() < most, "delete --force took {:?}", begun.elapsed());
}
