//! Where programs and their memory are: config.md `process.execCPUAffinity`, config-linux.md#memory-policy.

mod support;

use support::*;

#[test]
fn exec_runs_on_the_final_cpus_and_init_does_not() {
    newer!("1.3: execCPUAffinity");
    needs!(Feature::CpuCount(2));
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" }));
    let c = b.running();
    assert_eq!(c.exec(&["/bin/probe"]).ok().json()["cpuAffinity"], "1");
    let all = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    let init = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list").trim();
    assert_ne!(init, "1", "the property is for exec alone");
}

#[test]
fn without_final_cpus_exec_has_the_containers() {
    newer!("1.3.1: CPUs are reset");
    needs!(Feature::CpuCount(2));
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["execCPUAffinity"] = json!({ "initial": "1" }));
    let c = b.running();
    assert_eq!(c.exec(&["/bin/probe"]).ok().json()["cpuAffinity"], cpus());
}

/// The CPUs that this thread may run on, as a list.
fn cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list").trim().to_owned()
}

/// The CPUs of a program that is started while this thread, and only this, is bound to the first CPU: as by a service
/// of systemd's with CPUAffinity=, from Linux 6.2 on also beyond the cgroup.
fn started_by_who_is_bound(run: impl Fn() -> Output) -> Value {
    let this = nix::unistd::Pid::from_raw(0);
    let all = nix::sched::sched_getaffinity(this).expect("sched_getaffinity");
    let mut first = nix::sched::CpuSet::new();
    first.set(0).expect("a set of CPUs");
    nix::sched::sched_setaffinity(this, &first).expect("sched_setaffinity");
    let out = run();
    nix::sched::sched_setaffinity(this, &all).expect("sched_setaffinity");
    out.ok().json()["cpuAffinity"].clone()
}

#[test]
fn the_cpus_of_the_caller_are_not_the_containers() {
    newer!("1.3.1: CPUs are reset");
    needs!(Feature::CpuCount(2));
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    assert_eq!(started_by_who_is_bound(|| b.run(&[])), cpus(), "run");
    let b = Bundle::new();
    let c = b.running();
    assert_eq!(started_by_who_is_bound(|| c.exec(&["/bin/probe"])), cpus(), "exec");
}

#[test]
fn a_cpuset_says_the_cpus_whatever_the_callers_are() {
    newer!("1.3.1: CPUs are reset");
    needs!(Feature::CpuCount(2));
    needs!(Feature::Controller("cpuset"));
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    b.edit(|spec| spec["linux"]["resources"]["cpu"] = json!({ "cpus": "0-1", "mems": "0" }));
    assert_eq!(started_by_who_is_bound(|| b.run(&[])), "0-1");
    b.edit(|spec| spec["linux"]["resources"]["cpu"] = json!({ "cpus": "1", "mems": "0" }));
    assert_eq!(started_by_who_is_bound(|| b.run(&[])), "1");
}

#[test]
fn a_list_of_cpus_that_is_none_is_refused() {
    newer!("1.3: execCPUAffinity");
    for list in ["x", "0-", "1,,a", "99999999"] {
        let b = Bundle::new();
        b.edit(|spec| spec["process"]["execCPUAffinity"] = json!({ "final": list }));
        b.verb("create", &[]).output().fails("/process/execCPUAffinity");
    }
}

#[test]
fn a_memory_policy_is_set() {
    newer!("1.4: memoryPolicy");
    needs!(Feature::MemoryPolicy);
    let modes = [
        ("MPOL_PREFERRED", "0", 1),
        ("MPOL_BIND", "0", 2),
        ("MPOL_INTERLEAVE", "0", 3),
        ("MPOL_LOCAL", "", 4),
    ];
    for (mode, nodes, number) in modes {
        let b = Bundle::new();
        b.edit(|spec| spec["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": nodes }));
        let report = b.probe(&[]);
        assert_eq!(report["memoryPolicy"]["mode"], number, "{mode}: {}", report["memoryPolicy"]);
    }
}

#[test]
fn a_memory_policy_has_its_flags() {
    newer!("1.4: memoryPolicy");
    needs!(Feature::MemoryPolicy);
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    });
    assert_eq!(b.probe(&[])["memoryPolicy"]["mode"], 3 | 1 << 15);
}

#[test]
fn a_memory_policy_that_the_kernel_refuses_is_an_error_that_names_it() {
    newer!("1.4: memoryPolicy");
    for policy in [json!({ "mode": "MPOL_BIND" }), json!({ "mode": "MPOL_LOCAL", "nodes": "0" })] {
        let b = Bundle::new();
        b.edit(|spec| spec["linux"]["memoryPolicy"] = policy);
        b.verb("create", &[]).output().fails("/linux/memoryPolicy");
    }
}

#[test]
fn an_unknown_memory_policy_is_refused() {
    newer!("1.4: memoryPolicy");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_LAMB" }));
    b.verb("create", &[]).output().fails("/linux/memoryPolicy/mode");
}

#[test]
fn a_deadline_scheduler_has_its_times_or_is_an_error_that_names_it() {
    newer!("1.1: process.scheduler");
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["scheduler"] = json!({ "policy": "SCHED_DEADLINE",
            "runtime": 10_000_000, "deadline": 100_000_000, "period": 200_000_000 });
    });
    b.set_args(&["/bin/probe"]);
    let out = b.run(&[]);
    if out.code != 0 {
        out.fails("/process/scheduler").says("sched_setattr(policy 6");
        return;
    }
    let scheduler = out.json()["scheduler"].clone();
    assert_eq!(scheduler["policy"], "SCHED_DEADLINE", "{scheduler}");
    let times = ["runtime", "deadline", "period"].map(|name| scheduler[name].as_u64());
    assert_eq!(times, [Some(10_000_000), Some(100_000_000), Some(200_000_000)]);
}
