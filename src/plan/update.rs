//! `update`: which limits change. What is named replaces what was; what is not named stays, and is written again only
//! where the kernel takes two values together (memory and swap, quota and period). A value of 0 means nothing said, as
//! in runc, but for pids and idle, where it is a value.
//!
//! Changed is what runc changes: memory, cpu, the weight of block I/O, pids, and files of cgroup2 by name. The rest of
//! linux.resources is accepted and passed over, the device rules among it: the filter stays as it was made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::cgroup::{CgroupPlan, V1Plan, Write, limits};
use crate::error::Result;
use crate::host::Host;

/// A change of limits, decided.
#[derive(Debug)]
pub struct UpdatePlan {
    /// What the next update begins with.
    pub resources: LinuxResources,
    pub writes: Vec<Write>,
    pub v1: Vec<V1Plan>,
    /// Limits that must be above the usage: memory alone, and together with swap (config-linux.md#memory,
    /// checkBeforeUpdate).
    pub at_least: Option<(i64, i64)>,
    /// Properties that were given and that `update` does not change.
    pub passed_over: Vec<&'static str>,
}

impl UpdatePlan {
    /// `now` is what create or the last update left; `cgroup` is the container's, relative to the cgroup2 mount.
    pub fn new(
        now: &LinuxResources,
        change: &LinuxResources,
        (mount, cgroup): (&Path, &Path),
        host: &Host,
    ) -> Result<Self> {
        let mut resources = LinuxResources::default();
        let mut named = LinuxResources::default();
        let at_least = memory(now, change, &mut resources, &mut named);
        cpu(now, change, &mut resources, &mut named);
        block_io(now, change, &mut resources, &mut named);
        resources.set_pids(change.pids().or(*now.pids()));
        named.set_pids(*change.pids());
        let mut unified: HashMap<_, _> = now.unified().clone().unwrap_or_default();
        unified.extend(change.unified().clone().unwrap_or_default());
        resources.set_unified(Some(unified).filter(|files| !files.is_empty()));
        named.set_unified(change.unified().clone());
        let mut plan = CgroupPlan::bare(mount.to_owned(), cgroup.to_owned());
        for limit in limits(&named)? {
            plan.place(limit, host)?;
        }
        let passed_over = passed_over(change);
        Ok(Self { resources, writes: plan.writes, v1: plan.v1, at_least, passed_over })
    }

    /// The v1 hierarchies that are needed.
    pub fn mounts(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|v1| &v1.mount)
    }
}

fn memory(
    now: &LinuxResources,
    change: &LinuxResources,
    all: &mut LinuxResources,
    named: &mut LinuxResources,
) -> Option<(i64, i64)> {
    let (old, new) = (now.memory().unwrap_or_default(), change.memory().unwrap_or_default());
    // Without a limit of memory none of memory and swap makes sense: both go, as in cgroup v1.
    let swap = new.swap().or(new.limit().filter(|limit| *limit == -1));
    let mut merged = LinuxMemory::default();
    merged
        .set_limit(new.limit().or(old.limit()))
        .set_swap(swap.or(old.swap()))
        .set_reservation(new.reservation().or(old.reservation()))
        .set_check_before_update(new.check_before_update().or(old.check_before_update()));
    let limited = new.limit().is_some() || swap.is_some();
    let mut written = LinuxMemory::default();
    if limited {
        written.set_limit(merged.limit()).set_swap(merged.swap());
    }
    written.set_reservation(new.reservation());
    all.set_memory(Some(merged));
    named.set_memory(Some(written));
    let check = limited && merged.check_before_update() == Some(true);
    check.then(|| (merged.limit().unwrap_or(0), merged.swap().unwrap_or(0)))
}

fn cpu(now: &LinuxResources, change: &LinuxResources, all: &mut LinuxResources, named: &mut LinuxResources) {
    let nothing = LinuxCpu::default();
    let old = now.cpu().as_ref().unwrap_or(&nothing);
    let new = change.cpu().as_ref().unwrap_or(&nothing);
    let mut merged = LinuxCpu::default();
    merged
        .set_shares(new.shares().or(old.shares()))
        .set_quota(new.quota().or(old.quota()))
        .set_period(new.period().or(old.period()))
        .set_burst(new.burst().or(old.burst()))
        .set_idle(new.idle().or(old.idle()))
        .set_realtime_runtime(new.realtime_runtime().or(old.realtime_runtime()))
        .set_realtime_period(new.realtime_period().or(old.realtime_period()))
        .set_cpus(new.cpus().clone().or(old.cpus().clone()))
        .set_mems(new.mems().clone().or(old.mems().clone()));
    let mut written = new.clone();
    if new.quota().is_some() || new.period().is_some() {
        written.set_quota(merged.quota()).set_period(merged.period());
    }
    all.set_cpu(Some(merged));
    named.set_cpu(Some(written));
}

fn block_io(
    now: &LinuxResources,
    change: &LinuxResources,
    all: &mut LinuxResources,
    named: &mut LinuxResources,
) {
    let weight = |r: &LinuxResources| r.block_io().as_ref().and_then(LinuxBlockIo::weight);
    let only = |weight: Option<u16>| {
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(weight);
        Some(block_io)
    };
    all.set_block_io(only(weight(change).or(weight(now))));
    named.set_block_io(only(weight(change)));
}

fn passed_over(change: &LinuxResources) -> Vec<&'static str> {
    let devices = |r: &LinuxBlockIo| {
        r.weight_device().is_some()
            || r.throttle_read_bps_device().is_some()
            || r.throttle_write_bps_device().is_some()
            || r.throttle_read_iops_device().is_some()
            || r.throttle_write_iops_device().is_some()
    };
    let given = [
        (change.devices().is_some(), "/devices"),
        (change.block_io().as_ref().is_some_and(devices), "/blockIO (all but the weight)"),
        (change.hugepage_limits().is_some(), "/hugepageLimits"),
        (change.network().is_some(), "/network"),
        (change.rdma().is_some(), "/rdma"),
    ];
    given.into_iter().filter_map(|(given, name)| given.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> LinuxResources {
        serde_json::from_str(text).unwrap()
    }

    fn plan(now: &str, change: &str) -> Result<UpdatePlan> {
        plan_from(&resources(now), change)
    }

    fn plan_from(now: &LinuxResources, change: &str) -> Result<UpdatePlan> {
        let controllers = ["memory", "cpu", "cpuset", "io", "pids"].map(str::to_owned).to_vec();
        let host = Host { cgroup2_controllers: controllers, ..Host::default() };
        UpdatePlan::new(now, &resources(change), (Path::new("/c"), Path::new("a")), &host)
    }

    fn writes(now: &str, change: &str) -> Vec<(String, String)> {
        plan(now, change).unwrap().writes.into_iter().map(|w| (w.file, w.value)).collect()
    }

    fn file(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn only_what_is_named_is_written() {
        let now = r#"{"memory":{"limit":64,"swap":128},"cpu":{"shares":512},"pids":{"limit":5}}"#;
        assert_eq!(writes(now, r#"{"pids":{"limit":0}}"#), [file("pids.max", "1")]);
        assert_eq!(writes(now, "{}"), []);
        assert_eq!(writes(now, r#"{"memory":{"reservation":9}}"#), [file("memory.low", "9")]);
    }

    #[test]
    fn what_hangs_together_is_written_together() {
        let now = r#"{"memory":{"limit":64,"swap":128},"cpu":{"quota":10,"period":1000}}"#;
        let memory = [file("memory.max", "100"), file("memory.swap.max", "28")];
        assert_eq!(writes(now, r#"{"memory":{"limit":100}}"#), memory);
        assert_eq!(writes(now, r#"{"cpu":{"quota":-1}}"#), [file("cpu.max", "max 1000")]);
        assert_eq!(writes(now, r#"{"cpu":{"period":500}}"#), [file("cpu.max", "10 500")]);
        let e = plan(now, r#"{"memory":{"limit":200}}"#).unwrap_err();
        assert!(e.what().contains("memory+swap limit should be >= memory limit"), "{e}");
    }

    #[test]
    fn no_limit_of_memory_means_none_of_swap() {
        let now = r#"{"memory":{"limit":64,"swap":128}}"#;
        let none = [file("memory.max", "max"), file("memory.swap.max", "max")];
        assert_eq!(writes(now, r#"{"memory":{"limit":-1}}"#), none);
        assert_eq!(writes(now, r#"{"memory":{"limit":-1,"swap":0}}"#), none);
        assert_eq!(writes(now, r#"{"memory":{"swap":-1}}"#), [file("memory.max", "64"), none[1].clone()]);
        assert_eq!(writes(now, r#"{"memory":{"swap":0}}"#), [file("memory.max", "64")]);
    }

    #[test]
    fn a_later_change_begins_with_the_former() {
        let first = plan("{}", r#"{"cpu":{"period":50000},"memory":{"checkBeforeUpdate":true}}"#).unwrap();
        assert_eq!(first.at_least, None);
        let second = plan_from(&first.resources, r#"{"cpu":{"quota":7},"memory":{"limit":9}}"#).unwrap();
        let values: Vec<&str> = second.writes.iter().map(|write| write.value.as_str()).collect();
        assert_eq!((values, second.at_least), (vec!["9", "7 50000"], Some((9, 0))));
    }

    #[test]
    fn the_rest_is_passed_over() {
        let change = r#"{"devices":[{"allow":true,"access":"rwm"}],"memory":{"kernelTCP":5},"network":{}}"#;
        let plan = plan("{}", change).unwrap();
        assert!(plan.writes.is_empty() && plan.v1.is_empty());
        assert_eq!(plan.passed_over, ["/devices", "/network"]);
    }
}
