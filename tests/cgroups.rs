//! config-linux.md#control-groups: limits read back from the kernel, on cgroup v2 and on the v1 hierarchies of a
//! hybrid host.
mod support;
use std::fs;
use std::path::{Path, PathBuf};
use support::*;

fn with(resources: Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]
            .as_object_mut()
            .expect("resources")
            .extend(resources.as_object().expect("an object").clone());
    });
    b
}

/// The contents of the limit's file in the container's cgroup: (v1 name, v2 name), and which it was.
#[track_caller]
fn limit(c: &Container<'_>, v1_controller: &str, v1: &str, v2: &str) -> String {
    let dir = cgroup_dir(c.pid(), v1_controller);
    let name = if is_v1(&dir) { v1 } else { v2 };
    let path = dir.join(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display())).trim().to_owned()
}

fn is_v1(dir: &Path) -> bool {
    !dir.starts_with(cgroup2_mount())
        || Feature::CgroupV1.is_present() && !dir.starts_with("/sys/fs/cgroup/unified")
}

/// A limit, its controller in v1 words, and (file, value) in both dialects.
#[track_caller]
fn reads_back(resources: Value, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
    let b = with(resources);
    let c = b.running();
    let got = limit(&c, controller, v1.0, v2.0);
    let want = if is_v1(&cgroup_dir(c.pid(), controller)) { v1.1 } else { v2.1 };
    assert_eq!(got, want);
}

const MIB: i64 = 1 << 20;

#[test]
fn memory_limit() {
    needs!(Feature::Controller("memory"));
    let bytes = (64 * MIB).to_string();
    let resources = json!({ "memory": { "limit": 64 * MIB } });
    reads_back(resources, "memory", ("memory.limit_in_bytes", &bytes), ("memory.max", &bytes));
}

#[test]
fn memory_without_limit() {
    needs!(Feature::Controller("memory"));
    let resources = json!({ "memory": { "limit": -1 } });
    reads_back(resources, "memory", ("memory.limit_in_bytes", "9223372036854771712"), ("memory.max", "max"));
}

#[test]
fn memory_reservation() {
    needs!(Feature::Controller("memory"));
    let bytes = (32 * MIB).to_string();
    let resources = json!({ "memory": { "limit": 64 * MIB, "reservation": 32 * MIB } });
    reads_back(resources, "memory", ("memory.soft_limit_in_bytes", &bytes), ("memory.low", &bytes));
}

/// config.json counts memory and swap together; cgroup v2 counts swap alone.
#[test]
fn memory_and_swap() {
    needs!(Feature::Controller("memory"));
    if !fs::exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").unwrap_or(false) {
        needs!(Feature::CgroupFile("memory.swap.max"));
    }
    let (both, alone) = ((128 * MIB).to_string(), (64 * MIB).to_string());
    let resources = json!({ "memory": { "limit": 64 * MIB, "swap": 128 * MIB } });
    reads_back(resources, "memory", ("memory.memsw.limit_in_bytes", &both), ("memory.swap.max", &alone));
    let resources = json!({ "memory": { "limit": 64 * MIB, "swap": 64 * MIB } });
    reads_back(resources, "memory", ("memory.memsw.limit_in_bytes", &alone), ("memory.swap.max", "0"));
}

#[test]
fn swap_below_memory_is_refused() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 64 * MIB, "swap": 32 * MIB } }));
    b.run_args(&["/bin/true"]).exits(1);
}

#[test]
fn kernel_memory_is_obsolete_and_ignored() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 64 * MIB, "kernel": 16 * MIB, "useHierarchy": true } }));
    b.run_args(&["/bin/true"]).ok();
}

#[test]
fn cpu_shares() {
    needs!(Feature::Controller("cpu"));
    // Newer runtimes agree on a curve that puts 1024 at 100; runc 1.1.5 has a straight line from 2 to 262144.
    let weight = if is_peer() { "20" } else { "59" };
    reads_back(json!({ "cpu": { "shares": 512 } }), "cpu", ("cpu.shares", "512"), ("cpu.weight", weight));
}

#[test]
fn cpu_quota_and_period() {
    needs!(Feature::Controller("cpu"));
    let resources = json!({ "cpu": { "quota": 20_000, "period": 50_000 } });
    reads_back(resources.clone(), "cpu", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000"));
    reads_back(resources, "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000"));
}

#[test]
fn cpu_period_alone() {
    needs!(Feature::Controller("cpu"));
    reads_back(
        json!({ "cpu": { "period": 50_000 } }),
        "cpu",
        ("cpu.cfs_period_us", "50000"),
        ("cpu.max", "max 50000"),
    );
}

#[test]
fn cpu_without_quota() {
    needs!(Feature::Controller("cpu"));
    let resources = json!({ "cpu": { "quota": -1, "period": 50_000 } });
    reads_back(resources, "cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 50000"));
}

#[test]
fn cpuset() {
    needs!(Feature::Controller("cpuset"));
    let resources = json!({ "cpu": { "cpus": "0", "mems": "0" } });
    reads_back(resources.clone(), "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"));
    reads_back(resources.clone(), "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0"));
    assert_eq!(with(resources).probe(&[])["cpuAffinity"], "0");
}

#[test]
fn pids_limit() {
    needs!(Feature::Controller("pids"));
    reads_back(json!({ "pids": { "limit": 21 } }), "pids", ("pids.max", "21"), ("pids.max", "21"));
    reads_back(json!({ "pids": { "limit": -1 } }), "pids", ("pids.max", "max"), ("pids.max", "max"));
}

#[test]
fn the_pids_limit_really_stops_fork() {
    needs!(Feature::Controller("pids"));
    let b = with(json!({ "pids": { "limit": 20 } }));
    let answer = b.run_args(&["/bin/probe", "fork", "60"]).ok().json();
    assert_eq!(answer["errno"], "EAGAIN");
    assert!((10..20).contains(&answer["ok"].as_i64().expect("a number")), "{answer}");
}

#[test]
fn the_pids_limit_holds_for_exec() {
    needs!(Feature::Controller("pids"));
    let b = with(json!({ "pids": { "limit": 20 } }));
    let c = b.running();
    assert_eq!(c.exec(&["/bin/probe", "fork", "60"]).ok().json()["errno"], "EAGAIN");
}

#[test]
fn out_of_memory_is_137() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 24 * MIB, "swap": 24 * MIB } }));
    // Without swap accounting the second number means nothing, and without swap nothing is lost.
    b.run_args(&["/bin/probe", "alloc", "96"]).exits(137);
}

#[test]
fn within_its_limit_a_program_lives() {
    needs!(Feature::Controller("memory"));
    let b = with(json!({ "memory": { "limit": 64 * MIB } }));
    assert_eq!(b.run_args(&["/bin/probe", "alloc", "16"]).ok().json()["ok"], 16);
}

/// MAJOR:MINOR of a whole block device.
fn disk() -> Option<(i64, i64)> {
    let mut disks: Vec<_> =
        fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    disks.sort();
    let text = disks.iter().find_map(|path| fs::read_to_string(path.join("dev")).ok())?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn io_throttling() {
    needs!(Feature::Controller("io"));
    let Some((major, minor)) = disk() else {
        say_skip("SKIP", "there is no block device here");
        return;
    };
    let device = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let resources = json!({ "blockIO": {
        "throttleReadBpsDevice": device(1_048_576), "throttleWriteBpsDevice": device(2_097_152),
        "throttleReadIOPSDevice": device(100), "throttleWriteIOPSDevice": device(200),
    } });
    let b = with(resources);
    let c = b.running();
    let dir = cgroup_dir(c.pid(), "blkio");
    if is_v1(&dir) {
        for (name, rate) in
            [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 100), ("write_iops", 200)]
        {
            let path = dir.join(format!("blkio.throttle.{name}_device"));
            if !path.exists() {
                skip!("this kernel's blkio controller has no throttling");
            }
            assert_eq!(
                fs::read_to_string(&path).expect("read").trim(),
                format!("{major}:{minor} {rate}"),
                "{name}"
            );
        }
    } else {
        let max = fs::read_to_string(dir.join("io.max")).expect("io.max");
        assert_eq!(max.trim(), format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
    }
}

#[test]
fn huge_pages() {
    // `2MB`, as the property and the file have it.
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = sizes.filter_map(|dir| {
        dir.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    });
    let megabytes = kilobytes.filter(|kilobytes| *kilobytes >= 1024);
    let Some(size) = megabytes.min().map(|kilobytes| format!("{}MB", kilobytes / 1024)) else {
        say_skip("SKIP", "this kernel has no huge pages");
        return;
    };
    if Feature::CgroupV1.is_present() && !Feature::Controller("hugetlb").is_present() {
        deviates!("on a hybrid host jug finds the hugetlb controller on cgroup2; runc 1.1.5 uses v1 alone");
    }
    let b = with(json!({ "hugepageLimits": [{ "pageSize": size, "limit": 4 * MIB }] }));
    let c = b.running();
    let (v1, v2) = (format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"));
    assert_eq!(limit(&c, "hugetlb", &v1, &v2), (4 * MIB).to_string());
}

#[test]
fn an_unavailable_limit_is_an_error() {
    let missing =
        ["cpuset", "io", "rdma", "misc"].into_iter().find(|name| !Feature::Controller(name).is_present());
    let resources = match missing {
        Some("cpuset") => json!({ "cpu": { "cpus": "0" } }),
        Some("io") => json!({ "blockIO": { "weight": 100 } }),
        Some("rdma") => json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } }),
        _ => json!({ "unified": { "nocontroller.max": "1" } }),
    };
    let b = with(resources);
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains(missing.unwrap_or("nocontroller")), "{out}");
}

#[test]
fn unified_values_are_written() {
    needs!(Feature::CgroupV2);
    needs!(Feature::Controller("pids"));
    let b = with(json!({ "unified": { "pids.max": "33", "memory.high": "50331648" } }));
    let c = b.running();
    let dir = cgroup_dir(c.pid(), "pids");
    assert_eq!(fs::read_to_string(dir.join("pids.max")).expect("read").trim(), "33");
    assert_eq!(fs::read_to_string(dir.join("memory.high")).expect("read").trim(), "50331648");
}

#[test]
fn a_unified_file_that_does_not_exist_is_an_error() {
    let b = with(json!({ "unified": { "memory.sheep": "1" } }));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("memory.sheep") || out.error().contains("unified"), "{out}");
}

#[test]
fn a_unified_name_does_not_lead_elsewhere() {
    let b = with(json!({ "unified": { "../cgroup.freeze": "1" } }));
    let out = b.run_args(&["/bin/true"]).exits(1);
    if !is_peer() {
        out.says("must be a file name");
    }
}

/// A frozen container never answers its maker; a process that is moved in dies with the container.
#[test]
fn a_unified_file_that_acts_on_processes_is_refused() {
    deviates!("jug takes limits alone; runc writes these too, and hangs on a container that is born frozen");
    let mut other = std::process::Command::new("sleep").arg("3600").spawn().expect("sleep(1)");
    let pid = other.id().to_string();
    for (file, value) in [("cgroup.freeze", "1"), ("cgroup.procs", &pid), ("cgroup.type", "threaded")] {
        let out = with(json!({ "unified": { file: value } })).run_args(&["/bin/true"]);
        assert!(out.code == 1 && out.error().contains(file), "{out}");
    }
    let alive = other.try_wait().expect("wait").is_none();
    other.kill().expect("kill");
    other.wait().expect("wait");
    assert!(alive, "the runtime killed a process that was there before");
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error() {
    needs!(Feature::Controller("cpu"));
    // The kernel wants a period of at least a millisecond.
    let out = with(json!({ "cpu": { "quota": 1000, "period": 10 } })).run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("cpu."), "{out}");
}

/// The paths of a process in all hierarchies.
fn paths(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("/proc/PID/cgroup");
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned).collect()
}

#[test]
fn by_default_the_cgroup_has_the_containers_id() {
    let b = Bundle::new();
    let c = b.running();
    assert!(
        paths(c.pid()).iter().any(|path| path.ends_with(&format!("/{}", b.id()))),
        "{:?}",
        paths(c.pid())
    );
    c.stop();
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<PathBuf>::new());
}

#[test]
fn an_absolute_path_is_below_the_mount() {
    let b = Bundle::new();
    let path = format!("/{}.here", b.tag());
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let c = b.running();
    assert!(paths(c.pid()).contains(&path), "{:?}", paths(c.pid()));
    c.stop();
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<PathBuf>::new());
}

#[test]
fn directories_above_are_made() {
    let b = Bundle::new();
    let path = format!("/{}.a/b/c", b.tag());
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let c = b.running();
    assert!(paths(c.pid()).contains(&path), "{:?}", paths(c.pid()));
    c.stop();
    c.delete();
    let left = cgroups(b.tag());
    assert!(!left.iter().any(|dir| dir.ends_with("b/c")), "{left:?}");
    // Who made the directories above is nobody's knowledge later; the test cleans up.
    left.iter().for_each(|dir| drop(fs::remove_dir(dir)));
}

#[test]
fn a_relative_path_is_beside_the_caller() {
    let b = Bundle::new();
    let path = format!("{}.rel", b.tag());
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let c = b.running();
    assert!(paths(c.pid()).iter().any(|at| at.ends_with(&format!("/{path}"))), "{:?}", paths(c.pid()));
}

/// R11: nothing is made outside, whatever `..` would mean.
#[test]
fn a_path_that_climbs_is_refused() {
    deviates!("jug refuses `..` in cgroupsPath; runc resolves it below the mount");
    for path in ["../../{}.up", "a/../../{}.up", "/../{}.up", "/a/b/../{}.up"] {
        let b = Bundle::new();
        let path = path.replace("{}", b.tag());
        b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        b.run_args(&["/bin/true"]).fails("cgroupsPath");
        assert_eq!(cgroups(b.tag()), Vec::<PathBuf>::new());
    }
}

#[test]
fn exec_is_in_the_same_cgroup() {
    let b = Bundle::new();
    let c = b.running();
    let exec = c.exec(&["/bin/cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(exec, fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("read"));
}

#[test]
fn every_descendant_is_in_the_cgroup() {
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "sleep 3600 & sleep 3600 & wait"]);
    let c = b.running();
    let count =
        |dir: &PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().count();
    eventually("three processes in each of the container's cgroups", || {
        let counts: Vec<usize> = cgroups(b.tag()).iter().map(count).collect();
        (!counts.is_empty() && counts.iter().all(|n| *n == 3)).then_some(())
    });
    // runc 1.1.5 on a hybrid host makes none there.
    assert!(is_peer() || cgroups(b.tag()).contains(&cgroup_dir(c.pid(), "")), "the v2 cgroup is among them");
}

/// Engines read the usage of a container where its first process is, in each hierarchy that keeps accounts.
#[test]
fn a_limit_on_v1_brings_accounts_with_it() {
    let b = with(json!({ "pids": { "limit": 100 } }));
    let c = b.running();
    for controller in ["memory", "cpu", "cpuacct", "pids", "blkio"] {
        let dir = cgroup_dir(c.pid(), controller);
        assert!(dir.to_string_lossy().contains(b.tag()), "{controller}: {}", dir.display());
    }
    let exec = c.exec(&["/bin/cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(exec, fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("read"));
}

#[test]
fn an_empty_cgroup_that_exists_is_used_and_removed() {
    let b = Bundle::new();
    let dir = cgroup2_mount().join(format!("{}.before", b.tag()));
    fs::create_dir(&dir).expect("mkdir of a cgroup");
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}.before", b.tag())));
    b.run_args(&["/bin/true"]).ok();
    assert!(!dir.exists());
}

/// Cgroup directories of this name in every hierarchy.
fn everywhere(name: &str) -> Vec<PathBuf> {
    if !Feature::CgroupV1.is_present() {
        return vec![cgroup2_mount().join(name)];
    }
    let all = fs::read_dir("/sys/fs/cgroup").expect("/sys/fs/cgroup").flatten().map(|entry| entry.path());
    all.filter(|path| path.join("cgroup.procs").exists()).map(|path| path.join(name)).collect()
}

/// A cgroup with processes must not hand on controllers: those that the kernel lets it make all below it invalid.
#[test]
fn a_cgroup_below_one_with_processes_is_a_place() {
    needs!(Feature::CgroupV2);
    needs!(Feature::Controller("pids"));
    deviates!(
        "jug leaves the cgroup above as it is; runc makes it a threaded domain, and the container threaded"
    );
    let b = Bundle::new();
    let above = cgroup2_mount().join(format!("{}.above", b.tag()));
    fs::create_dir(&above).expect("mkdir of a cgroup");
    let mut other = std::process::Command::new("sleep").arg("3600").spawn().expect("sleep(1)");
    fs::write(above.join("cgroup.procs"), other.id().to_string()).expect("join");
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{}.above/below", b.tag())));
    let plain = b.run_args(&["/bin/true"]);
    let kind = fs::read_to_string(above.join("cgroup.type")).expect("cgroup.type");
    b.edit(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 20 }));
    let limited = b.run_args(&["/bin/true"]);
    other.kill().expect("kill");
    other.wait().expect("wait");
    eventually("rmdir", || fs::remove_dir(&above).is_ok().then_some(()));
    plain.ok();
    assert_eq!(kind, "domain\n");
    limited.fails("/linux/resources/pids/limit");
}

#[test]
fn a_cgroup_with_processes_is_refused() {
    newer!("the refusal of a cgroup that is not empty; 1.1.5 only warns");
    let b = Bundle::new();
    let name = format!("{}.busy", b.tag());
    let mut other = std::process::Command::new("sleep").arg("3600").spawn().expect("sleep(1)");
    let dir = cgroup2_mount().join(&name);
    fs::create_dir(&dir).expect("mkdir of a cgroup");
    fs::write(dir.join("cgroup.procs"), other.id().to_string()).expect("join");
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}")));
    let out = b.run_args(&["/bin/true"]);
    let alive = other.try_wait().expect("wait").is_none();
    other.kill().expect("kill");
    other.wait().expect("wait");
    assert!(alive, "the runtime killed a process that was there before");
    out.fails("empty");
    eventually("rmdir", || fs::remove_dir(&dir).is_ok().then_some(()));
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let b = Bundle::new();
    let name = format!("{}.cold", b.tag());
    let dirs: Vec<PathBuf> = everywhere(&name)
        .into_iter()
        .filter(|dir| {
            let hierarchy = dir.parent().expect("a hierarchy");
            hierarchy == cgroup2_mount() || hierarchy.ends_with("freezer")
        })
        .collect();
    for dir in &dirs {
        fs::create_dir(dir).expect("mkdir of a cgroup");
        let (file, word) = if is_v1(dir) { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
        fs::write(dir.join(file), word).expect("freeze");
    }
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}")));
    let out = b.run_args(&["/bin/true"]);
    dirs.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    out.fails("frozen");
}

#[test]
fn a_failed_create_leaves_no_cgroup() {
    let b = with(json!({ "pids": { "limit": 10 } }));
    b.run_args(&["/bin/nowhere"]).exits(1);
    assert_eq!(cgroups(b.tag()), Vec::<PathBuf>::new());
}

#[test]
fn limits_are_there_before_the_program() {
    needs!(Feature::Controller("pids"));
    let b = with(json!({ "pids": { "limit": 19 } }));
    let c = b.create();
    assert_eq!(limit(&c, "pids", "pids.max", "pids.max"), "19");
}

#[test]
fn a_container_killed_from_outside_leaves_no_cgroup() {
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "sleep 3600 & sleep 3600 & wait"]);
    let c = b.running();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(c.pid()), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    c.wait("stopped");
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<PathBuf>::new());
}

/// The kernel kills the child of CLONE_INTO_CGROUP where cgroup.kill was ever written to the target, even while empty.
#[test]
fn a_cgroup_that_was_killed_while_empty_is_used_all_the_same() {
    let b = Bundle::new();
    let name = format!("{}.killed", b.tag());
    let dir = cgroup2_mount().join(&name);
    fs::create_dir(&dir).expect("mkdir of a cgroup");
    fs::write(dir.join("cgroup.kill"), "1").expect("cgroup.kill");
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}")));
    let out = b.run_args(&["/bin/echo", "lives"]);
    let _ = fs::remove_dir(&dir);
    assert_eq!(out.ok().stdout, "lives\n");
}

/// The same trap from the other side: cgroup.kill was once written to the cgroup that the caller is in.
#[test]
fn a_caller_whose_own_cgroup_was_once_killed_can_run_and_exec() {
    let b = Bundle::new();
    let dir = cgroup2_mount().join(format!("{}.caller", b.tag()));
    fs::create_dir(&dir).expect("mkdir of a cgroup");
    fs::write(dir.join("cgroup.kill"), "1").expect("cgroup.kill");
    let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", dir.display());
    let wrapper = ["/bin/sh", "-c", join.as_str(), "sh"];
    b.set_args(&["/bin/echo", "lives"]);
    let run = b.verb("run", &[]).through(&wrapper).output();
    let other = Bundle::new();
    let c = other.running();
    let exec = c.call("exec", &[], &["/bin/echo", "there"]).through(&wrapper).output();
    eventually("rmdir", || fs::remove_dir(&dir).is_ok().then_some(()));
    assert_eq!(run.ok().stdout, "lives\n");
    assert_eq!(exec.ok().stdout, "there\n");
}
