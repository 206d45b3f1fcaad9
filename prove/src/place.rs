//! Where a worker does its worst: a mount namespace of its own in which nothing can be written but two small tmpfs, a
//! limit on the size of files, a bundle, and calls of the runtime that cannot hang.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::config;
use crate::trace::{Tracer, launched};

pub const DIR: &str = "/run/prove";

pub struct Place {
    /// The one word that names everything of this worker's: its containers and cgroups.
    pub tag: String,
    pub runtime: PathBuf,
}

/// What a call of the runtime came to.
#[derive(Debug)]
pub struct Call {
    /// `None`: it was still running after [`Place::patience`], and was killed.
    pub code: Option<i32>,
    pub took: Duration,
}

impl Call {
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

fn copy(from: &[u8], to: &str) -> io::Result<()> {
    fs::write(to, from)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}

fn tmpfs(at: &str, options: &str) -> io::Result<()> {
    Ok(mount(Some("prove"), at, Some("tmpfs"), MsFlags::empty(), Some(options))?)
}

impl Place {
    /// Enters the box. `runtime` is copied into it, unless it is a peer, which has libraries of its own beside it.
    pub fn enter(runtime: &Path, probe: &Path, number: usize, plain_v2: bool) -> io::Result<Self> {
        let peer = runtime.file_name().is_none_or(|name| name != "jug-oci");
        let (oci, probe) = (fs::read(runtime)?, fs::read(probe)?);
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok());
        let busybox = busybox.ok_or(io::Error::other("a static busybox is missing: run scripts/setup"))?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (none, recursive) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, recursive, none)?;
        mount(none, "/", none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
        if plain_v2 {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none)?;
        }
        tmpfs("/tmp", "size=4m")?;
        tmpfs("/run", "size=64m,mode=755")?;
        for dir in ["", "/bundle", "/bundle/rootfs", "/files", "/outside"] {
            fs::create_dir(format!("{DIR}{dir}"))?;
        }
        // A file system of its own, by whose device number the adversary tells what lies in it.
        tmpfs(&format!("{DIR}/bundle/rootfs"), "size=32m,mode=755")?;
        std::env::set_current_dir(DIR)?;
        if !peer {
            copy(&oci, "jug-oci")?;
        }
        copy(&busybox, "busybox")?;
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "mnt/in"] {
            fs::create_dir(format!("bundle/rootfs/{dir}"))?;
        }
        copy(&busybox, "bundle/rootfs/bin/busybox")?;
        copy(&probe, "bundle/rootfs/bin/probe")?;
        fs::write("bundle/rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write("bundle/rootfs/etc/group", "root:x:0:\n")?;
        crate::adversary::fill_outside()?;
        setrlimit(Resource::RLIMIT_FSIZE, 32 << 20, 32 << 20)?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        Ok(Self {
            tag: format!("jug-prove-{}-{number}", std::process::id()),
            runtime: if peer { runtime.to_owned() } else { format!("{DIR}/jug-oci").into() },
        })
    }

    pub fn id(&self) -> String {
        format!("{}-c", self.tag)
    }

    pub fn write_config(&self, spec: &Value) -> io::Result<()> {
        fs::write(format!("{DIR}/bundle/config.json"), spec.to_string())
    }

    /// The config of that name for this worker's container.
    pub fn configure(&self, which: config::Which) -> io::Result<()> {
        // runc leaves the parents that it made: peers get a cgroup at the top.
        let cgroup = match which {
            config::Which::Peer => format!("/{}", self.id()),
            _ => format!("/{}/in/{}", self.tag, self.id()),
        };
        self.write_config(&config::spec(which, &cgroup))
    }

    /// The same call, ready for [`Tracer::follow`] or to be run as it is.
    fn fill(&self, mut command: Command, words: &[&str]) -> io::Result<Command> {
        let out = |name: &str| -> io::Result<Stdio> {
            Ok(fs::OpenOptions::new().append(true).create(true).open(format!("{DIR}/{name}"))?.into())
        };
        command.args(["--root", &format!("{DIR}/state")]);
        if self.runtime.starts_with(DIR) {
            command.args(["--log", &format!("{DIR}/log")]);
        }
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(out("out")?)
            .stderr(out("err")?);
        Ok(command)
    }

    pub fn traced(&self, words: &[&str]) -> io::Result<Command> {
        self.fill(launched(&self.runtime), words)
    }

    pub fn command(&self, words: &[&str]) -> io::Result<Command> {
        self.fill(Command::new(&self.runtime), words)
    }

    /// How long a verb may take before it counts as hung.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// How long `delete --force` may take.
    pub fn delete_limit(&self) -> Duration {
        Duration::from_secs(2)
    }

    pub fn call(&self, tracer: &mut Tracer, words: &[&str]) -> io::Result<Call> {
        let begun = Instant::now();
        let pid = self.command(words)?.spawn()?.id().cast_signed();
        let code = self.wait(tracer, pid);
        Ok(Call { code, took: begun.elapsed() })
    }

    /// Waits for a child that was spawned; one that hangs is killed. Orphans are reaped meanwhile, as every machine's
    /// first process does: a PID namespace ends only when all in it are reaped, whoever has to.
    pub fn wait(&self, tracer: &mut Tracer, pid: i32) -> Option<i32> {
        let pid = Pid::from_raw(pid);
        let deadline = Instant::now() + self.patience();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(who, code)) if who == pid => return Some(code),
                Ok(WaitStatus::Signaled(who, signal, _)) if who == pid => return Some(128 + signal as i32),
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    tracer.nap(Duration::from_millis(100));
                }
                Ok(WaitStatus::StillAlive) => {
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, None);
                    return None;
                }
                Ok(_) => {}
                // Somebody has waited for it already.
                Err(_) => return Some(-1),
            }
        }
    }

    /// What the last calls wrote to stderr and to the log, from its end.
    pub fn said(&self) -> String {
        let text = |name: &str| fs::read_to_string(format!("{DIR}/{name}")).unwrap_or_default();
        let all = text("err") + &text("log");
        let lines: Vec<&str> = all.lines().filter(|line| !line.contains("\"debug\"")).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// What the runtime was told to make, and what stays: the pid file, and mount points in the root file system.
    pub fn take_back(&self) {
        let _ = fs::remove_file(format!("{DIR}/files/pid"));
        for dir in ["mnt/made/here", "mnt/made"] {
            let _ = fs::remove_dir(format!("{DIR}/bundle/rootfs/{dir}"));
        }
    }

    /// Forgets what was written.
    pub fn clear(&self) {
        for name in ["out", "err", "log"] {
            let _ = fs::remove_file(format!("{DIR}/{name}"));
        }
    }
}
