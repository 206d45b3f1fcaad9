//! The two programs that every root file system of the tests holds, kept once per process and hard-linked into bundles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use super::{in_guest, install};

/// A directory with `busybox` and `probe`; removed with the last bundle that holds it.
pub struct Template {
    dir: PathBuf,
}

impl Template {
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let template = Arc::new(Self::make());
            *shared = Arc::downgrade(&template);
            template
        })
    }

    fn make() -> Self {
        // The next one may be made while the last one is being removed.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/jug-test-programs-{}-{number}", std::process::id()));
        // A process of the same number may have been killed here.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("mkdir of the shared programs");
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        let busybox = busybox.expect("a static busybox (Debian: busybox-static)");
        for (from, name) in [(busybox, "busybox"), (probe(), "probe")] {
            install(from, dir.join(name));
        }
        Self { dir }
    }

    /// Hard-links one of the programs to `to`; a copy would cost more than the container's start.
    pub fn link(&self, name: &str, to: &Path) {
        fs::hard_link(self.dir.join(name), to).unwrap_or_else(|why| panic!("link {name}: {why}"));
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The probe's report about the test process' own surroundings, to compare a container's with.
pub fn probe_here(questions: &[&str]) -> serde_json::Value {
    let out = Command::new(probe()).args(questions).output().expect("the probe");
    serde_json::from_slice(&out.stdout).expect("the probe speaks JSON")
}

/// Where the probe is: built first, when that is needed and possible.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        if let Some(path) = std::env::var_os("JUG_PROBE") {
            return path.into();
        }
        let this = std::env::current_exe().expect("/proc/self/exe");
        let profile = this.parent().and_then(Path::parent).expect("…/debug/deps/this");
        let path = profile.join("probe");
        if in_guest() {
            assert!(path.exists(), "{} is missing: build it before the guest starts", path.display());
        } else if changed(&path) < source_changed() {
            build(profile);
        }
        path
    })
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn source_changed() -> SystemTime {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs-builder/src/bin/probe");
    let files = fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    files.flatten().map(|file| changed(&file.path())).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn build(profile: &Path) {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--quiet",
        "-p",
        "rootfs-builder",
        "--bin",
        "probe",
    ]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // cargo leaves an up-to-date file's time alone: without this, a touched source would mean a build in every process.
    let built = cargo.status().expect("cargo");
    assert!(built.success(), "cargo build -p rootfs-builder --bin probe failed");
    let file = fs::File::open(profile.join("probe")).expect("the probe that cargo just built");
    let _ = file.set_modified(SystemTime::now());
}
