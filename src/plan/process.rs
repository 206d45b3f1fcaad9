//! The process: everything that `create` and `exec` share about becoming a program.

use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxSchedulerPolicy,
    MemoryPolicyModeType, PosixRlimitType, Process,
};

use super::ids::IdMaps;
use crate::error::{Error, Result};
use crate::host::Host;

#[derive(Debug, Clone)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Absolute, inside.
    pub cwd: PathBuf,
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Leave the caller's supplementary groups alone: setgroups(2) is denied where one unprivileged id is mapped, or an
    /// annotation asks for it.
    pub keep_groups: bool,
    pub umask: u32,
    pub capabilities: CapabilityPlan,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    /// Absent: inherited.
    pub oom_score_adj: Option<i32>,
    /// Rootless callers may be refused a lower score; runc goes on then, and so do we.
    pub oom_best_effort: bool,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub io_priority: Option<(u32, u32)>,
    pub scheduler: Option<crate::sys::process::SchedAttr>,
    /// For `exec`: the CPUs until the program starts, and from then on; empty where not given.
    pub cpu_affinity: Option<(Vec<usize>, Vec<usize>)>,
}

/// The five sets as bit masks, bit n being capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityPlan {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

impl ProcessPlan {
    pub fn new(process: &Process, ids: &IdMaps, host: &Host, warnings: &mut Vec<String>) -> Result<Self> {
        let args = process.args().clone().unwrap_or_default();
        if args.is_empty() || args[0].is_empty() {
            return Err(Error::new("/process/args: args must not be empty")
                .next("give the program to run, for example [\"/bin/sh\"]"));
        }
        if !process.cwd().is_absolute() {
            return Err(Error::new(format!(
                "/process/cwd: Cwd property must be an absolute path, not {:?}",
                process.cwd()
            )));
        }
        let user = process.user();
        mapped(ids.host_uid(user.uid()), user.uid(), "/process/user/uid", "uidMappings")?;
        mapped(ids.host_gid(user.gid()), user.gid(), "/process/user/gid", "gidMappings")?;
        let groups = user.additional_gids().clone().unwrap_or_default();
        let setgroups_denied = ids.unprivileged && ids.single((host.euid, host.egid));
        if setgroups_denied && !groups.is_empty() {
            return Err(Error::new("/process/user/additionalGids: not possible with a single mapped id")
                .why("the kernel forbids setgroups(2) where one unprivileged user maps only itself")
                .next("remove additionalGids, or map more ids through /etc/subgid"));
        }
        for (i, gid) in groups.iter().enumerate() {
            mapped(ids.host_gid(*gid), *gid, &format!("/process/user/additionalGids/{i}"), "gidMappings")?;
        }
        let apparmor = process.apparmor_profile().clone().filter(|profile| !profile.is_empty());
        let selinux = process.selinux_label().clone().filter(|label| !label.is_empty());
        if apparmor.is_some() && !host.apparmor {
            return Err(Error::new("/process/apparmorProfile: AppArmor is not enabled on this host")
                .next("remove the profile, or enable AppArmor (apparmor(7))"));
        }
        if selinux.is_some() && !host.selinux {
            return Err(Error::new("/process/selinuxLabel: SELinux is not enabled on this host")
                .next("remove the label, or enable SELinux (selinux(8))"));
        }
        Ok(Self {
            args,
            env: env(process.env().as_deref().unwrap_or_default())?,
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: console_size(process),
            uid: user.uid(),
            gid: user.gid(),
            groups,
            keep_groups: setgroups_denied,
            umask: user.umask().unwrap_or(0o022),
            capabilities: capabilities(process, host, warnings),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            rlimits: rlimits(process)?,
            oom_score_adj: process.oom_score_adj().map(oom_score).transpose()?,
            oom_best_effort: host.rootless,
            apparmor,
            selinux,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            cpu_affinity: process.exec_cpu_affinity().as_ref().map(cpu_affinity).transpose()?,
        })
    }
}

/// Class and level. The kernel reads more bits than a level has as hints, and would take 9 for 1 (ioprio_set(2)).
fn io_priority(asked: &LinuxIOPriority) -> Result<(u32, u32)> {
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(asked.priority()) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(Error::new(format!("/process/ioPriority/priority: {} is not 0 to 7", asked.priority()))),
    }
}

/// Podman's `--group-add keep-groups`, in crun's word for it: the caller's groups stay, even those that have no number
/// inside.
pub fn keeps_groups(annotations: &[(String, String)]) -> bool {
    annotations.iter().any(|(key, value)| key == "run.oci.keep_original_groups" && value == "1")
}

fn mapped(host: Option<u32>, id: u32, at: &str, maps: &str) -> Result<()> {
    if id == u32::MAX {
        return Err(Error::new(format!("{at}: {id} is not an id")));
    }
    host.map(drop).ok_or_else(|| {
        Error::new(format!("{at}: {id} is not mapped in the user namespace"))
            .next(format!("add it to /linux/{maps}, or use a mapped id"))
    })
}

/// Later entries win over earlier ones of the same name, as in runc. An entry without `=` or with a NUL is refused.
fn env(list: &[String]) -> Result<Vec<String>> {
    let mut env: Vec<String> = Vec::with_capacity(list.len() + 2);
    for (i, entry) in list.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::new(format!("/process/env/{i}: {entry:?} has no NAME before '='")));
        };
        if entry.contains('\0') {
            return Err(Error::new(format!("/process/env/{i}: {name} holds a NUL byte")));
        }
        match env.iter().position(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(earlier) => entry.clone_into(&mut env[earlier]),
            None => env.push(entry.clone()),
        }
    }
    Ok(env)
}

fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let fit = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Some((fit(size.height()), fit(size.width()))).filter(|size| *size != (0, 0))
}

/// The sets of the config; what cannot be granted is left out with a warning (config.md#linux-process).
fn capabilities(process: &Process, host: &Host, warnings: &mut Vec<String>) -> CapabilityPlan {
    let Some(sets) = process.capabilities() else { return CapabilityPlan::default() };
    let mut missing = 0;
    let mut grantable = |set: &Option<Capabilities>| {
        let wanted = mask(set);
        missing |= wanted & !host.capabilities;
        wanted & host.capabilities
    };
    let bounding = grantable(sets.bounding());
    let effective = grantable(sets.effective());
    let inheritable = grantable(sets.inheritable());
    let permitted = grantable(sets.permitted());
    let ambient = grantable(sets.ambient());
    let mut plan = CapabilityPlan { bounding, effective, inheritable, permitted, ambient };
    // The kernel refuses ambient capabilities that are not both permitted and inheritable (capabilities(7)).
    let mut refused = plan.ambient & !(plan.permitted & plan.inheritable);
    plan.ambient &= !refused;
    if plan.inheritable == 0 {
        refused = 0;
    }
    warnings.extend((0..64).filter(|n| refused & (1 << n) != 0).map(|n| {
        format!("can't raise ambient capability {}: it is not both permitted and inheritable", names(1 << n))
    }));
    plan.effective &= plan.permitted;
    if missing != 0 {
        warnings.push(format!(
            "/process/capabilities: unknown or unavailable capabilities ignored: {}",
            names(missing)
        ));
    }
    plan
}

fn mask(set: &Option<Capabilities>) -> u64 {
    set.iter().flatten().fold(0, |mask, cap| mask | 1 << number(*cap))
}

/// Every capability that any set of the config names.
pub fn wanted_capabilities(process: &Process) -> u64 {
    process.capabilities().as_ref().map_or(0, |sets| {
        mask(sets.bounding())
            | mask(sets.effective())
            | mask(sets.inheritable())
            | mask(sets.permitted())
            | mask(sets.ambient())
    })
}

/// The kernel's number of a capability (linux/capability.h), which is the order of oci-spec's names in `caps`.
fn number(cap: oci_spec::runtime::Capability) -> u8 {
    use std::str::FromStr;
    caps::Capability::from_str(&format!("CAP_{}", cap.to_string().trim_start_matches("CAP_")))
        .map_or(63, |cap| cap.index())
}

/// The names of the capabilities of a mask, joined by commas.
pub fn names(mask: u64) -> String {
    let known = caps::all();
    let mut names: Vec<String> = (0..64)
        .filter(|n| mask & (1 << n) != 0)
        .map(|n| known.iter().find(|cap| cap.index() == n).map_or(format!("CAP_{n}"), ToString::to_string))
        .collect();
    names.sort();
    names.join(", ")
}

fn rlimits(process: &Process) -> Result<Vec<Rlimit>> {
    let mut list: Vec<Rlimit> = Vec::new();
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource: u32 = match limit.typ() {
            PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
            PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
            PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
            PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
            PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
            PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
            PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
            PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
            PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
            PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
            PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
            PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
            PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
            PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
            PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        } as _;
        if list.iter().any(|l| l.resource == resource) {
            return Err(Error::new(format!("/process/rlimits/{i}: {} is listed twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::new(format!(
                "/process/rlimits/{i}: soft limit {} is above the hard limit {}",
                limit.soft(),
                limit.hard()
            )));
        }
        list.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(list)
}

fn oom_score(score: i32) -> Result<i32> {
    if (-1000..=1000).contains(&score) {
        Ok(score)
    } else {
        Err(Error::new(format!("/process/oomScoreAdj: {score} is not between -1000 and 1000")))
    }
}

fn scheduler(s: &oci_spec::runtime::Scheduler) -> Result<crate::sys::process::SchedAttr> {
    use oci_spec::runtime::LinuxSchedulerFlag as Flag;
    let policy = match s.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let nice = s.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::new(format!("/process/scheduler/nice: {nice} is not between -20 and 19")));
    }
    let priority = s.priority().unwrap_or(0);
    if priority != 0 && policy != 1 && policy != 2 {
        return Err(Error::new(
            "/process/scheduler/priority: scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        ));
    }
    if policy != 6
        && (s.runtime().unwrap_or(0) != 0 || s.deadline().unwrap_or(0) != 0 || s.period().unwrap_or(0) != 0)
    {
        return Err(Error::new(
            "/process/scheduler: runtime, deadline and period need the policy SCHED_DEADLINE",
        ));
    }
    let flags = s.flags().iter().flatten().fold(0u64, |bits, flag| {
        bits | match flag {
            Flag::SchedResetOnFork => 0x01,
            Flag::SchedFlagReclaim => 0x02,
            Flag::SchedFlagDLOverrun => 0x04,
            Flag::SchedFlagKeepPolicy => 0x08,
            Flag::SchedFlagKeepParams => 0x10,
            Flag::SchedFlagUtilClampMin => 0x20,
            Flag::SchedFlagUtilClampMax => 0x40,
        }
    });
    Ok(crate::sys::process::SchedAttr {
        size: 0,
        policy,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime: s.runtime().unwrap_or(0),
        deadline: s.deadline().unwrap_or(0),
        period: s.period().unwrap_or(0),
    })
}

fn cpu_affinity(affinity: &oci_spec::runtime::ExecCPUAffinity) -> Result<(Vec<usize>, Vec<usize>)> {
    let list = |text: &Option<String>, name: &str| {
        cpu_list(text.as_deref().unwrap_or(""), &format!("/process/execCPUAffinity/{name}"))
    };
    Ok((list(affinity.initial(), "initial")?, list(affinity.cpu_affinity_final(), "final")?))
}

/// Mode with its flag bits, and the nodes (set_mempolicy(2)).
pub fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<(u32, Vec<usize>)> {
    use oci_spec::runtime::MemoryPolicyFlagType as Flag;
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0u32, |bits, flag| {
        bits | match flag {
            Flag::MpolFNumaBalancing => 1 << 13,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFStaticNodes => 1 << 15,
        }
    });
    let nodes = cpu_list(policy.nodes().as_deref().unwrap_or(""), "/linux/memoryPolicy/nodes")
        .map_err(|e| e.context("invalid memory policy node"))?;
    Ok((mode | flags, nodes))
}

/// `0-3,7` as numbers (cpuset(7), List format).
pub fn cpu_list(text: &str, at: &str) -> Result<Vec<usize>> {
    let bad = || Error::new(format!("{at}: {text:?} is not a list such as 0-3,7"));
    let number = |s: &str| s.trim().parse::<usize>().ok().filter(|n| *n < 8192).ok_or_else(bad);
    let mut list = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => list.extend(number(first)?..=number(last)?),
            None => list.push(number(part)?),
        }
    }
    Ok(list)
}
