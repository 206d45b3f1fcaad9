//! What the plan must know of this host: facts read once, decided about elsewhere.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::plan::Options;
use crate::sys;

const CGROUP2_MAGIC: i64 = 0x6367_7270;
const TMPFS_MAGIC: i64 = 0x0102_1994;
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Facts about the host and the caller. Plain data, so that plans can be made for any host in a test.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Effective user and group id of the caller.
    pub euid: u32,
    pub egid: u32,
    /// The caller is not root of the initial user namespace: limits it cannot set are not its fault.
    pub rootless: bool,
    /// Where cgroup2 is mounted; `None` without cgroup2.
    pub cgroup2: Option<PathBuf>,
    /// Controllers that cgroup2 has (filled only when the config asks for limits).
    pub cgroup2_controllers: Vec<String>,
    /// v1 hierarchies beside it: controller name and mount point (filled only when the config asks for limits).
    pub cgroup1: Vec<(String, PathBuf)>,
    /// The caller's own cgroup below the cgroup2 mount, for a config without an absolute path.
    pub own_cgroup: PathBuf,
    /// Namespace paths of the config that lead to the caller's own namespaces.
    pub own_namespaces: Vec<PathBuf>,
    /// Those capabilities of the config that the caller may grant: that are in its bounding set.
    pub capabilities: u64,
    /// Where resctrl is mounted (looked for only when the config asks for it).
    pub resctrl: Option<PathBuf>,
    /// AppArmor and SELinux are enabled (looked for only when the config has a profile or a label).
    pub apparmor: bool,
    pub selinux: bool,
    /// The systemd that makes the cgroups, when `--systemd-cgroup` asks for it.
    pub systemd: Option<Systemd>,
}

/// A service manager: the system's, or the caller's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Systemd {
    pub user: bool,
    /// Its own cgroup, below which all of its units lie.
    pub cgroup: PathBuf,
}

impl Host {
    pub fn look(spec: &Spec, options: &Options) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let (cgroup2, hybrid) = find_cgroup2();
        let mut host = Self { euid: sys::cred::euid(), egid: sys::cred::egid(), cgroup2, ..Self::default() };
        host.rootless = rootless()?;
        if options.systemd_cgroup {
            host.systemd = Some(crate::cgroup::systemd::find()?);
        }
        let path = linux.and_then(|l| l.cgroups_path().as_ref());
        if !path.is_some_and(|p| p.is_absolute()) {
            host.own_cgroup = cgroup_of(&read("/proc/self/cgroup")?).into();
        }
        host.capabilities = spec.process().as_ref().map_or(Ok(0), grantable)?;
        if linux.is_some_and(|l| l.intel_rdt().is_some()) {
            host.resctrl = find_mount("resctrl");
        }
        (host.apparmor, host.selinux) = spec.process().as_ref().map_or((false, false), security_modules);
        if linux.is_some_and(|l| l.mount_label().is_some()) {
            host.selinux = has_selinux();
        }
        host.own_namespaces = linux.map(own_namespaces).unwrap_or_default();
        if linux.is_some_and(|l| l.resources().as_ref().is_some_and(asks_for_limits)) {
            host.find_controllers(hybrid)?;
        }
        Ok(host)
    }

    /// What is needed to know where limits go, and nothing else.
    pub fn controllers() -> Result<Self> {
        let (cgroup2, hybrid) = find_cgroup2();
        let mut host = Self { cgroup2, rootless: rootless()?, ..Self::default() };
        host.find_controllers(hybrid)?;
        Ok(host)
    }

    fn find_controllers(&mut self, hybrid: bool) -> Result<()> {
        if let Some(mount) = &self.cgroup2 {
            self.cgroup2_controllers = words(&mount.join("cgroup.controllers"))?;
        }
        if hybrid {
            self.cgroup1 = cgroup1_mounts(&read("/proc/self/mountinfo")?);
        }
        Ok(())
    }
}

/// Joining one's own namespace by path is not having one: the paths for which that is so.
fn own_namespaces(linux: &oci_spec::runtime::Linux) -> Vec<PathBuf> {
    let identity = |path: &Path| {
        let file = sys::path::open(path, libc::O_PATH).ok()?;
        let st = sys::path::stat(file.as_fd(), Path::new("")).ok()?;
        Some((st.st_dev, st.st_ino))
    };
    let own: Vec<_> = linux
        .namespaces()
        .iter()
        .flatten()
        .filter_map(|namespace| namespace.path().clone())
        .filter(|path| {
            let same = |file: &str| identity(&Path::new("/proc/self/ns").join(file)) == identity(path);
            ["net", "ipc", "uts", "user"].into_iter().any(same)
        })
        .collect();
    own
}

/// Those capabilities that a process asks for and the caller may grant: that are in its bounding set.
pub fn grantable(process: &oci_spec::runtime::Process) -> Result<u64> {
    sys::cred::in_bounding_set(crate::plan::process::wanted_capabilities(process))
}

/// Whether AppArmor and SELinux are enabled, as far as a process asks for them. A kernel may take a label that none of
/// its modules enforces.
pub fn security_modules(process: &oci_spec::runtime::Process) -> (bool, bool) {
    let asked = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    let enabled = || read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    (asked(process.apparmor_profile()) && enabled(), asked(process.selinux_label()) && has_selinux())
}

/// Whether SELinux is enabled: its file system is there and may be written (a container's is read-only), and it has a
/// policy. Without one it calls every process "kernel" and takes any label.
pub fn has_selinux() -> bool {
    let mounted = sys::path::statfs(Path::new("/sys/fs/selinux"))
        .is_some_and(|(magic, flags)| magic == SELINUX_MAGIC && flags & libc::ST_RDONLY == 0);
    mounted
        && read("/proc/self/attr/current").is_ok_and(|label| label.trim_end_matches(['\0', '\n']) != "kernel")
}

/// A context that the host's SELinux has for containers: `process`, `file` or `ro_file`. It is said by a package for
/// containers, or else by the policy (go-selinux looks in the same places).
pub fn container_context(key: &str) -> Option<String> {
    let text = read("/usr/share/containers/selinux/contexts").or_else(|_| {
        let config = read("/etc/selinux/config")?;
        let policy = setting(&config, "SELINUXTYPE").unwrap_or_default();
        read(Path::new("/etc/selinux").join(policy).join("contexts/lxc_contexts"))
    });
    setting(&text.ok()?, key).map(str::to_owned)
}

/// The label of the layers of images, which every container may read and execute. It shows in no container, but the
/// kernel asks for the files below an overlay, too, when a program is mapped into memory.
pub fn layer_label() -> Option<String> {
    has_selinux().then(|| container_context("ro_file")).flatten()
}

/// The last `KEY=VALUE` or `KEY = "VALUE"` in a text of lines.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().rev().filter_map(|line| line.split_once('='));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches('"'))
}

fn asks_for_limits(resources: &oci_spec::runtime::LinuxResources) -> bool {
    resources.memory().is_some()
        || resources.cpu().is_some()
        || resources.pids().is_some()
        || resources.block_io().is_some()
        || resources.hugepage_limits().is_some()
        || resources.network().is_some()
        || resources.rdma().is_some()
        || resources.unified().is_some()
}

/// The cgroup2 mount point, and whether v1 hierarchies stand beside it.
pub fn find_cgroup2() -> (Option<PathBuf>, bool) {
    let mount = Path::new(CGROUP_MOUNT);
    match sys::path::statfs(mount) {
        Some((CGROUP2_MAGIC, _)) => (Some(mount.to_owned()), false),
        Some((TMPFS_MAGIC, _)) => {
            let unified = mount.join("unified");
            match sys::path::statfs(&unified) {
                Some((CGROUP2_MAGIC, _)) => (Some(unified), true),
                _ => (find_mount("cgroup2"), true),
            }
        }
        _ => (find_mount("cgroup2"), false),
    }
}

fn find_mount(wanted: &str) -> Option<PathBuf> {
    let info = read("/proc/self/mountinfo").ok()?;
    mounts(&info).find(|(_, fstype, _)| *fstype == wanted).map(|(point, ..)| point.into())
}

/// Mount point, file system type and superblock options of each line of a mountinfo (proc_pid_mountinfo(5)).
pub fn mounts(info: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    info.lines().filter_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut fs = fs.split(' ');
        let (fstype, _source, options) = (fs.next()?, fs.next()?, fs.next().unwrap_or(""));
        Some((mount.split(' ').nth(4)?, fstype, options))
    })
}

const V1_CONTROLLERS: &[&str] =
    &["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"];

fn cgroup1_mounts(info: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for (point, fstype, options) in mounts(info) {
        if fstype == "cgroup" {
            for name in options.split(',').filter(|o| V1_CONTROLLERS.contains(o)) {
                found.push((name.to_owned(), point.into()));
            }
        }
    }
    found
}

/// The path of a process in the hierarchy of cgroup v2, from the text of its /proc/PID/cgroup (cgroups(7)).
pub fn cgroup_of(text: &str) -> &Path {
    Path::new(text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/"))
}

/// The caller is not root of the initial user namespace, as far as anybody can know.
pub fn is_rootless() -> bool {
    rootless().unwrap_or(true)
}

/// The same for a plan, which leaves things out for such a caller: who cannot know makes none. Asked once: it cannot
/// change.
fn rootless() -> Result<bool> {
    static ROOTLESS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if let Some(known) = ROOTLESS.get() {
        return Ok(*known);
    }
    let rootless = sys::cred::euid() != 0 || in_user_namespace()?;
    Ok(*ROOTLESS.get_or_init(|| rootless))
}

/// Before this process moves into other namespaces: what [`caller`] and [`program`] answer from then on.
pub fn remember() {
    caller();
    program();
}

/// The file that this process executes. Of a process that was the last one of its mount namespace and has left it, the
/// kernel knows only the end of that path, since it has taken the mounts apart: see [`remember`].
pub fn program() -> Option<&'static Path> {
    static PROGRAM: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| std::env::current_exe().ok()).as_deref()
}

/// The effective user id with which this process began, which a user namespace that it enters later maps to another.
pub fn caller() -> u32 {
    static CALLER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *CALLER.get_or_init(sys::cred::euid)
}

/// Whether this process' user namespace has one user only, so that nothing can belong to anybody else.
pub fn has_one_user() -> bool {
    let map = read("/proc/self/uid_map").unwrap_or_default();
    sys::cred::euid() != 0 || map.split_whitespace().skip(2).step_by(3).eq(["1"])
}

/// The initial user namespace has a fixed inode (PROC_USER_INIT_INO, linux/proc_ns.h). A kernel without user namespaces
/// has no such file.
fn in_user_namespace() -> Result<bool> {
    const INITIAL: u64 = 0xEFFF_FFFD;
    match sys::path::open(Path::new("/proc/self/ns/user"), libc::O_PATH) {
        Ok(namespace) => Ok(sys::path::stat(namespace.as_fd(), Path::new(""))?.st_ino != INITIAL),
        Err(e) if e.errno() == libc::ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

fn words(path: &Path) -> Result<Vec<String>> {
    Ok(read(path)?.split_whitespace().map(str::to_owned).collect())
}

/// A small file of the kernel's, as text.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let file = sys::path::open(path, libc::O_RDONLY)?;
    let bytes = sys::fd::read_to_end(file.as_fd(), 16 << 20).map_err(|e| e.context(path.display()))?;
    String::from_utf8(bytes).map_err(|_| Error::new(format!("{} is not text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_settings_are_read() {
        let text =
            "# file = x\nprocess = \"system_u:system_r:container_t:s0\"\nfile=system_u:object_r:f_t:s0\n";
        assert_eq!(setting(text, "process"), Some("system_u:system_r:container_t:s0"));
        assert_eq!(setting(text, "file"), Some("system_u:object_r:f_t:s0"));
        assert_eq!(setting(text, "ro_file"), None);
    }

    #[test]
    fn co_mounted_v1_controllers_are_found() {
        let info = "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    34 32 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    35 32 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = cgroup1_mounts(info);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|(_, p)| p == Path::new("/sys/fs/cgroup/cpu,cpuacct")));
    }
}
