//! `start`: the created container's program, once.
mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;

#[test]
fn start_runs_the_program_and_returns_before_it_ends() {
    let b = Bundle::new();
    let c = b.create();
    let out = c.verb("start", &[]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    assert_eq!(c.status(), "running");
}

#[test]
fn the_init_keeps_its_pid_across_start() {
    let b = Bundle::new();
    let c = b.create();
    let created = c.pid();
    c.start();
    assert_eq!(c.pid(), created);
    let program = std::fs::read(format!("/proc/{created}/cmdline")).expect("cmdline");
    assert_eq!(program, b"/bin/probe\0sleep\x003600\0");
}

#[test]
fn a_running_container_cannot_be_started() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("start", &[]).fails("cannot start an already running container");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_stopped_container_cannot_be_started() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.verb("start", &[]).fails("cannot start a container that has stopped");
}

#[test]
fn a_container_that_died_before_its_start_cannot_be_started() {
    let b = Bundle::new();
    let c = b.create();
    kill(Pid::from_raw(c.pid()), Signal::SIGKILL).expect("kill");
    c.wait("stopped");
    c.verb("start", &[]).fails("cannot start a container that has stopped");
}

#[test]
fn a_missing_container_cannot_be_started() {
    Bundle::new().container().verb("start", &[]).fails("container does not exist");
}

#[test]
fn of_four_starts_at_once_exactly_one_wins() {
    deviates!("the loser of a race of starts gets the answer of a later one; runc hangs on its fifo");
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "echo once; exec sleep 1000"]);
    let c = b.create();
    let calls: Vec<_> = (0..4).map(|_| c.call("start", &[], &[]).spawn()).collect();
    let codes: Vec<i32> = calls.into_iter().map(|call| call.wait().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    c.wait_stdout("once\n");
    assert_eq!((c.stdout().as_str(), c.status().as_str()), ("once\n", "running"));
}

#[test]
fn a_program_that_the_kernel_refuses_fails_the_start() {
    deviates!("start reports the child's own error when execve fails; runc says 0");
    let b = Bundle::new();
    b.script("bin/orphan", "#!/no/such/interpreter\n");
    b.set_args(&["/bin/orphan"]);
    let c = b.create();
    c.verb("start", &[]).fails("no such file or directory");
    c.wait("stopped");
}

#[test]
fn a_program_that_ends_at_once_is_stopped_not_gone() {
    let b = Bundle::new();
    b.set_args(&["true"]);
    let c = b.create();
    c.start().wait("stopped");
    assert_eq!(c.state()["pid"], 0);
    c.delete();
}
