//! `delete`: nothing is left, and nothing else is touched.
mod support;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;

#[test]
fn a_running_container_is_not_deleted() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("delete", &[]).fails(&format!("cannot delete container {} that is not stopped: running", c.id));
    assert_eq!(c.status(), "running");
}

#[test]
fn a_paused_container_is_not_deleted() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.verb("delete", &[]).fails(&format!("cannot delete container {} that is not stopped: paused", c.id));
    assert_eq!(c.status(), "paused");
}

#[test]
fn a_created_container_is_deleted() {
    let b = Bundle::new();
    let c = b.create();
    let pid = c.pid();
    let out = c.verb("delete", &[]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    gone(pid);
}

#[test]
fn a_stopped_container_is_deleted_with_record_and_cgroups() {
    let b = Bundle::new();
    let c = b.running();
    assert!(!cgroups(b.tag()).is_empty());
    c.stop();
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_dir(b.root()).expect("the root").count(), 0);
    c.verb("state", &[]).fails("container does not exist");
}

#[test]
fn force_kills_what_runs() {
    let b = Bundle::new();
    for flag in ["--force", "-f"] {
        let c = b.running();
        let pid = c.pid();
        c.verb("delete", &[flag]).ok();
        gone(pid);
        c.verb("state", &[]).fails("container does not exist");
    }
}

#[test]
fn force_kills_what_is_paused() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.verb("delete", &["--force"]).ok();
    c.verb("state", &[]).fails("container does not exist");
}

#[test]
fn force_of_a_missing_container_is_no_error() {
    Bundle::new().container().verb("delete", &["--force"]).ok();
}

#[test]
fn a_missing_container_cannot_be_deleted() {
    Bundle::new().container().verb("delete", &[]).fails("container does not exist");
}

#[test]
fn force_may_come_after_the_id() {
    let b = Bundle::new();
    let c = b.running();
    c.call("delete", &[], &["--force"]).ok();
    c.verb("state", &[]).fails("container does not exist");
}

#[test]
fn a_second_delete_finds_nothing() {
    let b = Bundle::new();
    let c = b.create();
    c.delete();
    c.verb("delete", &[]).fails("container does not exist");
}

#[test]
fn the_bundle_is_left_as_it_was() {
    let b = Bundle::new();
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(b.rootfs()).expect("rootfs").flatten().map(|e| e.file_name()).collect();
        names.sort();
        (names, fs::read(b.path("config.json")).expect("config.json"))
    };
    let before = listing();
    let c = b.running();
    c.verb("delete", &["--force"]).ok();
    assert_eq!(listing(), before);
}

#[test]
fn cgroups_made_below_the_containers_own_go_too() {
    let b = Bundle::new();
    let c = b.running();
    for dir in cgroups(b.tag()) {
        fs::create_dir_all(dir.join("below/deeper")).expect("mkdir in a cgroup");
    }
    c.stop();
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn processes_without_a_pid_namespace_of_their_own_die_with_force() {
    let b = Bundle::new();
    b.remove_namespace("pid").set_args(&["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000"]);
    let c = b.running();
    c.wait_stdout("\n");
    let child: i32 = c.stdout().trim().parse().expect("a pid");
    c.verb("delete", &["--force"]).ok();
    gone(child);
}

#[test]
fn processes_left_without_their_init_are_killed_by_delete() {
    let b = Bundle::new();
    b.remove_namespace("pid").set_args(&["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000"]);
    let c = b.running();
    c.wait_stdout("\n");
    let child: i32 = c.stdout().trim().parse().expect("a pid");
    kill(Pid::from_raw(c.pid()), Signal::SIGKILL).expect("kill of the init alone");
    c.wait("stopped").delete();
    gone(child);
}

#[test]
fn force_removes_a_directory_without_a_record() {
    let b = Bundle::new();
    fs::create_dir(b.root().join(b.id())).expect("mkdir");
    b.container().verb("delete", &["--force"]).ok();
    assert!(!b.root().join(b.id()).exists());
}

#[test]
fn the_id_is_free_again() {
    let b = Bundle::new();
    for _ in 0..3 {
        let c = b.running();
        c.stop();
        c.delete();
    }
}

#[test]
fn of_two_containers_only_the_named_one_goes() {
    let b = Bundle::new();
    let [first, second] = ["a", "b"].map(|suffix| Container::named(&b, b.id_of(suffix)));
    for c in [&first, &second] {
        b.call(&["run", "--detach", "--bundle", &b.path(""), &c.id]).ok();
    }
    first.verb("delete", &["--force"]).ok();
    assert_eq!(second.status(), "running");
    first.verb("state", &[]).fails("container does not exist");
}

#[test]
fn what_cannot_be_seen_is_not_taken_for_gone() {
    deviates!("a hierarchy that is no longer mounted is an error: its cgroup would be left without a word");
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    let blind = format!("umount -l {} && exec \"$@\"", cgroup2_mount().display());
    c.call("delete", &["--force"], &[])
        .through(&["unshare", "--mount", "sh", "-c", &blind, "sh"])
        .output()
        .fails("is no cgroup hierarchy any more");
    c.verb("delete", &[]).ok();
}
