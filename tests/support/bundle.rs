//! A bundle in a directory of its own: config.json as runc writes it, a small root file system, a state root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::template::Template;
use super::{Call, Container, Output, audit, runtime_call};

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The commands of busybox that a bundle's /bin has.
const APPLETS: [&str; 24] = [
    "cat", "chmod", "chown", "dd", "echo", "env", "false", "grep", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mount", "ps", "pwd", "rm", "sh", "sleep", "stty", "touch", "true", "umount",
];

/// `user`: who calls the runtime; None is root.
pub struct Bundle {
    tag: String,
    dir: PathBuf,
    user: Option<(u32, u32)>,
    _programs: Arc<Template>,
}

impl Bundle {
    /// For root: `default_spec()`, whose program sleeps until it is killed.
    #[allow(clippy::new_without_default, reason = "it makes files: not a thing to happen by default")]
    pub fn new() -> Self {
        Self::make(None, &default_spec())
    }

    /// Owned and called by uid and gid 12345, with the config that `runc spec --rootless` writes.
    pub fn rootless() -> Self {
        Self::rootless_for(12345, 12345)
    }

    /// The same for another user.
    pub fn rootless_for(uid: u32, gid: u32) -> Self {
        Self::make(Some((uid, gid)), &rootless_spec(uid, gid))
    }

    /// With this config, owned and called by this user.
    pub fn with(user: Option<(u32, u32)>, spec: &Value) -> Self {
        Self::make(user, spec)
    }

    fn make(user: Option<(u32, u32)>, spec: &Value) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let tag = format!("jug-test-{}-{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = PathBuf::from("/tmp").join(&tag);
        // Left by a test process of the same number that was killed.
        let _ = fs::remove_dir_all(&dir);
        let bundle = Self { tag, dir, user, _programs: Template::shared() };
        bundle.fill();
        bundle.write_spec(spec);
        bundle
    }

    fn fill(&self) {
        for dir in [
            "",
            "root",
            "xdg",
            "rootfs",
            "rootfs/bin",
            "rootfs/dev",
            "rootfs/etc",
            "rootfs/proc",
            "rootfs/root",
            "rootfs/run",
            "rootfs/sys",
            "rootfs/tmp",
            "rootfs/var",
            "rootfs/mnt",
        ] {
            let dir = self.dir.join(dir);
            fs::create_dir(&dir).unwrap_or_else(|why| panic!("mkdir {}: {why}", dir.display()));
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
            self.own(&dir);
        }
        fs::set_permissions(self.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        let bin = self.rootfs().join("bin");
        self._programs.link("busybox", &bin.join("busybox"));
        self._programs.link("probe", &bin.join("probe"));
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).expect("symlink");
        }
        self.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nlamb:x:1000:1000:lamb:/home/lamb:/bin/sh\n");
        self.file("etc/group", "root:x:0:\nlamb:x:1000:\nflock:x:2000:lamb\n");
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid), Some(gid)).expect("chown to the unprivileged user");
        }
    }

    /// The one word that names everything this bundle makes: the directory, the ids, and so the cgroups.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The id of the only container; a second one takes `id_of("b")`.
    pub fn id(&self) -> String {
        self.tag.clone()
    }

    pub fn id_of(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.tag)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A path in the bundle's directory, for pid files, sockets, logs; text, since it goes on command lines.
    pub fn path(&self, name: &str) -> String {
        format!("/tmp/{}/{name}", self.tag)
    }

    pub fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// Makes a file (and its directories) in the root file system and gives its host path.
    pub fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("below rootfs")).expect("mkdir");
        fs::write(&path, text).unwrap_or_else(|why| panic!("write {}: {why}", path.display()));
        self.own(&path);
        path
    }

    /// An executable shell script in the root file system.
    pub fn script(&self, path: &str, text: &str) -> PathBuf {
        let path = self.file(path, "");
        super::script(&path, text);
        self.own(&path);
        path
    }

    /// Gives the bundle its own copy of a hard-linked program, before a test damages it.
    pub fn own_copy(&self, path: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        let aside = path.with_extension("copy");
        super::install(&path, &aside);
        fs::rename(&aside, &path).expect("rename");
        self.own(&path);
        path
    }

    pub fn spec(&self) -> Value {
        let text = fs::read(self.path("config.json")).expect("config.json");
        serde_json::from_slice(&text).expect("config.json is JSON")
    }

    pub fn write_spec(&self, spec: &Value) {
        let text = serde_json::to_vec_pretty(spec).expect("JSON");
        fs::write(self.path("config.json"), text).expect("write config.json");
        self.own(Path::new(&self.path("config.json")));
    }

    /// Changes config.json in place; use it as often as you like, also between two containers.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let mut spec = self.spec();
        change(&mut spec);
        self.write_spec(&spec);
        self
    }

    pub fn set_args(&self, args: &[&str]) -> &Self {
        self.edit(|spec| spec["process"]["args"] = json!(args))
    }

    /// Adds one mount at the end.
    pub fn add_mount(&self, mount: Value) -> &Self {
        self.edit(|spec| spec["mounts"].as_array_mut().expect("mounts").push(mount))
    }

    /// Removes the mount at `destination`.
    pub fn remove_mount(&self, destination: &str) -> &Self {
        self.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != destination);
        })
    }

    /// Adds a namespace without a path, unless it is there.
    pub fn add_namespace(&self, kind: &str) -> &Self {
        self.edit(|spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            if !list.iter().any(|namespace| namespace["type"] == kind) {
                list.push(json!({ "type": kind }));
            }
        })
    }

    pub fn remove_namespace(&self, kind: &str) -> &Self {
        self.edit(|spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|namespace| namespace["type"] != kind);
        })
    }

    /// The runtime with this bundle's `--root`, as this bundle's user.
    pub fn call(&self, args: &[&str]) -> Call {
        let call = runtime_call(args).root(self.root());
        match self.user {
            Some((uid, gid)) => call.user(uid, gid).env("XDG_RUNTIME_DIR", self.path("xdg")),
            None => call,
        }
    }

    /// `VERB FLAGS… --bundle DIR ID`, not yet under way: for `create` and `run`.
    pub fn verb(&self, verb: &str, flags: &[&str]) -> Call {
        let dir = format!("/tmp/{}", self.tag);
        self.call(&[verb]).args(flags).args(&["--bundle", &dir, &self.tag])
    }

    /// `run` in the foreground, to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str]) -> Output {
        self.verb("run", flags).output()
    }

    /// Runs these arguments as the container's program.
    #[track_caller]
    pub fn run_args(&self, args: &[&str]) -> Output {
        self.set_args(args).run(&[])
    }

    /// The probe's report from a container of this config, with extra questions (`--read PATH`, …).
    #[track_caller]
    pub fn probe(&self, questions: &[&str]) -> Value {
        let args: Vec<&str> = ["/bin/probe"].iter().chain(questions).copied().collect();
        self.run_args(&args).ok().json()
    }

    /// `create`, which must succeed.
    #[track_caller]
    pub fn create(&self) -> Container<'_> {
        self.create_with(&[])
    }

    #[track_caller]
    pub fn create_with(&self, flags: &[&str]) -> Container<'_> {
        let container = self.container();
        self.verb("create", flags).output_to(&container.stdout, &container.stderr).ok();
        container
    }

    /// `run --detach`, which must succeed: the container's program is running.
    #[track_caller]
    pub fn running(&self) -> Container<'_> {
        let container = self.container();
        self.verb("run", &["--detach"]).output_to(&container.stdout, &container.stderr).ok();
        container
    }

    /// The container of this bundle's own id, whether or not it exists.
    pub fn container(&self) -> Container<'_> {
        Container::named(self, self.id())
    }

    fn tear_down(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for root in [self.root(), self.dir.join("xdg").join(super::runtime_name())] {
            let left = fs::read_dir(&root).into_iter().flatten().flatten();
            for id in left.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
                let out = self.call(&["delete", "--force", &id]).root(&root).output();
                if out.code != 0 {
                    faults.push(format!("delete --force failed:\n{out}"));
                }
            }
        }
        faults.extend(audit::leftovers(&self.tag, &self.dir));
        audit::sweep(&self.tag, &self.dir);
        if let Err(why) = fs::remove_dir_all(&self.dir) {
            faults.push(format!("rm -r {}: {why}", self.dir.display()));
        }
        faults
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let faults = self.tear_down();
        if std::thread::panicking() {
            faults.iter().for_each(|fault| eprintln!("left behind: {fault}"));
        } else {
            assert!(faults.is_empty(), "left behind:\n{}", faults.join("\n"));
        }
    }
}

/// What `runc spec` writes, but without a terminal and with a program that waits.
pub fn default_spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/probe", "sleep", "3600"],
            "env": [format!("PATH={DEFAULT_PATH}"), "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities,
                "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": default_mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn default_mounts() -> Value {
    json!([
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
    ])
}

/// What `runc spec --rootless` makes of it for this user: one id mapped, no resources, no network of its own.
fn rootless_spec(uid: u32, gid: u32) -> Value {
    let mut spec = default_spec();
    let linux = spec["linux"].as_object_mut().expect("linux");
    linux.remove("resources");
    linux.insert("uidMappings".into(), json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
    linux.insert("gidMappings".into(), json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
    let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "user" }));
    for mount in spec["mounts"].as_array_mut().expect("mounts") {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        } else if mount["destination"] == "/dev/pts" {
            let options = mount["options"].as_array_mut().expect("options");
            options.retain(|option| option != "gid=5");
        }
    }
    let mounts = spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["type"] != "cgroup");
    spec
}
