//! The one payload made ready for everybody: a root file system, the same on a disk, bundles, the configs of others,
//! and an initramfs. All hold the same bytes of the same program. It writes below the run's own directories, and must
//! not start anything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rootfs_builder::disk;
use rootfs_builder::initramfs::Archive;
use serde_json::json;

use super::base::Base;
use super::bundle;
use super::machine::read;
use super::pair;

/// What the payload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Says that it is ready, and sleeps for ever.
    Idle,
    /// The same, with one request a second over the loopback device.
    Light,
    /// The same, with 16 MiB that it writes to once a second.
    Touch,
    /// The same 16 MiB, written to once and given back before it sleeps.
    Free,
    /// Measures and ends.
    Work,
    /// Of that, the files only.
    Files,
    /// Measures the way through a veth pair and ends.
    Veth,
    /// Looks around and ends.
    Probe,
}

impl Payload {
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Light => "light",
            Self::Touch => "touch",
            Self::Free => "free",
            Self::Work => "work",
            Self::Files => "files",
            Self::Veth => "veth",
            Self::Probe => "probe",
        }
    }

    /// Whether it writes files.
    pub fn writes(self) -> bool {
        matches!(self, Self::Work | Self::Files)
    }

    /// The command line inside.
    pub fn words(self) -> Vec<&'static str> {
        let mut words = vec!["/payload", self.word()];
        words.extend(self.writes().then_some("/scratch"));
        words.extend((self == Self::Veth).then_some(pair::FAR));
        words
    }
}

/// What an instance is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub payload: Payload,
    /// A network namespace of its own; always so for who has a kernel of its own.
    pub network: bool,
    /// A limit of memory, and so a memory cgroup.
    pub memory: bool,
    /// KSM is on, and may fold the machine's memory.
    pub folded: bool,
    /// The machine tells its host which of its pages are free: virtio's free-page reporting.
    pub reporting: bool,
}

impl Variant {
    pub fn of(payload: Payload) -> Self {
        let network = payload != Payload::Veth;
        Self { payload, network, memory: false, folded: false, reporting: false }
    }

    /// What engines call it.
    pub fn engine_network(self) -> &'static str {
        if self.network { "none" } else { "host" }
    }

    /// As results name it.
    pub fn name(self) -> String {
        let network = if self.network { "" } else { ", no network namespace" };
        let memory = if self.memory { ", memory cgroup" } else { "" };
        let folded = if self.folded { ", KSM on" } else { "" };
        let reporting = if self.reporting { ", free-page reporting" } else { "" };
        format!("{}{network}{memory}{folded}{reporting}", self.payload.word())
    }
}

pub struct Image {
    pub dir: PathBuf,
    /// seccomp's program, for who takes it compiled.
    pub filter: PathBuf,
    /// The payload alone.
    pub initrd: PathBuf,
    /// The image below the payload, as results name it; empty where the payload is alone.
    pub base: String,
    rootfs: PathBuf,
    /// On the disk and not in memory: what file operations are measured on, and the disks of machines.
    disk: PathBuf,
    /// The process that keeps the namespace in which a hybrid host has its memory cgroups.
    holder: Option<String>,
    /// The process in whose network namespace the near end of a veth pair is.
    pub near: AtomicU32,
}

impl Image {
    /// The payload alone, or over the layers of an image.
    pub fn make(dir: &Path, payload: &Path, base: Option<&Base>) -> io::Result<Self> {
        let rootfs = dir.join("rootfs");
        for at in ["dev", "proc", "run", "sys", "tmp", "usr", "scratch"] {
            fs::create_dir_all(rootfs.join(at))?;
        }
        fs::write(rootfs.join("ready"), "")?;
        let program = rootfs.join("payload");
        fs::copy(payload, &program)?;
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
        let filter = dir.join("filter");
        fs::write(&filter, bundle::compiled_profile()?)?;
        let initrd = dir.join("initrd");
        if let Some(base) = base {
            fs::write(rootfs.join("payload.command"), base.text())?;
            base.mount_below(dir, &rootfs)?;
        }
        fs::write(&initrd, initramfs_of(&fs::read(&program)?).map_err(io::Error::other)?)?;
        let disk = Path::new("/var/tmp").join(dir.file_name().unwrap_or_default());
        let holder = Some(read(&dir.join("hybrid").to_string_lossy())).filter(|pid| !pid.is_empty());
        let base = base.map_or_else(String::new, |base| base.name.clone());
        let near = AtomicU32::new(0);
        Ok(Self { dir: dir.to_owned(), filter, initrd, base, rootfs, disk, holder, near })
    }

    /// The root file system: shared and read-only, or, for the payload that writes, an overlay with its
    /// upper directory on the disk.
    pub fn root(&self, variant: Variant) -> PathBuf {
        if variant.payload.writes() { self.files().join("merged") } else { self.rootfs.clone() }
    }

    pub fn payload(&self) -> PathBuf {
        self.rootfs.join("payload")
    }

    /// Where the payload writes when it runs on the host: beside the overlay's upper directory.
    pub fn native_scratch(&self) -> PathBuf {
        self.files().join("native")
    }

    fn files(&self) -> PathBuf {
        self.disk.join("files")
    }

    /// Mounts the overlay; dropping the answer takes it away.
    pub fn overlay(&self) -> io::Result<Overlay> {
        let files = self.files();
        for at in ["upper", "work", "merged", "native"] {
            fs::create_dir_all(files.join(at))?;
        }
        let overlay = Overlay(files.clone());
        const SIZE: u64 = 64 << 20;
        disk::ext4(&self.block(), SIZE).map_err(io::Error::other)?;
        let options = format!(
            "lowerdir={},upperdir={files}/upper,workdir={files}/work",
            self.rootfs.display(),
            files = files.display()
        );
        let mut mount = Command::new("mount");
        let status =
            mount.args(["-t", "overlay", "-o", &options, "overlay"]).arg(files.join("merged")).status()?;
        if status.success() {
            Ok(overlay)
        } else {
            Err(io::Error::other(format!("mount -t overlay: {status}")))
        }
    }

    /// The disk of a machine that writes, on the same file system as what containers write to.
    pub fn block(&self) -> PathBuf {
        self.files().join("block")
    }

    /// The root file system as a disk that all machines read, made when first asked for: ext4, which Debian's kernels
    /// need no module for. Without a journal, as nobody writes to it.
    pub fn root_disk(&self) -> io::Result<PathBuf> {
        let (disk, new) = (self.disk.join("root"), self.disk.join("root.new"));
        if fs::metadata(&disk).is_err() {
            fs::create_dir_all(&self.disk)?;
            disk::ext4_of(&self.rootfs, &new).map_err(io::Error::other)?;
            fs::rename(new, &disk)?;
        }
        Ok(disk)
    }

    /// The bundle of a variant, written once: instances share it, as their ids name their cgroups.
    pub fn bundle(&self, variant: Variant) -> io::Result<PathBuf> {
        let dir = self.dir.join("bundles").join(variant.name().replace([',', ' '], "-"));
        let config = dir.join("config.json");
        if fs::metadata(&config).is_ok() {
            return Ok(dir);
        }
        let mut spec = bundle::spec()?;
        spec["root"] = json!({ "path": self.root(variant), "readonly": !variant.payload.writes() });
        spec["process"]["args"] = json!(variant.payload.words());
        if !variant.network
            && let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut()
        {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        if variant.memory {
            spec["linux"]["resources"] = json!({ "memory": { "limit": 128 << 20 } });
        }
        fs::create_dir_all(&dir)?;
        let new = dir.join("new");
        fs::write(&new, serde_json::to_vec(&spec)?)?;
        fs::rename(&new, &config)?;
        Ok(dir)
    }

    /// The config of a container of LXC.
    pub fn lxc(&self, id: &str, variant: Variant, fifo: &Path) -> io::Result<PathBuf> {
        let file = self.dir.join(format!("{id}.lxc"));
        let (root, fifo) = (self.root(variant), fifo.display());
        let lines = [
            format!("lxc.rootfs.path = dir:{}", root.display()),
            format!("lxc.uts.name = {id}"),
            format!(
                "lxc.net.0.type = {}",
                if variant.network { "empty\nlxc.net.0.flags = up" } else { "none" }
            ),
            "lxc.mount.auto = proc:mixed sys:ro".into(),
            format!("lxc.mount.entry = {fifo} ready none bind 0 0"),
            "lxc.console.path = none".into(),
            "lxc.pty.max = 0".into(),
            format!("lxc.init.cmd = {} /ready", variant.payload.words().join(" ")),
            String::new(),
        ];
        fs::write(&file, lines.join("\n"))?;
        Ok(file)
    }

    /// Words before a command line that shall see the near end of the veth pair, or the host's v1 hierarchies.
    pub fn before(&self, variant: Variant) -> Vec<OsString> {
        if variant.payload == Payload::Veth {
            let near = self.near.load(Ordering::Relaxed);
            return vec!["nsenter".into(), format!("--net=/proc/{near}/ns/net").into()];
        }
        let Some(holder) = self.holder.as_ref().filter(|_| variant.memory) else { return Vec::new() };
        vec!["nsenter".into(), format!("--mount=/proc/{holder}/ns/mnt").into()]
    }

    /// The same for an instance by its id, as [`super::instance`] makes them.
    pub fn hybrid_of(&self, id: &str) -> Option<Vec<OsString>> {
        let memory = id.contains("-m");
        Some(self.before(Variant { memory, ..Variant::of(Payload::Idle) }))
            .filter(|before| !before.is_empty())
    }
}

/// The smallest one around a program.
fn initramfs_of(program: &[u8]) -> rootfs_builder::error::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    archive.machine(program)?;
    archive.directory("scratch")?;
    archive.end()
}

/// A mounted overlay with its directory on the disk.
pub struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.join("merged")).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{FOLDED, IDLE};

    #[test]
    fn variants_have_the_names_that_reports_look_for() {
        let idle = Variant::of(Payload::Idle);
        assert_eq!(idle.name(), IDLE);
        assert_eq!(Variant { folded: true, ..idle }.name(), FOLDED);
    }
}
