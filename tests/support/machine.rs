//! What runs (the runtime under test) and where (the kernel's features). Facts only; each is asked of the kernel.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The binary under test, absolute.
pub fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let Some(named) = std::env::var_os("RUNTIME").filter(|name| !name.is_empty()) else {
            return PathBuf::from(env!("CARGO_BIN_EXE_jug-oci"));
        };
        let path = PathBuf::from(&named);
        if path.is_absolute() {
            return path;
        }
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(&path))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("RUNTIME={} is not installed", path.display()))
    })
}

pub fn runtime_name() -> String {
    runtime().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Anything but jug-oci.
pub fn is_peer() -> bool {
    runtime_name() != "jug-oci"
}

pub fn is_runc() -> bool {
    runtime_name() == "runc"
}

/// In one of the machines that are made for the tests and slower than this one: scripts/guest or scripts/vm.
pub fn in_guest() -> bool {
    ["JUG_IN_GUEST", "JUG_IN_VM"].iter().any(|name| std::env::var_os(name).is_some_and(|value| value == "1"))
}

/// What a kernel may lack. `is_present` asks the running kernel, never a version number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    AppArmor,
    /// cgroup v2 alone at /sys/fs/cgroup.
    CgroupV2,
    /// v1 controllers, with or without a cgroup2 beside them.
    CgroupV1,
    /// A controller on either version: `memory`, `pids`, `cpu`, `cpuset`, `io` (v1: `blkio`), `devices` (v2: BPF),
    /// `freezer`.
    Controller(&'static str),
    /// A file that the v2 root's children have when the controller offers it: `io.weight`, `memory.swap.max`.
    CgroupFile(&'static str),
    CpuCount(usize),
    /// A criu(8) on PATH that can work with this kernel.
    Criu,
    IntelRdt,
    MemoryPolicy,
    Pressure,
    /// A ps(1) that works with this kernel.
    Ps,
    Selinux,
    Swap,
    SysResource,
    /// systemd is the first process, on cgroup v2.
    Systemd,
    TimeNamespace,
    UserNamespace,
    /// Another init than systemd.
    WithoutSystemd,
}

impl Feature {
    pub fn is_present(self) -> bool {
        let exists = |path: &str| Path::new(path).exists();
        let reads = |path: &str| fs::read_to_string(path).unwrap_or_default();
        match self {
            Self::AppArmor => reads("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            Self::CgroupV2 => exists("/sys/fs/cgroup/cgroup.controllers"),
            Self::CgroupV1 => reads("/proc/self/mountinfo").contains(" - cgroup cgroup "),
            Self::Controller(name) => controller(name),
            Self::CgroupFile(name) => {
                let children = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
                children.into_iter().any(|child| child.path().join(name).exists())
            }
            Self::CpuCount(count) => std::thread::available_parallelism().is_ok_and(|n| n.get() >= count),
            Self::Criu => criu_works(),
            Self::IntelRdt => exists("/sys/fs/resctrl/info"),
            Self::MemoryPolicy => exists("/proc/self/numa_maps"),
            Self::Pressure => exists("/proc/pressure/cpu"),
            Self::Ps => {
                std::process::Command::new("ps").arg("-ef").output().is_ok_and(|out| out.status.success())
            }
            Self::Selinux => exists("/sys/fs/selinux/enforce"),
            Self::Swap => reads("/proc/swaps").lines().count() > 1,
            Self::SysResource => capability(24),
            Self::Systemd => exists("/run/systemd/system") && Self::CgroupV2.is_present(),
            Self::WithoutSystemd => !exists("/run/systemd/system"),
            Self::TimeNamespace => exists("/proc/self/ns/time"),
            Self::UserNamespace => {
                exists("/proc/self/ns/user") && reads("/proc/sys/user/max_user_namespaces").trim() != "0"
            }
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(name) => write!(f, "{name} cgroup controller"),
            Self::CgroupFile(name) => write!(f, "cgroup file {name}"),
            Self::CpuCount(count) => write!(f, "{count} CPUs"),
            Self::Criu => f.write_str("criu that works with it (`criu check`)"),
            Self::Ps => f.write_str("ps(1) that works with it"),
            Self::CgroupV2 => f.write_str("cgroup v2 at /sys/fs/cgroup"),
            Self::CgroupV1 => f.write_str("cgroup v1 controllers"),
            Self::SysResource => f.write_str("CAP_SYS_RESOURCE for this process"),
            other => write!(f, "{other:?}"),
        }
    }
}

fn controller(name: &str) -> bool {
    if let Ok(list) = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        return matches!(name, "devices" | "freezer") || list.split_whitespace().any(|word| word == name);
    }
    let v1 = if name == "io" { "blkio" } else { name };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split_once(" - cgroup ")).any(|(_, right)| {
        let options = right.rsplit(' ').next().unwrap_or_default();
        options.split(',').any(|option| option == v1)
    })
}

fn criu_works() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let check = std::process::Command::new("criu").arg("check").output();
        check.is_ok_and(|out| out.status.success())
    })
}

/// Whether this process has the capability in its effective set.
fn capability(bit: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
    u64::from_str_radix(hex, 16).is_ok_and(|set| set >> bit & 1 == 1)
}
