//! Processes: waiting, signalling by pidfd, attributes, becoming another program.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, errno, shown};
use crate::error::{Error, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The exit code as shells and engines show it: 128+n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Reaps the child behind a pidfd (waitid(2), P_PIDFD); `None` when it still runs and `block` is false.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    let options = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: info is valid for the kernel to fill, and zeroed for the WNOHANG case.
        let ret = unsafe {
            libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, info.as_mut_ptr(), options)
        };
        if ret < 0 {
            if errno() == libc::EINTR {
                continue;
            }
            return Err(Error::call(format_args!("waitid(P_PIDFD, {})", shown(pidfd)), errno()));
        }
        // SAFETY: filled or zeroed; si_pid and si_status are valid for a SIGCHLD siginfo.
        let (pid, code, status) = unsafe {
            let info = info.assume_init();
            (info.si_pid(), info.si_code, info.si_status())
        };
        return Ok(match (pid, code) {
            (0, _) => None,
            (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        });
    }
}

/// Reaps one dead child, whichever it is: its number and how it ended. `None`: nobody is dead.
pub fn reap_any() -> Option<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: status is valid for the kernel to fill.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    };
    (pid > 0).then_some((pid, exit))
}

/// Reaps dead children other than `main`: the orphans that a subreaper inherits.
pub fn reap_orphans(main: i32) {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: info is valid for the kernel to fill, and zeroed for the case that nobody is dead.
        let pid = unsafe {
            if libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) != 0 {
                return;
            }
            info.assume_init().si_pid()
        };
        if pid == 0 || pid == main {
            return;
        }
        // SAFETY: reaps exactly the dead child that was just found.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// `None`: no process has this number. It may still be the number of a session or a process group that the process
/// left behind (EINVAL), or by now of somebody's thread (EINVAL, on newer kernels ENOENT).
pub fn pidfd_open(pid: i32) -> Result<Option<OwnedFd>> {
    // SAFETY: plain call.
    match check!(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }, "pidfd_open({pid})") {
        Err(e) if matches!(e.errno(), libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
        fd => Ok(Some(owned(fd?))),
    }
}

/// A number that no other process of this boot has or will have: the inode of its pidfd, where pidfds have inodes of
/// their own (pidfs, Linux 6.9); `None` before.
pub fn pidfd_identity(pidfd: BorrowedFd<'_>) -> Result<Option<u64>> {
    const PIDFS_MAGIC: i64 = 0x5049_4446;
    if super::path::fs_magic(pidfd)? != PIDFS_MAGIC {
        return Ok(None);
    }
    Ok(Some(super::path::stat(pidfd, std::path::Path::new(""))?.st_ino))
}

/// Sends a signal to exactly the process behind the descriptor (pidfd_send_signal(2)); 0 only asks.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    check!(
        // SAFETY: plain call; the siginfo pointer may be null.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        },
        "pidfd_send_signal({}, {signal})",
        shown(pidfd)
    )?;
    Ok(())
}

pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: plain call.
    check!(unsafe { libc::kill(pid, signal) }, "kill({pid}, {signal})")?;
    Ok(())
}

/// execve(2): returns only on failure.
pub fn execve(path: &CString, args: &[CString], env: &[CString]) -> Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and their strings live across the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::call(format_args!("execve({path:?})"), errno())
}

/// execveat(2) of an open file: returns only on failure.
pub fn execve_fd(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and their strings live across the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::call(format_args!("execveat({})", shown(file)), errno())
}

/// A sealed, executable copy of `source` in memory (memfd_create(2) with all seals).
pub fn sealed_copy(source: BorrowedFd<'_>) -> Result<OwnedFd> {
    let len = super::path::stat(source, std::path::Path::new(""))?.st_size as usize;
    let fd = check!(
        // SAFETY: constant name; the flags are MFD_CLOEXEC|MFD_ALLOW_SEALING.
        unsafe { libc::syscall(libc::SYS_memfd_create, c"jug-oci".as_ptr(), 3) },
        "memfd_create(\"jug-oci\")"
    )?;
    let copy = owned(fd);
    let mut done = 0;
    while done < len {
        let n = check!(
            // SAFETY: plain sendfile between two open files; the offset pointer may be null.
            unsafe { libc::sendfile(copy.as_raw_fd(), source.as_raw_fd(), std::ptr::null_mut(), len - done) },
            "sendfile(memfd, {}, {})",
            shown(source),
            len - done
        )?;
        if n == 0 {
            return Err(Error::new("the runtime binary became shorter while it was copied"));
        }
        done += n as usize;
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: plain fcntl on our own memfd.
    check!(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) }, "fcntl(memfd, F_ADD_SEALS)")?;
    Ok(copy)
}

/// Whether `fd` is a memfd that nobody can write to any more.
pub fn is_sealed_memfd(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: plain fcntl; it fails on files that cannot be sealed.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_WRITE != 0
}

/// Leaves at once, without running anything of this address space (the child of a clone must not run the parent's
/// destructors).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return.
    unsafe { libc::_exit(code) }
}

/// prctl(2) with one argument.
pub fn prctl(option: i32, arg: u64) -> Result<i32> {
    // SAFETY: only used with options that take plain integers.
    check!(unsafe { libc::prctl(option, arg, 0, 0, 0) }, "prctl({option}, {arg})")
}

/// Gives unused memory of the allocator back to the kernel (malloc_trim(3)); musl's keeps none.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain call of the allocator that this program uses.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The name that `ps` shows (PR_SET_NAME, 15 bytes).
pub fn set_name(name: &str) {
    let mut buf = [0u8; 16];
    let n = name.len().min(15);
    buf[..n].copy_from_slice(&name.as_bytes()[..n]);
    // SAFETY: buf is NUL-terminated; the call cannot fail for a valid pointer.
    unsafe { libc::prctl(libc::PR_SET_NAME, buf.as_ptr()) };
}

/// Sets the limits of a process (prlimit(2)); `pid` 0 is the caller.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    check!(
        // SAFETY: limit lives across the call; the old-limit pointer may be null.
        unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                pid,
                resource,
                &raw const limit,
                std::ptr::null_mut::<libc::rlimit>(),
            )
        },
        "prlimit({pid}, {resource}, soft {soft}, hard {hard})"
    )?;
    Ok(())
}

pub fn setsid() -> Result<()> {
    // SAFETY: changes only this process.
    check!(unsafe { libc::setsid() }, "setsid()")?;
    Ok(())
}

/// The priority of the I/O of this process (ioprio_set(2)).
pub fn set_ioprio(class: u32, data: u32) -> Result<()> {
    let value = (class << 13) | (data & 0x1fff);
    // SAFETY: plain call; 1 is IOPRIO_WHO_PROCESS, 0 the caller.
    check!(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) }, "ioprio_set({value:#x})")?;
    Ok(())
}

/// What sched_setattr(2) takes; see its man page for units (nanoseconds for runtime, deadline and period).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn set_scheduler(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    check!(
        // SAFETY: attr lives across the call and carries its own size.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) },
        "sched_setattr(policy {}, nice {}, priority {})",
        attr.policy,
        attr.nice,
        attr.priority
    )
    .map_err(|e| match (e.errno(), attr.policy as i32) {
        (libc::EPERM, libc::SCHED_FIFO | libc::SCHED_RR) => e.why(
            "a real-time policy needs CAP_SYS_NICE, and a kernel with CONFIG_RT_GROUP_SCHED has none in a cgroup \
             that the cpu controller is on for",
        ),
        _ => e,
    })?;
    Ok(())
}

/// The most CPUs that Linux can be built for, in words of 64.
const CPU_WORDS: usize = 128;

/// Pins this process to the given CPUs.
pub fn set_affinity(cpus: &[usize]) -> Result<()> {
    let mut mask = [0u64; CPU_WORDS];
    for cpu in cpus {
        let word = mask.get_mut(cpu / 64).ok_or_else(|| Error::new(format!("CPU {cpu} is out of range")))?;
        *word |= 1 << (cpu % 64);
    }
    check!(
        // SAFETY: mask is valid for its size.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) },
        "sched_setaffinity({cpus:?})"
    )?;
    Ok(())
}

/// Lets this process run on every CPU that its cgroup allows, whatever its parent was bound to: since Linux 6.2 a mask
/// that somebody has set stays when a process enters a cgroup. The kernel leaves out what there is not. Where it
/// refuses, all stays as it was, as with runc.
pub fn reset_affinity() {
    let mask = [u64::MAX; CPU_WORDS];
    // SAFETY: mask is valid for its size.
    unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) };
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: changes only this process.
    check!(unsafe { libc::personality(persona as libc::c_ulong) }, "personality({persona:#x})")?;
    Ok(())
}

/// set_mempolicy(2) with a mode (flags or-ed in) and a list of nodes.
pub fn set_mempolicy(mode: u32, nodes: &[usize]) -> Result<()> {
    let mut mask = [0u64; 16];
    for node in nodes {
        let word =
            mask.get_mut(node / 64).ok_or_else(|| Error::new(format!("NUMA node {node} is out of range")))?;
        *word |= 1 << (node % 64);
    }
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), 64 * mask.len()) };
    check!(
        // SAFETY: the mask is valid for `bits` bits, or null with none.
        unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) },
        "set_mempolicy({mode:#x}, {nodes:?})"
    )?;
    Ok(())
}

/// A new session keyring under `name`, so that the caller's keys are out of reach (keyctl(2)). A kernel without
/// keyrings is no error: there is nothing to hide.
pub fn join_session_keyring(name: &CString) -> Result<()> {
    // SAFETY: name is NUL-terminated; 1 is KEYCTL_JOIN_SESSION_KEYRING.
    let ring = unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) };
    if ring < 0 {
        return match errno() {
            libc::ENOSYS => Ok(()),
            e => Err(Error::call(format_args!("keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name:?})"), e)
                .next("raise sysctl kernel.keys.maxkeys, or pass --no-new-keyring")),
        };
    }
    // The possessor may do everything, and users of the same id may search it, as runc sets it (keyctl_setperm(3)).
    const PERMISSIONS: u32 = 0x3f13_0000 | 0x0008_0000;
    check!(
        // SAFETY: plain call; 5 is KEYCTL_SETPERM.
        unsafe { libc::syscall(libc::SYS_keyctl, 5, ring, PERMISSIONS) },
        "keyctl(KEYCTL_SETPERM, {ring}, {PERMISSIONS:#x})"
    )?;
    Ok(())
}

pub fn set_hostname(name: &str) -> Result<()> {
    // SAFETY: name is valid for its length.
    check!(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }, "sethostname({name:?})")?;
    Ok(())
}

pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: name is valid for its length.
    check!(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }, "setdomainname({name:?})")?;
    Ok(())
}

pub fn pid() -> i32 {
    // SAFETY: getpid(2) cannot fail.
    unsafe { libc::getpid() }
}

/// Seconds and nanoseconds of the wall clock.
pub fn now() -> (i64, u32) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() as i64, since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_processes_opens_nothing() {
        let own = std::process::id() as i32;
        assert!(pidfd_open(own).unwrap().is_some());
        assert!(pidfd_open(i32::MAX).unwrap().is_none(), "a number that nobody has");
    }
}
