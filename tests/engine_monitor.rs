//! What a monitor costs while nothing happens, alone on the machine: then each page of its program counts as its own.
#![cfg(feature = "engine")]

mod support;
use support::*;

/// Kilobytes of /proc/PID/smaps_rollup, private ones.
fn private_kb(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let of = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    of("Private_Clean:") + of("Private_Dirty:")
}

/// The goal, which a build without optimization reaches too: where it waits hardly any code is mapped.
#[test]
fn an_idle_monitor_has_at_most_300_kb_of_its_own() {
    let e = Engine::new();
    let id = e.detached("idle", &["-i"], &["sh", "-c", "cat; exec sleep 3600"]);
    let pid = e.watcher(&id).expect("a monitor");
    eventually("an idle monitor", || (private_kb(pid) <= 300).then_some(()));
    // It works as before, and is idle again.
    assert_eq!(e.jug(&["exec", "idle", "echo", "x"]).ok().stdout, "x\n");
    e.jug(&["pause", "idle"]).ok();
    e.jug(&["unpause", "idle"]).ok();
    let attached = e.call(&["attach", "idle"]).stdin("said\n").spawn();
    eventually("the log", || (e.jug(&["logs", "idle"]).ok().stdout == "said\n").then_some(()));
    drop(attached);
    eventually("an idle monitor, once more", || (private_kb(pid) <= 300).then_some(()));
    e.jug(&["rm", "-f", "idle"]).ok();
}
