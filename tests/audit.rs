//! `audit ID`: an untouched container is as planned, and whatever is changed behind the runtime's back is a line.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::*;

/// A container as planned; or the test ends with what differs.
#[track_caller]
fn clean(c: &Container<'_>) {
    let out = c.verb("audit", &["--format", "json"]);
    let report = out.json();
    assert_eq!(report["differences"], json!([]), "{out}");
    assert_eq!((&report["equal"], out.code), (&json!(true), 0), "{out}");
    assert_eq!(report["notCompared"], json!([]), "{out}");
}

/// Exactly these facts differ: the beginnings of the lines.
#[track_caller]
fn differ(c: &Container<'_>, begins: &[&str]) {
    let out = c.verb("audit", &[]).exits(1);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.len(), begins.len(), "{out}");
    for begin in begins {
        assert!(lines.iter().any(|line| line.starts_with(begin)), "no line begins with {begin:?}: {out}");
    }
}

/// A program of the host's in namespaces of the container: `nsenter` with these flags.
#[track_caller]
fn enter(c: &Container<'_>, flags: &[&str], program: &[&str]) {
    let pid = c.pid().to_string();
    let out =
        Command::new("nsenter").args(["-t", &pid]).args(flags).args(program).output().expect("nsenter(1)");
    assert!(out.status.success(), "{program:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An example with a program that stays.
#[track_caller]
fn example(name: &str, user: Option<(u32, u32)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("oci-examples").join(name).join("config.json");
    let mut spec: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("config.json")).expect("JSON");
    let b = Bundle::with(user, &spec);
    if let Some(path) = spec["linux"].get_mut("cgroupsPath") {
        *path = json!(format!("/{}", b.tag()));
    }
    // The filter of one allows no sleep.
    let fifo = b.rootfs().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");
    std::os::unix::fs::chown(&fifo, user.map(|u| u.0), user.map(|u| u.1)).expect("chown");
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).expect("chmod");
    spec["process"]["args"] = json!(["/bin/sh", "-c", "read never <>/fifo"]);
    b.write_spec(&spec);
    clean(&b.running());
}

macro_rules! examples {
    ($($test:ident, $name:literal, $user:expr $(, $needs:expr)*;)*) => {
        $(#[test]
        fn $test() {
            deviates!("audit is jug's own");
            $(needs!($needs);)*
            example($name, $user);
        })*

        /// An example that nobody audits may stop being what its config says.
        #[test]
        fn every_example_is_audited() {
            let named = [$($name),*];
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("oci-examples");
            for entry in fs::read_dir(dir).expect("oci-examples") {
                let name = entry.expect("readdir(3)").file_name().into_string().expect("text");
                assert!(named.contains(&name.as_str()), "oci-examples/{name} is not audited");
            }
        }
    };
}

examples! {
    hello_is_clean, "hello", None;
    hooks_is_clean, "hooks", None;
    init_network_is_clean, "init-network", None;
    limits_is_clean, "limits", None, Feature::Controller("memory"), Feature::Controller("pids"),
        Feature::Controller("cpu");
    read_only_is_clean, "read-only", None;
    seccomp_is_clean, "seccomp", None;
    shell_rootless_is_clean, "shell-rootless", Some((1000, 1000)), Feature::UserNamespace;
    time_offset_is_clean, "time-offset", None, Feature::TimeNamespace;
    user_namespace_is_clean, "user-namespace", None, Feature::UserNamespace;
}

#[test]
fn the_default_config_is_clean_for_root_and_for_others() {
    deviates!("audit is jug's own");
    for uid in [0, 1000] {
        let b = Bundle::new();
        b.edit(|spec| {
            spec["process"]["user"] =
                json!({ "uid": uid, "gid": uid, "additionalGids": [5, 7], "umask": 63 });
            spec["process"]["oomScoreAdj"] = json!(321);
        });
        clean(&b.running());
    }
}

fn bind(b: &Bundle, to: &str, options: &[&str]) -> Value {
    json!({ "destination": to, "type": "bind", "source": b.path("host"), "options": options })
}

#[test]
fn a_busy_config_is_clean() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    fs::create_dir(b.path("host")).expect("mkdir");
    std::os::unix::fs::symlink("mnt", b.rootfs().join("link")).expect("symlink");
    b.add_namespace("cgroup").edit(|spec| {
        spec["domainname"] = json!("fold");
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "1048576" });
        spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    b.add_mount(bind(&b, "/link", &["rbind", "ro", "nosuid", "noatime"]));
    b.add_mount(bind(&b, "/var", &["bind", "rslave"]));
    b.add_mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["size=1m", "tmpcopyup", "ro", "nodev"] }));
    b.add_mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["noexec"] }));
    clean(&b.running());
}

#[test]
fn a_rootless_container_is_clean_for_its_owner_and_for_root() {
    deviates!("audit is jug's own");
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let c = b.running();
    clean(&c);
    c.call("audit", &[], &[]).by_root().output().exits(0);
}

#[test]
fn joined_namespaces_are_clean_and_exec_changes_nothing() {
    deviates!("audit is jug's own");
    let holder = Holder::unshare(&["--net", "--uts"], "net");
    let b = Bundle::new();
    b.edit(|spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            match namespace["type"].as_str() {
                Some("network") => namespace["path"] = json!(holder.path("net")),
                Some("uts") => namespace["path"] = json!(holder.path("uts")),
                _ => {}
            }
        }
    });
    let c = b.running();
    c.exec(&["/bin/true"]).ok();
    clean(&c);
}

#[test]
fn a_preserved_directory_is_no_leak() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let dir = fs::File::open("/").expect("/");
    let c = b.container();
    b.verb("run", &["--detach", "--preserve-fds", "1"]).fd(&dir, 3).output().ok();
    clean(&c);
}

#[test]
fn a_directory_outside_of_the_containers_mounts_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }));
    b.set_args(&["/bin/sh", "-c", "exec 7</mnt; echo ready; exec sleep 3600"]);
    let c = b.running();
    c.wait_stdout("ready");
    clean(&c);
    // The mount lives on, and is nowhere in the container's tree any more.
    enter(&c, &["-m", "-p"], &["/bin/umount", "-l", "/mnt"]);
    differ(&c, &["descriptor 7: planned none", "mount /mnt: planned tmpfs, found none"]);
}

#[test]
fn a_changed_limit_is_reported() {
    deviates!("audit is jug's own");
    needs!(Feature::Controller("pids"));
    needs!(Feature::Controller("memory"));
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
        spec["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
    });
    let c = b.running();
    clean(&c);
    fs::write(cgroup_dir(c.pid(), "pids").join("pids.max"), "60").expect("write");
    let lines = c.verb("audit", &[]).exits(1).stdout;
    assert!(lines.starts_with("limit /") && lines.ends_with("pids.max: planned 50, found 60\n"), "{lines}");
}

#[test]
fn a_process_that_left_its_cgroup_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    let away = cgroup2_mount().join(format!("{}-away", b.tag()));
    fs::create_dir(&away).expect("mkdir");
    fs::write(away.join("cgroup.procs"), c.pid().to_string()).expect("move");
    differ(&c, &["cgroup: planned /"]);
    c.stop();
    eventually("the end of the process", || fs::remove_dir(&away).ok());
}

#[test]
fn a_remounted_mount_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(&c, &["-m", "-p"], &["/bin/mount", "-o", "remount,bind,rw,nosuid,nodev,noexec", "/sys"]);
    differ(
        &c,
        &["mount /sys flags: planned ro,nosuid,nodev,noexec,relatime, found nosuid,nodev,noexec,relatime"],
    );
}

#[test]
fn a_root_that_became_writable_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(&c, &["-m", "-p"], &["/bin/mount", "-o", "remount,bind,rw", "/"]);
    differ(&c, &["root: planned ro, found rw"]);
}

#[test]
fn an_added_mount_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(&c, &["-m", "-p"], &["/bin/mount", "-t", "tmpfs", "none", "/mnt"]);
    differ(&c, &["mount /mnt: planned none, found tmpfs ("]);
}

#[test]
fn a_mount_over_another_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(
        &c,
        &["-m", "-p"],
        &["/bin/mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec,size=65536k", "none", "/dev/shm"],
    );
    differ(&c, &["mount /dev/shm: planned none, found tmpfs ("]);
}

#[test]
fn a_mount_that_is_gone_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(&c, &["-m", "-p"], &["/bin/umount", "/dev/mqueue"]);
    differ(&c, &["mount /dev/mqueue: planned mqueue, found none"]);
}

#[test]
fn an_unmasked_path_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.file("secret", "of the house");
    b.edit(|spec| {
        spec["linux"]["maskedPaths"] = json!(["/secret", "/nowhere", "/etc/passwd"]);
        spec["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    });
    // What lies on a read-only tmpfs is not masked for that.
    b.add_mount(
        json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"] }),
    );
    let c = b.running();
    clean(&c);
    for path in ["/secret", "/etc/passwd", "/proc/sys"] {
        enter(&c, &["-m", "-p"], &["/bin/umount", path]);
    }
    let seen = |path: &str| format!("masked path {path}: planned masked, found it can be seen");
    differ(&c, &[&seen("/secret"), &seen("/etc/passwd"), "read-only path /proc/sys: "]);
}

#[test]
fn a_raised_rlimit_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["rlimits"][0]["soft"] = json!(512));
    let c = b.running();
    let pid = c.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, "--nofile=1024:1024"]).status();
    assert!(status.expect("prlimit(1)").success());
    differ(&c, &["rlimit open files: planned soft 512 hard 1024, found soft 1024 hard 1024"]);
}

#[test]
fn a_changed_oom_score_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["oomScoreAdj"] = json!(100));
    let c = b.running();
    fs::write(format!("/proc/{}/oom_score_adj", c.pid()), "200").expect("write");
    differ(&c, &["oom_score_adj: planned 100, found 200"]);
}

#[test]
fn a_changed_host_name_and_sysctl_are_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" }));
    let c = b.running();
    enter(&c, &["-u"], &["hostname", "wolf"]);
    enter(&c, &["-n"], &["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"]);
    differ(&c, &["hostname: planned runc, found wolf", "sysctl net.ipv4.ip_forward: planned 1, found 0"]);
}

#[test]
fn what_a_program_changes_of_itself_is_reported() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "umask 077; ulimit -n 100; echo ready; exec sleep 3600"]);
    let c = b.running();
    c.wait_stdout("ready");
    differ(&c, &["umask: planned 0022, found 0077", "rlimit open files: "]);
}

#[test]
fn json_has_every_fact_by_name() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    enter(&c, &["-u"], &["hostname", "wolf"]);
    let out = c.verb("audit", &["--format", "json"]).exits(1);
    let want = json!({
        "id": c.id, "equal": false, "notCompared": [],
        "differences": [{ "what": "hostname", "planned": "runc", "found": "wolf" }],
    });
    assert_eq!(out.json(), want);
}

#[test]
fn a_paused_container_can_be_audited() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    clean(&c);
    c.verb("resume", &[]).ok();
}

#[test]
fn what_does_not_run_cannot_be_audited() {
    deviates!("audit is jug's own");
    let b = Bundle::new();
    b.container().verb("audit", &[]).exits(2).says("container does not exist");
    let c = b.create();
    c.verb("audit", &[]).exits(2).says("created and not started");
    c.start();
    c.verb("audit", &["--format", "xml"]).exits(2).says("invalid format option");
    c.stop();
    c.verb("audit", &[]).exits(2).says("container not running");
}

#[test]
fn the_help_says_what_is_compared() {
    deviates!("audit is jug's own");
    let help = runtime_call(&["audit", "--help"]).output().ok().stdout;
    for word in ["jug's own", "capability sets", "rlimits", "Not compared", "Exit status"] {
        assert!(help.contains(word), "no {word:?} in the help:\n{help}");
    }
}
