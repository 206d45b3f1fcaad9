//! What shall be. Pure: `Spec` x `Host` -> `Plan`, without I/O, clock, environment or system calls.
//!
//! A `Plan` in hand is permission to act: [`Plan::new`] is the only place that says no to a config. Everything after it
//! reads the plan and never the spec again.

pub mod cgroup;
pub mod devices;
pub mod gvariant;
pub mod hooks;
pub mod ids;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod process;
pub mod rdt;
pub mod show;
pub mod unit;
pub mod update;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Spec};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::seccomp::Filter;

pub use self::cgroup::CgroupPlan;
pub use self::devices::Device;
pub use self::hooks::Hooks;
pub use self::ids::IdMaps;
pub use self::mounts::MountPlan;
pub use self::namespaces::Namespaces;
pub use self::process::ProcessPlan;
pub use self::update::UpdatePlan;

/// What the command line adds to the config.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--no-pivot`: MS_MOVE and chroot where the root is an initramfs.
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the program keeps.
    pub preserve_fds: u32,
    /// `--systemd-cgroup`: systemd makes the cgroup.
    pub systemd_cgroup: bool,
}

/// Everything that is decided about a container before the first effect.
#[derive(Debug)]
pub struct Plan {
    pub id: String,
    pub bundle: PathBuf,
    pub root: RootPlan,
    pub namespaces: Namespaces,
    pub ids: IdMaps,
    pub mounts: Vec<MountPlan>,
    /// The SELinux context of what is made to be mounted; the new file systems of `mounts` have it among their data.
    pub mount_label: Option<String>,
    /// Make the default devices and links in /dev (not when /dev is a bind mount of the caller's).
    pub setup_dev: bool,
    /// Devices are the host's own nodes, bound: in a user namespace, the container's or its maker's, mknod(2) is not
    /// allowed.
    pub bind_devices: bool,
    pub devices: Vec<Device>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Names as paths below /proc/sys.
    pub sysctl: Vec<(String, String)>,
    pub cgroup: Option<CgroupPlan>,
    pub seccomp: Option<SeccompPlan>,
    pub hooks: Hooks,
    pub process: ProcessPlan,
    pub personality: Option<u64>,
    pub memory_policy: Option<(u32, Vec<usize>)>,
    pub net_devices: Vec<network::NetDevice>,
    pub rdt: Option<rdt::RdtPlan>,
    pub annotations: Vec<(String, String)>,
    pub oci_version: String,
    pub options: Options,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct RootPlan {
    /// Absolute path on the host.
    pub path: PathBuf,
    pub readonly: bool,
    /// Propagation of the whole tree in the new mount namespace: MS_SLAVE and so on, with MS_REC where asked.
    pub propagation: u64,
}

#[derive(Debug)]
pub struct SeccompPlan {
    pub filter: Filter,
    pub listener: Option<Listener>,
}

#[derive(Debug)]
pub struct Listener {
    pub path: PathBuf,
    pub metadata: String,
}

impl Plan {
    /// Whether the container has a tree of its own: in its mount namespace, or, without one, for its mounts.
    pub fn builds_tree(&self) -> bool {
        self.namespaces.has(namespaces::Kind::Mount) || !self.mounts.is_empty()
    }

    pub fn new(id: &str, bundle: &Bundle, options: &Options, host: &Host) -> Result<Self> {
        let spec = &bundle.spec;
        version(spec.version())?;
        let nothing = Linux::default_empty();
        let linux = spec.linux().as_ref().unwrap_or(&nothing);
        let root = root(spec, linux, &bundle.dir)?;
        let namespaces = Namespaces::new(linux)?;
        let ids = IdMaps::new(linux, &namespaces, host)?;
        let mut warnings = bundle.warnings.clone();
        let seccomp = linux.seccomp().as_ref().map(seccomp).transpose()?;
        let mut mounts = mounts::plan(spec, &bundle.dir, &root.path, &namespaces, &ids)?;
        let mount_label = mounts::label(&mut mounts, linux, host)?;
        let process = spec.process().as_ref().ok_or_else(|| {
            Error::new("/process: the config has no process to run").next("see config.md#process")
        })?;
        let annotations = annotations(spec);
        let mut process = ProcessPlan::new(process, &ids, host, &mut warnings)?;
        process.keep_groups |= process::keeps_groups(&annotations);
        let mut cgroup = CgroupPlan::new(id, spec, linux, host)?;
        if let Some(cgroup) = &mut cgroup {
            cgroup.delegate(spec, &namespaces, ids.host_uid(process.uid));
        }
        Ok(Self {
            id: id.to_owned(),
            bundle: bundle.dir.clone(),
            bind_devices: namespaces.has(namespaces::Kind::User) || host.rootless,
            setup_dev: !mounts.iter().any(|m| m.is_bind() && m.destination == Path::new("dev")),
            devices: devices::plan(linux.devices().as_deref().unwrap_or_default())?,
            masked: below_root(linux.masked_paths(), "/linux/maskedPaths", &namespaces)?,
            readonly: below_root(linux.readonly_paths(), "/linux/readonlyPaths", &namespaces)?,
            hostname: uts_name(spec.hostname(), "/hostname", &namespaces)?,
            domainname: uts_name(spec.domainname(), "/domainname", &namespaces)?,
            sysctl: sysctl(linux, &namespaces, host)?,
            cgroup,
            seccomp,
            hooks: Hooks::new(spec.hooks().as_ref())?,
            process,
            personality: linux.personality().as_ref().map(personality).transpose()?,
            memory_policy: linux.memory_policy().as_ref().map(process::memory_policy).transpose()?,
            net_devices: network::devices(linux, &namespaces, host)?,
            rdt: rdt::plan(id, linux, host)?,
            annotations,
            oci_version: spec.version().clone(),
            options: options.clone(),
            root,
            namespaces,
            ids,
            mounts,
            mount_label,
            warnings,
        })
    }

    /// The compiled filter of a profile, as `create` and `exec` load it.
    pub fn seccomp(profile: &oci_spec::runtime::LinuxSeccomp) -> Result<SeccompPlan> {
        seccomp(profile)
    }

    /// Whether the child comes to its program without anybody's help, so that the runtime may sleep until then and lend
    /// it its memory. Not under a memory limit: the kernel kills everybody who shares the memory of what it kills for
    /// want of it. Not where others see the child either: who may trace it would have the runtime's memory.
    pub fn may_borrow(&self) -> bool {
        use namespaces::Kind;
        let alone = self.namespaces.join.is_empty()
            && self.namespaces.makes(Kind::Pid)
            && self.namespaces.makes(Kind::Mount)
            && !self.namespaces.makes(Kind::User)
            && !self.namespaces.makes(Kind::Time);
        let unlimited = |c: &CgroupPlan| {
            !c.writes.iter().any(|write| write.file.starts_with("memory.")) && c.v1.is_empty()
        };
        let hooks = &self.hooks;
        let hooks = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container, &hooks.start_container];
        alone
            && self.cgroup.as_ref().is_some_and(unlimited)
            && hooks.iter().all(|hooks| hooks.is_empty())
            && self.seccomp.as_ref().is_none_or(|seccomp| seccomp.listener.is_none())
            && !self.process.terminal
            && self.process.oom_score_adj.is_none()
            && self.rdt.is_none()
    }

    /// Whether the child must stop between its mounts and the pivot, for hooks of the runtime namespace.
    pub fn hooks_before_pivot(&self) -> bool {
        !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty()
    }
}

/// An empty `linux` object: oci-spec's own default is full of namespaces and paths.
trait DefaultEmpty {
    fn default_empty() -> Self;
}

impl DefaultEmpty for Linux {
    fn default_empty() -> Self {
        let mut linux = Linux::default();
        linux
            .set_namespaces(None)
            .set_masked_paths(None)
            .set_readonly_paths(None)
            .set_resources(None)
            .set_devices(None);
        linux
    }
}

fn version(text: &str) -> Result<()> {
    let core = text.split(['-', '+']).next().unwrap_or("");
    let mut parts = core.split('.');
    let major = parts.next().and_then(|p| p.parse::<u32>().ok());
    let rest = parts.map(|p| p.parse::<u32>()).collect::<std::result::Result<Vec<_>, _>>();
    match (major, rest) {
        (Some(1), Ok(rest)) if rest.len() == 2 => Ok(()),
        _ => Err(Error::new(format!("/ociVersion: {text:?} is not a version 1.x.y")).next(
            "set it to the version of the runtime specification that the config follows, for example 1.3.0",
        )),
    }
}

fn root(spec: &Spec, linux: &Linux, bundle: &Path) -> Result<RootPlan> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::new("/root: the config has no root file system").next("see config.md#root"))?;
    let path = if root.path().is_absolute() { root.path().clone() } else { bundle.join(root.path()) };
    if path == Path::new("/") {
        return Err(Error::new("/root/path: the host's own root cannot be the root of a container"));
    }
    let propagation = match linux.rootfs_propagation().as_deref().unwrap_or("") {
        "" => libc::MS_SLAVE | libc::MS_REC,
        name => mounts::propagation(name)
            .filter(|_| !name.contains("unbindable") || name.starts_with('r') || name == "unbindable")
            .ok_or_else(|| {
                Error::new(format!("/linux/rootfsPropagation: {name:?} is no propagation type"))
                    .next("use shared, slave, private or unbindable, with or without a leading r")
            })?,
    };
    Ok(RootPlan { path, readonly: root.readonly().unwrap_or(false), propagation })
}

fn seccomp(profile: &oci_spec::runtime::LinuxSeccomp) -> Result<SeccompPlan> {
    let filter = crate::seccomp::compile(profile, crate::seccomp::native())?;
    let listener = match profile.listener_path() {
        // Ignored where nothing notifies (config-linux.md#seccomp).
        Some(path) if !path.as_os_str().is_empty() => filter.notify.then(|| Listener {
            path: path.clone(),
            metadata: profile.listener_metadata().clone().unwrap_or_default(),
        }),
        _ if filter.notify => {
            return Err(Error::new("/linux/seccomp: SCMP_ACT_NOTIFY cannot be used without listenerPath")
                .next("give the socket of the agent in /linux/seccomp/listenerPath"));
        }
        _ if profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty()) => {
            return Err(Error::new("/linux/seccomp/listenerMetadata: no listenerPath to send it to"));
        }
        _ => None,
    };
    Ok(SeccompPlan { filter, listener })
}

/// Paths below the container's root, without the leading slash and without `..`.
fn below_root(list: &Option<Vec<String>>, at: &str, namespaces: &Namespaces) -> Result<Vec<PathBuf>> {
    let list = list.as_deref().unwrap_or_default();
    if !list.is_empty() && !namespaces.has(namespaces::Kind::Mount) {
        return Err(Error::new(format!("{at}: needs a mount namespace"))
            .next("add {\"type\": \"mount\"} to /linux/namespaces"));
    }
    list.iter()
        .enumerate()
        .map(|(i, path)| {
            if path.starts_with('/') {
                Ok(lexical(Path::new(path)))
            } else {
                Err(Error::new(format!("{at}/{i}: {path:?} is not absolute")))
            }
        })
        .collect()
}

/// A path cleaned by its letters alone: no leading slash, no `.`, no `..` that leaves the root.
pub fn lexical(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn uts_name(name: &Option<String>, at: &str, namespaces: &Namespaces) -> Result<Option<String>> {
    match name {
        Some(name) if !name.is_empty() => {
            if !namespaces.has(namespaces::Kind::Uts) {
                return Err(Error::new(format!("{at}: unable to set it without a private UTS namespace"))
                    .next("add {\"type\": \"uts\"} to /linux/namespaces"));
            }
            Ok(Some(name.clone()))
        }
        _ => Ok(None),
    }
}

/// Sysctls that belong to a namespace of the container; any other would change the host (config-linux.md#sysctl).
fn sysctl(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<Vec<(String, String)>> {
    use namespaces::Kind;
    const IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let mut list = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let at = format!("/linux/sysctl/{}", name.replace('/', "~1"));
        // A name is written with dots, or with slashes where a part has a dot of its own (sysctl(8)).
        let path = match (name.find('.'), name.find('/')) {
            (Some(dot), Some(slash)) if slash < dot => name.clone(),
            (None, Some(_)) => name.clone(),
            _ => name
                .chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect(),
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..")
            || value.contains(['\0', '\n'])
        {
            return Err(Error::new(format!("{at}: not a valid sysctl")));
        }
        let owner = if path.starts_with("net/") {
            Kind::Network
        } else if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            Kind::Ipc
        } else if path == "kernel/domainname" {
            Kind::Uts
        } else if path.starts_with("user/") {
            Kind::User
        } else if path == "kernel/hostname" {
            return Err(Error::new(format!("{at}: conflicts with the hostname of the config"))
                .next("set /hostname instead"));
        } else {
            return Err(Error::new(format!("sysctl {name:?} is not in a separate kernel namespace"))
                .why("it would change the whole host")
                .next(format!("remove {at}")));
        };
        let own = |(kind, path): &(Kind, PathBuf)| *kind == owner && host.own_namespaces.contains(path);
        if !namespaces.has(owner) || namespaces.join.iter().any(own) {
            return Err(Error::new(format!("sysctl {name:?} not allowed in host {owner} namespace"))
                .next(format!("add a {owner} namespace to /linux/namespaces, or remove {at}")));
        }
        list.push((path, value.clone()));
    }
    list.sort();
    Ok(list)
}

pub fn personality(p: &oci_spec::runtime::LinuxPersonality) -> Result<u64> {
    use oci_spec::runtime::LinuxPersonalityDomain as Domain;
    Ok(match p.domain() {
        Domain::PerLinux => 0,
        Domain::PerLinux32 => 8,
    })
}

fn annotations(spec: &Spec) -> Vec<(String, String)> {
    let mut list: Vec<_> =
        spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    /// The plan of what `spec` writes, without a terminal, and with `from` replaced by `to`.
    fn plan(from: &str, to: &str) -> Plan {
        let text = include_str!("../cli/oci/spec.json").replace("\"terminal\": true", "\"terminal\": false");
        assert!(text.contains(from), "{from}");
        let spec = serde_json::from_str(&text.replacen(from, to, 1)).unwrap();
        let bundle = Bundle { dir: "/b".into(), raw: Vec::new(), spec: Box::new(spec), warnings: Vec::new() };
        let controllers = ["memory", "pids"].map(str::to_owned).to_vec();
        let host = Host { cgroup2: Some("/c".into()), cgroup2_controllers: controllers, ..Host::default() };
        Plan::new("id", &bundle, &Options::default(), &host).unwrap()
    }

    #[test]
    fn memory_is_lent_only_to_a_child_that_nobody_kills_or_watches() {
        let lends = |from: &str, to: &str| plan(from, to).may_borrow();
        assert!(lends("", ""));
        assert!(!lends("\"resources\": {", "\"resources\": {\"memory\": {\"limit\": 1000000},"));
        assert!(!lends("\"type\": \"pid\"", "\"type\": \"time\""));
        assert!(!lends("\"type\": \"pid\"", "\"type\": \"pid\", \"path\": \"/proc/1/ns/pid\""));
        assert!(!lends("\"terminal\": false", "\"terminal\": true"));
        for hook in ["prestart", "createRuntime", "createContainer", "startContainer"] {
            let hooks = format!("{{\"hooks\": {{\"{hook}\": [{{\"path\": \"/bin/true\"}}]}},");
            assert!(!lends("{", &hooks), "{hook}");
        }
    }
}
