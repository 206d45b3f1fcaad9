//! Settings and an image's config become a config.json for jug-oci. The defaults are at least as strict as Docker's:
//! eleven capabilities, masked and read-only paths, our own seccomp profile, a limit of processes, every namespace but
//! the user's. `no_new_privs` is off unless asked for, as in Docker and Podman: su(1) and file capabilities of an image
//! work, within the eleven.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::selinux::Labels;
use super::settings::Settings;
use super::user::User;
use super::{apparmor, attach, devices, quantity, seccomp};
use crate::error::{Error, Result};
use crate::host;
use crate::sys::path;

/// What an image says about its containers. Nothing of it decides about the host.
#[derive(Debug, Clone, Default)]
pub struct FromImage {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
}

impl FromImage {
    pub fn new(config: &oci_spec::image::ImageConfiguration) -> Result<Self> {
        let Some(config) = config.config() else { return Ok(Self::default()) };
        let env = config.env().clone().unwrap_or_default();
        // CVE-2026-57231: a bare name would take its value from whoever runs the engine.
        if let Some(bad) =
            env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0'))
        {
            return Err(Error::new(format!("the image's environment entry {bad:?} is not NAME=VALUE")));
        }
        Ok(Self {
            env,
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            workdir: config.working_dir().clone().filter(|dir| !dir.is_empty()),
            user: config.user().clone().filter(|user| !user.is_empty()),
            volumes: config.volumes().clone().unwrap_or_default(),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
            stop_signal: config.stop_signal().clone().filter(|signal| !signal.is_empty()),
        })
    }

    /// The program and its arguments: the entrypoint, and the words given or else the image's.
    pub fn args(&self, settings: &Settings, words: &[String]) -> Result<Args> {
        let entrypoint = match settings.entrypoint.as_deref() {
            Some("") => Vec::new(),
            // As Podman: the exec form of a Dockerfile.
            Some(text) => serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]),
            None => self.entrypoint.clone(),
        };
        // A new entrypoint has no use for the image's arguments.
        let cmd = if words.is_empty() && settings.entrypoint.is_none() { &self.cmd } else { words };
        if entrypoint.is_empty() && cmd.is_empty() {
            return Err(Error::new("no command specified").next("name the program to run after the image"));
        }
        Ok(Args { cmd: cmd.to_vec(), entrypoint })
    }
}

/// The program and its arguments, in the two parts that an image has.
#[derive(Debug, Default)]
pub struct Args {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
}

/// Namespaces of other containers: the process whose they are.
#[derive(Debug, Default)]
pub struct Joined {
    pub pid: Option<i32>,
    pub ipc: Option<i32>,
    pub network: Option<i32>,
}

/// Ids of a user namespace, `(inside, outside, how many)` each; empty for none.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Maps {
    pub uid: Vec<(u32, u32, u32)>,
    pub gid: Vec<(u32, u32, u32)>,
}

/// Everything that the config is made of.
pub struct Parts<'a> {
    pub id: &'a str,
    pub settings: &'a Settings,
    pub image: &'a FromImage,
    pub args: &'a [String],
    pub user: &'a User,
    pub root: &'a Path,
    /// Mounts beside the fixed ones, in the order in which they are made.
    pub mounts: Vec<Value>,
    pub hostname: &'a str,
    pub joined: &'a Joined,
    pub maps: &'a Maps,
    pub labels: &'a Labels,
    /// `NAME=VALUE`, from files and flags.
    pub env: &'a [String],
    /// What the caller says to the runtime; never an image's labels, which are data (CVE-2026-53488).
    pub annotations: &'a BTreeMap<String, String>,
}

/// Podman's list, which is Docker's without NET_RAW, MKNOD and AUDIT_WRITE.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The union of Docker's and Podman's.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Podman's; Docker has none.
const PIDS_LIMIT: i64 = 2048;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config.json. Everything of the host that is read for it is read here: the kernel's version, processors, /dev.
pub fn make(parts: &Parts) -> Result<Value> {
    let settings = parts.settings;
    if !settings.publish.is_empty() {
        return Err(Error::new("--publish: published ports come with bridged networks, in a later version")
            .next("use --network host for now"));
    }
    known_options(settings)?;
    let caps = capabilities(settings)?;
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": { "path": parts.root, "readonly": settings.read_only },
        "process": process(parts, &caps)?,
        "mounts": mounts(parts)?,
        "annotations": parts.annotations,
        "linux": linux(parts, &caps)?,
    });
    if settings.uts.as_deref() != Some("host") {
        config["hostname"] = parts.hostname.into();
    }
    Ok(config)
}

/// What nobody reads would be believed to protect.
fn known_options(settings: &Settings) -> Result<()> {
    for option in &settings.log_opt {
        match option.split_once('=') {
            Some(("max-size", size)) => drop(quantity::bytes(size, "--log-opt max-size")?),
            Some(("max-file", _)) => drop(super::launch::max_files(settings)?),
            _ => {
                return Err(Error::new(format!("--log-opt: {option:?} is unknown"))
                    .next("options are max-size=BYTES and max-file=N"));
            }
        }
    }
    const KNOWN: [&str; 7] =
        ["apparmor", "label", "mask", "no-new-privileges", "seccomp", "systempaths", "unmask"];
    for option in &settings.security_opt {
        if !KNOWN.contains(&super::settings::option(option).0) {
            return Err(Error::new(format!("--security-opt: {option:?} is unknown"))
                .next(format!("options are {}", KNOWN.join(", "))));
        }
    }
    Ok(())
}

/// `CAP_` in front, known to this library.
fn capability(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    match full.parse::<caps::Capability>() {
        Ok(_) => Ok(full),
        Err(_) => Err(Error::new(format!("unknown capability {name:?}")).next("see capabilities(7)")),
    }
}

/// The bounding set: the default, without what is dropped, with what is added (as docker reads the two lists).
fn capabilities(settings: &Settings) -> Result<BTreeSet<String>> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let named = |list: &[String]| -> Result<Vec<String>> {
        list.iter().filter(|name| !is_all(name)).map(|name| capability(name)).collect()
    };
    let mut set: BTreeSet<String> = if settings.privileged || settings.cap_add.iter().any(is_all) {
        caps::all().iter().map(ToString::to_string).collect()
    } else if settings.cap_drop.iter().any(is_all) {
        BTreeSet::new()
    } else {
        CAPABILITIES.map(str::to_owned).into()
    };
    if !settings.cap_drop.iter().any(is_all) || settings.cap_add.iter().any(is_all) {
        let dropped = named(&settings.cap_drop)?;
        set.retain(|name| !dropped.contains(name));
    }
    set.extend(named(&settings.cap_add)?);
    retain_known(&mut set);
    Ok(set)
}

/// What this kernel has not yet heard of cannot be given.
fn retain_known(set: &mut BTreeSet<String>) {
    let last = host::read("/proc/sys/kernel/cap_last_cap").ok().and_then(|n| n.trim().parse::<u8>().ok());
    set.retain(|name| {
        name.parse::<caps::Capability>().is_ok_and(|cap| last.is_none_or(|last| cap.index() <= last))
    });
}

/// All of this kernel's.
pub fn every_capability() -> BTreeSet<String> {
    let mut all = caps::all().iter().map(ToString::to_string).collect();
    retain_known(&mut all);
    all
}

fn process(parts: &Parts, caps: &BTreeSet<String>) -> Result<Value> {
    let settings = parts.settings;
    let user = parts.user;
    // Who is not root gets what was asked for by name, and keeps it through execve (ambient); root gets all.
    let (held, kept): (Vec<&String>, Vec<&String>) = if user.uid == 0 {
        (caps.iter().collect(), Vec::new())
    } else {
        let named = settings.cap_add.iter().filter_map(|name| capability(name).ok()).collect::<BTreeSet<_>>();
        let named: Vec<&String> = caps.iter().filter(|cap| named.contains(*cap)).collect();
        (named.clone(), named)
    };
    let mut process = json!({
        "terminal": settings.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": groups(user, &group_map(parts)) },
        "args": parts.args,
        "env": environment(parts),
        "cwd": settings.workdir.as_deref().or(parts.image.workdir.as_deref()).unwrap_or("/"),
        "capabilities": {
            "bounding": caps, "effective": held, "permitted": held, "inheritable": kept, "ambient": kept,
        },
        "noNewPrivileges": no_new_privileges(settings)?,
        "oomScoreAdj": 0,
        "rlimits": settings.ulimit.iter().map(|text| rlimit(text)).collect::<Result<Vec<_>>>()?,
    });
    if host::is_rootless() {
        process.as_object_mut().map(|process| process.remove("oomScoreAdj"));
    }
    if settings.tty {
        process["consoleSize"] = attach::console_size();
    }
    if let Some(profile) = apparmor::profile(settings)? {
        process["apparmorProfile"] = profile.into();
    }
    if parts.labels.confine() {
        process["selinuxLabel"] = parts.labels.process.as_str().into();
    }
    Ok(process)
}

/// The groups that the container has: of its own user namespace, or of the one in which an unprivileged caller's is.
fn group_map(parts: &Parts) -> Vec<(u32, u32, u32)> {
    match parts.maps.gid.as_slice() {
        [] if host::is_rootless() => super::ids::here().gid,
        own => own.to_vec(),
    }
}

/// The groups of a process. The primary one is listed too: a file that keeps a group out keeps its members out
/// (CVE-2022-2995). `map` is the namespace's map of groups; where it has a single id there is no setgroups(2), and
/// those that an image's root is in (alpine's, say) are left out, as crun does.
pub fn groups(user: &User, map: &[(u32, u32, u32)]) -> Vec<u32> {
    if let [(_, _, 1)] = map {
        return Vec::new();
    }
    let mut groups = user.groups.clone();
    groups.push(user.gid);
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn no_new_privileges(settings: &Settings) -> Result<bool> {
    match settings.security("no-new-privileges") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(Error::new(format!("--security-opt no-new-privileges: {other:?} is not true or false")))
        }
    }
}

/// The image's, then ours, then what was said; the last of a name counts.
fn environment(parts: &Parts) -> Vec<String> {
    let home = parts.user.home.clone().unwrap_or_else(|| "/".to_owned());
    let ours = [PATH.to_owned(), format!("HOSTNAME={}", parts.hostname), format!("HOME={home}")];
    let terminal = parts.settings.tty.then(|| "TERM=xterm".to_owned());
    merged(ours.iter().chain(&terminal).chain(&parts.image.env).chain(parts.env))
}

/// Entries in the order of the first of each name; the last one counts.
pub fn merged<'a>(entries: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for entry in entries {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        match list.iter_mut().find(|other| other.split_once('=').is_some_and(|(other, _)| other == name)) {
            Some(other) => other.clone_from(entry),
            None => list.push(entry.clone()),
        }
    }
    list
}

fn rlimit(text: &str) -> Result<Value> {
    let bad = || Error::new(format!("--ulimit: {text:?} is not NAME=SOFT[:HARD]"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| match value {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => value.parse::<u64>().map_err(|_| bad()),
    };
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    if serde_json::from_value::<oci_spec::runtime::PosixRlimitType>(kind.as_str().into()).is_err() {
        return Err(Error::new(format!("--ulimit: there is no limit {name:?}")).next("see setrlimit(2)"));
    }
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(Error::new(format!(
            "--ulimit {name}: the soft limit {soft} is above the hard limit {hard}"
        )));
    }
    Ok(json!({ "type": kind, "soft": soft, "hard": hard }))
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

fn mounts(parts: &Parts) -> Result<Vec<Value>> {
    let settings = parts.settings;
    let shm = match settings.shm_size.as_deref() {
        Some(size) => quantity::bytes(size, "--shm-size")?,
        None => 64 << 20,
    };
    let shm = format!("size={shm}");
    let writable = if settings.privileged { "rw" } else { "ro" };
    let in_userns = in_user_namespace(parts);
    let host_pids = in_userns && settings.pid.as_deref() == Some("host");
    let mut all = vec![
        if host_pids { of_the_host("/proc") } else { mount("/proc", "proc", &["nosuid", "noexec", "nodev"]) },
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !in_userns || group_map(parts).iter().any(|(inside, _, size)| (*inside..inside + size).contains(&5)) {
        devpts.push("gid=5");
    }
    all.push(mount("/dev/pts", "devpts", &devpts));
    // The host's sysfs is bound where the network namespace is not the user namespace's own.
    if in_userns && (settings.network.as_deref() == Some("host") || parts.joined.network.is_some()) {
        let mut sys = mount("/sys", "none", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        sys["source"] = "/sys".into();
        all.push(sys);
    } else {
        all.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", writable]));
        all.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]));
    }
    let host_ipc = settings.ipc.as_deref() == Some("host");
    match in_userns && host_ipc {
        true if path::open(Path::new("/dev/mqueue"), libc::O_PATH).is_ok() => {
            all.push(of_the_host("/dev/mqueue"))
        }
        true => {}
        false => all.push(mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])),
    }
    match settings.ipc.as_deref() {
        Some("host") => all.push(of_the_host("/dev/shm")),
        Some("none") => {}
        _ => all.push(mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm])),
    }
    all.extend(devices::of(settings, in_userns)?.mounts);
    all.extend(parts.mounts.iter().cloned());
    Ok(all)
}

/// Its own, or that of an unprivileged caller.
fn in_user_namespace(parts: &Parts) -> bool {
    !parts.maps.uid.is_empty() || host::is_rootless()
}

/// What belongs to a namespace of the host's, which a user namespace cannot mount anew: the host's own, as Podman.
fn of_the_host(path: &str) -> Value {
    let mut own = mount(path, "bind", &["rbind", "nosuid", "noexec", "nodev"]);
    own["source"] = path.into();
    own
}

fn linux(parts: &Parts, caps: &BTreeSet<String>) -> Result<Value> {
    let settings = parts.settings;
    let devices::Devices { nodes, rules, .. } = devices::of(settings, in_user_namespace(parts))?;
    let mut linux = json!({
        "namespaces": namespaces(parts)?,
        "resources": resources(settings, rules)?,
        "devices": nodes,
        "sysctl": settings.sysctl.iter().map(|text| {
            text.split_once('=').map(|(name, value)| (name.to_owned(), value.into()))
                .ok_or_else(|| Error::new(format!("--sysctl: {text:?} is not NAME=VALUE")))
        }).collect::<Result<Map<String, Value>>>()?,
    });
    let (masked, read_only) = hidden(settings);
    linux["maskedPaths"] = masked.into();
    linux["readonlyPaths"] = read_only.into();
    if let Some(profile) = profile(settings, caps)? {
        linux["seccomp"] = profile;
    }
    if let Some(parent) = &settings.cgroup_parent {
        linux["cgroupsPath"] = format!("{}/{}", parent.trim_end_matches('/'), parts.id).into();
    }
    for (key, list) in [("uidMappings", &parts.maps.uid), ("gidMappings", &parts.maps.gid)] {
        if !list.is_empty() {
            let maps = list.iter().map(
                |(inside, outside, size)| json!({ "containerID": inside, "hostID": outside, "size": size }),
            );
            linux[key] = maps.collect();
        }
    }
    if !parts.labels.mount.is_empty() {
        linux["mountLabel"] = parts.labels.mount.as_str().into();
    }
    Ok(linux)
}

/// What of /proc and /sys is masked, and what is read-only: the defaults, without what `unmask` names (a list with
/// colons, or ALL), and with what `mask` names.
fn hidden(settings: &Settings) -> (Vec<String>, Vec<String>) {
    let (mut masked, mut read_only) = (Vec::new(), Vec::new());
    let open = settings.privileged || settings.security("systempaths") == Some("unconfined");
    if !open && !settings.securities("unmask").any(|paths| paths.eq_ignore_ascii_case("all")) {
        masked.extend(MASKED.map(str::to_owned).into_iter().chain(throttle_files()));
        read_only.extend(READ_ONLY.map(str::to_owned));
    }
    for list in [&mut masked, &mut read_only] {
        list.retain(|path| {
            !settings.securities("unmask").flat_map(|paths| paths.split(':')).any(|p| p == path)
        });
    }
    masked.extend(settings.securities("mask").flat_map(|paths| paths.split(':')).map(str::to_owned));
    (masked, read_only)
}

/// How often each processor was throttled tells about the neighbours (Docker and Podman mask it too).
fn throttle_files() -> Vec<String> {
    let online = host::read("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last =
        online.trim().rsplit(['-', ',']).next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0).min(4095);
    let path = |cpu: u32| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    let there = |path: &String| crate::sys::path::open(Path::new(path), libc::O_PATH).is_ok();
    // Either the machine has them or it has not.
    if there(&path(0)) { (0..=last).map(path).collect() } else { Vec::new() }
}

fn namespaces(parts: &Parts) -> Result<Vec<Value>> {
    let settings = parts.settings;
    let mut list = vec![json!({ "type": "mount" }), json!({ "type": "cgroup" })];
    let mut add = |kind: &str, mode: Option<&str>, joined: Option<i32>, file: &str| -> Result<()> {
        match (mode.unwrap_or("private"), joined) {
            ("host", _) => {}
            (_, Some(pid)) => list.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") })),
            ("private" | "none" | "shareable", None) => list.push(json!({ "type": kind })),
            ("bridge", None) if kind == "network" => {
                return Err(Error::new("--network bridge: bridged networks come in a later version")
                    .next("use private (loopback only), host or container:NAME"));
            }
            (other, None) => {
                return Err(Error::new(format!("--{kind}: {other:?} is no mode"))
                    .next("use private, host or container:NAME"));
            }
        }
        Ok(())
    };
    add("pid", settings.pid.as_deref(), parts.joined.pid, "pid")?;
    add("ipc", settings.ipc.as_deref(), parts.joined.ipc, "ipc")?;
    add("network", settings.network.as_deref(), parts.joined.network, "net")?;
    add("uts", settings.uts.as_deref(), None, "uts")?;
    if !parts.maps.uid.is_empty() {
        list.push(json!({ "type": "user" }));
    }
    Ok(list)
}

fn resources(settings: &Settings, devices: Vec<Value>) -> Result<Value> {
    let mut resources = json!({ "devices": devices });
    let size = |text: &Option<String>, flag: &str| match text.as_deref() {
        Some("-1") => Ok(Some(-1)),
        Some(text) => quantity::bytes(text, flag).map(Some),
        None => Ok(None),
    };
    let memory = size(&settings.memory, "--memory")?;
    let swap = size(&settings.memory_swap, "--memory-swap")?;
    if let Some(limit) = memory {
        if limit < 6 << 20 {
            return Err(Error::new("--memory: a container needs 6m at least"));
        }
        // As docker: as much swap as memory, unless told otherwise.
        let swap = swap.unwrap_or(limit.saturating_mul(2));
        if swap != -1 && swap < limit {
            return Err(Error::new("--memory-swap: memory and swap together cannot be less than the memory"));
        }
        resources["memory"] = json!({ "limit": limit, "swap": swap });
    } else if swap.is_some() {
        return Err(Error::new("--memory-swap: needs --memory"));
    }
    let mut cpu = Map::new();
    // 0 is no limit.
    if let Some(cpus) = settings.cpus.as_ref().filter(|cpus| cpus.parse() != Ok(0.0)) {
        let number = cpus.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.01 && *n < 100_000.0);
        let number =
            number.ok_or_else(|| Error::new(format!("--cpus: {cpus:?} is not a number from 0.01 on")))?;
        cpu.insert("period".into(), 100_000.into());
        cpu.insert("quota".into(), ((number * 100_000.0) as i64).into());
    }
    if let Some(shares) = settings.cpu_shares {
        cpu.insert("shares".into(), shares.into());
    }
    if let Some(cpus) = &settings.cpuset_cpus {
        cpu.insert("cpus".into(), cpus.as_str().into());
    }
    if !cpu.is_empty() {
        resources["cpu"] = cpu.into();
    }
    // An unprivileged user has the controller only where it was delegated: a default must not stop the container.
    let default = (!host::is_rootless()).then_some(PIDS_LIMIT);
    // No limit needs no controller.
    if let Some(limit) = settings.pids_limit.or(default).filter(|limit| *limit > 0) {
        resources["pids"] = json!({ "limit": limit });
    }
    if host::is_rootless() && resources.as_object().is_some_and(|all| all.len() == 1) {
        resources = json!({});
    }
    Ok(resources)
}

fn profile(settings: &Settings, caps: &BTreeSet<String>) -> Result<Option<Value>> {
    let kernel = host::read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let facts = seccomp::Facts { caps, kernel: &kernel };
    match settings.security("seccomp") {
        Some("unconfined") => Ok(None),
        Some(file) => {
            let text = std::fs::read(file)
                .map_err(super::place::io(format_args!("--security-opt seccomp={file}")))?;
            seccomp::compile(&text, &facts).map(Some)
        }
        None if settings.privileged => Ok(None),
        None => seccomp::compile(seccomp::DEFAULT.as_bytes(), &facts).map(Some),
    }
}
