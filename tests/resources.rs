//! config-linux.md#control-groups, the rarer limits: each is in the kernel, or an error says that it cannot be. The
//! common ones are in tests/cgroups.rs.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use support::*;

fn with(resources: Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        let all = spec["linux"]["resources"].as_object_mut().expect("resources");
        all.extend(resources.as_object().expect("an object").clone());
    });
    b
}

/// The limit stands in the first of these files that the container's cgroup has: (controller in v1 words, file, value).
/// Where it has none, the runtime must have refused, naming the property.
#[track_caller]
fn stands(resources: Value, controller: &str, files: &[(&str, &str)], property: &str) {
    let b = with(resources);
    let out = b.verb("run", &["--detach"]).output();
    if out.code != 0 {
        out.fails(property);
        return;
    }
    let dir = cgroup_dir(b.container().pid(), controller);
    let found = files.iter().find(|(file, _)| dir.join(file).exists());
    let (file, want) = found.unwrap_or_else(|| panic!("none of {files:?} in {}", dir.display()));
    assert_eq!(fs::read_to_string(dir.join(file)).expect("read").trim(), *want, "{file}");
}

#[test]
fn cpu_idle() {
    needs!(Feature::Controller("cpu"));
    newer!("1.2: cpu.idle");
    stands(json!({ "cpu": { "idle": 1 } }), "cpu", &[("cpu.idle", "1")], "/linux/resources/cpu/idle");
}

#[test]
fn cpu_burst() {
    needs!(Feature::Controller("cpu"));
    newer!("1.2: cpu.burst");
    let cpu = json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } });
    let files = [("cpu.cfs_burst_us", "20000"), ("cpu.max.burst", "20000")];
    stands(cpu, "cpu", &files, "/linux/resources/cpu/burst");
}

#[test]
fn a_burst_above_the_quota_is_an_error() {
    needs!(Feature::Controller("cpu"));
    newer!("1.2: cpu.burst");
    let b = with(json!({ "cpu": { "quota": 10_000, "burst": 20_000 } }));
    b.verb("create", &[]).output().fails("/linux/resources/cpu/burst");
}

#[test]
fn realtime_limits_are_the_kernels_or_nobodys() {
    needs!(Feature::Controller("cpu"));
    deviates!("the property is in jug's error");
    let b = with(json!({ "cpu": { "realtimePeriod": 1_000_000, "realtimeRuntime": 1000 } }));
    let out = b.verb("run", &["--detach"]).output();
    let v1 = Feature::CgroupV1.is_present();
    if out.code != 0 {
        // The cgroup above has no realtime to give; on v2 there is no such limit, and runc passes it over.
        assert!(v1, "{out}");
        out.fails("/linux/resources/cpu/realtime");
    } else if v1 {
        let dir = cgroup_dir(b.container().pid(), "cpu");
        assert_eq!(fs::read_to_string(dir.join("cpu.rt_runtime_us")).expect("read").trim(), "1000");
    }
}

#[test]
fn the_nodes_of_memory() {
    needs!(Feature::Controller("cpuset"));
    stands(json!({ "cpu": { "mems": "0" } }), "cpuset", &[("cpuset.mems", "0")], "/linux/resources/cpu/mems");
}

#[test]
fn a_block_io_weight() {
    deviates!("runc 1.1.5 passes over a weight that the kernel has no file for");
    let io = json!({ "blockIO": { "weight": 100 } });
    let files = [
        ("blkio.weight", "100"),
        ("blkio.bfq.weight", "100"),
        ("io.bfq.weight", "default 100"),
        ("io.weight", "default 910"),
    ];
    stands(io, "blkio", &files, "/linux/resources/blockIO/weight");
}

#[test]
fn a_block_io_weight_of_a_device() {
    deviates!("the property is in jug's error");
    let io = json!({ "blockIO": { "weightDevice": [{ "major": 7, "minor": 0, "weight": 200, "leafWeight": 300 }] } });
    let files = [("blkio.weight_device", "7:0 200"), ("io.bfq.weight", "default 100\n7:0 200")];
    stands(io, "blkio", &files, "/linux/resources/blockIO/weightDevice");
}

#[test]
fn a_leaf_weight_needs_v1() {
    deviates!("the property is in jug's error");
    let b = with(json!({ "blockIO": { "leafWeight": 100 } }));
    let out = b.run_args(&["/bin/true"]);
    if out.code == 0 {
        assert!(!Feature::CgroupV1.is_present(), "v1 has the file or the error: {out}");
    } else {
        out.fails("/linux/resources/blockIO/leafWeight");
    }
}

#[test]
fn rdma_limits() {
    if Feature::Controller("rdma").is_present() {
        // A device that is not there is the kernel's EINVAL; with one, the value would stand in rdma.max.
        let b = with(json!({ "rdma": { "nodevice0": { "hcaHandles": 3, "hcaObjects": 10_000 } } }));
        b.verb("create", &[]).output().fails("hca_handle=3 hca_object=10000");
    } else {
        newer!("1.1: rdma");
        let b = with(json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } }));
        b.verb("create", &[]).output().fails("rdma");
    }
}

#[test]
fn network_classes_and_priorities() {
    deviates!("the property is in jug's error");
    let b =
        with(json!({ "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 5 }] } }));
    let out = b.verb("run", &["--detach"]).output();
    if Feature::Controller("net_cls").is_present() {
        let dir = cgroup_dir(b.container().pid(), "net_cls");
        assert_eq!(fs::read_to_string(dir.join("net_cls.classid")).expect("read").trim(), "1048577");
    } else {
        out.fails("/linux/resources/network/classID");
    }
}

#[test]
fn swappiness_is_v1s() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 67_108_864, "swappiness": 7 } }));
    let c = b.running();
    let file = cgroup_dir(c.pid(), "memory").join("memory.swappiness");
    if Feature::CgroupV1.is_present() {
        assert_eq!(fs::read_to_string(file).expect("read").trim(), "7");
    } else {
        assert!(!file.exists(), "v2 has no such file, and passes it over");
    }
}

#[test]
fn swappiness_above_100_is_refused() {
    let b = with(json!({ "memory": { "swappiness": 101 } }));
    b.verb("create", &[]).output().fails("swappiness");
}

#[test]
fn the_oom_killer_is_disabled_on_v1() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 67_108_864, "disableOOMKiller": true } }));
    let c = b.running();
    let file = cgroup_dir(c.pid(), "memory").join("memory.oom_control");
    if Feature::CgroupV1.is_present() {
        assert!(fs::read_to_string(file).expect("read").starts_with("oom_kill_disable 1"));
    } else {
        assert!(!file.exists(), "v2 has no such file, and passes it over");
    }
}

#[test]
fn hierarchy_and_check_before_update_change_nothing_at_create() {
    needs!(Feature::Controller("memory"));
    let memory = json!({ "limit": 67_108_864, "useHierarchy": true, "checkBeforeUpdate": true });
    let files = [("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")];
    stands(json!({ "memory": memory }), "memory", &files, "/linux/resources/memory");
}

#[test]
fn kernel_tcp_memory_is_v1s() {
    needs!(Feature::Controller("memory"));
    deviates!("the property is in jug's error");
    let b = with(json!({ "memory": { "kernelTCP": 33_554_432 } }));
    let c = b.running();
    let file = cgroup_dir(c.pid(), "memory").join("memory.kmem.tcp.limit_in_bytes");
    if Feature::CgroupV1.is_present() {
        assert_eq!(fs::read_to_string(file).expect("read").trim(), "33554432");
    } else {
        assert!(!file.exists(), "v2 has no such file, and passes it over");
    }
}

#[test]
fn reserved_huge_pages_are_limited_too() {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    if sizes.count() == 0 {
        say_skip("SKIP", "this kernel has no huge pages");
        return;
    }
    deviates!("on a hybrid host jug finds the hugetlb controller on cgroup2; runc 1.1.5 uses v1 alone");
    let b = with(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }));
    let c = b.running();
    let dir = cgroup_dir(c.pid(), "hugetlb");
    let file = ["hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes"].map(|name| dir.join(name));
    let file = file.iter().find(|file| file.exists()).expect("a limit of reservations");
    assert_eq!(fs::read_to_string(file).expect("read").trim(), "4194304");
}

/// A container that mounts its cgroup writable may divide it; no other may.
#[test]
fn a_writable_cgroup_mount_gives_the_cgroup_to_the_containers_user() {
    if is_peer() && Feature::CgroupV1.is_present() {
        deviates!("runc does so where v2 stands alone");
    }
    for (option, owner) in [("rw", 1000), ("ro", 0)] {
        let b = Bundle::new();
        b.remove_mount("/sys/fs/cgroup").add_mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", option],
        }));
        b.add_namespace("cgroup").edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
        let c = b.running();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("/proc/PID/cgroup");
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup on cgroup2");
        let dir = cgroup2_mount().join(own);
        let uid = |file: &str| fs::metadata(dir.join(file)).expect("stat").uid();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            assert_eq!(uid(file), owner, "{option}: {file:?}");
        }
        assert_eq!(uid("cgroup.max.descendants"), 0, "{option}: no limit becomes the container's own");
    }
}
