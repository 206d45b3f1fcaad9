//! The ptrace driver: follows a command and all its descendants from one system call to the next, counts the entries
//! over all of them together, and at each asks what to do. Must not know what a runtime is.
//!
//! The command is launched by this very program (`launch`), which stops itself before it executes, so that it can be
//! seized (PTRACE_SEIZE) without a line of unsafe code; what the launcher does is not counted. Only PTRACE_GETREGS is
//! used and not PTRACE_GET_SYSCALL_INFO, which user-mode Linux lacks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process that stands at the entry of a system call.
#[derive(Debug, Clone)]
pub struct Entry {
    pub pid: i32,
    /// The command itself, and none of its descendants.
    pub root: bool,
    /// It has become a program that is not the command: a container's, or a hook.
    pub program: bool,
    pub number: i64,
    pub args: [u64; 6],
    /// Counted over all processes, from 1.
    pub nth: usize,
}

pub enum Deed {
    Go,
    /// The call is not made, and returns this errno.
    Fail(i32),
    /// The process is left where it stands, and [`Tracer::follow`] returns.
    Halt,
}

#[derive(Debug)]
pub enum End {
    /// The command ended with this code (128 and more: by a signal), and its descendants are quiet.
    Exited(i32),
    Halted(Entry),
    /// The command did not end in time.
    Hung,
}

#[derive(Default)]
struct Tracee {
    /// The call in which it is, between entry and exit.
    inside: Option<i64>,
    stopped: bool,
    program: bool,
    /// What its call is to return.
    fail: Option<i64>,
    /// What brk(2) returned last.
    brk: Option<i64>,
}

pub struct Tracer {
    tracees: BTreeMap<i32, Tracee>,
    ended: SignalFd,
    root: i32,
    begun: bool,
    count: usize,
}

/// How long a descendant may be silent before the command, which has ended, counts as done.
const QUIET: Duration = Duration::from_millis(40);
/// The same when all that are left wait for something.
const QUIET_WAITING: Duration = Duration::from_millis(2);

impl Tracer {
    pub fn new() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { tracees: BTreeMap::new(), ended, root: 0, begun: false, count: 0 })
    }

    /// Waits a little for any child to change.
    pub fn nap(&mut self, most: Duration) {
        let millis = u16::try_from(most.as_millis()).unwrap_or(u16::MAX).max(1);
        let mut set = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut set, PollTimeout::from(millis));
        while let Ok(Some(_)) = self.ended.read_signal() {}
    }

    /// Runs `command` (made by [`launched`]) and asks `deed` at each system call.
    pub fn follow(
        &mut self,
        mut command: Command,
        limit: Duration,
        mut deed: impl FnMut(&Entry) -> Deed,
    ) -> io::Result<End> {
        let pid = command.spawn()?.id();
        let pid = Pid::from_raw(pid.cast_signed());
        // It owns descriptors.
        drop(command);
        waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options)?;
        kill(pid, Signal::SIGCONT)?;
        self.tracees.insert(pid.as_raw(), Tracee::default());
        (self.root, self.begun, self.count) = (pid.as_raw(), false, 0);
        let deadline = Instant::now() + limit;
        let mut code = None;
        let mut last = Instant::now();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {
                    if let Some(code) = code
                        && last.elapsed() > self.quiet()
                    {
                        return Ok(End::Exited(code));
                    }
                    if Instant::now() > deadline {
                        return Ok(End::Hung);
                    }
                    self.nap(if code.is_some() { self.quiet() } else { Duration::from_millis(200) });
                }
                Ok(status) => {
                    last = Instant::now();
                    if let Some(ended) = self.ended(&status) {
                        code = code.or(ended);
                    } else if let Some(entry) = self.step(&status, &mut deed) {
                        return Ok(End::Halted(entry));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn quiet(&self) -> Duration {
        const WAITS: [i64; 9] = [
            libc::SYS_read,
            libc::SYS_pause,
            libc::SYS_nanosleep,
            libc::SYS_clock_nanosleep,
            libc::SYS_wait4,
            libc::SYS_poll,
            libc::SYS_ppoll,
            libc::SYS_recvmsg,
            libc::SYS_recvfrom,
        ];
        let waiting = |t: &Tracee| t.inside.is_some_and(|number| WAITS.contains(&number));
        if self.tracees.values().all(waiting) { QUIET_WAITING } else { QUIET }
    }

    /// `Some`: a process ended, and the code if it is the command.
    fn ended(&mut self, status: &WaitStatus) -> Option<Option<i32>> {
        let (pid, code) = match status {
            WaitStatus::Exited(pid, code) => (pid.as_raw(), *code),
            WaitStatus::Signaled(pid, signal, _) => (pid.as_raw(), 128 + *signal as i32),
            _ => return None,
        };
        self.tracees.remove(&pid);
        Some((pid == self.root).then_some(code))
    }

    /// Handles a stop, and lets the process go on unless it is to halt.
    fn step(&mut self, status: &WaitStatus, deed: &mut impl FnMut(&Entry) -> Deed) -> Option<Entry> {
        let pid = status.pid()?;
        let root = self.root;
        let tracee = self.tracees.entry(pid.as_raw()).or_default();
        tracee.stopped = true;
        let mut signal = None;
        match status {
            WaitStatus::PtraceSyscall(_) if tracee.inside.is_some() => {
                let number = tracee.inside.take();
                if let Some(result) = tracee.fail.take() {
                    set_result(pid, result);
                } else if number == Some(libc::SYS_brk) {
                    tracee.brk = result(pid);
                }
            }
            WaitStatus::PtraceSyscall(_) => {
                let (number, args) = call(pid)?;
                tracee.inside = Some(number);
                if self.begun {
                    self.count += 1;
                    let program = tracee.program;
                    let entry = Entry {
                        pid: pid.as_raw(),
                        root: pid.as_raw() == root,
                        program,
                        number,
                        args,
                        nth: self.count,
                    };
                    match deed(&entry) {
                        Deed::Go => {}
                        Deed::Halt => return Some(entry),
                        // The one has no errors: it returns the break that there is.
                        Deed::Fail(_) if number == libc::SYS_brk => {
                            tracee.fail = tracee.brk;
                            if tracee.fail.is_some() {
                                leave_out(pid);
                            }
                        }
                        // The other frees the descriptor, whatever it returns (close(2), NOTES).
                        Deed::Fail(errno) => {
                            tracee.fail = Some(-i64::from(errno));
                            if number != libc::SYS_close {
                                leave_out(pid);
                            }
                        }
                    }
                }
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                if pid.as_raw() == root {
                    self.begun = true;
                } else {
                    tracee.program = true;
                }
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => {}
            WaitStatus::PtraceEvent(..) => {
                let program = tracee.program;
                if let Some(child) = self.take_in_child(status) {
                    child.program = program;
                }
            }
            // A fault, such as the end of abort(3), kills the first process of a PID namespace as any other; but the
            // kernel spares it while it is traced (force_sig_info_to_task in kernel/signal.c), and it would fault on.
            WaitStatus::Stopped(_, Signal::SIGSEGV) => drop(kill(pid, Signal::SIGKILL)),
            WaitStatus::Stopped(_, sig) => signal = Some(*sig),
            _ => return None,
        }
        self.resume(pid, signal);
        None
    }

    /// The child that a process has just made is followed, too, whether or not it has been heard of.
    fn take_in_child(&mut self, status: &WaitStatus) -> Option<&mut Tracee> {
        let WaitStatus::PtraceEvent(parent, _, event) = status else { return None };
        let makes = [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE];
        let child = makes.contains(event).then(|| ptrace::getevent(*parent).ok())??;
        Some(self.tracees.entry(child as i32).or_default())
    }

    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        if let Some(tracee) = self.tracees.get_mut(&pid.as_raw()) {
            tracee.stopped = false;
        }
        // ESRCH: it was killed meanwhile.
        let _ = ptrace::syscall(pid, signal);
    }

    pub fn root(&self) -> i32 {
        self.root
    }

    /// SIGKILL to everything that is followed, and waits for all of it.
    pub fn kill_all(&mut self) {
        for pid in self.tracees.keys() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.tracees.is_empty() && Instant::now() < deadline {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => self.nap(Duration::from_millis(50)),
                Ok(status) => drop(self.ended(&status)),
                Err(_) => break,
            }
        }
        self.tracees.clear();
    }

    /// Kills one and lets go of all the others, which run on unseen.
    pub fn kill_one(&mut self, victim: i32) {
        let pid = Pid::from_raw(victim);
        let _ = kill(pid, Signal::SIGKILL);
        self.tracees.remove(&victim);
        // Until the tracer has seen the end, the parent does not hear of it.
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                Ok(_) => self.nap(Duration::from_millis(5)),
            }
        }
        self.release();
    }

    /// Lets go of everything.
    pub fn release(&mut self) {
        while let Some((pid, tracee)) = self.tracees.pop_first() {
            let pid = Pid::from_raw(pid);
            if tracee.stopped {
                let _ = ptrace::detach(pid, None);
                continue;
            }
            let _ = ptrace::interrupt(pid);
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::StillAlive) => self.nap(Duration::from_millis(5)),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                    Ok(WaitStatus::Stopped(_, signal)) => {
                        let _ = ptrace::detach(pid, signal);
                        break;
                    }
                    Ok(status) => {
                        self.take_in_child(&status);
                        let _ = ptrace::detach(pid, None);
                        break;
                    }
                }
            }
        }
    }
}

/// The command that [`Tracer::follow`] takes: this program, which stops and then becomes `program`.
pub fn launched(program: &std::path::Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("launch").arg(program);
    command
}

/// The other half of [`launched`]. Returns only on error.
pub fn launch(words: &[std::ffi::OsString]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let Some((program, args)) = words.split_first() else {
        return io::Error::other("launch: no program");
    };
    if let Err(e) = nix::sys::signal::raise(Signal::SIGSTOP) {
        return e.into();
    }
    Command::new(program).args(args).exec()
}

#[cfg(target_arch = "x86_64")]
fn call(pid: Pid) -> Option<(i64, [u64; 6])> {
    let regs = ptrace::getregs(pid).ok()?;
    Some((regs.orig_rax.cast_signed(), [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]))
}

/// A number that no call has: the kernel does nothing.
#[cfg(target_arch = "x86_64")]
fn leave_out(pid: Pid) {
    if let Ok(mut regs) = ptrace::getregs(pid) {
        regs.orig_rax = u64::MAX;
        let _ = ptrace::setregs(pid, regs);
    }
}

#[cfg(target_arch = "x86_64")]
fn result(pid: Pid) -> Option<i64> {
    ptrace::getregs(pid).ok().map(|regs| regs.rax.cast_signed())
}

#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, value: i64) {
    if let Ok(mut regs) = ptrace::getregs(pid) {
        regs.rax = value.cast_unsigned();
        let _ = ptrace::setregs(pid, regs);
    }
}

/// Elsewhere `main` refuses before anything is followed.
#[cfg(not(target_arch = "x86_64"))]
fn call(_: Pid) -> Option<(i64, [u64; 6])> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn result(_: Pid) -> Option<i64> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn leave_out(_: Pid) {}

#[cfg(not(target_arch = "x86_64"))]
fn set_result(_: Pid, _: i64) {}
