//! The configs that are proven: runc's default, the same for peers, and one with everything that this machine can do.

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// runc's default config.
    Plain,
    /// The same with a user namespace, hooks, a seccomp profile, a bind mount, a sysctl and more.
    Rich,
    /// runc's default without device rules, which crun cannot apply without CAP_SYS_RESOURCE.
    Peer,
    /// Like plain, but its program is the probe, which prints its confinement and ends.
    Probe,
    /// Like rich, with the probe.
    RichProbe,
}

impl Which {
    pub fn name(self) -> &'static str {
        match self {
            Which::Plain => "plain",
            Which::Rich => "rich",
            Which::Peer => "peer",
            Which::Probe => "probe",
            Which::RichProbe => "rich probe",
        }
    }
}

/// The probe, asked for what paths hide, too.
pub const PROBE: [&str; 9] = [
    "/bin/probe",
    "--read",
    "/proc/kcore",
    "--read",
    "/proc/keys",
    "--list",
    "/sys/firmware",
    "--write",
    "/proc/sys/kernel/domainname",
];

pub const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "3600"];

pub fn spec(which: Which, cgroup: &str) -> Value {
    let mut spec = plain(cgroup);
    match which {
        Which::Plain => {}
        Which::Probe => spec["process"]["args"] = json!(PROBE),
        Which::Peer => drop(spec["linux"].as_object_mut().and_then(|linux| linux.remove("resources"))),
        Which::Rich => enrich(&mut spec),
        Which::RichProbe => {
            enrich(&mut spec);
            spec["process"]["args"] = json!(PROBE);
        }
    }
    spec
}

fn plain(cgroup: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": SLEEP,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities,
                "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "lamb",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn enrich(spec: &mut Value) {
    let busybox = format!("{}/busybox", crate::place::DIR);
    let hook = |path: &str| json!([{ "path": path, "args": ["busybox", "true"] }]);
    spec["hooks"] = json!({
        "createRuntime": hook(&busybox), "createContainer": hook(&busybox),
        "startContainer": hook("/bin/busybox"),
        "poststart": hook(&busybox), "poststop": hook(&busybox),
    });
    let mounts = spec["mounts"].as_array_mut().into_iter();
    for mounts in mounts {
        mounts.push(json!({ "destination": "/mnt/in", "type": "bind", "source": "files",
            "options": ["rbind", "ro", "nosuid", "nodev"] }));
        mounts.push(json!({ "destination": "/mnt/made/here", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "size=64k"] }));
    }
    spec["mounts"][7]["source"] = json!(format!("{}/files", crate::place::DIR));
    spec["linux"]["namespaces"]
        .as_array_mut()
        .into_iter()
        .for_each(|list| list.push(json!({ "type": "user" })));
    spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    spec["linux"]["resources"]["pids"] = json!({ "limit": 64 });
    spec["linux"]["resources"]["memory"] = json!({ "limit": 256 << 20 });
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["ptrace", "mount", "bpf", "reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
    });
}
