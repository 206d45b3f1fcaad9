//! The kit itself: an audit that finds nothing, ever, would let every other test pass.
mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use support::*;

#[test]
fn the_audit_finds_mounts_cgroups_processes_and_records() {
    let b = Bundle::new();
    let c = b.create();
    let pid = c.pid();
    let target = b.rootfs().join("mnt");
    mount(Some(b.dir()), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mount(2)");
    let mut straggler = Command::new("tail")
        .args(["-f", &b.path("config.json")])
        .stdout(Stdio::null())
        .spawn()
        .expect("a process with the tag");
    // A moment after the exec the kernel still has no command line to show.
    let line = format!("/proc/{}/cmdline", straggler.id());
    eventually("its command line", || fs::read(&line).is_ok_and(|line| !line.is_empty()).then_some(()));
    let found = leftovers(b.tag(), b.dir()).join("\n");
    for word in
        ["mount /tmp/jug-test-", "cgroup /sys/fs/cgroup/", &format!("process {}: ", straggler.id()), "state "]
    {
        assert!(found.contains(word), "no {word} in:\n{found}");
    }
    sweep(b.tag(), b.dir());
    assert!(!straggler.wait().expect("wait").success());
    eventually("the init's end", || {
        fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()).then_some(())
    });
    let left = leftovers(b.tag(), b.dir());
    assert!(left.iter().all(|line| line.starts_with("state ")), "{left:?}");
}

#[test]
#[should_panic(expected = "left behind")]
fn a_bundle_that_leaves_something_fails_its_test() {
    let b = Bundle::new();
    fs::create_dir_all(b.root().join("not-an-id!/below")).expect("mkdir");
    // No runtime deletes what it would not name so.
    drop(b);
}

#[test]
#[should_panic(expected = "hangs, waiting for")]
fn a_call_that_hangs_is_a_failure() {
    runtime_call(&["--version"])
        .through(&["sh", "-c", "exec sleep 1000"])
        .patience(Duration::from_millis(100))
        .output();
}

#[test]
fn the_probe_sees_what_the_kernel_says() {
    let report =
        probe_here(&["--read", "/proc/self/status", "--read", "/no/such", "--sysctl", "kernel.ostype"]);
    assert_eq!(report["ppid"], std::process::id());
    assert_eq!(report["sysctls"]["kernel.ostype"], "Linux");
    assert_eq!(report["reads"]["/no/such"]["errno"], "ENOENT");
    assert_eq!(
        report["reads"]["/proc/self/status"]["ok"].as_str().map(|text| text.starts_with("Name:\tprobe\n")),
        Some(true)
    );
    let points: Vec<_> = report["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|m| m["mountPoint"].as_str())
        .collect();
    assert!(points.contains(&"/") && points.contains(&"/proc"), "{points:?}");
}

#[test]
fn every_bundle_has_a_name_of_its_own() {
    let (first, second) = (Bundle::new(), Bundle::new());
    assert_ne!(first.tag(), second.tag());
    assert!(!first.tag().contains(second.tag()) && !second.tag().contains(first.tag()));
}
