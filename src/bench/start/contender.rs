//! Who is measured, and how each is told to start a container, to enter one and to remove one.

use crate::bundle::Bundles;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What command line a contender speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Floor,
    /// runc's, which crun, youki and jug-oci share.
    Runtime,
    Bubblewrap,
}

pub struct Contender {
    pub name: String,
    pub path: PathBuf,
    pub kind: Kind,
    /// Where it keeps its state.
    root: PathBuf,
}

/// What a start is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Plain,
    Seccomp,
    Exec,
}

const CGROUPS: &str = "/sys/fs/cgroup";
/// The container that `exec` goes into.
const PAUSED: &str = "paused";

impl Contender {
    /// From NAME=PATH; the name tells the kind.
    pub fn parse(argument: &str, dir: &Path) -> Result<Self, String> {
        let (name, path) = argument.split_once('=').ok_or("want NAME=PATH")?;
        let kind = match name {
            "floor" => Kind::Floor,
            "bubblewrap" => Kind::Bubblewrap,
            _ => Kind::Runtime,
        };
        Ok(Self { name: name.into(), path: path.into(), kind, root: dir.join("state").join(name) })
    }

    /// A command of this contender with everybody's environment and no input and output.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn runtime(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    pub fn can(&self, job: Job) -> bool {
        self.kind != Kind::Bubblewrap || job != Job::Exec
    }

    /// The measured command. `id` is new for every start.
    pub fn start(&self, job: Job, bundles: &Bundles, id: &str) -> io::Result<Command> {
        Ok(match (self.kind, job) {
            (Kind::Runtime, Job::Exec) => self.runtime(&["exec", PAUSED, "/true"]),
            (Kind::Runtime, _) => {
                let mut command = self.runtime(&["run", "--bundle"]);
                command.arg(bundles.of(job)).arg(id);
                command
            }
            (Kind::Floor, Job::Exec) => {
                let mut command = self.command();
                let pid = fs::read_to_string(self.root.join("pid"))?;
                command.arg("exec").arg("--cgroup").arg(self.cgroup(PAUSED)).arg(pid).arg("/true");
                command
            }
            (Kind::Floor, _) => self.floor_run(job, bundles, id, "/true"),
            (Kind::Bubblewrap, _) => self.bubblewrap(job, bundles)?,
        })
    }

    fn cgroup(&self, id: &str) -> PathBuf {
        Path::new(CGROUPS).join(format!("jug-floor-{}-{id}", std::process::id()))
    }

    fn floor_run(&self, job: Job, bundles: &Bundles, id: &str, payload: &str) -> Command {
        let mut command = self.command();
        command.arg("run").arg("--cgroup").arg(self.cgroup(id));
        if job == Job::Seccomp {
            command.arg("--seccomp").arg(&bundles.filter);
        }
        command.arg(&bundles.rootfs).arg(payload);
        command
    }

    /// The nearest that bubblewrap has; it makes no cgroup, no mqueue and masks nothing.
    fn bubblewrap(&self, job: Job, bundles: &Bundles) -> io::Result<Command> {
        let mut command = self.command();
        command.args(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]);
        command.args(["--hostname", "bench", "--ro-bind"]).arg(&bundles.rootfs).arg("/");
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        if job == Job::Seccomp {
            command.args(["--seccomp", "0"]).stdin(fs::File::open(&bundles.filter)?);
        }
        command.arg("/true");
        Ok(command)
    }

    /// Starts the container that `exec` goes into, and leaves it running.
    pub fn pause(&self, bundles: &Bundles) -> io::Result<()> {
        match self.kind {
            Kind::Bubblewrap => Ok(()),
            Kind::Floor => {
                let floor = self.floor_run(Job::Plain, bundles, PAUSED, "/pause").spawn()?.id();
                std::thread::sleep(std::time::Duration::from_millis(100));
                let child = fs::read_to_string(format!("/proc/{floor}/task/{floor}/children"))?;
                fs::create_dir_all(&self.root)?;
                fs::write(self.root.join("pid"), child.trim())
            }
            Kind::Runtime => {
                let mut command = self.runtime(&["run", "--detach", "--bundle"]);
                command.arg(&bundles.pause).arg(PAUSED);
                if command.status()?.success() { Ok(()) } else { Err(io::Error::other("run --detach failed")) }
            }
        }
    }

    /// Removes a container that may be left: the paused one, or one that had to be stopped.
    pub fn remove(&self, id: &str) {
        match self.kind {
            Kind::Bubblewrap => {}
            // Its own end removes the cgroup.
            Kind::Floor => drop(fs::write(self.cgroup(id).join("cgroup.kill"), "1")),
            Kind::Runtime => drop(self.runtime(&["delete", "--force", id]).status()),
        }
    }

    pub fn end_pause(&self) {
        self.remove(PAUSED);
    }

    /// The first line of `--version`.
    pub fn version(&self) -> String {
        if self.kind == Kind::Floor {
            return "the bare system calls".into();
        }
        let output = Command::new(&self.path).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    }

    /// Size of the program in bytes, without its libraries.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.path).map(|metadata| metadata.len()).unwrap_or(0)
    }
}

impl Bundles {
    fn of(&self, job: Job) -> &Path {
        if job == Job::Seccomp { &self.seccomp } else { &self.plain }
    }
}
