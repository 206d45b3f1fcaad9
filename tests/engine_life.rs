//! The life of containers under `jug`: what the verbs print and do, and that whoever is killed at any moment leaves
//! nothing that `jug rm -f` cannot remove.
#![cfg(feature = "engine")]

mod support;
use support::*;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill(2)");
}

#[test]
fn a_detached_container_from_start_to_end() {
    let e = Engine::new();
    let cid = e.bundle.path("cid");
    let id = e.detached(
        "worker",
        &["--cidfile", &cid, "--label", "a=b"],
        &["sh", "-c", "echo out; echo err >&2; sleep 3600"],
    );
    assert_eq!((id.len(), std::fs::read_to_string(&cid).expect("the cidfile")), (64, id.clone()));
    eventually("the log", || e.jug(&["logs", "worker"]).ok().stderr.contains("err").then_some(()));
    let logs = e.jug(&["logs", "worker"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    let table = e.jug(&["ps"]).ok().stdout;
    let heading = table.lines().next().expect("a heading");
    for word in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
        assert!(heading.contains(word), "{table}");
    }
    assert!(
        table.contains(&id[..12]) && table.contains("Up ") && table.contains("\"sh -c echo out; ech…\""),
        "{table}"
    );
    for (filter, shown) in
        [("name=work", 1), ("label=a=b", 1), ("label=a=c", 0), ("status=exited", 0), ("status=running", 1)]
    {
        let out = e.jug(&["ps", "-q", "--filter", filter]).ok();
        assert_eq!(out.stdout.lines().count(), shown, "{filter}");
    }
    e.jug(&["rm", "worker"]).exits(1).says("it is running");
    e.jug(&["pause", "worker"]).ok();
    assert_eq!(e.field("worker", "{{.State.Status}}"), "paused");
    e.jug(&["exec", "worker", "true"]).exits(125).says("is paused");
    e.jug(&["unpause", "worker"]).ok();
    e.jug(&["rename", "worker", "idler"]).ok();
    assert_eq!(e.jug(&["kill", "-s", "TERM", "idler"]).ok().stdout, "idler\n");
    e.jug(&["kill", "idler"]).ok();
    assert_eq!(e.jug(&["wait", "idler"]).ok().stdout, "137\n");
    assert_eq!(
        e.field("idler", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}"),
        "exited 137 false"
    );
    let rows = e.jug(&["ps", "-a", "--format", "{{.Names}}: {{.Status}}"]).ok().stdout;
    assert!(rows.starts_with("idler: Exited (137) "), "{rows}");
    assert_eq!(e.jug(&["rm", "idler"]).ok().stdout, "idler\n");
    e.is_gone(&id);
}

#[test]
fn programs_run_beside_the_first() {
    let e = Engine::new();
    e.detached("first", &["-e", "A=1"], &["sleep", "3600"]);
    e.jug(&["exec", "first", "sh", "-c", "exit 7"]).exits(7);
    e.jug(&["exec", "first", "no-such"]).exits(127);
    e.jug(&["exec", "first", "/etc/passwd"]).exits(126);
    e.jug(&["exec", "-u", "nobody", "first", "true"]).exits(125).says("unable to find user");
    let out = e.jug(&[
        "exec",
        "-u",
        "lamb",
        "-w",
        "/tmp",
        "-e",
        "B=2",
        "first",
        "sh",
        "-c",
        "id -u; pwd; echo $A$B$HOME",
    ]);
    assert_eq!(out.ok().stdout, "1000\n/tmp\n12/home/lamb\n");
    let out = e.call(&["exec", "-i", "first", "cat"]).stdin("through").output().ok();
    assert_eq!(out.stdout, "through");
    let second = e.probe(&["--network", "container:first", "--pid", "container:first"], &[]);
    let first = e.jug(&["exec", "first", "/bin/probe"]).ok().json();
    for kind in ["net", "pid"] {
        assert_eq!(first["namespaces"][kind], second["namespaces"][kind], "{kind}");
    }
}

#[test]
fn top_shows_the_programs() {
    needs!(Feature::Ps);
    let e = Engine::new();
    e.detached("busy", &[], &["sleep", "3600"]);
    let top = e.jug(&["top", "busy"]).ok().stdout;
    assert!(top.contains("sleep 3600"), "{top}");
    e.jug(&["rm", "-f", "busy"]).ok();
}

#[test]
fn created_started_and_started_again() {
    let e = Engine::new();
    let rootfs = e.bundle.rootfs();
    let create = [
        "create",
        "--name",
        "again",
        "--rootfs",
        rootfs.to_str().expect("text"),
        "sh",
        "-c",
        "echo ran; exit 3",
    ];
    let id = e.jug(&create).ok().stdout.trim().to_owned();
    assert_eq!(e.field("again", "{{.State.Status}}"), "created");
    e.jug(&create).exits(125).says("already in use");
    let out = e.jug(&["start", "-a", "again"]).exits(3);
    assert_eq!(out.stdout, "ran\n");
    e.jug(&["start", &id[..8]]).ok();
    assert_eq!(e.jug(&["wait", "again"]).ok().stdout, "3\n");
    assert_eq!(e.jug(&["logs", "again"]).ok().stdout, "ran\nran\n");
    let stamped = e.jug(&["logs", "-t", "--tail", "1", "again"]).ok().stdout;
    assert!(stamped.contains("Z ran\n") && stamped.lines().count() == 1, "{stamped}");
    e.jug(&["rm", "again"]).ok();
    e.is_gone(&id);
}

#[test]
fn stop_asks_first() {
    let e = Engine::new();
    let polite = e.detached("polite", &[], &["/bin/probe", "trap", "TERM"]);
    eventually("the trap", || e.jug(&["logs", "polite"]).stdout.contains("ready").then_some(()));
    e.jug(&["stop", "polite"]).ok();
    assert_eq!(e.field("polite", "{{.State.ExitCode}}"), "0");
    e.detached("deaf", &[], &["sleep", "3600"]);
    let begun = Instant::now();
    e.jug(&["stop", "-t", "1", "deaf"]).ok();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(e.field("deaf", "{{.State.ExitCode}}"), "137");
    e.jug(&["restart", "polite"]).ok();
    assert_eq!(e.field(&polite, "{{.State.Status}}"), "running");
    let script = "trap 'exit 3' USR1; echo ready; while true; do sleep 0.1; done";
    e.detached("other", &[], &["sh", "-c", script]);
    eventually("the trap", || e.jug(&["logs", "other"]).stdout.contains("ready").then_some(()));
    e.jug(&["stop", "-s", "NOPE", "other"]).exits(125).says("invalid signal: NOPE");
    e.jug(&["stop", "-s", "USR1", "-t", "-1", "other"]).ok();
    assert_eq!(e.field("other", "{{.State.ExitCode}}"), "3");
}

#[test]
fn the_log_follows_and_is_rotated() {
    let e = Engine::new();
    let line = "echo line $i of a log that is rotated; i=$((i+1))";
    let script = &format!("i=0; while [ $i -lt 3000 ]; do {line}; done; sleep 0.3; echo last");
    let flags = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let id = e.detached("talker", &flags, &["sh", "-c", script]);
    let followed = e.jug(&["logs", "-f", "--tail", "5", "talker"]).ok().stdout;
    assert!(followed.ends_with("last\n"), "{followed}");
    let dir = e.root().join("containers").join(&id);
    let sizes: Vec<u64> =
        ["log", "log.1", "log.2"].iter().map(|n| dir.join(n).metadata().expect("a log").len()).collect();
    assert!(sizes.iter().all(|size| *size <= 20 << 10), "{sizes:?}");
    assert!(std::fs::symlink_metadata(dir.join("log.3")).is_err());
    let lines = e.jug(&["logs", "--tail", "2", "talker"]).ok().stdout;
    assert_eq!(lines, "line 2999 of a log that is rotated\nlast\n");
}

#[test]
fn streams_are_carried_whole() {
    let e = Engine::new();
    let text = "x".repeat(300_000);
    for flags in [&["-i", "--rm"][..], &["-i"]] {
        let out = e.run_call(flags, &["cat"]).stdin(&text).output().ok();
        assert_eq!(out.stdout.len(), text.len(), "{flags:?}");
    }
}

#[test]
fn a_killed_monitor_leaves_a_container_that_can_be_removed() {
    let e = Engine::new();
    let id = e.detached("orphan", &[], &["sleep", "3600"]);
    kill_9(e.watcher(&id).expect("a monitor"));
    assert_eq!(e.field("orphan", "{{.State.Status}}"), "running");
    e.jug(&["exec", "orphan", "true"]).ok();
    e.jug(&["kill", "orphan"]).ok();
    eventually("the end", || {
        (e.field("orphan", "{{.State.Status}} {{.State.ExitCode}}") == "exited 255").then_some(())
    });
    // It starts again as any other.
    e.jug(&["start", "orphan"]).ok();
    kill_9(e.watcher(&id).expect("a monitor"));
    e.jug(&["rm", "-f", "orphan"]).ok();
    e.is_gone(&id);
    let gone = e.detached("forsaken", &["--rm"], &["sleep", "0.2"]);
    kill_9(e.watcher(&gone).expect("a monitor"));
    eventually("the sweep by ps", || e.ids().is_empty().then_some(()));
    e.is_gone(&gone);
}

/// jug is killed after a while that grows from nothing to more than a start takes; then everything can be removed.
#[test]
fn killed_at_any_moment() {
    let e = Engine::new();
    for (i, flags) in [&["--rm"][..], &["-d"], &["-d", "--rm"], &[]].iter().cycle().take(60).enumerate() {
        let running = e.run_call(flags, &["sleep", "3600"]).spawn();
        std::thread::sleep(Duration::from_micros(700 * i as u64));
        kill_9(running.pid());
        let ids = std::fs::read_dir(e.root().join("containers")).into_iter().flatten().flatten();
        let ids: Vec<String> = ids.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let begun = Instant::now();
        // What was in the middle of something may have finished it meanwhile, or not be quite dead.
        eventually("an empty directory", || {
            e.jug(&["rm", "-fa"]).ok();
            let left =
                ids.iter().filter(|id| id.len() == 64 && !e.root().join("containers").join(id).exists());
            (e.ids().is_empty() && left.count() == ids.iter().filter(|id| id.len() == 64).count())
                .then_some(())
        });
        assert!(begun.elapsed() < patience(), "it took {:?}", begun.elapsed());
        for id in ids.iter().filter(|id| id.len() == 64) {
            eventually("nothing of it", || cgroups(id).is_empty().then_some(()));
            e.is_gone(id);
        }
    }
}

#[test]
fn many_at_once_do_not_disturb_one_another() {
    let e = Engine::new();
    let running: Vec<_> = (0..24)
        .map(|n| {
            e.run_call(if n % 2 == 0 { &["--rm"][..] } else { &["-d"] }, &["sh", "-c", "sleep 0.2; exit 3"])
                .spawn()
        })
        .collect();
    for _ in 0..5 {
        e.jug(&["ps", "-a"]).ok();
    }
    for (n, running) in running.into_iter().enumerate() {
        running.wait().exits(if n % 2 == 0 { 3 } else { 0 });
    }
    let ids = e.ids();
    assert_eq!(ids.len(), 12);
    for id in ids {
        assert_eq!(e.jug(&["wait", &id]).ok().stdout, "3\n");
    }
}
