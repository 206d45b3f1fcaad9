//! `jug run` on a whole system: limits of an ordinary user through their own systemd, and AppArmor's profile
//! (`scripts/test --vm`).
#![cfg(feature = "engine")]

mod support;
use std::path::PathBuf;
use std::process::Command;

use support::*;

/// The unprivileged user of the machine, whose systemd runs.
const USER: u32 = 1000;

/// An engine of that user's, in the environment of their session.
struct Session(Engine);

impl Session {
    fn new() -> Self {
        let linger = Command::new("loginctl").args(["enable-linger", &USER.to_string()]).status();
        assert!(linger.expect("loginctl(1)").success());
        eventually("the user's bus", || std::fs::metadata(format!("/run/user/{USER}/bus")).ok());
        Self(Engine { bundle: Bundle::rootless_for(USER, USER) })
    }

    #[track_caller]
    fn jug(&self, args: &[&str]) -> Output {
        self.0.call(args).env("XDG_RUNTIME_DIR", format!("/run/user/{USER}")).output()
    }

    /// `run --rootfs`.
    #[track_caller]
    fn run(&self, flags: &[&str], program: &[&str]) -> Output {
        let rootfs = self.0.bundle.rootfs();
        let rootfs = rootfs.to_str().expect("text");
        self.jug(&[&["run"], flags, &["--rootfs", rootfs], program].concat())
    }

    /// The cgroup of a container's first process.
    #[track_caller]
    fn cgroup(&self, name: &str) -> PathBuf {
        let pid = self.jug(&["inspect", "-f", "{{.State.Pid}}", name]).ok().stdout;
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("/proc/PID/cgroup");
        PathBuf::from("/sys/fs/cgroup").join(text.trim().strip_prefix("0::/").expect("cgroup v2"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.jug(&["rm", "-fva"]);
    }
}

fn read(dir: &std::path::Path, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join(name));
    text.unwrap_or_else(|why| panic!("{}/{name}: {why}", dir.display())).trim().to_owned()
}

#[test]
fn a_users_limits_are_a_scope_of_their_own_systemd() {
    needs!(Feature::Systemd);
    let s = Session::new();
    let limits = ["-m", "64m", "--pids-limit", "40", "--cpus", "0.5"];
    let id = s.run(&[&["-d", "--name", "limited"], &limits[..]].concat(), &["sleep", "3600"]).ok().stdout;
    let scope = s.cgroup("limited");
    let slice = format!("/sys/fs/cgroup/user.slice/user-{USER}.slice/user@{USER}.service/user.slice");
    assert_eq!(scope, PathBuf::from(slice).join(format!("jug-{}.scope", id.trim())));
    let files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max"].map(|name| read(&scope, name));
    assert_eq!(files, ["67108864", "67108864", "40", "50000 100000"]);
    let inside = s.jug(&["exec", "limited", "cat", "/sys/fs/cgroup/memory.max"]).ok().stdout;
    assert_eq!(inside, "67108864\n");
    s.jug(&["pause", "limited"]).ok();
    assert_eq!(read(&scope, "cgroup.freeze"), "1");
    s.jug(&["unpause", "limited"]).ok();
    s.jug(&["restart", "-t", "0", "limited"]).ok();
    assert_eq!(read(&s.cgroup("limited"), "memory.max"), "67108864", "after a restart, too");
    s.jug(&["rm", "-f", "limited"]).ok();
    assert!(std::fs::symlink_metadata(&scope).is_err(), "{} is still there", scope.display());
    // In the foreground, to the end.
    let out = s.run(&[&["--rm"], &limits[..]].concat(), &["cat", "/sys/fs/cgroup/pids.max"]).ok();
    assert_eq!(out.stdout, "40\n");
    let hog = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let out = s.run(&[&["--rm"], &limits[..]].concat(), &["sh", "-c", hog]);
    assert!(!out.stdout.contains("all") && out.stderr.contains("fork"), "{out}");
}

#[test]
fn limits_of_a_users_images_hold_too() {
    needs!(Feature::Systemd);
    let s = Session::new();
    let (tar, rootfs) = (s.0.bundle.path("root.tar"), s.0.bundle.rootfs());
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(rootfs).args(["--owner=0", "--group=0", "-cf", &tar, "."]);
    // 1: a file changed meanwhile, see engine_image.rs.
    assert!(matches!(pack.status().expect("tar(1)").code(), Some(0 | 1)));
    s.jug(&["import", "-q", "-c", "CMD [\"sh\"]", &tar, "box"]).ok();
    let out = s.jug(&["run", "--rm", "-m", "64m", "box", "cat", "/sys/fs/cgroup/memory.max"]).ok();
    assert_eq!(out.stdout, "67108864\n");
    s.jug(&["run", "-d", "--name", "limited", "--pids-limit", "40", "box", "sleep", "3600"]).ok();
    assert_eq!(read(&s.cgroup("limited"), "pids.max"), "40");
    assert_eq!(s.jug(&["exec", "limited", "cat", "/sys/fs/cgroup/pids.max"]).ok().stdout, "40\n");
    s.jug(&["stop", "-t", "0", "limited"]).ok();
    s.jug(&["rm", "limited"]).ok();
    s.jug(&["rmi", "box"]).ok();
}

/// What the kernel says of the process that asks.
const LABEL: [&str; 2] = ["cat", "/proc/self/attr/current"];

#[test]
fn a_container_has_the_profile_of_containers() {
    needs!(Feature::AppArmor);
    let e = Engine::new();
    assert_eq!(e.run(&[], &LABEL).ok().stdout, "jug-default (enforce)\n");
    e.detached("confined", &[], &["sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.1; done"]);
    assert_eq!(e.jug(&[&["exec", "confined"], &LABEL[..]].concat()).ok().stdout, "jug-default (enforce)\n");
    // It hears the engine's signals, and its own.
    e.jug(&["exec", "confined", "sh", "-c", "sleep 100 & kill $! && ps"]).ok();
    e.jug(&["stop", "confined"]).ok();
    assert_eq!(e.field("confined", "{{.State.ExitCode}}"), "3");
    e.run(&["--init"], &["true"]).ok();
}

#[test]
fn the_profile_denies_what_nothing_else_does() {
    needs!(Feature::AppArmor);
    let e = Engine::new();
    let open =
        ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL"];
    let mount = ["mount", "-t", "tmpfs", "none", "/tmp"];
    let out = e.run(&open, &mount);
    assert!(out.code != 0 && out.stderr.contains("ermission denied"), "{out}");
    let sysctl = [
        "sh",
        "-c",
        "cat /proc/sys/kernel/core_pattern > /tmp/x && cat /tmp/x > /proc/sys/kernel/core_pattern",
    ];
    let out = e.run(&open, &sysctl);
    assert!(out.code != 0 && out.stderr.contains("ermission denied"), "{out}");
    let unconfined = [&open[..], &["--security-opt", "apparmor=unconfined"]].concat();
    e.run(&unconfined, &mount).ok();
    e.run(&unconfined, &sysctl).ok();
    assert_eq!(e.run(&["--security-opt", "apparmor=unconfined"], &LABEL).ok().stdout, "unconfined\n");
    assert_eq!(e.run(&["--privileged"], &LABEL).ok().stdout, "unconfined\n");
    let named = ["--security-opt", "apparmor=jug-default"];
    assert_eq!(e.run(&named, &LABEL).ok().stdout, "jug-default (enforce)\n");
    e.run(&["--security-opt", "apparmor=no-such"], &["true"])
        .exits(125)
        .says("no profile \"no-such\" loaded");
}

/// Whoever has Podman's or Docker's profile loaded gets that.
#[test]
fn a_named_profile_of_the_hosts_is_taken() {
    needs!(Feature::AppArmor);
    let e = Engine::new();
    let name = format!("jug-test-{}", e.bundle.tag());
    let parser = |option: &str| {
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n file,\n capability,\n signal,\n}}\n"
        );
        let file = e.bundle.path("profile");
        std::fs::write(&file, text).expect("write");
        let ended = Command::new("apparmor_parser").args(["--skip-cache", "--quiet", option, &file]).status();
        assert!(ended.expect("apparmor_parser").success());
    };
    parser("--replace");
    let said = e.run(&["--security-opt", &format!("apparmor={name}")], &LABEL);
    parser("--remove");
    assert_eq!(said.ok().stdout, format!("{name} (enforce)\n"));
}
