//! config.md#mounts: what is mounted where, with which flags, in which order, and what is refused.
mod support;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use support::*;

/// A directory on the host, with a file `f` and a directory `sub`; its path goes into `source`.
fn host_dir(b: &Bundle, name: &str) -> String {
    let dir = b.path(name);
    fs::create_dir_all(format!("{dir}/sub")).expect("mkdir");
    fs::write(format!("{dir}/f"), "from the host").expect("write");
    dir
}

fn bind(b: &Bundle, options: &[&str]) -> Bundle2 {
    let source = host_dir(b, "host");
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options }));
    Bundle2 { source }
}

struct Bundle2 {
    source: String,
}

fn tmpfs(options: &[&str]) -> Bundle {
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options }));
    b
}

#[test]
fn a_bind_mount_shows_the_hosts_files() {
    let b = Bundle::new();
    let host = bind(&b, &["bind"]);
    let report = b.probe(&["--read", "/mnt/f", "--write", "/mnt"]);
    assert_eq!(report["reads"]["/mnt/f"]["ok"], "from the host");
    assert_eq!(report["writes"]["/mnt"]["ok"], true);
    b.run_args(&["/bin/touch", "/mnt/made"]).ok();
    assert!(fs::exists(format!("{}/made", host.source)).expect("stat"));
}

#[test]
fn the_bind_option_alone_makes_a_bind_mount() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/mnt", "source": source, "options": ["rbind"] }));
    assert_eq!(b.probe(&["--read", "/mnt/f"])["reads"]["/mnt/f"]["ok"], "from the host");
}

#[test]
fn a_source_is_relative_to_the_bundle() {
    let b = Bundle::new();
    host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": "host", "options": ["bind"] }));
    assert_eq!(b.probe(&["--read", "/mnt/f"])["reads"]["/mnt/f"]["ok"], "from the host");
}

#[test]
fn a_read_only_bind_mount_cannot_be_written() {
    let b = Bundle::new();
    bind(&b, &["bind", "ro"]);
    let report = b.probe(&["--write", "/mnt", "--write", "/mnt/f"]);
    assert_eq!(report["writes"]["/mnt"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/mnt/f"]["errno"], "EROFS");
}

#[test]
fn nosuid_nodev_noexec_are_flags_of_a_bind_mount() {
    let b = Bundle::new();
    bind(&b, &["bind", "nosuid", "nodev", "noexec"]);
    let report = b.probe(&[]);
    let mount = mount_at(&report, "/mnt");
    assert!(["nosuid", "nodev", "noexec"].iter().all(|word| has(mount, word)), "{mount}");
}

#[test]
fn noexec_really_stops_programs() {
    let b = Bundle::new();
    let host = bind(&b, &["bind", "noexec"]);
    script(format!("{}/run", host.source), "#!/bin/sh\necho ran\n");
    let out = b.run_args(&["/bin/sh", "-c", "/mnt/run"]).exits(126);
    assert!(out.stderr.contains("ermission denied"), "{out}");
}

#[test]
fn the_opposite_of_an_option_takes_it_away() {
    let report = tmpfs(&["nosuid", "noexec", "suid", "exec", "ro", "rw"]).probe(&["--write", "/mnt"]);
    let mount = mount_at(&report, "/mnt");
    assert!(!["nosuid", "noexec", "ro"].iter().any(|word| has(mount, word)), "{mount}");
    assert_eq!(report["writes"]["/mnt"]["ok"], true);
}

#[test]
fn access_time_options_are_flags() {
    for (option, flag) in [("noatime", "noatime"), ("nodiratime", "nodiratime"), ("relatime", "relatime")] {
        let report = tmpfs(&[option]).probe(&[]);
        assert!(has(mount_at(&report, "/mnt"), flag), "{option}: {}", mount_at(&report, "/mnt"));
    }
    let report = tmpfs(&["strictatime"]).probe(&[]);
    let mount = mount_at(&report, "/mnt");
    assert!(!has(mount, "relatime") && !has(mount, "noatime"), "{mount}");
}

#[test]
fn sync_and_dirsync_are_flags_of_the_file_system() {
    let report = tmpfs(&["sync", "dirsync"]).probe(&[]);
    let mount = mount_at(&report, "/mnt");
    assert!(has(mount, "sync") && has(mount, "dirsync"), "{mount}");
}

#[test]
fn nosymfollow_stops_links() {
    let b = Bundle::new();
    let host = bind(&b, &["bind", "nosymfollow"]);
    symlink("f", format!("{}/link", host.source)).expect("symlink");
    let report = b.probe(&["--read", "/mnt/link", "--read", "/mnt/f"]);
    assert_eq!(report["reads"]["/mnt/link"]["errno"], "ELOOP");
    assert_eq!(report["reads"]["/mnt/f"]["ok"], "from the host");
}

/// The kernel's own mounts at these places: /proc/sys is below the bind mount of /proc, and so on.
fn nested(b: &Bundle, options: &[&str]) {
    // /dev of the host is a mount with mounts below it (/dev/pts, /dev/shm).
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": "/dev", "options": options }));
}

#[test]
fn rbind_brings_the_mounts_below_and_bind_does_not() {
    let b = Bundle::new();
    nested(&b, &["rbind"]);
    assert_eq!(mount_at(&b.probe(&[]), "/mnt/pts")["type"], "devpts");
    let b = Bundle::new();
    nested(&b, &["bind"]);
    let report = b.probe(&[]);
    let below = |mount: &&Value| mount["mountPoint"] == "/mnt/pts";
    assert_eq!(report["mounts"].as_array().expect("mounts").iter().find(below), None);
}

#[test]
fn ro_binds_the_top_only() {
    let b = Bundle::new();
    nested(&b, &["rbind", "ro"]);
    let report = b.probe(&[]);
    assert!(has(mount_at(&report, "/mnt"), "ro"));
    assert!(!mount_at(&report, "/mnt/pts")["options"].as_array().expect("options").contains(&json!("ro")));
}

#[test]
fn recursive_options_reach_the_mounts_below() {
    for (option, flag) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnoexec", "noexec"),
        ("rnodev", "nodev"),
        ("rnoatime", "noatime"),
    ] {
        let b = Bundle::new();
        nested(&b, &["rbind", option]);
        let report = b.probe(&[]);
        for point in ["/mnt", "/mnt/pts"] {
            let options = mount_at(&report, point)["options"].as_array().expect("options").clone();
            assert!(options.contains(&json!(flag)), "{option} at {point}: {options:?}");
        }
    }
}

#[test]
fn a_recursive_option_can_take_away() {
    let b = Bundle::new();
    nested(&b, &["rbind", "ro", "rrw"]);
    let report = b.probe(&[]);
    assert!(!mount_at(&report, "/mnt")["options"].as_array().expect("options").contains(&json!("ro")));
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    let b = Bundle::new();
    let options = ["size=1m", "mode=1750", "nosuid"];
    b.add_mount(json!({ "destination": "/fresh", "type": "tmpfs", "source": "tmpfs", "options": options }));
    let report = b.probe(&["--stat", "/fresh"]);
    assert_eq!(report["stats"]["/fresh"]["mode"], 0o1750);
    assert!(has(mount_at(&report, "/fresh"), "size=1024k"), "{}", mount_at(&report, "/fresh"));
}

#[test]
fn a_tmpfs_mode_counts_more_than_the_directorys() {
    newer!("an explicit mode that wins over an existing directory's");
    let report = tmpfs(&["mode=1750"]).probe(&["--stat", "/mnt"]);
    assert_eq!(report["stats"]["/mnt"]["mode"], 0o1750);
}

#[test]
fn a_tmpfs_is_really_limited() {
    let b = tmpfs(&["size=64k"]);
    let out = b.run_args(&["/bin/dd", "if=/dev/zero", "of=/mnt/x", "bs=4096", "count=64"]);
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.contains("No space left"), "{out}");
}

#[test]
fn a_tmpfs_without_a_mode_takes_the_directorys() {
    let b = tmpfs(&[]);
    fs::set_permissions(b.rootfs().join("mnt"), fs::Permissions::from_mode(0o711)).expect("chmod");
    assert_eq!(b.probe(&["--stat", "/mnt"])["stats"]["/mnt"]["mode"], 0o711);
}

#[test]
fn tmpcopyup_copies_what_the_tmpfs_hides() {
    let b = tmpfs(&["tmpcopyup"]);
    b.script("mnt/a/b", "deep");
    symlink("a/b", b.rootfs().join("mnt/link")).expect("symlink");
    let report =
        b.probe(&["--read", "/mnt/link", "--stat", "/mnt/a/b", "--stat", "/mnt/link", "--write", "/mnt/a"]);
    assert_eq!(report["reads"]["/mnt/link"]["ok"], "deep");
    assert_eq!(report["stats"]["/mnt/a/b"]["mode"], 0o755);
    assert_eq!(report["stats"]["/mnt/link"]["target"], "a/b");
    assert_eq!(report["writes"]["/mnt/a"]["ok"], true);
    assert_eq!(mount_at(&report, "/mnt")["type"], "tmpfs");
}

#[test]
fn what_is_written_to_a_copied_up_tmpfs_stays_there() {
    let b = tmpfs(&["tmpcopyup"]);
    b.file("mnt/kept", "before");
    b.run_args(&["/bin/sh", "-c", "echo after > /mnt/kept; rm -f /mnt/kept"]).ok();
    assert_eq!(fs::read_to_string(b.rootfs().join("mnt/kept")).expect("read"), "before");
}

#[test]
fn the_default_mounts_are_of_their_types() {
    let report = Bundle::new().probe(&[]);
    for (point, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert_eq!(mount_at(&report, point)["type"], kind, "{point}");
    }
    assert!(has(mount_at(&report, "/dev/pts"), "ptmxmode=666"));
    assert!(has(mount_at(&report, "/dev/pts"), "gid=5"));
    assert!(has(mount_at(&report, "/dev/shm"), "size=65536k"));
    assert!(has(mount_at(&report, "/sys"), "ro"));
}

#[test]
fn devpts_is_an_instance_of_its_own() {
    let b = Bundle::new();
    let list = b.probe(&["--list", "/dev/pts"])["lists"]["/dev/pts"].clone();
    assert_eq!(list, json!(["ptmx"]));
}

#[test]
fn the_cgroup_mount_is_cgroup2() {
    if Feature::CgroupV1.is_present() {
        deviates!("on a host with v1 controllers jug mounts cgroup2 alone; runc mounts every v1 hierarchy");
    }
    let report = Bundle::new().probe(&["--list", "/sys/fs/cgroup", "--write", "/sys/fs/cgroup/cgroup.procs"]);
    let mount = mount_at(&report, "/sys/fs/cgroup");
    assert_eq!(mount["type"], "cgroup2");
    assert!(has(mount, "ro"), "{mount}");
    let files = report["lists"]["/sys/fs/cgroup"].as_array().expect("a list");
    assert!(files.contains(&json!("cgroup.procs")), "{files:?}");
    assert_eq!(report["writes"]["/sys/fs/cgroup/cgroup.procs"]["errno"], "EROFS");
}

#[test]
fn a_cgroup_mount_shows_only_the_containers_cgroup() {
    if Feature::CgroupV1.is_present() {
        deviates!("on a host with v1 controllers jug mounts cgroup2 alone; runc mounts every v1 hierarchy");
    }
    let b = Bundle::new();
    b.add_namespace("cgroup");
    let report = b.probe(&["--read", "/sys/fs/cgroup/cgroup.procs"]);
    assert_eq!(report["reads"]["/sys/fs/cgroup/cgroup.procs"]["ok"], "1\n");
    assert_eq!(report["cgroup"]["paths"][""], "/");
}

#[test]
fn a_file_is_mounted_onto_a_file() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.file("etc/motd", "hidden");
    b.add_mount(json!({ "destination": "/etc/motd", "type": "bind",
        "source": format!("{source}/f"), "options": ["bind", "ro"] }));
    let report = b.probe(&["--read", "/etc/motd", "--write", "/etc/motd"]);
    assert_eq!(report["reads"]["/etc/motd"]["ok"], "from the host");
    assert_eq!(report["writes"]["/etc/motd"]["errno"], "EROFS");
}

#[test]
fn a_missing_destination_directory_is_made() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/a/b/c", "type": "bind", "source": source, "options": ["bind"] }));
    assert_eq!(b.probe(&["--read", "/a/b/c/f"])["reads"]["/a/b/c/f"]["ok"], "from the host");
    assert!(b.rootfs().join("a/b/c").is_dir());
}

#[test]
fn a_missing_destination_file_is_made() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/a/b/file", "type": "bind",
        "source": format!("{source}/f"), "options": ["bind"] }));
    assert_eq!(b.probe(&["--read", "/a/b/file"])["reads"]["/a/b/file"]["ok"], "from the host");
    assert!(b.rootfs().join("a/b/file").is_file());
}

#[test]
fn a_missing_source_is_an_error_that_names_it() {
    let b = Bundle::new();
    b.add_mount(
        json!({ "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
    );
    let out = b.run_args(&["/bin/true"]).fails("/no/such/source");
    assert!(out.error().to_lowercase().contains("no such file"), "{out}");
}

#[test]
fn a_directory_cannot_be_mounted_onto_a_file() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(
        json!({ "destination": "/etc/passwd", "type": "bind", "source": source, "options": ["bind"] }),
    );
    let out = b.run_args(&["/bin/true"]).fails("/etc/passwd");
    assert!(out.error().to_lowercase().contains("not a directory"), "{out}");
}

#[test]
fn an_absolute_symlink_at_the_destination_stays_inside() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    // On the host this path exists too; only the container's may get the mount.
    let target = host_dir(&b, "target");
    symlink(&target, b.rootfs().join("link")).expect("symlink");
    b.add_mount(json!({ "destination": "/link", "type": "bind", "source": source, "options": ["bind"] }));
    fs::write(format!("{source}/mark"), "mounted").expect("write");
    let inside = format!("{target}/mark");
    let report = b.probe(&["--read", &inside]);
    assert_eq!(report["reads"][&inside]["ok"], "mounted");
    assert_eq!(mount_at(&report, &target)["mountPoint"], json!(target));
    assert!(!fs::exists(&inside).expect("stat"));
}

#[test]
fn dots_that_climb_at_the_destination_stay_inside() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    symlink("../../../../../..", b.rootfs().join("up")).expect("symlink");
    b.add_mount(
        json!({ "destination": "/up/landed", "type": "bind", "source": source, "options": ["bind"] }),
    );
    assert_eq!(b.probe(&["--read", "/landed/f"])["reads"]["/landed/f"]["ok"], "from the host");
    assert!(!fs::exists("/landed").expect("stat"));
}

#[test]
fn mounts_are_made_in_their_order() {
    let b = Bundle::new();
    let (first, second) = (host_dir(&b, "first"), host_dir(&b, "second"));
    fs::write(format!("{second}/f"), "second").expect("write");
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": first, "options": ["bind"] }));
    b.add_mount(json!({ "destination": "/mnt/sub", "type": "bind", "source": second, "options": ["bind"] }));
    let report = b.probe(&["--read", "/mnt/f", "--read", "/mnt/sub/f"]);
    assert_eq!(report["reads"]["/mnt/f"]["ok"], "from the host");
    assert_eq!(report["reads"]["/mnt/sub/f"]["ok"], "second");
    // And the later one hides what it covers.
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": second, "options": ["bind"] }));
    assert_eq!(b.probe(&["--read", "/mnt/f"])["reads"]["/mnt/f"]["ok"], "second");
}

#[test]
fn propagation_options_are_obeyed() {
    for (option, want) in
        [("rshared", "shared:"), ("rslave", "master:"), ("rprivate", ""), ("unbindable", "unbindable")]
    {
        let b = Bundle::new();
        bind(&b, &["rbind", option]);
        if option == "rslave" {
            // A slave needs a shared master; the host's tree may be private.
            b.edit(|spec| spec["linux"]["rootfsPropagation"] = json!("rslave"));
        }
        let report = b.probe(&[]);
        let tags = mount_at(&report, "/mnt")["propagation"].as_array().expect("tags").clone();
        let found = tags.iter().any(|tag| tag.as_str().is_some_and(|tag| tag.starts_with(want)));
        let host_is_shared = fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .contains("/ / rw,relatime shared:");
        match option {
            "rprivate" => assert!(tags.is_empty(), "{option}: {tags:?}"),
            "rslave" if !host_is_shared => assert!(!found, "{option}: {tags:?}"),
            _ => assert!(found, "{option}: {tags:?}"),
        }
    }
}

#[test]
fn a_mount_is_private_unless_asked() {
    let report = {
        let b = Bundle::new();
        bind(&b, &["rbind"]);
        b.probe(&[])
    };
    let tags = mount_at(&report, "/mnt")["propagation"].as_array().expect("tags").clone();
    assert!(!tags.iter().any(|tag| tag.as_str().is_some_and(|tag| tag.starts_with("shared:"))), "{tags:?}");
}

#[test]
fn an_option_that_the_file_system_does_not_know_is_an_error() {
    let b = tmpfs(&["sheep=7"]);
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("/mnt"), "{out}");
    assert!(out.error().to_lowercase().contains("invalid argument"), "{out}");
}

#[test]
fn an_unknown_file_system_is_an_error() {
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/mnt", "type": "sheepfs", "source": "none" }));
    let out = b.run_args(&["/bin/true"]).fails("/mnt");
    assert!(out.error().contains("no such device"), "{out}");
}

#[test]
fn data_options_do_not_fit_a_bind_mount() {
    newer!("the check for file-system options on a bind mount");
    let b = Bundle::new();
    bind(&b, &["bind", "size=7"]);
    b.run_args(&["/bin/true"]).fails("size");
}

#[test]
fn nothing_but_proc_is_mounted_over_proc() {
    for mount in [
        json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }),
        json!({ "destination": "/proc", "type": "bind", "source": "/tmp", "options": ["bind"] }),
    ] {
        let b = Bundle::new();
        b.add_mount(mount);
        let out = b.run_args(&["/bin/true"]).fails("/proc");
        assert!(out.error().contains("proc"), "{out}");
    }
}

#[test]
fn nothing_is_mounted_below_proc() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/proc/sys", "type": "bind", "source": source, "options": ["bind"] }));
    b.run_args(&["/bin/true"]).fails("/proc");
}

#[test]
fn no_tmpfs_is_mounted_below_proc() {
    newer!("the check below /proc for a tmpfs");
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" }));
    b.run_args(&["/bin/true"]).fails("/proc");
}

#[test]
fn what_lxcfs_replaces_below_proc_may_be_mounted() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    for name in ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg"] {
        b.add_mount(json!({ "destination": name, "type": "bind",
            "source": format!("{source}/f"), "options": ["bind"] }));
    }
    assert_eq!(b.probe(&["--read", "/proc/meminfo"])["reads"]["/proc/meminfo"]["ok"], "from the host");
}

#[test]
fn proc_bind_mounted_over_proc_is_allowed() {
    let b = Bundle::new();
    b.remove_mount("/proc").remove_namespace("pid");
    b.edit(|spec| {
        spec["mounts"].as_array_mut().expect("mounts").insert(
            0,
            json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
        );
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(mount_at(&b.probe(&[]), "/proc")["type"], "proc");
}

/// config.md demands an absolute path; runc takes a relative one as below /, with a warning, and engines rely on it.
#[test]
fn a_relative_destination_is_below_the_root() {
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "mnt", "type": "tmpfs", "source": "tmpfs" }));
    assert_eq!(mount_at(&b.probe(&[]), "/mnt")["type"], "tmpfs");
}

#[test]
fn a_mount_over_the_root_hides_it() {
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    b.add_mount(json!({ "destination": "/etc", "type": "bind", "source": source, "options": ["bind"] }));
    let report = b.probe(&["--list", "/etc"]);
    assert_eq!(report["lists"]["/etc"], json!(["f", "sub"]));
}

#[test]
fn an_idmapped_mount_shifts_the_owners() {
    newer!("idmapped mounts");
    let b = Bundle::new();
    let source = host_dir(&b, "host");
    std::os::unix::fs::chown(format!("{source}/f"), Some(1000), Some(1000)).expect("chown");
    let map = json!([{ "containerID": 1000, "hostID": 2000, "size": 10 }]);
    b.add_mount(json!({
        "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"],
        "uidMappings": map, "gidMappings": map,
    }));
    b.set_args(&["/bin/probe", "--stat", "/mnt/f"]);
    let out = b.run(&[]);
    if out.code != 0 && out.error().contains("EINVAL") && in_guest() {
        say_skip("SKIP", "the guest's tmpfs and hostfs (6.1) cannot be idmapped: the error is all there is");
        return;
    }
    let stat = out.ok().json()["stats"]["/mnt/f"].clone();
    assert_eq!((&stat["uid"], &stat["gid"]), (&json!(2000), &json!(2000)));
}

#[test]
fn no_mount_reaches_the_host() {
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let b = tmpfs(&["rshared"]);
    b.edit(|spec| spec["linux"]["rootfsPropagation"] = json!("rprivate"));
    let c = b.running();
    let during = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!during.contains(b.tag()), "{during}");
    c.stop();
    assert_eq!(before.lines().filter(|line| line.contains(b.tag())).count(), 0);
    assert!(fs::metadata(b.rootfs().join("mnt")).expect("stat").ino() > 0);
}
