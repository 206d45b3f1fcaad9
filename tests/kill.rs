//! `kill`: one signal to the init, or to all.
mod support;

use support::*;

/// A container that prints what it catches, ready to catch it.
fn trapping(b: &Bundle) -> Container<'_> {
    b.set_args(&["/bin/probe", "trap", "HUP", "USR1", "USR2", "WINCH"]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c
}

#[test]
fn the_signal_is_term_unless_said_otherwise() {
    let b = Bundle::new();
    let c = trapping(&b);
    let out = c.verb("kill", &[]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    c.wait_stdout("SIGTERM\n").wait("stopped");
}

#[test]
fn a_signal_has_a_short_name_a_long_name_and_a_number() {
    let b = Bundle::new();
    let c = trapping(&b);
    for (word, caught) in [
        ("USR1", "ready\nSIGUSR1\n"),
        ("SIGUSR2", "\nSIGUSR1\nSIGUSR2\n"),
        ("1", "\nSIGUSR2\nSIGHUP\n"),
        ("winch", "\nSIGHUP\nSIGWINCH\n"),
        ("sigusr1", "\nSIGWINCH\nSIGUSR1\n"),
    ] {
        c.kill(word).wait_stdout(caught);
    }
    c.kill("15").wait("stopped");
}

#[test]
fn a_signal_that_does_not_exist_is_refused() {
    let b = Bundle::new();
    let c = b.running();
    for word in ["NOSUCH", "SIGNOSUCH", "-5"] {
        let out = c.call("kill", &[], &["--", word]).output();
        assert_eq!(out.code, 1, "{out}");
    }
    c.call("kill", &[], &["NOSUCH"]).output().fails("unknown signal \"NOSUCH\"");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_stopped_container_is_not_running() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.verb("kill", &[]).fails("container not running");
    c.call("kill", &[], &["KILL"]).output().fails("container not running");
}

#[test]
fn all_on_a_stopped_container_is_no_error() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.call("kill", &["--all"], &["KILL"]).ok();
    c.call("kill", &["-a"], &["9"]).ok();
}

#[test]
fn a_missing_container_cannot_be_killed() {
    let b = Bundle::new();
    b.container().verb("kill", &[]).fails("container does not exist");
    b.container().verb("kill", &["--all"]).fails("container does not exist");
}

#[test]
fn a_created_container_can_be_killed() {
    let b = Bundle::new();
    let c = b.create();
    c.stop();
    c.delete();
}

#[test]
fn all_reaches_every_process() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "/bin/probe trap USR1 & /bin/probe trap USR1 & exec /bin/probe trap USR1"]);
    let c = b.running();
    c.wait_stdout("ready\nready\nready\n");
    c.call("kill", &["--all"], &["USR1"]).ok();
    eventually("three times SIGUSR1", || (c.stdout().matches("SIGUSR1\n").count() == 3).then_some(()));
}

#[test]
fn without_all_only_the_init_gets_it() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "/bin/probe trap USR1 & exec /bin/probe trap USR1 USR2"]);
    let c = b.running();
    c.wait_stdout("ready\nready\n");
    c.kill("USR1").kill("USR2").wait_stdout("SIGUSR2\n");
    assert_eq!(c.stdout().matches("SIGUSR1\n").count(), 1);
}

#[test]
fn kill_of_a_paused_container_kills_it() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.stop();
}

#[test]
fn without_a_pid_namespace_all_still_reaches_every_process() {
    let b = Bundle::new();
    b.remove_namespace("pid").set_args(&[
        "sh",
        "-c",
        "sleep 1000 & sleep 1000 & echo ready; exec sleep 1000",
    ]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c.call("kill", &["--all"], &["KILL"]).ok();
    c.wait("stopped");
    eventually("empty cgroups", || {
        let procs = cgroups(b.tag()).into_iter().map(|dir| dir.join("cgroup.procs"));
        let alive: String = procs.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
        alive.is_empty().then_some(())
    });
}

#[test]
fn all_may_come_after_the_signal() {
    let b = Bundle::new();
    let c = b.running();
    c.call("kill", &[], &["KILL", "--all"]).ok();
    c.wait("stopped");
}
