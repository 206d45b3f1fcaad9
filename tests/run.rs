//! `run`: create, start, wait, delete in one call.
mod support;

use std::io::Write as _;

use nix::sys::signal::Signal;
use serde_json::json;
use support::*;

#[test]
fn run_exits_with_the_programs_code() {
    let b = Bundle::new();
    for code in [0, 1, 42, 126, 127, 255] {
        b.run_args(&["/bin/probe", "exit", &code.to_string()]).exits(code);
    }
}

#[test]
fn a_program_killed_by_a_signal_gives_128_and_its_number() {
    let b = Bundle::new();
    // An init ignores its own signals: a shell in it dies of them.
    for (name, code) in [("KILL", 137), ("TERM", 143), ("ABRT", 134)] {
        b.run_args(&["sh", "-c", &format!("/bin/probe signal {name}; exit $?")]).exits(code);
    }
}

#[test]
fn an_init_killed_from_outside_gives_137() {
    let b = Bundle::new();
    let call = b.verb("run", &[]).spawn();
    let c = b.container();
    eventually("a running container", || {
        (c.verb("state", &[]).code == 0 && c.status() == "running").then_some(())
    });
    c.kill("KILL");
    call.wait().exits(137);
}

#[test]
fn run_removes_the_container_when_it_ends() {
    let b = Bundle::new();
    b.run_args(&["true"]).ok();
    b.container().verb("state", &[]).fails("container does not exist");
    assert_eq!(b.call(&["list", "-q"]).ok().stdout, "");
}

#[test]
fn run_keep_leaves_a_stopped_container() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "exit", "3"]).run(&["--keep"]).exits(3);
    let c = b.container();
    let state = c.state();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    c.delete();
}

#[test]
fn run_detach_returns_while_the_program_runs() {
    let b = Bundle::new();
    let c = b.container();
    let out = b.verb("run", &["--detach", "--pid-file", &b.path("pid")]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    assert_eq!(c.status(), "running");
    assert_eq!(std::fs::read_to_string(b.path("pid")).expect("pid file"), c.pid().to_string());
}

#[test]
fn run_writes_its_pid_file_in_the_foreground_too() {
    let b = Bundle::new();
    let mut call = b.set_args(&["/bin/probe", "trap"]).verb("run", &["--pid-file", &b.path("pid")]).spawn();
    call.wait_stdout("ready\n");
    // runc writes it after the start.
    let text = eventually("the pid file", || std::fs::read_to_string(b.path("pid")).ok());
    assert_eq!(text, b.container().pid().to_string());
    call.signal(Signal::SIGTERM);
    call.wait().ok();
}

#[test]
fn stdin_passes_through_to_its_end() {
    let b = Bundle::new();
    let mut call = b.set_args(&["cat"]).verb("run", &[]).stdin_pipe().spawn();
    let mut stdin = call.stdin.take().expect("a pipe");
    stdin.write_all(b"one\n").expect("write");
    call.wait_stdout("one\n");
    stdin.write_all(b"two\n").expect("write");
    drop(stdin);
    assert_eq!(call.wait().ok().stdout, "one\ntwo\n");
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let b = Bundle::new();
    let out = b.run_args(&["sh", "-c", "echo out; echo err >&2; exit 5"]).exits(5);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_megabyte_of_output_arrives_whole() {
    let b = Bundle::new();
    let out = b.run_args(&["dd", "if=/dev/zero", "bs=65536", "count=16"]).ok();
    assert_eq!(out.stdout.len(), 1 << 20);
}

#[test]
fn signals_sent_to_run_reach_the_program() {
    let b = Bundle::new();
    let mut call =
        b.set_args(&["/bin/probe", "trap", "HUP", "INT", "USR1", "USR2", "CONT"]).verb("run", &[]).spawn();
    call.wait_stdout("ready\n");
    let signals = [
        (Signal::SIGHUP, "SIGHUP\n"),
        (Signal::SIGINT, "SIGINT\n"),
        (Signal::SIGUSR1, "SIGUSR1\n"),
        (Signal::SIGUSR2, "SIGUSR2\n"),
        (Signal::SIGCONT, "SIGCONT\n"),
    ];
    for (signal, name) in signals {
        call.signal(signal);
        call.wait_stdout(name);
    }
    call.signal(Signal::SIGTERM);
    let out = call.wait().ok();
    assert!(out.stdout.ends_with("SIGTERM\n"), "{out}");
}

#[test]
fn a_program_that_is_not_found_exits_1_and_leaves_nothing() {
    let b = Bundle::new();
    b.run_args(&["no-such-program"]).fails("exec: \"no-such-program\": executable file not found in $PATH");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn a_config_without_args_is_refused() {
    let b = Bundle::new();
    b.run_args(&[]).exits(1).says("args");
}

#[test]
fn what_the_program_leaves_in_the_background_ends_with_it() {
    let b = Bundle::new();
    b.run_args(&["sh", "-c", "sleep 1000 & exit 4"]).exits(4);
    assert_eq!(
        cgroups(b.tag()),
        Vec::<std::path::PathBuf>::new(),
        "a cgroup that holds a process cannot be removed"
    );
}

#[test]
fn without_a_pid_namespace_the_background_still_ends_with_the_init() {
    let b = Bundle::new();
    b.remove_namespace("pid");
    let out = b.run_args(&["sh", "-c", "sleep 1000 & echo $!; exit 4"]).exits(4);
    gone(out.stdout.trim().parse().expect("a pid"));
}

#[test]
fn run_works_with_closed_standard_descriptors() {
    let b = Bundle::new();
    b.script("bin/witness", "#!/bin/sh\n/bin/probe > /var/report\n");
    b.edit(|spec| spec["root"]["readonly"] = json!(false)).set_args(&["/bin/witness"]);
    b.verb("run", &[]).through(&["sh", "-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).ok();
    let report = std::fs::read_to_string(b.rootfs().join("var/report")).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let fds = report["fds"].as_object().expect("fds");
    for (number, fd) in fds {
        let target = fd["target"].as_str().unwrap_or_default();
        let harmless = target == "/dev/null" || target == "/var/report" || target.starts_with("pipe:");
        assert!(harmless, "{number} leads to {target}");
    }
}

#[test]
fn a_reader_that_goes_away_does_not_hang_run() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "while echo spam; do :; done; exit 9"]);
    let call = b.verb("run", &[]).through(&["sh", "-c", "\"$0\" \"$@\" | head -n 1"]);
    assert_eq!(call.ok().stdout, "spam\n");
    eventually("the end of the container", || (b.container().verb("state", &[]).code == 1).then_some(()));
}

#[test]
fn no_subreaper_is_accepted() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "exit", "6"]).run(&["--no-subreaper"]).exits(6);
}

#[test]
fn many_runs_side_by_side_do_not_disturb_one_another() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "env", "PATH"]);
    let ids: Vec<String> = (0..8).map(|n| b.id_of(&format!("n{n}"))).collect();
    let calls: Vec<_> = ids.iter().map(|id| b.call(&["run", "--bundle", &b.path(""), id]).spawn()).collect();
    for call in calls {
        assert_eq!(call.wait().ok().stdout, format!("{DEFAULT_PATH}\n"));
    }
}
