//! One invocation of the runtime: its surroundings are spelled out, its output goes to files in memory (a container
//! that inherits a pipe would keep a reader waiting), and it cannot outlast the test's patience.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{patience, runtime};

/// How a call ended. `code` is the exit code, or minus the number of the signal that killed the runtime itself.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Output {
    /// The call succeeded, or the test ends here with everything it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}:\n{self}");
        self
    }

    /// The runtime refused: exit code 1, and the error says `words`.
    #[track_caller]
    pub fn fails(self, words: &str) -> Self {
        self.exits(1).says(words)
    }

    /// The error text holds `words`.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.error().contains(words), "expected the words {words:?}:\n{self}");
        self
    }

    /// stderr with logrus' escapes undone.
    pub fn error(&self) -> String {
        self.stderr.replace("\\\"", "\"")
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|why| panic!("not JSON ({why}):\n{self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stdout, stderr) = (clipped(&self.stdout), clipped(&self.stderr));
        write!(f, "$ {}\nexit code: {}\nstdout: {stdout}\nstderr: {stderr}", self.line, self.code)
    }
}

/// Enough of a long text to see what it is.
fn clipped(text: &str) -> Cow<'_, str> {
    let (head, tail) =
        (text.floor_char_boundary(2000), text.ceil_char_boundary(text.len().saturating_sub(2000)));
    if head >= tail {
        return text.into();
    }
    format!("{}\n[… {} bytes …]\n{}", &text[..head], tail - head, &text[tail..]).into()
}

enum Input {
    Nothing,
    Pipe,
    File(OwnedFd),
}

/// A call being put together. The environment is a clean one: PATH and HOME, and what `env` adds.
pub struct Call {
    program: OsString,
    through: Vec<OsString>,
    globals: Vec<OsString>,
    args: Vec<OsString>,
    root: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    user: Option<(u32, u32)>,
    stdin: Input,
    terminal: Option<OwnedFd>,
    output: Option<(File, File)>,
    fds: Vec<(OwnedFd, i32)>,
    patience: Duration,
}

/// The runtime with these arguments and no `--root`.
pub fn runtime_call<S: AsRef<OsStr>>(args: &[S]) -> Call {
    Call {
        program: runtime().into(),
        through: Vec::new(),
        globals: Vec::new(),
        args: args.iter().map(Into::into).collect(),
        root: None,
        env: Vec::new(),
        cwd: None,
        user: None,
        stdin: Input::Nothing,
        terminal: None,
        output: None,
        fds: Vec::new(),
        patience: patience(),
    }
}

impl Call {
    /// Another binary, such as the runtime under another name.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// `--root DIR`, which every call of a bundle has.
    #[must_use]
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    #[must_use]
    pub fn without_root(mut self) -> Self {
        self.root = None;
        self
    }

    /// Flags before the subcommand.
    #[must_use]
    pub fn global<S: AsRef<OsStr>>(mut self, flags: &[S]) -> Self {
        self.globals.extend(flags.iter().map(Into::into));
        self
    }

    /// More arguments at the end.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(Into::into));
        self
    }

    /// A program and its arguments that run the runtime: `setsid --ctty`, `strace …`.
    #[must_use]
    pub fn through<S: AsRef<OsStr>>(mut self, wrapper: &[S]) -> Self {
        self.through.extend(wrapper.iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Runs it as this uid and gid, with no other groups.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Runs it as root, whosever the bundle is; for wrappers that become the user themselves.
    #[must_use]
    pub fn by_root(mut self) -> Self {
        self.user = None;
        self
    }

    /// What stdin reads, as a file.
    #[must_use]
    pub fn stdin(mut self, text: &str) -> Self {
        let file = memory("stdin");
        file.write_all_at(text.as_bytes(), 0).expect("write to memory");
        self.stdin = Input::File(file.into());
        self
    }

    /// stdin is a pipe whose other end is `Running::stdin`.
    #[must_use]
    pub fn stdin_pipe(mut self) -> Self {
        self.stdin = Input::Pipe;
        self
    }

    /// All three standard descriptors are this terminal.
    #[must_use]
    pub fn terminal(mut self, terminal: impl AsFd) -> Self {
        self.terminal = Some(terminal.as_fd().try_clone_to_owned().expect("dup"));
        self
    }

    /// Lets the runtime inherit `fd` as number `target` (3 and up).
    #[must_use]
    pub fn fd(mut self, fd: impl AsFd, target: i32) -> Self {
        self.fds.push((fd.as_fd().try_clone_to_owned().expect("dup"), target));
        self
    }

    /// Where stdout and stderr go, when somebody wants to read them after the call is over.
    #[must_use]
    pub fn output_to(mut self, stdout: &File, stderr: &File) -> Self {
        self.output = Some((stdout.try_clone().expect("dup"), stderr.try_clone().expect("dup")));
        self
    }

    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().wait()
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.output().ok()
    }

    fn line(&self) -> Vec<OsString> {
        let mut line = self.through.clone();
        line.push(self.program.clone());
        if let Some(root) = &self.root {
            line.extend(["--root".into(), root.into()]);
        }
        line.extend(self.globals.iter().chain(&self.args).cloned());
        line
    }

    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let line = self.line();
        let (stdout, stderr) = self.output.take().unwrap_or_else(|| (memory("stdout"), memory("stderr")));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().env("PATH", super::DEFAULT_PATH).env("HOME", "/");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.stdin(match self.stdin {
            Input::Nothing => Stdio::null(),
            Input::Pipe => Stdio::piped(),
            Input::File(file) => file.into(),
        });
        command.stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
        if let Some(terminal) = self.terminal {
            let another = || terminal.try_clone().expect("dup");
            command.stdin(another()).stdout(another()).stderr(another());
        }
        hand_over(&mut command, self.fds);
        let words: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        let mut child = command.spawn().unwrap_or_else(|why| panic!("$ {line}\n{why}"));
        let stdin = child.stdin.take();
        Running { child, stdin, stdout, stderr, line, deadline: Instant::now() + self.patience }
    }
}

/// Makes each descriptor appear under its number in the child. They are moved out of the way first, so that no target
/// is another one's source.
fn hand_over(command: &mut Command, fds: Vec<(OwnedFd, i32)>) {
    if fds.is_empty() {
        return;
    }
    let raise = |(fd, target): (OwnedFd, i32)| {
        let raised = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(200)).expect("dup to 200 and up");
        // SAFETY: the kernel has just made this descriptor for us; the closure below owns it until the call is spawned.
        (unsafe { OwnedFd::from_raw_fd(raised) }, target)
    };
    let raised: Vec<(OwnedFd, i32)> = fds.into_iter().map(raise).collect();
    // SAFETY: the closure runs between fork and exec and calls only dup2(2), which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (fd, target) in &raised {
                if libc::dup2(fd.as_raw_fd(), *target) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// An anonymous file: nothing to clean up, and nobody waits for its end. It is appended to, as the kernel does not keep
/// two writers of a memfd from taking one offset.
pub fn memory(name: &str) -> File {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC).expect("memfd_create(2)");
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND | OFlag::O_RDWR)).expect("F_SETFL");
    file.into()
}

/// All of an anonymous file, whatever its offset (which the writers share).
pub fn contents(file: &File) -> String {
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A call that is under way. Dropped: killed.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    stdout: File,
    stderr: File,
    line: String,
    deadline: Instant,
}

impl Running {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("kill(2) of the runtime");
    }

    /// Waits until stdout holds `words`.
    #[track_caller]
    pub fn wait_stdout(&mut self, words: &str) {
        loop {
            // In this order: what it says last it has said when it is over.
            let over = self.status().is_some();
            if self.stdout().contains(words) {
                return;
            }
            assert!(!over, "ended before it said {words:?}:\n{}", self.said());
            self.still_patient(words);
        }
    }

    /// `Some` once it is over.
    pub fn status(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("wait(2)")?;
        Some(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)))
    }

    #[track_caller]
    pub fn wait(mut self) -> Output {
        self.stdin = None;
        loop {
            if let Some(code) = self.status() {
                let line = std::mem::take(&mut self.line);
                return Output { code, stdout: self.stdout(), stderr: self.stderr(), line };
            }
            self.still_patient("its end");
        }
    }

    fn said(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        format!("$ {}\nstdout: {}\nstderr: {}", self.line, clipped(&stdout), clipped(&stderr))
    }

    #[track_caller]
    fn still_patient(&self, what: &str) {
        assert!(Instant::now() < self.deadline, "hangs, waiting for {what:?}:\n{}", self.said());
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
