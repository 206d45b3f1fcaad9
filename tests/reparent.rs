//! Whose child the container's init is. The test process makes itself a subreaper, as containerd's shim, conmon and
//! buildah do, so this file holds nothing else.
mod support;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use support::*;

fn parent_of(pid: i32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("PPid");
    line.trim().parse().expect("a pid")
}

fn wait_for(pid: i32) -> WaitStatus {
    eventually("the init's end", || match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => None,
        Ok(status) => Some(status),
        Err(why) => panic!("waitpid of the init: {why}"),
    })
}

#[test]
fn the_callers_subreaper_becomes_the_inits_parent_and_reads_its_end() {
    set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "exit", "7"]);
    let c = b.create();
    let pid = c.pid();
    assert_eq!(parent_of(pid), std::process::id());
    c.start();
    assert_eq!(wait_for(pid), WaitStatus::Exited(Pid::from_raw(pid), 7));
}

#[test]
fn a_zombie_counts_as_stopped() {
    set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
    let b = Bundle::new();
    let c = b.running();
    let pid = c.pid();
    c.kill("KILL").wait("stopped");
    assert_eq!(c.state()["pid"], 0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("nobody has waited for it yet");
    assert!(stat.contains(") Z "), "{stat}");
    c.delete();
    assert!(matches!(wait_for(pid), WaitStatus::Signaled(..)));
}

#[test]
fn a_detached_exec_is_also_the_subreapers_child() {
    set_child_subreaper(true).expect("PR_SET_CHILD_SUBREAPER");
    let b = Bundle::new();
    let c = b.running();
    let init = c.pid();
    let file = b.path("exec.pid");
    c.exec_with(&["--detach", "--pid-file", &file], &["/bin/probe", "exit", "9"]).ok();
    let pid: i32 = std::fs::read_to_string(&file).expect("pid file").parse().expect("a pid, no newline");
    assert_eq!(wait_for(pid), WaitStatus::Exited(Pid::from_raw(pid), 9));
    c.stop();
    wait_for(init);
}
