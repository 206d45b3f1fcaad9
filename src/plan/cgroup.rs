//! The cgroup: where it lies, and which files get which values. Every limit that the config asks for is a write here;
//! one that this host has no controller for is an error that names it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, Mount, Spec,
};

use super::devices::{self, Rule};
use super::namespaces::{Kind, Namespaces};
use super::unit::{self, UnitPlan};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::sys::bpf::Instruction;

#[derive(Debug, Clone)]
pub struct CgroupPlan {
    /// Where cgroup2 is mounted.
    pub mount: PathBuf,
    /// The container's cgroup, relative to the mount.
    pub path: PathBuf,
    pub writes: Vec<Write>,
    /// On hybrid hosts: the v1 hierarchies whose limits are asked for; and if there is one, those that keep accounts.
    pub v1: Vec<V1Plan>,
    pub devices: Vec<Rule>,
    /// The device filter; `None` when everything is allowed or the caller may not load one.
    pub device_program: Option<Vec<Instruction>>,
    /// Rootless without a delegated cgroup: the container stays where the caller is, unless limits are asked for.
    pub optional: bool,
    /// The host's id of the container's user, when the cgroup is to be its own (config-linux.md#cgroup-ownership).
    pub owner: Option<u32>,
    /// The unit that systemd is asked for, when its driver makes the cgroup.
    pub unit: Option<Box<UnitPlan>>,
}

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub file: String,
    pub value: String,
    /// Where to write instead when `file` does not exist: another file and its value.
    pub otherwise: Option<(String, String)>,
    /// Not an error when neither exists, since the value is the kernel's default then.
    pub optional: bool,
    /// The property that asked for it.
    pub at: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Plan {
    pub controller: String,
    pub mount: PathBuf,
    pub path: PathBuf,
    pub writes: Vec<Write>,
}

/// v1 controllers that keep accounts.
const COUNTING: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "blkio"];

impl CgroupPlan {
    pub fn new(id: &str, spec: &Spec, linux: &Linux, host: &Host) -> Result<Option<Self>> {
        let path = match &host.systemd {
            Some(systemd) => unit::path(id, linux, systemd)?,
            None => path(id, linux, host)?,
        };
        let nothing = LinuxResources::default();
        let resources = linux.resources().as_ref().unwrap_or(&nothing);
        let limits = limits(resources)?;
        let Some(mount) = host.cgroup2.clone() else {
            if host.rootless && limits.is_empty() {
                return Ok(None);
            }
            return Err(Error::new("no cgroup2 file system is mounted on this host")
                .why("jug tracks, freezes and kills containers through cgroup v2, alone or beside v1")
                .next("mount it: mount -t cgroup2 none /sys/fs/cgroup"));
        };
        let devices = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        let device_program =
            (!host.rootless && !devices::allows_everything(&devices)).then(|| devices::program(&devices));
        // Jumps hold 16 bits; beyond that the program would be a wrong one.
        if device_program.as_ref().is_some_and(|p| p.len() > 30_000) {
            return Err(Error::new("/linux/resources/devices: too many rules for one device program"));
        }
        let optional =
            host.systemd.is_none() && host.rootless && linux.cgroups_path().is_none() && limits.is_empty();
        let mut plan = Self { devices, device_program, optional, ..Self::bare(mount, path) };
        for limit in limits {
            plan.place(limit, host)?;
        }
        plan.count(host);
        plan.unit = UnitPlan::new(id, spec, linux, host, &plan)?.map(Box::new);
        Ok(Some(plan))
    }

    /// Engines read a container's usage in the v1 hierarchies of its first process, where without cgroups of its own
    /// they would find everybody's. Who asks for no limit there does not pay for it.
    fn count(&mut self, host: &Host) {
        if self.v1.is_empty() || host.rootless {
            return;
        }
        for (controller, mount) in host.cgroup1.iter().filter(|(name, _)| COUNTING.contains(&name.as_str())) {
            if !self.v1.iter().any(|v1| v1.mount == *mount) {
                let (controller, mount, path) = (controller.clone(), mount.clone(), self.path.clone());
                self.v1.push(V1Plan { controller, mount, path, writes: Vec::new() });
            }
        }
    }

    /// Without limits and without a device filter.
    pub(super) fn bare(mount: PathBuf, path: PathBuf) -> Self {
        let (writes, v1, devices) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            mount,
            path,
            writes,
            v1,
            devices,
            device_program: None,
            optional: false,
            owner: None,
            unit: None,
        }
    }

    /// A container that mounts its own view of the cgroup writable gets what it takes to divide it: nothing else makes
    /// its user the owner.
    pub fn delegate(&mut self, spec: &Spec, namespaces: &Namespaces, uid: Option<u32>) {
        let is_writable = |m: &Mount| {
            m.source().as_deref() == Some(Path::new("cgroup"))
                && m.destination() == Path::new("/sys/fs/cgroup")
                && !m.options().iter().flatten().any(|option| option == "ro")
        };
        if namespaces.makes(Kind::Cgroup) && spec.mounts().iter().flatten().any(is_writable) {
            self.owner = uid;
        }
    }

    /// Puts a limit where its controller is: on cgroup2 if it is there, else on a v1 hierarchy.
    pub(super) fn place(&mut self, limit: Limit, host: &Host) -> Result<()> {
        let on_v2 = limit.controller.is_empty() || host.cgroup2_controllers.contains(&limit.controller);
        if on_v2 {
            if let Some(write) = limit.v2 {
                self.writes.push(write);
                return Ok(());
            }
            return match limit.v1 {
                // runc ignores what cgroup v2 has no word for, and so do the engines that still send it.
                Some(_) => Ok(()),
                None => Err(unavailable(limit.at, &limit.controller)),
            };
        }
        let name = match limit.controller.as_str() {
            "io" => "blkio",
            name => name,
        };
        let hierarchy = host.cgroup1.iter().find(|(controller, _)| controller == name);
        match (hierarchy, limit.v1) {
            (Some((controller, mount)), Some(write)) => {
                match self.v1.iter_mut().find(|v1| v1.mount == *mount) {
                    Some(v1) => v1.writes.push(write),
                    None => self.v1.push(V1Plan {
                        controller: controller.clone(),
                        mount: mount.clone(),
                        path: self.path.clone(),
                        writes: vec![write],
                    }),
                }
                Ok(())
            }
            (_, None) if limit.v2.is_none() => Ok(()),
            _ if limit.v2.as_ref().is_some_and(|w| w.optional) => Ok(()),
            _ => Err(unavailable(limit.at, &limit.controller)),
        }
    }
}

fn unavailable(at: &str, controller: &str) -> Error {
    Error::new(format!("{at}: cannot be honoured, this host has no cgroup controller {controller:?}"))
        .why("it is disabled, or not delegated to this cgroup2 mount")
        .next("look at /sys/fs/cgroup/cgroup.controllers, or remove the limit")
}

/// An absolute cgroupsPath lies below the mount; a relative one, and the default (the id), beside the caller's cgroup.
fn path(id: &str, linux: &Linux, host: &Host) -> Result<PathBuf> {
    let asked = linux.cgroups_path().as_deref().filter(|p| !p.as_os_str().is_empty());
    if let Some(asked) = asked {
        if asked.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            return Err(Error::new(format!("/linux/cgroupsPath: {} leads upwards with ..", asked.display())));
        }
        if asked.to_string_lossy().contains(':') && !asked.is_absolute() {
            return Err(Error::new(format!(
                "/linux/cgroupsPath: {} is a path of the systemd driver",
                asked.display()
            ))
            .next("use a path such as /machine/NAME, or --systemd-cgroup"));
        }
    }
    let path = match asked {
        Some(asked) if asked.is_absolute() => super::lexical(asked),
        asked => {
            let parent = host.own_cgroup.parent().unwrap_or(Path::new("/"));
            super::lexical(&parent.join(asked.unwrap_or(Path::new(id))))
        }
    };
    if path.as_os_str().is_empty() {
        return Err(Error::new("/linux/cgroupsPath: the root cgroup cannot be a container's"));
    }
    Ok(path)
}

/// One limit in both dialects.
pub(super) struct Limit {
    at: &'static str,
    /// The v2 name of the controller; empty for a file of cgroup2 itself.
    controller: String,
    v2: Option<Write>,
    v1: Option<Write>,
}

fn limit(
    at: &'static str,
    controller: &str,
    v2: Option<(&str, String)>,
    v1: Option<(&str, String)>,
) -> Limit {
    let write = |(file, value): (&str, String)| Write {
        file: file.to_owned(),
        value,
        otherwise: None,
        optional: false,
        at,
    };
    Limit { at, controller: controller.to_owned(), v2: v2.map(write), v1: v1.map(write) }
}

pub(super) fn limits(r: &LinuxResources) -> Result<Vec<Limit>> {
    let mut all = Vec::new();
    if let Some(m) = r.memory() {
        memory(m, &mut all)?;
    }
    if let Some(c) = r.cpu() {
        cpu(c, &mut all);
    }
    if let Some(p) = r.pids() {
        // Neither systemd nor a first process can live with 0: 1 means the same, nothing can be forked (as runc does).
        let value = match p.limit() {
            0 => "1".to_owned(),
            n if n < 0 => "max".to_owned(),
            n => n.to_string(),
        };
        all.push(limit(
            "/linux/resources/pids/limit",
            "pids",
            Some(("pids.max", value.clone())),
            Some(("pids.max", value)),
        ));
    }
    if let Some(b) = r.block_io() {
        block_io(b, &mut all);
    }
    for h in r.hugepage_limits().iter().flatten() {
        hugepages(h.page_size(), h.limit(), &mut all)?;
    }
    network(r, &mut all);
    for (device, rdma) in r.rdma().iter().flatten() {
        let mut value = device.clone();
        if let Some(n) = rdma.hca_handles() {
            value += &format!(" hca_handle={n}");
        }
        if let Some(n) = rdma.hca_objects() {
            value += &format!(" hca_object={n}");
        }
        all.push(limit(
            "/linux/resources/rdma",
            "rdma",
            Some(("rdma.max", value.clone())),
            Some(("rdma.max", value)),
        ));
    }
    unified(r, &mut all)?;
    Ok(all)
}

/// -1 means no limit, in the words of the dialect.
fn bytes(n: i64) -> String {
    if n < 0 { "max".to_owned() } else { n.to_string() }
}

fn memory(m: &LinuxMemory, all: &mut Vec<Limit>) -> Result<()> {
    let (memory, swap) = (m.limit().unwrap_or(0), m.swap().unwrap_or(0));
    if memory < -1 || swap < -1 || m.reservation().unwrap_or(0) < -1 {
        return Err(Error::new("/linux/resources/memory: a limit is -1 for none, or a number of bytes"));
    }
    // config.json counts memory and swap together as v1 did; cgroup v2 counts swap alone.
    let at = "/linux/resources/memory/swap";
    let swap_alone = match (memory, swap) {
        (-1, 0) | (_, -1) => Some("max".to_owned()),
        (_, 0) => None,
        (0 | -1, _) => {
            return Err(Error::new(format!("{at}: unable to set swap limit without memory limit")));
        }
        (memory, swap) if swap < memory => {
            return Err(Error::new(format!("{at}: memory+swap limit should be >= memory limit")));
        }
        (memory, swap) => Some((swap - memory).to_string()),
    };
    if memory != 0 {
        all.push(limit(
            "/linux/resources/memory/limit",
            "memory",
            Some(("memory.max", bytes(memory))),
            Some(("memory.limit_in_bytes", memory.to_string())),
        ));
    }
    if let Some(value) = swap_alone {
        let both = if swap == 0 { -1 } else { swap };
        let mut l = limit(
            at,
            "memory",
            Some(("memory.swap.max", value.clone())),
            Some(("memory.memsw.limit_in_bytes", both.to_string())),
        );
        // A kernel without swap accounting has no such file; no swap and all swap are then the same.
        let default = value == "max" || value == "0";
        l.v2.iter_mut().for_each(|w| w.optional = default);
        l.v1.iter_mut().for_each(|w| w.optional = swap <= 0);
        all.push(l);
    }
    if let Some(n) = m.reservation().filter(|n| *n != 0) {
        all.push(limit(
            "/linux/resources/memory/reservation",
            "memory",
            Some(("memory.low", bytes(n))),
            Some(("memory.soft_limit_in_bytes", n.to_string())),
        ));
    }
    if let Some(n) = m.kernel_tcp().filter(|n| *n != 0) {
        let v1 = Some(("memory.kmem.tcp.limit_in_bytes", n.to_string()));
        all.push(limit("/linux/resources/memory/kernelTCP", "memory", None, v1));
    }
    if let Some(n) = m.swappiness() {
        if n > 100 {
            return Err(Error::new(format!(
                "/linux/resources/memory/swappiness: {n} is not between 0 and 100"
            )));
        }
        let v1 = Some(("memory.swappiness", n.to_string()));
        all.push(limit("/linux/resources/memory/swappiness", "memory", None, v1));
    }
    if m.disable_oom_killer() == Some(true) {
        let v1 = Some(("memory.oom_control", "1".to_owned()));
        all.push(limit("/linux/resources/memory/disableOOMKiller", "memory", None, v1));
    }
    Ok(())
}

fn cpu(c: &LinuxCpu, all: &mut Vec<Limit>) {
    if let Some(shares) = c.shares().filter(|n| *n != 0) {
        all.push(limit(
            "/linux/resources/cpu/shares",
            "cpu",
            Some(("cpu.weight", weight(shares).to_string())),
            Some(("cpu.shares", shares.to_string())),
        ));
    }
    if let Some(idle) = c.idle() {
        let write = Some(("cpu.idle", idle.to_string()));
        all.push(limit("/linux/resources/cpu/idle", "cpu", write.clone(), write));
    }
    let (quota, period) = (c.quota().filter(|q| *q != 0), c.period().filter(|p| *p != 0));
    if let Some(period) = period {
        let v1 = Some(("cpu.cfs_period_us", period.to_string()));
        let v2 = quota.is_none().then(|| ("cpu.max", format!("max {period}")));
        all.push(limit("/linux/resources/cpu/period", "cpu", v2, v1));
    }
    if let Some(quota) = quota {
        let v2 = format!("{} {}", bytes(quota), period.unwrap_or(100_000));
        let v1 = Some(("cpu.cfs_quota_us", quota.max(-1).to_string()));
        all.push(limit("/linux/resources/cpu/quota", "cpu", Some(("cpu.max", v2)), v1));
    }
    if let Some(burst) = c.burst() {
        let v2 = Some(("cpu.max.burst", burst.to_string()));
        all.push(limit(
            "/linux/resources/cpu/burst",
            "cpu",
            v2,
            Some(("cpu.cfs_burst_us", burst.to_string())),
        ));
    }
    if let Some(n) = c.realtime_period().filter(|n| *n != 0) {
        let v1 = Some(("cpu.rt_period_us", n.to_string()));
        all.push(limit("/linux/resources/cpu/realtimePeriod", "cpu", None, v1));
    }
    if let Some(n) = c.realtime_runtime().filter(|n| *n != 0) {
        let v1 = Some(("cpu.rt_runtime_us", n.to_string()));
        all.push(limit("/linux/resources/cpu/realtimeRuntime", "cpu", None, v1));
    }
    for (list, at, file) in [
        (c.cpus(), "/linux/resources/cpu/cpus", "cpuset.cpus"),
        (c.mems(), "/linux/resources/cpu/mems", "cpuset.mems"),
    ] {
        if let Some(list) = list.as_ref().filter(|l| !l.is_empty()) {
            all.push(limit(at, "cpuset", Some((file, list.clone())), Some((file, list.clone()))));
        }
    }
}

/// v1 shares [2, 262144] on the v2 scale [1, 10000], with 1024 at 100: the curve that runc, crun and systemd agreed on.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent)).ceil() as u64
        }
    }
}

fn block_io(b: &LinuxBlockIo, all: &mut Vec<Limit>) {
    if let Some(w) = b.weight().filter(|w| *w != 0) {
        let at = "/linux/resources/blockIO/weight";
        let mut l =
            limit(at, "io", Some(("io.bfq.weight", w.to_string())), Some(("blkio.weight", w.to_string())));
        // BFQ takes the value as it is; io.weight has another scale, [10, 1000] on [1, 10000].
        let scaled = 1 + (u64::from(w).saturating_sub(10)) * 9999 / 990;
        l.v2.iter_mut().for_each(|write| {
            write.otherwise = Some(("io.weight".to_owned(), scaled.to_string()));
        });
        l.v1.iter_mut()
            .for_each(|write| write.otherwise = Some(("blkio.bfq.weight".to_owned(), w.to_string())));
        all.push(l);
    }
    if let Some(w) = b.leaf_weight().filter(|w| *w != 0) {
        let v1 = Some(("blkio.leaf_weight", w.to_string()));
        all.push(limit("/linux/resources/blockIO/leafWeight", "io", None, v1));
    }
    for d in b.weight_device().iter().flatten() {
        if let Some(w) = d.weight().filter(|w| *w != 0) {
            let value = format!("{}:{} {w}", d.major(), d.minor());
            let at = "/linux/resources/blockIO/weightDevice";
            all.push(limit(
                at,
                "io",
                Some(("io.bfq.weight", value.clone())),
                Some(("blkio.weight_device", value)),
            ));
        }
    }
    let mut throttle = |list: &Option<Vec<LinuxThrottleDevice>>, at, key: &str, v1: &str| {
        for d in list.iter().flatten() {
            let device = format!("{}:{}", d.major(), d.minor());
            let v2 = Some(("io.max", format!("{device} {key}={}", d.rate())));
            all.push(limit(at, "io", v2, Some((v1, format!("{device} {}", d.rate())))));
        }
    };
    let at = "/linux/resources/blockIO/throttleReadBpsDevice";
    throttle(b.throttle_read_bps_device(), at, "rbps", "blkio.throttle.read_bps_device");
    let at = "/linux/resources/blockIO/throttleWriteBpsDevice";
    throttle(b.throttle_write_bps_device(), at, "wbps", "blkio.throttle.write_bps_device");
    let at = "/linux/resources/blockIO/throttleReadIOPSDevice";
    throttle(b.throttle_read_iops_device(), at, "riops", "blkio.throttle.read_iops_device");
    let at = "/linux/resources/blockIO/throttleWriteIOPSDevice";
    throttle(b.throttle_write_iops_device(), at, "wiops", "blkio.throttle.write_iops_device");
}

fn hugepages(size: &str, max: i64, all: &mut Vec<Limit>) -> Result<()> {
    let at = "/linux/resources/hugepageLimits";
    let digits = size.trim_end_matches(['K', 'M', 'G', 'B']);
    if digits.is_empty() || digits.parse::<u32>().is_err() || !size.ends_with('B') {
        return Err(Error::new(format!("{at}: {size:?} is no page size such as 2MB or 1GB")));
    }
    let v1 = |suffix: &str| (format!("hugetlb.{size}.{suffix}"), max.to_string());
    for (v2_file, v1_file, optional) in
        [("max", "limit_in_bytes", false), ("rsvd.max", "rsvd.limit_in_bytes", true)]
    {
        let (file, value) = v1(v1_file);
        let mut l = limit(
            at,
            "hugetlb",
            Some((&format!("hugetlb.{size}.{v2_file}"), bytes(max))),
            Some((&file, value)),
        );
        l.v2.iter_mut().chain(l.v1.iter_mut()).for_each(|w| w.optional = optional);
        all.push(l);
    }
    Ok(())
}

fn network(r: &LinuxResources, all: &mut Vec<Limit>) {
    let Some(network) = r.network() else { return };
    if let Some(class) = network.class_id().filter(|id| *id != 0) {
        let v1 = Some(("net_cls.classid", class.to_string()));
        all.push(limit("/linux/resources/network/classID", "net_cls", None, v1));
    }
    for p in network.priorities().iter().flatten() {
        let v1 = Some(("net_prio.ifpriomap", format!("{} {}", p.name(), p.priority())));
        all.push(limit("/linux/resources/network/priorities", "net_prio", None, v1));
    }
}

/// Files of every cgroup that are verbs.
const ACTS: [&str; 5] = ["cgroup.freeze", "cgroup.kill", "cgroup.procs", "cgroup.threads", "cgroup.type"];

/// Files of cgroup2 by name, written as they are (config-linux.md#unified).
fn unified(r: &LinuxResources, all: &mut Vec<Limit>) -> Result<()> {
    let at = "/linux/resources/unified";
    let mut entries: Vec<_> = r.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        if file.contains('/') {
            return Err(Error::new(format!(
                "{at}: unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        if ACTS.contains(&file.as_str()) {
            return Err(Error::new(format!(
                "{at}: unified resource {file:?} is no limit, it acts on processes"
            ))
            .why("it would freeze the container before it begins, or move others into its cgroup"));
        }
        let Some((controller, _)) = file.split_once('.') else {
            return Err(Error::new(format!(
                "{at}: unified resource {file:?} must be in the form CONTROLLER.PARAMETER"
            )));
        };
        let controller = if controller == "cgroup" { "" } else { controller };
        // The kernel takes one line at a time: io.max has one for each device.
        for line in value.trim_end_matches('\n').split('\n') {
            all.push(limit(at, controller, Some((file, line.to_owned())), None));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_in_runc() {
        for (shares, want) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 60), (2048, 174)] {
            let got = weight(shares);
            assert!(got.abs_diff(want) <= 1, "{shares}: {got}, not {want}");
        }
    }

    fn swap(limit: i64, swap: i64) -> Vec<(String, String)> {
        let text = format!(r#"{{"limit":{limit},"swap":{swap}}}"#);
        let memory: LinuxMemory = serde_json::from_str(&text).unwrap();
        let mut all = Vec::new();
        super::memory(&memory, &mut all).unwrap();
        all.into_iter().filter_map(|l| l.v2).map(|w| (w.file, w.value)).collect()
    }

    #[test]
    fn memory_and_swap_together_become_swap_alone() {
        let file = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(swap(1 << 20, 3 << 20)[1], file("memory.swap.max", "2097152"));
        // Equal means no swap at all: a library we compared with writes nothing here.
        assert_eq!(swap(1 << 20, 1 << 20)[1], file("memory.swap.max", "0"));
        assert_eq!(swap(1 << 20, -1)[1], file("memory.swap.max", "max"));
        assert_eq!(swap(-1, 0), [file("memory.max", "max"), file("memory.swap.max", "max")]);
    }

    #[test]
    fn lines_of_a_unified_file_are_written_one_by_one() {
        let text = r#"{"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2\n","pids.max":"5"}}"#;
        let all = limits(&serde_json::from_str(text).unwrap()).unwrap();
        let values: Vec<String> = all.into_iter().filter_map(|l| l.v2).map(|w| w.value).collect();
        assert_eq!(values, ["8:0 rbps=1", "8:16 rbps=2", "5"]);
    }

    #[test]
    fn an_io_weight_keeps_its_scale() {
        for (weight, want) in [(10, "1"), (100, "910"), (1000, "10000")] {
            let io: LinuxBlockIo = serde_json::from_str(&format!(r#"{{"weight":{weight}}}"#)).unwrap();
            let mut all = Vec::new();
            block_io(&io, &mut all);
            assert_eq!(all[0].v2.as_ref().unwrap().otherwise, Some(("io.weight".into(), want.into())));
        }
    }
}
