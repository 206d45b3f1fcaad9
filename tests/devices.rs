//! config-linux.md#devices, #default-devices and #device-whitelist.
mod support;
use std::fs;
use support::*;

/// A character device that no default rule allows (runc 1.1.5 still lets every container at 10:200, tun): an open
/// that is allowed fails with ENODEV or ENXIO, or works; one that the cgroup denies fails with EPERM.
const FUSE: (u32, u32) = (10, 229);

fn with_device(device: Value) -> Bundle {
    let b = Bundle::new();
    b.set_args(&["/bin/true"]);
    b.edit(|spec| spec["linux"]["devices"] = json!([device]));
    b
}

fn fuse(rules: Value) -> Bundle {
    let b = with_device(
        json!({ "path": "/dev/fuse", "type": "c", "major": FUSE.0, "minor": FUSE.1, "fileMode": 0o666 }),
    );
    b.edit(|spec| spec["linux"]["resources"]["devices"] = rules);
    b
}

/// The errno of opening `path` this way in the container, "" if it worked.
fn open(b: &Bundle, path: &str, how: &str) -> String {
    let answer = b.run_args(&["/bin/probe", "open", path, how]).ok().json();
    answer["errno"].as_str().unwrap_or("").to_owned()
}

#[test]
fn the_default_nodes_are_there() {
    let report = Bundle::new().probe(&[]);
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let node = &report["devices"][format!("/dev/{name}")];
        let want = json!({ "type": "c", "mode": 0o666, "uid": 0, "gid": 0, "major": major, "minor": minor });
        for (key, value) in want.as_object().expect("an object") {
            assert_eq!(node[key], *value, "{name}: {node}");
        }
    }
}

#[test]
fn the_default_links_are_there() {
    let report = Bundle::new().probe(&[]);
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        assert_eq!(report["devices"][format!("/dev/{name}")]["target"], target, "{name}");
    }
}

#[test]
fn core_leads_to_kcore_where_there_is_one() {
    let report = Bundle::new().probe(&[]);
    let target = &report["devices"]["/dev/core"]["target"];
    if fs::exists("/proc/kcore").expect("stat") {
        assert_eq!(target, "/proc/kcore");
    } else {
        assert_eq!(*target, Value::Null);
    }
}

#[test]
fn the_default_nodes_work() {
    let b = Bundle::new();
    let script = "head -c 0 /dev/null; echo x > /dev/null && dd if=/dev/zero bs=4 count=1 2>/dev/null | wc -c; \
                  dd if=/dev/urandom bs=4 count=1 2>/dev/null | wc -c; echo full > /dev/full";
    let script = script.replace("| wc -c", "| busybox wc -c").replace("head", "busybox head");
    let out = b.run_args(&["/bin/sh", "-c", &script]);
    assert_eq!(out.stdout, "4\n4\n", "{out}");
    assert!(out.stderr.contains("No space left"), "{out}");
}

#[test]
fn without_a_terminal_there_is_no_console() {
    let report = Bundle::new().probe(&["--stat", "/dev/console"]);
    assert_eq!(report["stats"]["/dev/console"]["errno"], "ENOENT");
}

#[test]
fn a_character_device_has_its_mode_and_owner() {
    let b = with_device(json!({
        "path": "/dev/lamb", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 1000, "gid": 2000,
    }));
    let node = b.probe(&[])["devices"]["/dev/lamb"].clone();
    assert_eq!((&node["type"], &node["major"], &node["minor"]), (&json!("c"), &json!(1), &json!(5)));
    assert_eq!((&node["mode"], &node["uid"], &node["gid"]), (&json!(0o644), &json!(1000), &json!(2000)));
    assert_eq!(open(&b, "/dev/lamb", "rdonly"), "");
}

#[test]
fn an_unbuffered_device_is_a_character_device() {
    let node = with_device(json!({ "path": "/dev/u", "type": "u", "major": 1, "minor": 5 })).probe(&[])["devices"]
        ["/dev/u"]
        .clone();
    assert_eq!((&node["type"], &node["mode"]), (&json!("c"), &json!(0o666)));
}

#[test]
fn a_block_device_is_made_but_not_opened() {
    let b =
        with_device(json!({ "path": "/dev/disk", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600 }));
    let node = b.probe(&[])["devices"]["/dev/disk"].clone();
    assert_eq!((&node["type"], &node["major"], &node["minor"]), (&json!("b"), &json!(7), &json!(99)));
    assert_eq!(open(&b, "/dev/disk", "rdonly"), "EPERM");
}

#[test]
fn a_fifo_needs_no_numbers() {
    let b = with_device(json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }));
    let node = b.probe(&[])["devices"]["/dev/pipe"].clone();
    assert_eq!((&node["type"], &node["mode"]), (&json!("p"), &json!(0o622)));
}

#[test]
fn the_directories_above_a_device_are_made() {
    let b = with_device(json!({ "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200 }));
    assert_eq!(b.probe(&["--stat", "/dev/net/tun"])["stats"]["/dev/net/tun"]["type"], "c");
}

#[test]
fn the_callers_umask_takes_nothing_from_a_mode() {
    let b =
        with_device(json!({ "path": "/dev/lamb", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666 }));
    b.set_args(&["/bin/probe"]);
    let out = b.verb("run", &[]).through(&["sh", "-c", "umask 0077; exec \"$@\"", "sh"]).ok();
    assert_eq!(out.json()["devices"]["/dev/lamb"]["mode"], 0o666);
}

#[test]
fn an_unknown_type_is_refused() {
    let out = with_device(json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 5 })).run(&[]);
    assert_eq!(out.code, 1, "{out}");
    assert!(out.error().contains("devic") && out.error().contains('z'), "{out}");
}

#[test]
fn a_device_through_a_symlink_stays_inside() {
    let b = with_device(json!({ "path": "/mnt/link/node", "type": "c", "major": 1, "minor": 5 }));
    let outside = b.path("outside");
    fs::create_dir(&outside).expect("mkdir");
    std::os::unix::fs::symlink(&outside, b.rootfs().join("mnt/link")).expect("symlink");
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    // Inside, or an error; never on the host.
    let _ = b.run_args(&["/bin/true"]);
    assert_eq!(listing(outside.as_ref()).len(), 1, "{:?}", listing(outside.as_ref()));
}

#[test]
fn what_no_rule_allows_is_denied() {
    let b = fuse(json!([{ "allow": false, "access": "rwm" }]));
    assert_eq!(open(&b, "/dev/fuse", "rdonly"), "EPERM");
    assert_eq!(open(&b, "/dev/fuse", "wronly"), "EPERM");
}

#[test]
fn a_rule_allows_what_it_says_and_no_more() {
    let b = fuse(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": FUSE.0, "minor": FUSE.1, "access": "r" },
    ]));
    assert_ne!(open(&b, "/dev/fuse", "rdonly"), "EPERM");
    assert_eq!(open(&b, "/dev/fuse", "wronly"), "EPERM");
    assert_eq!(open(&b, "/dev/fuse", "rdwr"), "EPERM");
}

#[test]
fn a_rule_without_a_minor_is_for_all_of_them() {
    let b = fuse(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": FUSE.0, "access": "rw" },
    ]));
    assert_ne!(open(&b, "/dev/fuse", "rdwr"), "EPERM");
}

#[test]
fn a_rule_for_block_devices_is_none_for_character_devices() {
    let b = fuse(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": FUSE.0, "minor": FUSE.1, "access": "rwm" },
    ]));
    assert_eq!(open(&b, "/dev/fuse", "rdonly"), "EPERM");
}

#[test]
fn a_later_rule_takes_back_what_an_earlier_one_gave() {
    let b = fuse(json!([
        { "allow": true, "access": "rwm" },
        { "allow": false, "type": "c", "major": FUSE.0, "minor": FUSE.1, "access": "w" },
    ]));
    assert_ne!(open(&b, "/dev/fuse", "rdonly"), "EPERM");
    assert_eq!(open(&b, "/dev/fuse", "wronly"), "EPERM");
}

#[test]
fn everything_may_be_allowed() {
    let b = fuse(json!([{ "allow": true, "access": "rwm" }]));
    assert_ne!(open(&b, "/dev/fuse", "rdwr"), "EPERM");
}

#[test]
fn without_device_rules_the_defaults_still_work() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"].as_object_mut().expect("linux").remove("resources");
    });
    assert_eq!(open(&b, "/dev/null", "rdwr"), "");
    assert_eq!(open(&b, "/dev/urandom", "rdonly"), "");
}

/// Docker leaves CAP_MKNOD in: a node may be made, the cgroup still decides who opens it.
#[test]
fn a_node_made_inside_cannot_be_opened() {
    let b = fuse(json!([{ "allow": false, "access": "rwm" }]));
    b.edit(|spec| {
        let capabilities = json!(["CAP_MKNOD"]);
        spec["process"]["capabilities"] =
            json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    });
    let script = "/bin/probe mknod /dev/mine c 10 229 && /bin/probe open /dev/mine rdonly";
    let out = b.run_args(&["/bin/sh", "-c", script]).ok();
    let mut answers = out.stdout.lines();
    assert_eq!(answers.next(), Some("{\"ok\":0}"), "{out}");
    assert_eq!(answers.next(), Some("{\"errno\":\"EPERM\"}"), "{out}");
}

#[test]
fn without_cap_mknod_no_node_is_made() {
    let out = Bundle::new().run_args(&["/bin/probe", "mknod", "/dev/mine", "c", "1", "3"]).ok();
    assert_eq!(out.json()["errno"], "EPERM");
}

#[test]
fn exec_is_held_by_the_same_rules() {
    let b = fuse(json!([{ "allow": false, "access": "rwm" }]));
    let c = b.set_args(&["/bin/probe", "sleep", "3600"]).running();
    assert_eq!(c.exec(&["/bin/probe", "open", "/dev/fuse", "rdonly"]).ok().json()["errno"], "EPERM");
    assert!(c.exec(&["/bin/probe", "open", "/dev/null", "rdwr"]).ok().json()["ok"].is_i64());
}

#[test]
fn the_hosts_ptmx_among_the_devices_is_passed_over() {
    let b = Bundle::new();
    let ptmx = json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 438 });
    b.edit(|spec| spec["linux"]["devices"] = json!([ptmx]));
    let report = b.probe(&[]);
    assert_eq!(report["devices"]["/dev/ptmx"]["target"], "pts/ptmx", "{}", report["devices"]);
}

#[test]
fn an_unknown_kind_of_access_is_refused() {
    newer!("an error for an unknown letter: runc 1.1.5 hangs");
    let b = fuse(json!([{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwx" }]));
    b.run(&[]).fails("access");
}

#[test]
fn a_bind_mounted_dev_is_left_alone() {
    let b = Bundle::new();
    let dev = b.path("dev");
    fs::create_dir_all(format!("{dev}/pts")).expect("mkdir");
    for name in ["shm", "mqueue"] {
        fs::create_dir(format!("{dev}/{name}")).expect("mkdir");
    }
    // runc opens it; nothing else is needed there.
    let made = std::process::Command::new("mknod").args([&format!("{dev}/null"), "c", "1", "3"]).status();
    assert!(made.expect("mknod(1)").success());
    let before = listing(dev.as_ref());
    b.edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/dev" {
                *mount = json!({ "destination": "/dev", "type": "bind", "source": dev, "options": ["bind"] });
            }
        }
    });
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(listing(dev.as_ref()), before);
}

#[test]
fn the_root_file_systems_own_dev_is_filled_when_nothing_is_mounted_there() {
    let b = Bundle::new();
    b.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
    });
    let report = b.probe(&[]);
    assert_eq!(report["devices"]["/dev/null"]["minor"], 3);
    assert_eq!(report["devices"]["/dev/fd"]["target"], "/proc/self/fd");
}
