//! Who is measured: what is installed, how each is told to start the payload at its best, to say that it is ready, and
//! to end. It must not measure, nor judge whether a start was a good one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::boot;
use super::guest::Guest;
use super::image::{Image, Payload, Variant};
use super::results::{Class, Named};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// runc's command line.
    Runtime,
    /// `jug run`.
    Engine,
    Bubblewrap,
    Nspawn,
    Lxc,
    Podman,
    Qemu,
    Firecracker,
    CloudHypervisor,
    UserModeLinux,
}

pub struct Contender {
    pub name: String,
    pub kind: Kind,
    pub class: Class,
    /// The program, and before it what has to execute it.
    pub program: Vec<OsString>,
    pub version: String,
    pub guest: Option<Guest>,
    /// What its trial start took, in seconds.
    pub trial: f64,
    /// What ending it took.
    pub removal: Duration,
    /// What the process of its machine may ask of the host.
    pub monitor: Option<String>,
}

/// Names in the order of reports, the program that is looked for, and its kind.
const KNOWN: [(&str, &str, Kind); 17] = [
    ("jug-oci", "jug-oci", Kind::Runtime),
    ("jug", "jug", Kind::Engine),
    ("crun", "crun", Kind::Runtime),
    ("runc", "runc", Kind::Runtime),
    ("youki", "youki", Kind::Runtime),
    ("bubblewrap", "bwrap", Kind::Bubblewrap),
    ("systemd-nspawn", "systemd-nspawn", Kind::Nspawn),
    ("lxc", "lxc-start", Kind::Lxc),
    ("podman", "podman", Kind::Podman),
    ("qemu-microvm", "qemu-system-x86_64", Kind::Qemu),
    ("firecracker", "firecracker", Kind::Firecracker),
    ("cloud-hypervisor", "cloud-hypervisor", Kind::CloudHypervisor),
    ("user-mode-linux", "linux.uml", Kind::UserModeLinux),
    ("qemu-microvm-disk", "qemu-system-x86_64", Kind::Qemu),
    ("firecracker-disk", "firecracker", Kind::Firecracker),
    ("cloud-hypervisor-disk", "cloud-hypervisor", Kind::CloudHypervisor),
    ("user-mode-linux-disk", "linux.uml", Kind::UserModeLinux),
];

/// How the names of those end whose root is a disk, and not their initramfs.
pub const ON_DISK: &str = "-disk";

/// The names of `--against`, or all that are known, each with its program or the reason why there is none. One that is
/// named again has the figures of the first for its own, and is none.
pub fn named(against: &[String]) -> Vec<(String, Kind, Result<Vec<OsString>, String>)> {
    let all: Vec<String> = KNOWN.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let wanted = if against.is_empty() { &all } else { against };
    let find = |wanted: &String| {
        let (name, path) = wanted.split_once('=').map_or((wanted.as_str(), None), |(n, p)| (n, Some(p)));
        let Some((_, program, kind)) = KNOWN.iter().find(|known| known.0 == name) else {
            let why = format!("no such contender; known are {}", all.join(", "));
            return (name.to_owned(), Kind::Runtime, Err(why));
        };
        let found = match path {
            Some(path) => Ok(vec![path.into()]),
            None => look_for(program, *kind),
        };
        (name.to_owned(), *kind, found)
    };
    let mut seen = BTreeSet::new();
    let found = wanted.iter().map(find).map(|(name, kind, program)| match seen.insert(name.clone()) {
        true => (name, kind, program),
        false => (name, kind, Err("it is named twice: two programs of one contender are two runs".into())),
    });
    found.collect()
}

/// Beside this program, in the cache that scripts/bench and scripts/vm fill (Debian 13's: newer than what the machine
/// has), then on PATH.
fn look_for(program: &str, kind: Kind) -> Result<Vec<OsString>, String> {
    let there = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_file());
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(program)));
    if let Some(path) = beside.filter(|path| there(path)) {
        return Ok(vec![path.into()]);
    }
    for dir in cached("").unwrap_or_default() {
        let inner = ["usr/bin", "usr/sbin", "bin"].map(|bin| dir.join(bin).join(program));
        let Some(path) = inner.into_iter().find(|path| there(path)) else { continue };
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("trixie-") || name.starts_with("youki-") {
            return Ok(vec![path.into()]);
        }
        if kind == Kind::Qemu && name.starts_with("vm-qemu-") {
            return Ok(with_own_libraries(&dir, &path));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| there(path));
    found.map(|path| vec![path.into()]).ok_or_else(|| format!("{program} is not installed"))
}

/// Entries of jug's cache with that beginning of their name.
pub fn cached(prefix: &str) -> Option<Vec<PathBuf>> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let dir = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("jug");
    let entries = fs::read_dir(dir).ok()?.flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).collect();
    found.sort();
    Some(found)
}

/// qemu of scripts/vm: its libraries and its firmware lie beside it.
fn with_own_libraries(dir: &Path, program: &Path) -> Vec<OsString> {
    let libraries = dir.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut words: Vec<OsString> =
        vec![libraries.join("ld-linux-x86-64.so.2").into(), "--library-path".into()];
    words.extend([libraries.into(), program.into()]);
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        words.extend(["-L".into(), dir.join(firmware).into()]);
    }
    words
}

impl Contender {
    pub fn new(name: String, kind: Kind, program: Vec<OsString>) -> Self {
        let class = match kind {
            Kind::Qemu => Class::Emulated,
            Kind::Firecracker | Kind::CloudHypervisor => Class::Hardware,
            Kind::UserModeLinux => Class::Paravirtual,
            _ => Class::OsLevel,
        };
        let mut contender = Self {
            name,
            kind,
            class,
            program,
            version: String::new(),
            guest: None,
            trial: 0.0,
            removal: Duration::ZERO,
            monitor: None,
        };
        contender.version = contender.ask_version();
        contender
    }

    fn ask_version(&self) -> String {
        let output = self.command().arg("--version").stderr(Stdio::null()).output();
        let text = output.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let first = text.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown");
        // runc's kind says there from what it was built.
        match text.lines().nth(1).filter(|line| line.starts_with("commit:")) {
            Some(commit) => format!("{first}, {commit}"),
            None => first.to_owned(),
        }
    }

    pub fn described(&self) -> Named {
        Named {
            name: self.name.clone(),
            class: self.class,
            version: self.version.clone(),
            program: self.program.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            kernel: self.kernel().map(|file| file.display().to_string()),
            how: self.how(),
            memory_mib: self.guest.as_ref().map(|guest| guest.memory),
            monitor: self.monitor.clone(),
        }
    }

    /// The kernel that it boots, where that is a file of its own.
    fn kernel(&self) -> Option<&Path> {
        self.guest.as_ref().map(|guest| guest.kernel.as_path()).filter(|file| !file.as_os_str().is_empty())
    }

    fn how(&self) -> String {
        let how = match self.kind {
            Kind::Runtime => "run --detach: six namespaces, read-only root, Docker's seccomp profile, cgroup",
            Kind::Engine => {
                "jug run --detach --rootfs: no network, read-only root, jug's seccomp profile, cgroup; a monitor stays"
            }
            Kind::Bubblewrap => {
                "the same namespaces, read-only root and seccomp filter; no cgroup, no masked paths"
            }
            Kind::Nspawn => "--keep-unit --register=no --private-network --read-only; its own seccomp list",
            Kind::Lxc => "lxc-start, empty network, proc:mixed sys:ro",
            Kind::Podman => "run --detach --rootfs, no network, no log, no cgroup management; conmon stays",
            Kind::Qemu => match self.class {
                Class::Hardware => "microvm, KVM, a serial line as only device, kernel without mitigations",
                _ => "microvm, TCG, a serial line as only device, kernel without mitigations",
            },
            Kind::Firecracker | Kind::CloudHypervisor => {
                "KVM, kernel without mitigations; written from its documentation, untried"
            }
            Kind::UserModeLinux if boot::has_wide_registers() => {
                "Debian's linux.uml; AVX is hidden from it, as it has no room for AMX"
            }
            Kind::UserModeLinux => "Debian's linux.uml",
        };
        let root = self.guest.as_ref().map_or("", |guest| match (&guest.root, self.kind) {
            (None, _) => "; initramfs: the payload only",
            (Some(_), Kind::UserModeLinux) => "; root: a read-only disk with ext4, no initramfs",
            (Some(_), _) => "; root: a read-only disk with ext4, found by an initramfs that is freed",
        });
        format!("{how}{root}")
    }

    /// Whether the contender can do that at all.
    pub fn can(&self, variant: Variant) -> Result<(), String> {
        let runtime = self.kind == Kind::Runtime;
        if variant.memory && !runtime {
            return Err("makes no memory cgroup here".into());
        }
        if variant.payload == Payload::Veth {
            return if self.class.has_own_kernel() {
                Err("has no end of a veth pair".into())
            } else {
                Ok(())
            };
        }
        if variant.reporting {
            return match (&self.guest, self.kind) {
                (Some(guest), Kind::Qemu | Kind::CloudHypervisor) => guest.modules.clone().map(drop),
                _ => Err("has no balloon here".into()),
            };
        }
        if !variant.network
            && (self.class.has_own_kernel() || matches!(self.kind, Kind::Engine | Kind::Lxc | Kind::Podman))
        {
            return Err("is measured with a network of its own only".into());
        }
        if variant.folded && !matches!(self.kind, Kind::Qemu | Kind::CloudHypervisor) {
            return Err("has no memory of a guest's that KSM could fold".into());
        }
        Ok(())
    }

    /// Whether the start command ends while the instance lives on.
    pub fn detaches(&self) -> bool {
        matches!(self.kind, Kind::Runtime | Kind::Engine | Kind::Lxc | Kind::Podman)
    }

    /// Whether the payload's output goes nowhere, so that it says by a FIFO that it is ready.
    pub fn needs_fifo(&self) -> bool {
        matches!(self.kind, Kind::Engine | Kind::Lxc | Kind::Podman)
    }

    /// A command of this contender with everybody's environment and no input.
    pub fn command(&self) -> Command {
        self.command_behind(&[])
    }

    fn command_behind(&self, before: &[OsString]) -> Command {
        let words: Vec<&OsString> = before.iter().chain(&self.program).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The command that starts an instance; `fifo` is on the host.
    pub fn start(&self, image: &Image, id: &str, variant: Variant, fifo: &Path) -> std::io::Result<Command> {
        let mut command = match self.kind {
            Kind::UserModeLinux => self.command_behind(&boot::before(image)),
            _ => self.command_behind(&image.before(variant)),
        };
        match self.kind {
            Kind::Runtime => {
                command.arg("--root").arg(self.state(image)).args(["run", "--detach", "--bundle"]);
                command.arg(image.bundle(variant)?).arg(id);
            }
            Kind::Engine => {
                // Its cgroups have names of their own: in one of the run's, they are found at its end.
                let parent = format!("{}-jug", id.rsplit_once('-').map_or(id, |(prefix, _)| prefix));
                fs::create_dir_all(Path::new("/sys/fs/cgroup").join(&parent))?;
                self.engine(&mut command, image);
                command.args(["run", "--detach", "--name", id, "--cgroup-parent", &parent]);
                command.args(["--network", variant.engine_network(), "--pids-limit", "-1"]);
                command.args((!variant.payload.writes()).then_some("--read-only"));
                command.arg("-v").arg(format!("{}:/ready", fifo.display()));
                command.arg("--rootfs").arg(image.root(variant)).args(variant.payload.words()).arg("/ready");
            }
            Kind::Bubblewrap => bubblewrap(&mut command, image, variant)?,
            Kind::Nspawn => {
                command.args(["--quiet", "--register=no", "--keep-unit", "--link-journal=no", "--pipe"]);
                command
                    .args(["--resolv-conf=off", "--timezone=off", "--machine", id, "-D"])
                    .arg(image.root(variant));
                command.args(variant.network.then_some("--private-network"));
                command.args((!variant.payload.writes()).then_some("--read-only"));
                command.args(variant.payload.words());
            }
            Kind::Lxc => {
                let config = image.lxc(id, variant, fifo)?;
                command.arg("-P").arg(self.state(image)).args(["-n", id, "-f"]).arg(config);
            }
            Kind::Podman => {
                self.podman(&mut command, image);
                command.args([
                    "run",
                    "--detach",
                    "--quiet",
                    "--name",
                    id,
                    "--network",
                    variant.engine_network(),
                    "--log-driver",
                    "none",
                ]);
                command.args(["--cgroups", "disabled", "--security-opt", "apparmor=unconfined"]);
                command.args((!variant.payload.writes()).then_some("--read-only"));
                command
                    .arg("-v")
                    .arg(format!("{}:/ready", fifo.display()))
                    .arg("--rootfs")
                    .arg(image.root(variant));
                command.args(variant.payload.words()).arg("/ready");
            }
            Kind::Qemu | Kind::Firecracker | Kind::CloudHypervisor | Kind::UserModeLinux => {
                boot::begin(self, &mut command, image, id, variant)?;
            }
        }
        Ok(command)
    }

    fn engine(&self, command: &mut Command, image: &Image) {
        let state = self.state(image);
        command.arg("--root").arg(state.join("root")).arg("--runroot").arg(state.join("run"));
    }

    fn podman(&self, command: &mut Command, image: &Image) {
        let state = self.state(image);
        command.arg("--root").arg(state.join("root")).arg("--runroot").arg(state.join("run"));
        command.arg("--tmpdir").arg(state.join("tmp")).args([
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ]);
        command.args(["--storage-driver", "vfs"]);
    }

    /// Where it keeps its state: on the run's tmpfs, as /run is one.
    pub fn state(&self, image: &Image) -> PathBuf {
        image.dir.join("state").join(&self.name)
    }

    /// The command that ends an instance and removes what is left of it; None for one whose process is its life.
    pub fn remove(&self, image: &Image, id: &str) -> Option<Command> {
        let mut command = self.command();
        match self.kind {
            Kind::Runtime => command.arg("--root").arg(self.state(image)).args(["delete", "--force", id]),
            Kind::Lxc => {
                let mut stop = Command::new("lxc-stop");
                stop.arg("-P").arg(self.state(image)).args(["-k", "-n", id]).stdin(Stdio::null());
                return Some(stop);
            }
            Kind::Engine => {
                self.engine(&mut command, image);
                command.args(["rm", "--force", id])
            }
            Kind::Podman => {
                self.podman(&mut command, image);
                command.args(["rm", "--force", "--time", "0", id])
            }
            _ => return None,
        };
        if let Some(before) = image.hybrid_of(id) {
            let mut moved = Command::new(&before[0]);
            moved.args(&before[1..]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
            return Some(moved);
        }
        Some(command)
    }
}

/// The nearest that bubblewrap has to runc's default spec.
fn bubblewrap(command: &mut Command, image: &Image, variant: Variant) -> std::io::Result<()> {
    command.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]);
    command.args(variant.network.then_some("--unshare-net"));
    command.args(["--hostname", "bench", "--die-with-parent"]);
    command.arg(if variant.payload.writes() { "--bind" } else { "--ro-bind" });
    command.arg(image.root(variant)).arg("/");
    command.args(["--proc", "/proc", "--dev", "/dev", "--cap-drop", "ALL", "--seccomp", "0"]);
    command.stdin(fs::File::open(&image.filter)?).args(variant.payload.words());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_takes_part_once() {
        let wanted = ["crun=/a", "crun=/b", "no-such"].map(str::to_owned);
        let found = named(&wanted);
        assert_eq!(found[0].2, Ok(vec!["/a".into()]));
        assert!(found[1].2.as_ref().is_err_and(|why| why.contains("named twice")));
        assert!(found[2].2.as_ref().is_err_and(|why| why.contains("no such contender")));
    }
}
