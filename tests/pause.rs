//! `pause` and `resume`: every process stands still, and goes on.
mod support;

use std::fs;
use std::time::Duration;

use support::*;

#[test]
fn nothing_moves_while_paused_and_all_goes_on_afterwards() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "while :; do echo x; sleep 0.01; done"]);
    let c = b.running();
    c.wait_stdout("x\nx\n");
    c.verb("pause", &[]).ok();
    assert_eq!(c.status(), "paused");
    let before = c.stdout();
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(c.stdout(), before);
    c.verb("resume", &[]).ok();
    assert_eq!(c.status(), "running");
    eventually("movement", || (c.stdout().len() > before.len()).then_some(()));
}

#[test]
fn a_created_container_can_be_paused_and_is_created_again_after_resume() {
    let b = Bundle::new();
    let c = b.create();
    c.verb("pause", &[]).ok();
    assert_eq!(c.status(), "paused");
    c.verb("resume", &[]).ok();
    assert_eq!(c.status(), "created");
    c.start();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_paused_container_cannot_be_paused_again() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.verb("pause", &[]).fails("container not running");
    assert_eq!(c.status(), "paused");
}

#[test]
fn a_running_container_cannot_be_resumed() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("resume", &[]).fails("container not paused");
}

#[test]
fn a_stopped_container_can_be_neither() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.verb("pause", &[]).fails("container not running");
    c.verb("resume", &[]).fails("container not paused");
}

#[test]
fn a_missing_container_can_be_neither() {
    let c_of = Bundle::new();
    let c = c_of.container();
    c.verb("pause", &[]).fails("container does not exist");
    c.verb("resume", &[]).fails("container does not exist");
}

#[test]
fn term_waits_for_the_resume() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "trap"]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c.verb("pause", &[]).ok();
    c.kill("TERM");
    assert_eq!(c.status(), "paused");
    assert!(!c.stdout().contains("SIGTERM"));
    c.verb("resume", &[]).ok();
    c.wait_stdout("SIGTERM\n").wait("stopped");
}

/// The kernel says once that a cgroup changed: who waits for more reads that through the descriptor that he polls, or
/// he is woken again and again for nothing.
#[test]
fn to_wait_for_the_kernel_costs_no_time() {
    deviates!("the cgroup above is frozen as no other runtime here looks at it");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}/below", b.tag())));
    let c = b.running();
    c.verb("pause", &[]).ok();
    let above = cgroup2_mount().join(b.tag()).join("cgroup.freeze");
    fs::write(&above, "1").expect("freeze the cgroup above");
    let mut call = c.call("resume", &[], &[]).spawn();
    let spent = || {
        std::thread::sleep(Duration::from_secs(1));
        let stat = fs::read_to_string(format!("/proc/{}/stat", call.pid())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    };
    let (before, after) = (spent(), spent());
    assert!(after - before < 10, "{} hundredths of a second in one of waiting", after - before);
    assert_eq!(call.status(), None, "{}", call.stderr());
    fs::write(&above, "0").expect("thaw the cgroup above");
    call.wait().ok();
    assert_eq!(c.status(), "running");
}
