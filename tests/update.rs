//! `update`: other limits for a container that is there. What the files of a cgroup are called depends on its version,
//! so each test names both.
mod support;

use std::fs;

use serde_json::json;
use support::*;

/// The first of these files in the container's cgroups.
#[track_caller]
fn limit(b: &Bundle, names: &[&str]) -> String {
    let dirs = cgroups(b.tag());
    let files = dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
    let text = files.filter_map(|file| fs::read_to_string(file).ok()).next();
    text.unwrap_or_else(|| panic!("none of {names:?} in {dirs:?}")).trim().to_owned()
}

const MEMORY: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];

fn limited() -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        spec["linux"]["resources"]["pids"] = json!({ "limit": 30 });
        spec["linux"]["resources"]["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000 });
    });
    b
}

#[test]
fn flags_change_what_they_name_and_nothing_else() {
    for controller in ["memory", "pids", "cpu"] {
        needs!(Feature::Controller(controller));
    }
    let b = limited();
    let c = b.running();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("30".into(), (64 << 20).to_string()));
    let out = c.verb("update", &["--pids-limit", "41"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("41".into(), (64 << 20).to_string()));
    c.verb("update", &["--memory", "67112960"]).ok();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("41".into(), "67112960".into()));
}

#[test]
fn a_quota_is_changed_with_its_period() {
    needs!(Feature::Controller("cpu"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--cpu-period", "200000", "--cpu-quota", "30000"]).ok();
    let quota = limit(&b, &["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "30000 200000" || quota == "30000", "{quota}");
    if quota == "30000" {
        assert_eq!(limit(&b, &["cpu.cfs_period_us"]), "200000");
    }
}

#[test]
fn resources_come_from_a_file_or_from_stdin() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    let file = b.path("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 51 } }).to_string()).expect("write");
    c.verb("update", &["--resources", &file]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "51");
    let stdin = json!({ "pids": { "limit": 52 } }).to_string();
    c.call("update", &["--resources=-"], &[]).stdin(&stdin).ok();
    assert_eq!(limit(&b, &["pids.max"]), "52");
    c.call("update", &["-r", "-"], &[]).stdin(&json!({ "pids": { "limit": 53 } }).to_string()).ok();
    assert_eq!(limit(&b, &["pids.max"]), "53");
}

#[test]
fn resources_that_are_no_json_are_refused() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.call("update", &["--resources", "-"], &[]).stdin("{ \"pids\": ").output().exits(1);
    assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{out}");
    c.verb("update", &["--resources", &b.path("missing")]).fails("no such file or directory");
}

#[test]
fn resources_have_the_rules_of_a_config() {
    deviates!("Go takes the first JSON value and the last of equal keys");
    let b = Bundle::new();
    let c = b.running();
    let refused = |text: &str, words: &str| {
        c.call("update", &["-r", "-"], &[]).stdin(text).output().fails(words);
    };
    refused(r#"{"pids":{"limit":5}} {}"#, "not valid JSON");
    refused(r#"{"pids":{"limit":5},"pids":{"limit":6}}"#, "duplicate key");
    refused("", "not valid JSON");
    refused(r#"{"pids":{"limit":"many"}}"#, "/pids/limit");
    // What is not said is no limit of 0.
    c.call("update", &["-r", "-"], &[]).stdin(r#"{"pids":{},"memory":null}"#).ok();
    assert_eq!(cgroups(b.tag()).len(), 1);
}

#[test]
fn a_created_container_can_be_updated_and_keeps_it() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.create();
    c.verb("update", &["--pids-limit", "61"]).ok();
    c.start();
    assert_eq!(limit(&b, &["pids.max"]), "61");
}

#[test]
fn a_missing_container_cannot_be_updated() {
    Bundle::new().container().verb("update", &["--pids-limit", "5"]).fails("container does not exist");
}

#[test]
fn a_value_that_is_no_number_is_refused() {
    let b = Bundle::new();
    b.running().verb("update", &["--memory", "lots"]).exits(1).says("lots");
}

#[test]
fn the_limit_is_felt() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--pids-limit", "15"]).ok();
    let answer = c.exec(&["/bin/probe", "fork", "30"]).ok().json();
    assert_eq!(answer["errno"], "EAGAIN", "{answer}");
}

/// Whether the memory controller counts swap: what the files are called depends on the version.
fn has_swap_accounting() -> bool {
    fs::exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").unwrap_or(false)
        || Feature::CgroupFile("memory.swap.max").is_present()
}

/// The limit of memory and swap together, which v2 holds apart.
#[track_caller]
fn together(b: &Bundle) -> u64 {
    let number = |names: &[&str]| limit(b, names).parse::<u64>().expect("a number");
    let swap = number(&["memory.swap.max", "memory.memsw.limit_in_bytes"]);
    let memory = number(&MEMORY);
    let v2 = Feature::CgroupV2.is_present();
    if v2 { memory + swap } else { swap }
}

const MIB: u64 = 1 << 20;

#[test]
fn memory_and_swap_grow_and_shrink_together() {
    needs!(Feature::Controller("memory"));
    if !has_swap_accounting() {
        say_skip("SKIP", "this kernel does not count swap");
        return;
    }
    let b = limited();
    let c = b.running();
    for (memory, swap) in [(30, 50), (60, 80), (100, 300), (40, 40)] {
        let (m, s) = (format!("{memory}M"), format!("{swap}m"));
        c.verb("update", &["--memory", &m, "--memory-swap", &s]).ok();
        assert_eq!((limit(&b, &MEMORY), together(&b)), ((memory * MIB).to_string(), swap * MIB));
    }
    c.verb("update", &["--memory-swap", "-1"]).ok();
    assert_eq!(limit(&b, &MEMORY), (40 * MIB).to_string());
    c.verb("update", &["--memory", "30M", "--memory-swap", "50M"]).ok();
    // No limit of memory means none of both.
    c.verb("update", &["--memory=-1"]).ok();
    for names in [&MEMORY, &["memory.swap.max", "memory.memsw.limit_in_bytes"]] {
        let none = limit(&b, names);
        assert!(none == "max" || none == "9223372036854771712", "{names:?}: {none}");
    }
}

/// What one update sets, a later one begins with: v2 takes swap as the difference, runc's record has the sum.
#[test]
fn a_later_update_knows_the_swap_of_the_former() {
    needs!(Feature::Controller("memory"));
    if !has_swap_accounting() {
        say_skip("SKIP", "this kernel does not count swap");
        return;
    }
    newer!("1.2: a merge with what is set");
    let b = limited();
    let c = b.running();
    c.verb("update", &["--memory-swap", "96M"]).ok();
    assert_eq!(together(&b), 96 * MIB);
    c.verb("update", &["--memory", "80M"]).ok();
    assert_eq!((limit(&b, &MEMORY), together(&b)), ((80 * MIB).to_string(), 96 * MIB));
    c.verb("update", &["--memory", "200M"]).fails("memory+swap limit should be >= memory limit");
    assert_eq!((limit(&b, &MEMORY), together(&b)), ((80 * MIB).to_string(), 96 * MIB));
}

#[test]
fn reservation_and_units() {
    needs!(Feature::Controller("memory"));
    let b = limited();
    let c = b.running();
    let reserved = ["memory.low", "memory.soft_limit_in_bytes"];
    for (text, bytes) in [("32M", 32 * MIB), ("24mb", 24 * MIB), ("0.5GiB", 512 * MIB), ("4194304", 4 * MIB)]
    {
        c.verb("update", &["--memory-reservation", text]).ok();
        assert_eq!(limit(&b, &reserved), bytes.to_string(), "{text}");
    }
    assert_eq!(limit(&b, &MEMORY), (64 * MIB).to_string());
}

fn quota(b: &Bundle) -> (String, String) {
    let both = limit(b, &["cpu.max", "cpu.cfs_quota_us"]);
    match both.split_once(' ') {
        Some((quota, period)) => (quota.replace("max", "-1"), period.to_owned()),
        None => (both, limit(b, &["cpu.cfs_period_us"])),
    }
}

#[test]
fn quota_and_period_may_come_one_after_the_other() {
    needs!(Feature::Controller("cpu"));
    let b = limited();
    let c = b.running();
    for (flags, want) in [
        (["--cpu-period", "90000"], ("50000", "90000")),
        (["--cpu-quota", "60000"], ("60000", "90000")),
        (["--cpu-quota", "-1"], ("-1", "90000")),
        (["--cpu-period", "20000"], ("-1", "20000")),
    ] {
        c.verb("update", &flags).ok();
        assert_eq!(quota(&b), (want.0.to_owned(), want.1.to_owned()), "{flags:?}");
    }
    c.verb("update", &["--cpu-quota", "10000", "--cpu-period", "10000"]).ok();
    assert_eq!(quota(&b), ("10000".into(), "10000".into()));
}

#[test]
fn shares_and_idle() {
    needs!(Feature::Controller("cpu"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--cpu-share", "1024"]).ok();
    let shares = limit(&b, &["cpu.weight", "cpu.shares"]);
    assert!(["1024", "100", "39"].contains(&shares.as_str()), "{shares}");
    newer!("1.2: --cpu-idle");
    if cgroups(b.tag()).iter().all(|dir| !dir.join("cpu.idle").exists()) {
        say_skip("SKIP", "this kernel has no cpu.idle");
        return;
    }
    c.verb("update", &["--cpu-idle", "1"]).ok();
    assert_eq!(limit(&b, &["cpu.idle"]), "1");
    // A group that is idle takes no shares: idle goes first, in whatever order the two are given.
    c.verb("update", &["--cpu-share", "2048", "--cpu-idle", "0"]).ok();
    assert_eq!(limit(&b, &["cpu.idle"]), "0");
}

#[test]
fn burst_grows_and_shrinks_with_the_quota() {
    needs!(Feature::Controller("cpu"));
    newer!("1.2: --cpu-burst");
    let b = limited();
    let c = b.running();
    let names = ["cpu.max.burst", "cpu.cfs_burst_us"];
    if cgroups(b.tag()).iter().all(|dir| names.iter().all(|name| !dir.join(name).exists())) {
        say_skip("SKIP", "this kernel has no burst");
        return;
    }
    for (burst, quota) in [("40000", "50000"), ("90000", "95000"), ("5000", "10000")] {
        c.verb("update", &["--cpu-burst", burst, "--cpu-quota", quota]).ok();
        assert_eq!(limit(&b, &names), burst);
    }
    c.verb("update", &["--cpu-share", "300"]).ok();
    assert_eq!(limit(&b, &names), "5000");
}

#[test]
fn a_set_of_cpus() {
    needs!(Feature::Controller("cpuset"));
    let b = limited();
    b.edit(|spec| spec["linux"]["resources"]["cpu"]["mems"] = json!("0"));
    let c = b.running();
    c.verb("update", &["--cpuset-cpus", "0", "--cpuset-mems", "0"]).ok();
    assert_eq!((limit(&b, &["cpuset.cpus"]), limit(&b, &["cpuset.mems"])), ("0".into(), "0".into()));
    assert_eq!(c.exec_probe(&[], &[])["cpuAffinity"], "0");
}

/// Whether a new cgroup has one of these files.
fn has_file(b: &Bundle, v1: &str, names: &[&str]) -> bool {
    let v1 = std::path::Path::new("/sys/fs/cgroup").join(v1);
    let base = if v1.exists() { v1 } else { cgroup2_mount() };
    let dir = base.join(format!("{}.look", b.tag()));
    fs::create_dir(&dir).expect("a cgroup");
    let found = names.iter().any(|name| dir.join(name).exists());
    fs::remove_dir(&dir).expect("rmdir of a cgroup");
    found
}

#[test]
fn a_weight_of_block_io() {
    needs!(Feature::Controller("io"));
    let b = Bundle::new();
    let names = ["io.bfq.weight", "io.weight", "blkio.weight", "blkio.bfq.weight"];
    if !has_file(&b, "blkio", &names) {
        say_skip("SKIP", "this kernel weighs no block I/O");
        return;
    }
    let c = b.running();
    c.verb("update", &["--blkio-weight", "300"]).ok();
    let weight = limit(&b, &names);
    assert!(["300", "default 300", "default 2930"].contains(&weight.as_str()), "{weight}");
    c.verb("update", &["--blkio-weight", "70000"]).exits(1);
}

#[test]
fn no_limit_of_processes_is_minus_one() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--pids-limit", "-1"]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "max");
    c.verb("update", &["--pids-limit=9"]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "9");
    newer!("1.4: a limit of 0, which is 1 for the kernel, as nothing can be forked with either");
    c.verb("update", &["--pids-limit", "0"]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "1");
}

#[test]
fn kernel_memory_is_accepted_and_ignored() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.verb("update", &["--kernel-memory", "16M", "--kernel-memory-tcp", "16M"]).ok();
    assert!(out.stderr.contains("ignored"), "{out}");
}

#[test]
fn nothing_named_is_nothing_changed() {
    needs!(Feature::Controller("memory"));
    let b = limited();
    let c = b.running();
    c.verb("update", &[]).ok();
    c.verb("update", &["--memory", "", "--cpu-quota="]).ok();
    c.call("update", &["-r", "-"], &[]).stdin("{}").ok();
    assert_eq!((limit(&b, &MEMORY), quota(&b).0), ((64 * MIB).to_string(), "50000".into()));
}

#[test]
fn flags_may_follow_the_id_with_one_dash() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    c.call("update", &[], &["-pids-limit", "37", "-cpu-quota=-1"]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "37");
}

#[test]
fn schemas_of_intel_rdt_need_it() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("update", &["--l3-cache-schema", "L3:0=f"]).fails("Intel RDT/CAT: l3 cache schema is not enabled");
    let out = c.verb("update", &["--mem-bw-schema", "MB:0=50"]);
    out.fails("Intel RDT/MBA: memory bandwidth schema is not enabled");
}

#[test]
fn files_of_cgroup2_are_set_by_name() {
    needs!(Feature::CgroupV2);
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    let change = json!({ "unified": { "pids.max": "17", "cpu.max": "max 70000" } }).to_string();
    c.call("update", &["-r", "-"], &[]).stdin(&change).ok();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &["cpu.max"])), ("17".into(), "max 70000".into()));
}

/// Device rules are not changed by update, in runc since 1.0: the filter is what create made it.
#[test]
fn the_device_filter_stays() {
    needs!(Feature::Controller("devices"));
    let b = limited();
    let fuse = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 });
    b.edit(|spec| spec["linux"]["devices"] = json!([fuse]));
    let c = b.running();
    let errno = |path: &str| c.exec(&["/bin/probe", "open", path, "rdwr"]).ok().json()["errno"].clone();
    for change in [
        json!({ "pids": { "limit": 25 } }),
        json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
        json!({ "devices": [{ "allow": false, "access": "rwm" }] }),
    ] {
        c.call("update", &["-r", "-"], &[]).stdin(&change.to_string()).ok();
        assert_eq!((errno("/dev/null"), errno("/dev/fuse")), (json!(null), json!("EPERM")), "{change}");
    }
}

/// A limit below the usage is refused before the kernel kills for it.
#[test]
fn check_before_update() {
    needs!(Feature::Controller("memory"));
    newer!("1.2: memory.checkBeforeUpdate");
    let b = limited();
    b.set_args(&["/bin/probe", "alloc", "24", "3600"]);
    let c = b.running();
    c.wait_stdout("ok");
    let change = json!({ "memory": { "limit": 8 * MIB, "checkBeforeUpdate": true } }).to_string();
    c.call("update", &["-r", "-"], &[])
        .stdin(&change)
        .output()
        .fails("rejecting memory limit 8388608 <= usage ");
    assert_eq!((limit(&b, &MEMORY), c.status()), ((64 * MIB).to_string(), "running".into()));
    let change = json!({ "memory": { "limit": 48 * MIB, "checkBeforeUpdate": true } }).to_string();
    c.call("update", &["-r", "-"], &[]).stdin(&change).ok();
    // It is remembered.
    c.verb("update", &["--memory", "8M"]).fails("rejecting memory limit");
    assert_eq!(limit(&b, &MEMORY), (48 * MIB).to_string());
}

#[test]
fn cgroup_v1_says_how_much_is_in_use() {
    needs!(Feature::CgroupV1);
    let b = limited();
    b.set_args(&["/bin/probe", "alloc", "24", "3600"]);
    let c = b.running();
    c.wait_stdout("ok");
    c.verb("update", &["--memory", "8M"]).fails("unable to set memory limit to 8388608 (current usage: ");
    assert_eq!(limit(&b, &MEMORY), (64 * MIB).to_string());
}

#[test]
fn a_paused_container_can_be_updated_and_stays_paused() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.verb("update", &["--pids-limit", "44"]).ok();
    assert_eq!((limit(&b, &["pids.max"]), c.status()), ("44".into(), "paused".into()));
    c.verb("resume", &[]).ok();
}

#[test]
fn a_stopped_container_cannot_be_updated() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.verb("update", &["--pids-limit", "5"]).fails("container not running");
}

#[test]
fn a_limit_that_the_config_did_not_have_can_be_added() {
    for controller in ["memory", "pids"] {
        needs!(Feature::Controller(controller));
    }
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c.verb("update", &["--pids-limit", "18"]).ok();
    c.verb("update", &["--memory", "64M"]).ok();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("18".into(), (64 * MIB).to_string()));
    // It holds for those who were there, and for those who come.
    assert_eq!(limit(&b, &["pids.current"]), "3");
    assert_eq!(c.exec(&["/bin/probe", "fork", "30"]).ok().json()["errno"], "EAGAIN");
    c.stop();
    c.delete();
    assert_eq!(cgroups(b.tag()), Vec::<std::path::PathBuf>::new());
}

/// On v1 the processes are moved one by one, while they make others.
#[test]
fn nobody_stays_outside_of_an_added_limit() {
    needs!(Feature::Controller("pids"));
    let b = Bundle::new();
    let forks = "while :; do /bin/true; done";
    b.set_args(&[
        "sh",
        "-c",
        &format!("({forks}) & ({forks}) & ({forks}) & sleep 1000 & echo ready; {forks}"),
    ]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c.verb("update", &["--pids-limit", "60"]).ok();
    // A frozen container has the same processes wherever one looks.
    c.verb("pause", &[]).ok();
    let listed = c.verb("ps", &["--format", "json"]).ok().json();
    let listed = listed.as_array().expect("a list");
    assert!(listed.len() >= 5, "{listed:?}");
    for pid in listed {
        let dir = cgroup_dir(i32::try_from(pid.as_i64().expect("a pid")).expect("a pid"), "pids");
        assert_eq!(
            fs::read_to_string(dir.join("pids.max")).expect("pids.max").trim(),
            "60",
            "{}",
            dir.display()
        );
    }
    c.verb("delete", &["--force"]).ok();
}

/// What containerd sends: zeros and rules for things that are not to change.
#[test]
fn zeros_change_nothing() {
    for controller in ["memory", "pids", "cpu"] {
        needs!(Feature::Controller(controller));
    }
    let b = limited();
    let c = b.running();
    let change = json!({
        "devices": null,
        "memory": { "limit": 0, "swap": 0, "reservation": 0, "kernel": 0 },
        "cpu": { "shares": 2048, "quota": 0, "period": 0, "cpus": "", "mems": "" },
        "pids": { "limit": 33 },
        "blockIO": { "weight": 0 },
        "network": {}, "hugepageLimits": [], "rdma": {},
    });
    c.call("update", &["--resources", "-"], &[]).stdin(&change.to_string()).ok();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("33".into(), (64 * MIB).to_string()));
    let shares = limit(&b, &["cpu.weight", "cpu.shares"]);
    assert!(["2048", "174", "79"].contains(&shares.as_str()), "{shares}");
}

#[test]
fn run_in_the_foreground_removes_what_an_update_added() {
    needs!(Feature::Controller("pids"));
    let b = Bundle::new();
    let call = b.verb("run", &[]).spawn();
    let c = b.container();
    eventually("a running container", || (c.verb("state", &[]).stdout.contains("\"running\"")).then_some(()));
    c.verb("update", &["--pids-limit", "12"]).ok();
    c.kill("KILL");
    call.wait().exits(137);
    assert_eq!(cgroups(b.tag()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_refused_change_changes_nothing() {
    for controller in ["memory", "cpu"] {
        needs!(Feature::Controller(controller));
    }
    deviates!("runc leaves what it wrote before the value that the kernel refused");
    let b = limited();
    let c = b.running();
    // A period has at most a second.
    let out =
        c.verb("update", &["--memory", "128M", "--cpu-share", "700", "--cpu-period", "5000000"]).exits(1);
    assert!(out.stderr.contains("/linux/resources/cpu/") && out.stderr.contains("invalid argument"), "{out}");
    assert_eq!((limit(&b, &MEMORY), quota(&b).0), ((64 * MIB).to_string(), "50000".into()));
    assert!(["512", "59"].contains(&limit(&b, &["cpu.weight", "cpu.shares"]).as_str()));
    // Nor is it remembered.
    c.verb("update", &["--cpu-quota", "60000"]).ok();
    assert_eq!(quota(&b), ("60000".into(), "100000".into()));
}

#[test]
fn a_refused_limit_leaves_no_new_cgroup() {
    needs!(Feature::CgroupV1);
    needs!(Feature::Controller("cpuset"));
    deviates!("runc has every v1 cgroup from the start");
    let b = limited();
    let c = b.running();
    let before = cgroups(b.tag());
    c.verb("update", &["--cpuset-cpus", "999"]).fails("/linux/resources/cpu/cpus");
    assert_eq!(cgroups(b.tag()), before);
    c.verb("update", &["--cpuset-cpus", "0"]).ok();
    assert_eq!(cgroups(b.tag()).len(), before.len() + 1);
}

#[test]
fn updates_at_once_are_all_done() {
    for controller in ["memory", "pids", "cpu"] {
        needs!(Feature::Controller(controller));
    }
    deviates!("runc's updates overwrite each other: each writes what it read before");
    let b = limited();
    let c = b.running();
    let flags: [&[&str]; 3] = [&["--pids-limit", "71"], &["--memory", "100M"], &["--cpu-period", "60000"]];
    let calls: Vec<_> = flags.iter().map(|flags| c.call("update", flags, &[]).spawn()).collect();
    calls.into_iter().for_each(|call| drop(call.wait().ok()));
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("71".into(), (100 * MIB).to_string()));
    c.verb("update", &["--cpu-quota", "6000"]).ok();
    assert_eq!(quota(&b), ("6000".into(), "60000".into()));
}

#[test]
fn many_updates_leave_one_record() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    for n in 100..if in_guest() { 110 } else { 170 } {
        c.verb("update", &["--pids-limit", &n.to_string()]).ok();
    }
    let state = fs::read_dir(b.root().join(b.id())).expect("the container's directory").flatten();
    let size: u64 = state.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum();
    assert!(size < 64 << 10, "{size} bytes");
    assert_eq!(c.status(), "running");
}

/// A hook may change the container that it is called for.
#[test]
fn a_poststart_hook_can_update() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let line = format!("{} --root {} update --pids-limit 66 {}", runtime().display(), b.path("root"), b.id());
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", line], "timeout": 20 });
    b.edit(|spec| spec["hooks"]["poststart"] = json!([hook]));
    b.create().start();
    assert_eq!(limit(&b, &["pids.max"]), "66");
}
