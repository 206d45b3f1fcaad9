//! config-linux.md#user-namespace-mappings: a container whose root is nobody outside.
mod support;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use support::*;

const BASE: u32 = 200_000;

/// Ids 0 to 65535 are 200000 and up on the host.
fn mapped() -> Bundle {
    let b = Bundle::new();
    b.add_namespace("user");
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": BASE, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    b
}

fn owned(b: &Bundle) {
    let mut waiting = vec![b.rootfs()];
    while let Some(path) = waiting.pop() {
        if fs::symlink_metadata(&path).expect("stat").is_dir() {
            chown(&path, Some(BASE), Some(BASE)).expect("chown");
            waiting.extend(fs::read_dir(&path).expect("ls").flatten().map(|entry| entry.path()));
        }
    }
}

#[test]
fn ids_are_mapped() {
    let b = mapped();
    let report = b.probe(&[]);
    let map = json!([{ "containerID": 0, "hostID": BASE, "size": 65536 }]);
    assert_eq!((&report["uidMap"], &report["gidMap"]), (&map, &map));
    assert_eq!((&report["uid"]["real"], &report["gid"]["real"]), (&json!(0), &json!(0)));
    assert_ne!(report["namespaces"]["user"], json!(own_namespace("user")));
}

#[test]
fn on_the_host_root_is_the_mapped_id() {
    let b = mapped();
    let c = b.running();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(status.contains(&format!("Uid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}")), "{status}");
    assert!(status.contains(&format!("Gid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}")), "{status}");
}

#[test]
fn the_message_queues_are_the_containers_own() {
    let b = mapped();
    let c = b.running();
    let queues = fs::metadata(format!("/proc/{}/root/dev/mqueue", c.pid())).expect("stat");
    // With runc the group is the caller's.
    assert_eq!(queues.uid(), BASE);
}

#[test]
fn another_user_is_another_mapped_id() {
    let b = mapped();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [7] }));
    let c = b.running();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(status.contains(&format!("Uid:\t{}", BASE + 1000)), "{status}");
    assert!(status.contains(&format!("Gid:\t{}", BASE + 2000)), "{status}");
    assert!(status.contains(&format!("Groups:\t{}", BASE + 7)), "{status}");
}

#[test]
fn several_ranges_are_one_map() {
    let b = mapped();
    let map = json!([
        { "containerID": 0, "hostID": BASE, "size": 1 },
        { "containerID": 1, "hostID": BASE + 5000, "size": 10 },
        { "containerID": 1000, "hostID": BASE + 9000, "size": 5 },
    ]);
    b.remove_mount("/dev/pts");
    b.edit(|spec| (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map.clone()));
    let report = b.probe(&[]);
    assert_eq!((&report["uidMap"], &report["gidMap"]), (&map, &map));
}

#[test]
fn files_made_inside_belong_to_the_mapped_id_outside() {
    let b = mapped();
    owned(&b);
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b.run_args(&["/bin/touch", "/tmp/made"]).ok();
    let meta = fs::metadata(b.rootfs().join("tmp/made")).expect("stat");
    assert_eq!((meta.uid(), meta.gid()), (BASE, BASE));
}

#[test]
fn the_hosts_files_belong_to_nobody_inside() {
    let b = mapped();
    let report = b.probe(&["--stat", "/etc/passwd"]);
    assert_eq!(report["stats"]["/etc/passwd"]["uid"], 65534);
}

#[test]
fn the_hosts_files_cannot_be_written() {
    let b = mapped();
    b.edit(|spec| {
        spec["root"]["readonly"] = json!(false);
        let all = json!(["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"]);
        spec["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    });
    let report = b.probe(&["--write", "/etc/passwd", "--write", "/etc"]);
    assert_eq!(report["writes"]["/etc/passwd"]["errno"], "EACCES");
    assert_eq!(report["writes"]["/etc"]["errno"], "EACCES");
}

#[test]
fn a_tmpfs_belongs_to_the_containers_root() {
    let b = mapped();
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs" }));
    let report = b.probe(&["--stat", "/mnt", "--write", "/mnt"]);
    assert_eq!(report["stats"]["/mnt"]["uid"], 0);
    assert_eq!(report["writes"]["/mnt"]["ok"], true);
}

#[test]
fn devices_are_the_hosts_nodes_bind_mounted() {
    let b = mapped();
    let report = b.probe(&[]);
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = format!("/dev/{name}");
        assert_eq!(report["devices"][&path]["type"], "c", "{name}");
        let mount = mount_at(&report, &path);
        assert!(!has(mount, "nodev"), "{mount}");
    }
    let out = b.run_args(&[
        "/bin/sh",
        "-c",
        "echo x > /dev/null && dd if=/dev/zero bs=3 count=1 2>/dev/null | busybox wc -c",
    ]);
    assert_eq!(out.ok().stdout, "3\n");
}

#[test]
fn no_stream_is_out_of_reach() {
    let b = mapped();
    b.set_args(&["/bin/sh", "-c", "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr"]);
    let out = b.verb("run", &[]).stdin("in\n").ok();
    assert!(out.stdout.contains("in\n") || out.stdout.contains("out\n"), "{out}");
}

#[test]
fn setgroups_is_allowed_to_what_root_made() {
    let b = mapped();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [10, 20] }));
    let report = b.probe(&[]);
    assert_eq!(report["setgroups"], "allow");
    assert_eq!(report["groups"], json!([10, 20]));
}

#[test]
fn an_unmapped_user_is_an_error() {
    let b = mapped();
    b.edit(|spec| spec["process"]["user"]["uid"] = json!(70_000));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(is_peer() || out.error().contains("70000"), "the error names the id: {out}");
}

#[test]
fn an_unmapped_group_is_an_error() {
    let b = mapped();
    b.edit(|spec| spec["process"]["user"]["additionalGids"] = json!([70_000]));
    b.run_args(&["/bin/true"]).exits(1);
}

#[test]
fn a_user_namespace_without_maps_is_an_error() {
    let b = Bundle::new();
    b.add_namespace("user");
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().to_lowercase().contains("map"), "{out}");
}

#[test]
fn maps_without_a_user_namespace_are_an_error() {
    newer!("the check that maps come with a user namespace");
    let b = mapped();
    b.remove_namespace("user");
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().to_lowercase().contains("user namespace"), "{out}");
}

#[test]
fn overlapping_maps_are_an_error() {
    let b = mapped();
    b.edit(|spec| {
        let maps = spec["linux"]["uidMappings"].as_array_mut().expect("maps");
        maps.push(json!({ "containerID": 5, "hostID": BASE + 100_000, "size": 3 }));
    });
    b.run_args(&["/bin/true"]).exits(1);
}

#[test]
fn a_map_of_size_zero_is_an_error() {
    for maps in ["uidMappings", "gidMappings"] {
        let b = mapped();
        b.edit(|spec| spec["linux"][maps][0]["size"] = json!(0));
        b.run_args(&["/bin/true"]).exits(1);
    }
}

#[test]
fn capabilities_are_full_inside_and_nothing_outside() {
    let b = mapped();
    b.edit(|spec| {
        let some = json!(["CAP_SYS_ADMIN", "CAP_SYS_TIME", "CAP_NET_ADMIN"]);
        spec["process"]["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some });
    });
    b.run_args(&["/bin/mount", "-t", "tmpfs", "none", "/mnt"]).ok();
    // settimeofday(2) wants CAP_SYS_TIME over the first user namespace.
    let answer =
        b.run_args(&["/bin/probe", "syscall", &libc::SYS_settimeofday.to_string(), "b:16", "0"]).ok().json();
    assert_eq!(answer["errno"], "EPERM");
}

#[test]
fn exec_is_in_the_user_namespace() {
    let b = mapped();
    let c = b.running();
    let report = c.exec_probe(&[], &[]);
    assert_eq!(report["namespaces"]["user"], json!(namespace(c.pid(), "user")));
    assert_eq!(report["uid"]["real"], 0);
    let report = c.exec_probe(&["--user", "1000:1000"], &[]);
    assert_eq!(report["uid"]["real"], 1000);
}

#[test]
fn the_other_namespaces_belong_to_the_user_namespace() {
    let b = mapped();
    b.edit(|spec| {
        let some = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some });
    });
    // sethostname(2) wants CAP_SYS_ADMIN over the owner of the UTS namespace.
    let nr = libc::SYS_sethostname.to_string();
    assert_eq!(b.run_args(&["/bin/probe", "syscall", &nr, "s:ewe", "3"]).ok().json()["ok"], 0);
}

#[test]
fn proc_and_sysfs_are_the_containers_own() {
    let report = mapped().probe(&["--list", "/sys/class/net"]);
    assert_eq!(mount_at(&report, "/proc")["type"], "proc");
    assert_eq!(mount_at(&report, "/sys")["type"], "sysfs");
    assert_eq!(report["lists"]["/sys/class/net"], json!(["lo"]));
}

#[test]
fn masked_and_read_only_paths_hold_in_a_user_namespace() {
    let b = mapped();
    b.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/version", "/sys/kernel"]));
    let report = b.probe(&["--read", "/proc/version", "--list", "/sys/kernel"]);
    assert_eq!(report["reads"]["/proc/version"]["ok"], "");
    assert_eq!(report["lists"]["/sys/kernel"], json!([]));
    assert!(has(mount_at(&report, "/proc/sys"), "ro"));
}

#[test]
fn a_cgroup_namespace_goes_with_a_user_namespace() {
    let b = mapped();
    b.add_namespace("cgroup");
    let report = b.probe(&[]);
    assert_ne!(report["namespaces"]["cgroup"], json!(own_namespace("cgroup")));
    let paths = report["cgroup"]["paths"].as_object().expect("paths");
    assert_eq!(paths[""], "/", "{paths:?}");
}

#[test]
fn a_network_sysctl_is_set_in_a_user_namespace() {
    let b = mapped();
    b.edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "55" }));
    assert_eq!(b.probe(&["--sysctl", "net.ipv4.ip_default_ttl"])["sysctls"]["net.ipv4.ip_default_ttl"], "55");
}

#[test]
fn a_private_host_directory_is_bind_mounted_all_the_same() {
    let b = mapped();
    let private = b.path("private");
    fs::create_dir_all(format!("{private}/open")).expect("mkdir");
    fs::write(format!("{private}/open/f"), "reached").expect("write");
    use std::os::unix::fs::PermissionsExt as _;
    // Only the host's root passes here; the mapped one does not, so the source must be opened by the runtime.
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
    b.add_mount(json!({ "destination": "/mnt", "type": "bind",
        "source": format!("{private}/open"), "options": ["bind"] }));
    assert_eq!(b.probe(&["--read", "/mnt/f"])["reads"]["/mnt/f"]["ok"], "reached");
}
