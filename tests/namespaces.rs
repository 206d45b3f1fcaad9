//! config-linux.md#namespaces: new ones, joined ones, wrong ones.
mod support;
use support::*;

fn join(b: &Bundle, kind: &str, path: &str) {
    b.remove_namespace(kind);
    b.edit(|spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.push(json!({ "type": kind, "path": path }));
    });
}

/// The name in /proc/PID/ns of a namespace type of config.json.
fn proc_name(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    }
}

#[test]
fn each_namespace_listed_is_new() {
    let b = Bundle::new();
    b.add_namespace("cgroup");
    let report = b.probe(&[]);
    for kind in ["pid", "network", "ipc", "uts", "mount", "cgroup"] {
        let name = proc_name(kind);
        assert_ne!(report["namespaces"][name], json!(own_namespace(name)), "{kind}");
    }
}

#[test]
fn a_namespace_not_listed_is_the_callers() {
    for kind in ["network", "ipc", "uts"] {
        let b = Bundle::new();
        b.remove_namespace(kind);
        if kind == "uts" {
            b.edit(|spec| {
                spec.as_object_mut().expect("spec").remove("hostname");
            });
        }
        if kind == "network" {
            // A new sysfs shows the network namespace, whose owner must be the mounter; the host's is fine for root.
            b.remove_mount("/sys");
            b.remove_mount("/sys/fs/cgroup");
        }
        if kind == "ipc" {
            b.remove_mount("/dev/mqueue");
        }
        let name = proc_name(kind);
        assert_eq!(b.probe(&[])["namespaces"][name], json!(own_namespace(name)), "{kind}");
    }
}

#[test]
fn the_callers_pid_namespace_serves_too() {
    let b = Bundle::new();
    b.remove_namespace("pid");
    let report = b.probe(&[]);
    assert_eq!(report["namespaces"]["pid"], json!(own_namespace("pid")));
    assert_ne!(report["pid"], 1);
}

#[test]
fn the_callers_cgroup_namespace_is_kept_unless_listed() {
    let report = Bundle::new().probe(&[]);
    assert_eq!(report["namespaces"]["cgroup"], json!(own_namespace("cgroup")));
}

#[test]
fn a_time_namespace_has_its_offsets() {
    needs!(Feature::TimeNamespace);
    newer!("time namespaces");
    let b = Bundle::new();
    b.add_namespace("time");
    b.edit(|spec| {
        spec["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": 4321, "nanosecs": 7 }, "boottime": { "secs": 86400, "nanosecs": 0 } });
    });
    let report = b.probe(&[]);
    assert_ne!(report["namespaces"]["time"], json!(own_namespace("time")));
    assert_eq!(report["timeOffsets"]["monotonic"], json!({ "secs": 4321, "nanosecs": 7 }));
    assert_eq!(report["timeOffsets"]["boottime"]["secs"], 86400);
}

#[test]
fn exec_is_in_the_time_namespace_too() {
    needs!(Feature::TimeNamespace);
    newer!("time namespaces");
    let b = Bundle::new();
    b.add_namespace("time");
    b.edit(|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 86400 } }));
    let c = b.running();
    let uptime = c.exec(&["/bin/cat", "/proc/uptime"]).ok().stdout;
    let host = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let secs =
        |text: &str| text.split(['.', ' ']).next().and_then(|n| n.parse::<u64>().ok()).expect("seconds");
    assert!(secs(&uptime) >= secs(&host) + 86000, "{uptime} on {host}");
}

#[test]
fn time_offsets_without_a_time_namespace_are_refused() {
    newer!("time namespaces");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }));
    b.run_args(&["/bin/true"]).fails("time");
}

#[test]
fn a_uts_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--uts"], "uts");
    let b = Bundle::new();
    join(&b, "uts", &holder.path("uts"));
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("hostname");
    });
    assert_eq!(b.probe(&[])["namespaces"]["uts"], json!(holder.namespace("uts")));
}

#[test]
fn an_ipc_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--ipc"], "ipc");
    let b = Bundle::new();
    join(&b, "ipc", &holder.path("ipc"));
    assert_eq!(b.probe(&[])["namespaces"]["ipc"], json!(holder.namespace("ipc")));
}

#[test]
fn a_network_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--net"], "net");
    let b = Bundle::new();
    join(&b, "network", &holder.path("net"));
    let report = b.probe(&[]);
    assert_eq!(report["namespaces"]["net"], json!(holder.namespace("net")));
    assert_eq!(mount_at(&report, "/sys")["type"], "sysfs");
}

#[test]
fn a_cgroup_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--cgroup"], "cgroup");
    let b = Bundle::new();
    join(&b, "cgroup", &holder.path("cgroup"));
    assert_eq!(b.probe(&[])["namespaces"]["cgroup"], json!(holder.namespace("cgroup")));
}

#[test]
fn a_pid_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--pid", "--fork", "--kill-child"], "pid");
    let b = Bundle::new();
    join(&b, "pid", &holder.path("pid"));
    let report = b.probe(&[]);
    assert_eq!(report["namespaces"]["pid"], json!(holder.namespace("pid")));
    assert_ne!(report["pid"], 1);
}

#[test]
fn another_containers_namespaces_are_joined() {
    let (sandbox, b) = (Bundle::new(), Bundle::new());
    let c = sandbox.running();
    for kind in ["pid", "network", "ipc", "uts"] {
        join(&b, kind, &format!("/proc/{}/ns/{}", c.pid(), proc_name(kind)));
    }
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("hostname");
    });
    let report = b.probe(&["--list", "/proc"]);
    for kind in ["pid", "network", "ipc", "uts"] {
        let name = proc_name(kind);
        assert_eq!(report["namespaces"][name], json!(namespace(c.pid(), name)), "{kind}");
    }
    assert_ne!(report["namespaces"]["mnt"], json!(namespace(c.pid(), "mnt")));
    assert!(report["lists"]["/proc"].as_array().expect("a list").contains(&json!("1")));
}

#[test]
fn a_container_in_a_joined_pid_namespace_is_killed_alone() {
    let (sandbox, b) = (Bundle::new(), Bundle::new());
    let c = sandbox.running();
    join(&b, "pid", &format!("/proc/{}/ns/pid", c.pid()));
    let guest = b.running();
    guest.stop();
    guest.delete();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_time_namespace_is_joined_by_path() {
    needs!(Feature::TimeNamespace);
    newer!("time namespaces");
    let holder = Holder::unshare(&["--time", "--fork", "--kill-child", "--boottime", "777"], "time");
    let b = Bundle::new();
    join(&b, "time", &holder.path("time"));
    let report = b.probe(&[]);
    assert_eq!(report["namespaces"]["time"], json!(holder.namespace("time")));
    assert_eq!(report["timeOffsets"]["boottime"]["secs"], 777);
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let holder = Holder::unshare(&["--user", "--map-root-user"], "user");
    let b = Bundle::new();
    join(&b, "user", &holder.path("user"));
    // The holder maps its root to the host's, and only it; devpts' gid=5 has no place there.
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| {
            !mount["destination"].as_str().is_some_and(|at| at == "/dev/pts" || at == "/sys/fs/cgroup")
        });
    });
    let report = b.probe(&[]);
    assert_eq!(report["namespaces"]["user"], json!(holder.namespace("user")));
    assert_eq!(report["uid"]["real"], 0);
    assert_eq!(report["uidMap"], json!([{ "containerID": 0, "hostID": 0, "size": 1 }]));
}

#[test]
fn a_path_of_the_wrong_type_is_an_error() {
    let holder = Holder::unshare(&["--uts", "--ipc"], "uts");
    let b = Bundle::new();
    join(&b, "ipc", &holder.path("uts"));
    let out = b.run_args(&["/bin/true"]);
    assert_eq!(out.code, 1, "{out}");
    assert!(
        out.error().to_lowercase().contains("invalid argument") || out.error().contains(&holder.path("uts")),
        "{out}"
    );
}

#[test]
fn a_path_that_is_no_namespace_is_an_error() {
    let b = Bundle::new();
    join(&b, "ipc", "/etc/hostname");
    b.run_args(&["/bin/true"]).exits(1);
    join(&b, "ipc", "/no/such/namespace");
    b.run_args(&["/bin/true"]).fails("/no/such/namespace");
}

#[test]
fn a_namespace_listed_twice_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["namespaces"].as_array_mut().expect("list").push(json!({ "type": "ipc" })));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("duplicate") || out.error().contains("twice"), "{out}");
}

#[test]
fn an_unknown_namespace_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["namespaces"].as_array_mut().expect("list").push(json!({ "type": "sheep" })));
    b.run_args(&["/bin/true"]).fails("sheep");
}

#[test]
fn a_hostname_needs_a_uts_namespace() {
    let b = Bundle::new();
    b.remove_namespace("uts");
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().to_lowercase().contains("uts"), "{out}");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname"), before);
}

#[test]
fn no_mount_namespace_is_an_error_when_paths_are_masked() {
    let b = Bundle::new();
    b.remove_namespace("mount");
    b.run_args(&["/bin/true"]).exits(1);
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(b.tag()));
}

/// Linux 6.15 attaches mounts to a tree that stands nowhere (move_mount(2)). runc makes them in the caller's namespace,
/// and leaves them there.
#[test]
fn without_a_mount_namespace_the_mounts_are_the_containers_alone() {
    deviates!("no mount is made in the caller's namespace");
    let b = Bundle::new();
    b.remove_namespace("mount");
    b.edit(|spec| {
        for list in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().expect("linux").remove(list);
        }
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        b.run_args(&["/bin/true"]).fails("needs Linux 6.15");
        return;
    }
    assert_eq!(b.run_args(&["/bin/cat", "/proc/self/comm"]).ok().stdout, "cat\n");
    b.set_args(&["/bin/sleep", "1000"]);
    let c = b.running();
    assert_eq!(namespace(c.pid(), "mnt"), own_namespace("mnt"));
    let inside = std::path::PathBuf::from(format!("/proc/{}/root", c.pid()));
    assert!(inside.join("proc/version").exists() && inside.join("dev/null").exists(), "its mounts are there");
    assert!(!b.rootfs().join("dev/null").exists(), "and not in the host's tree");
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(b.tag()));
    std::fs::write(b.rootfs().join("outside"), "").expect("write");
    assert!(inside.join("outside").exists());
    c.stop().delete();
}

#[test]
fn a_new_network_namespace_has_loopback_up() {
    let report = Bundle::new().probe(&[]);
    let interfaces = report["interfaces"].as_object().expect("interfaces");
    assert_eq!(interfaces.keys().collect::<Vec<_>>(), ["lo"]);
    assert_eq!(interfaces["lo"]["up"], true);
}

#[test]
fn exec_is_in_every_namespace_of_init() {
    let b = Bundle::new();
    b.add_namespace("cgroup");
    let c = b.running();
    let report = c.exec_probe(&[], &[]);
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        assert_eq!(report["namespaces"][name], json!(namespace(c.pid(), name)), "{name}");
    }
}

#[test]
fn a_time_namespace_belongs_to_the_containers_user_namespace() {
    needs!(Feature::TimeNamespace);
    newer!("time namespaces");
    let b = Bundle::new();
    b.add_namespace("time");
    b.add_namespace("user");
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 86400 } });
    });
    let pid = b.running().pid();
    // So another container may join both.
    let other = Bundle::new();
    other.edit(|spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        for kind in ["user", "time"] {
            list.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{kind}") }));
        }
    });
    assert_eq!(other.probe(&[])["namespaces"]["time"], json!(namespace(pid, "time")));
}
