//! Who is measured, and how each is told to start a container, to enter one and to remove one.

use jug::bench::bundle::{ANSWER_PLAIN, ANSWER_SECCOMP, Bundles};
use jug::bench::measure::{self, Watchdog};
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

/// One start.
pub struct Start<'a> {
    pub job: Job,
    /// New for every start.
    pub id: &'a str,
    /// `/true`, or `/answer`, which exits with [`Contender::right_answer`].
    pub payload: &'a str,
    /// Words in front of the command line.
    pub behind: &'a [&'a Path],
}

impl<'a> Start<'a> {
    pub fn of(job: Job, id: &'a str) -> Self {
        Self { job, id, payload: "/true", behind: &[] }
    }
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

    /// A command of this contender with everybody's environment and no input and output; `behind` is what comes in
    /// front of it, such as strace.
    fn command(&self, behind: &[&Path]) -> Command {
        let mut words = behind.iter().copied().chain([self.path.as_path()]);
        let mut command = Command::new(words.next().unwrap_or(&self.path));
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn runtime(&self, behind: &[&Path], arguments: &[&str]) -> Command {
        let mut command = self.command(behind);
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    /// The exit code of a contender that has done its job.
    pub fn right_answer(job: Job) -> i32 {
        if job == Job::Seccomp { ANSWER_SECCOMP } else { ANSWER_PLAIN }
    }

    pub fn can(&self, job: Job) -> bool {
        self.kind != Kind::Bubblewrap || job != Job::Exec
    }

    pub fn start(&self, start: &Start, bundles: &Bundles) -> io::Result<Command> {
        Ok(match (self.kind, start.job) {
            (Kind::Runtime, Job::Exec) => self.runtime(start.behind, &["exec", PAUSED, start.payload]),
            (Kind::Runtime, _) => {
                let mut command = self.runtime(start.behind, &["run", "--bundle"]);
                command.arg(bundle(bundles, start)).arg(start.id);
                command
            }
            (Kind::Floor, Job::Exec) => {
                let mut command = self.command(start.behind);
                let pid = fs::read_to_string(self.root.join("pid"))?;
                command.arg("exec").arg("--cgroup").arg(self.cgroup(PAUSED)).arg(pid).arg(start.payload);
                command
            }
            (Kind::Floor, _) => self.floor_run(start, bundles),
            (Kind::Bubblewrap, _) => self.bubblewrap(start, bundles)?,
        })
    }

    fn cgroup(&self, id: &str) -> PathBuf {
        Path::new(CGROUPS).join(format!("jug-floor-{}-{id}", std::process::id()))
    }

    fn floor_run(&self, start: &Start, bundles: &Bundles) -> Command {
        let mut command = self.command(start.behind);
        command.arg("run").arg("--cgroup").arg(self.cgroup(start.id));
        if start.job == Job::Seccomp {
            command.arg("--seccomp").arg(&bundles.filter);
        }
        command.arg(&bundles.rootfs).arg(start.payload);
        command
    }

    /// The nearest that bubblewrap has; it makes no cgroup, no mqueue and masks nothing.
    fn bubblewrap(&self, start: &Start, bundles: &Bundles) -> io::Result<Command> {
        let mut command = self.command(start.behind);
        command.args([
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup",
        ]);
        command.args(["--hostname", "bench", "--ro-bind"]).arg(&bundles.rootfs).arg("/");
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        if start.job == Job::Seccomp {
            command.args(["--seccomp", "0"]).stdin(fs::File::open(&bundles.filter)?);
        }
        command.arg(start.payload);
        Ok(command)
    }

    /// Starts the container that `exec` goes into, and leaves it running.
    pub fn pause(&self, bundles: &Bundles, watchdog: &Watchdog) -> io::Result<()> {
        match self.kind {
            Kind::Bubblewrap => Ok(()),
            Kind::Floor => {
                let floor = self
                    .floor_run(&Start { payload: "/pause", ..Start::of(Job::Plain, PAUSED) }, bundles)
                    .spawn()?
                    .id();
                std::thread::sleep(std::time::Duration::from_millis(100));
                let child = fs::read_to_string(format!("/proc/{floor}/task/{floor}/children"))?;
                fs::create_dir_all(&self.root)?;
                fs::write(self.root.join("pid"), child.trim())
            }
            Kind::Runtime => {
                let mut command = self.runtime(&[], &["run", "--detach", "--bundle"]);
                command.arg(&bundles.pause).arg(PAUSED);
                measure::wall(&mut command, watchdog).map(drop)
            }
        }
    }

    /// Removes a container that may be left: the paused one, or one that had to be stopped.
    pub fn remove(&self, id: &str) {
        match self.kind {
            Kind::Bubblewrap => {}
            // Its own end removes the cgroup.
            Kind::Floor => drop(fs::write(self.cgroup(id).join("cgroup.kill"), "1")),
            Kind::Runtime => drop(self.runtime(&[], &["delete", "--force", id]).status()),
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
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    }

    /// Size of the program in bytes, without its libraries.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.path).map(|metadata| metadata.len()).unwrap_or(0)
    }
}

/// The bundle of a start.
fn bundle<'b>(bundles: &'b Bundles, start: &Start) -> &'b Path {
    let seccomp = start.job == Job::Seccomp;
    match start.payload {
        "/answer" => &bundles.answers[usize::from(seccomp)],
        _ if seccomp => &bundles.seccomp,
        _ => &bundles.plain,
    }
}
