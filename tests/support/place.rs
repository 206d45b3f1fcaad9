//! Places on the host that a test needs beside its bundle: processes that hold namespaces, cgroup files, a box in which
//! a hostile bundle can do no harm. And how to look things up in the probe's report.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use super::{Bundle, Call, eventually, say_skip};

/// The topmost mount at `point` in the probe's report.
#[track_caller]
pub fn mount_at<'r>(report: &'r Value, point: &str) -> &'r Value {
    let mounts = report["mounts"].as_array().expect("the report has mounts");
    let last = mounts.iter().rfind(|mount| mount["mountPoint"] == point);
    last.unwrap_or_else(|| panic!("nothing is mounted at {point}: {mounts:#?}"))
}

/// Whether the mount's own flags, or its file system's options, hold this word.
pub fn has(mount: &Value, option: &str) -> bool {
    ["options", "superOptions"]
        .iter()
        .any(|key| mount[key].as_array().is_some_and(|list| list.contains(&json!(option))))
}

/// The inode number that names a process's namespace, as the probe's `namespaces` does.
#[track_caller]
pub fn namespace(pid: i32, kind: &str) -> u64 {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::metadata(&path).unwrap_or_else(|why| panic!("{path}: {why}")).ino()
}

pub fn own_namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/thread-self/ns/{kind}")).expect("/proc/thread-self/ns").ino()
}

/// A host process with namespaces of its own, ended when it is dropped.
pub struct Holder {
    child: Child,
    pid: i32,
}

impl Holder {
    /// `flags` are unshare(1)'s; `kind` names the namespace (as in /proc/PID/ns) by which readiness is seen.
    #[track_caller]
    pub fn unshare(flags: &[&str], kind: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sleep", "3600"]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("unshare(1)");
        let forks = flags.contains(&"--fork");
        let top = i32::try_from(child.id()).expect("a pid");
        let mut holder = Self { child, pid: top };
        holder.pid = eventually("a process in its own namespace", || {
            let pid = if forks { only_child(top)? } else { top };
            let ino = fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?.ino();
            let sleeps = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
            (ino != own_namespace(kind) && sleeps).then_some(pid)
        });
        holder
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }

    pub fn namespace(&self, kind: &str) -> u64 {
        namespace(self.pid, kind)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.pid != i32::try_from(self.child.id()).unwrap_or(0) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn only_child(pid: i32) -> Option<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The directory of a process's cgroup: in this controller's v1 hierarchy if there is one, else in cgroup2.
#[track_caller]
pub fn cgroup_dir(pid: i32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("/proc/PID/cgroup");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let v1 = lines.iter().find(|line| line[0] != "0" && line[1].split(',').any(|name| name == controller));
    let (base, path) = match v1 {
        Some(line) => (PathBuf::from("/sys/fs/cgroup").join(line[1]), line[2]),
        None => (cgroup2_mount(), lines.iter().find(|line| line[0] == "0").expect("a v2 cgroup")[2]),
    };
    base.join(path.trim_start_matches('/'))
}

/// Where cgroup2 is mounted: alone, or beside v1.
pub fn cgroup2_mount() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() { unified.into() } else { "/sys/fs/cgroup".into() }
}

/// A private mount namespace for this thread and all that it starts: everything is read-only but the bundle's
/// directory, whose `outside` is a tmpfs of 4 MiB. A mistake of the runtime can fill or change nothing else.
/// Dropped: the thread is back.
pub struct SafeBox {
    before: OwnedFd,
    pub outside: PathBuf,
}

impl SafeBox {
    pub fn enter(bundle: &Bundle) -> Self {
        let before = fs::File::open("/proc/thread-self/ns/mnt").expect("the mount namespace").into();
        let outside = bundle.dir().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        unshare(CloneFlags::CLONE_NEWNS).expect("unshare(2)");
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).expect("a private tree");
        mount(Some(bundle.dir()), bundle.dir(), none, MsFlags::MS_BIND, none).expect("bind mount");
        mount(none, "/", none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
            .expect("read-only /");
        mount(Some("box"), &outside, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).expect("tmpfs");
        Self { before, outside }
    }

    /// The call with files limited to a mebibyte, so that a loop that writes ends.
    pub fn limit(call: Call) -> Call {
        call.through(&["prlimit", "--fsize=1048576", "--core=0"])
    }
}

impl Drop for SafeBox {
    fn drop(&mut self) {
        // EINVAL while a thread that this one made, and that shares its directory, has not quite ended.
        eventually("the thread's return", || setns(&self.before, CloneFlags::CLONE_NEWNS).ok());
    }
}

/// Runs the calling test, of this name, again in scripts/box, unless it is there already or may not make a box. Whether
/// it did: then nothing is left to do here.
#[track_caller]
pub fn ran_in_box(name: &str) -> bool {
    if std::env::var_os("JUG_IN_BOX").is_some() || !nix::unistd::geteuid().is_root() {
        return false;
    }
    let name: Vec<&str> = name.split("::").skip(1).take_while(|part| *part != "{{closure}}").collect();
    let name = name.join("::");
    // In there it could not be built.
    super::probe();
    let out = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/box"))
        .arg(std::env::current_exe().expect("/proc/self/exe"))
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .output()
        .expect("scripts/box");
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    for line in said.lines() {
        for word in ["SKIP-RUNC", "SKIP"] {
            if let Some((_, why)) = line.split_once(&format!("{word} main: ")) {
                say_skip(word, why);
            }
        }
    }
    assert!(out.status.success() && said.contains("1 passed"), "{name} in the box:\n{said}");
    true
}

/// Everything below `dir` with type, mode, owner and contents: equal before and after, or something was touched.
pub fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let held = match () {
            () if meta.is_file() => {
                fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
            }
            () if meta.is_symlink() => fs::read_link(&path).unwrap_or_default().display().to_string(),
            () => String::new(),
        };
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        found.push(format!(
            "{} {:o} {}:{} {} {held:?}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev()
        ));
    }
    found.sort();
    found
}
