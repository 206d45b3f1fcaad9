//! The engine under test: `jug` with a root and a run root of its own below a bundle's directory, and the bundle's root
//! file system to run in. Dropping it removes every container and looks for what is left.

use std::path::PathBuf;

use serde_json::Value;

use super::{Bundle, Call, Output, cgroups, eventually, runtime_call};

pub struct Engine {
    pub bundle: Bundle,
}

impl Engine {
    #[allow(clippy::new_without_default, reason = "it makes files: not a thing to happen by default")]
    pub fn new() -> Self {
        Self { bundle: Bundle::new() }
    }

    pub fn rootless() -> Self {
        Self { bundle: Bundle::rootless() }
    }

    /// An engine whose store has the image `box`, imported from the bundle's root file system.
    pub fn with_image(lines: &[&str]) -> Self {
        let e = Self::new();
        let tar = e.bundle.path("root.tar");
        let rootfs = e.bundle.rootfs();
        let names: Vec<String> = std::fs::read_dir(&rootfs)
            .expect("rootfs")
            .map(|entry| entry.expect("readdir(3)").file_name().to_string_lossy().into_owned())
            .collect();
        let packed = std::process::Command::new("tar")
            .arg("-C")
            .arg(&rootfs)
            .args(["-cf", &tar])
            .args(&names)
            .status();
        // 1: a file changed meanwhile. The programs are hard links, of which other tests make more.
        let code = packed.expect("tar(1)").code();
        assert!(matches!(code, Some(0 | 1)), "tar ended with {code:?}");
        let mut args = vec!["import", "-q"];
        lines.iter().for_each(|line| args.extend(["-c", line]));
        args.extend([tar.as_str(), "box"]);
        e.jug(&args).ok();
        e
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.bundle.dir().join("engine")
    }

    /// `jug ARGS`, not yet under way.
    pub fn call(&self, args: &[&str]) -> Call {
        let runroot = self.bundle.path("engine-run");
        let call = runtime_call(args).program(env!("CARGO_BIN_EXE_jug")).root(self.root());
        let call = call.global(&["--runroot", &runroot]);
        match self.bundle.user() {
            Some((uid, gid)) => call.user(uid, gid).env("XDG_RUNTIME_DIR", self.bundle.path("xdg")),
            None => call,
        }
    }

    #[track_caller]
    pub fn jug(&self, args: &[&str]) -> Output {
        self.call(args).output()
    }

    /// `run --rootfs` of the bundle's root, with flags.
    pub fn run_call(&self, flags: &[&str], program: &[&str]) -> Call {
        let rootfs = self.bundle.rootfs();
        self.call(&["run"]).args(flags).args(&["--rootfs", &rootfs.to_string_lossy()]).args(program)
    }

    /// `run --rm` to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str], program: &[&str]) -> Output {
        self.run_call(&[&["--rm"], flags].concat(), program).output()
    }

    /// The probe's report from a container with these flags.
    #[track_caller]
    pub fn probe(&self, flags: &[&str], questions: &[&str]) -> Value {
        self.run(flags, &[&["/bin/probe"], questions].concat()).ok().json()
    }

    /// `run -d --name NAME`; gives the id.
    #[track_caller]
    pub fn detached(&self, name: &str, flags: &[&str], program: &[&str]) -> String {
        let flags = [&["-d", "--name", name], flags].concat();
        self.run_call(&flags, program).ok().stdout.trim().to_owned()
    }

    /// A field of `inspect`, by a template.
    #[track_caller]
    pub fn field(&self, name: &str, template: &str) -> String {
        self.jug(&["inspect", "-f", template, name]).ok().stdout.trim().to_owned()
    }

    /// The ids of all containers.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        self.jug(&["ps", "-aq", "--no-trunc"]).ok().stdout.lines().map(str::to_owned).collect()
    }

    /// The monitor of a container, or whoever waits for it.
    pub fn watcher(&self, id: &str) -> Option<i32> {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok()).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(format!("jug-monitor\0{id}\0").as_bytes())
        })
    }

    /// Nothing is left of a container: no directory, no name, no cgroup, no record of the runtime.
    #[track_caller]
    pub fn is_gone(&self, id: &str) {
        let containers = self.root().join("containers");
        assert!(std::fs::symlink_metadata(containers.join(id)).is_err(), "the directory of {id}");
        let names = std::fs::read_dir(containers.join(".names")).into_iter().flatten().flatten();
        let owners: Vec<_> = names.filter_map(|name| std::fs::read_link(name.path()).ok()).collect();
        assert!(!owners.iter().any(|owner| owner.to_string_lossy() == id), "a name of {id}");
        assert_eq!(cgroups(id), Vec::<PathBuf>::new());
        let record = self.bundle.dir().join("engine-run/oci").join(id);
        assert!(std::fs::symlink_metadata(record).is_err(), "the runtime's record of {id}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let removed = self.jug(&["rm", "-fva"]);
        let containers = self.root().join("containers");
        let entries = |dir: &str| std::fs::read_dir(containers.join(dir)).into_iter().flatten().flatten();
        let left =
            || entries("").filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(removed.code, 0, "{removed}");
        assert_eq!(left(), 0, "directories of containers");
        for (dir, what) in
            [(".names", "names"), (".ids", "ranges of ids"), (".levels", "categories of SELinux")]
        {
            assert_eq!(entries(dir).count(), 0, "{what} of containers");
        }
        eventually("the end of the monitors", || {
            let tag = self.bundle.tag();
            let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
            let ours = processes.filter(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line.starts_with(b"jug-monitor\0") && String::from_utf8_lossy(&line).contains(tag)
            });
            (ours.count() == 0).then_some(())
        });
    }
}
