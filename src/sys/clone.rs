//! One clone: clone3(2) straight into namespaces and a cgroup, with a pidfd.
//!
//! No thread may exist when this is called: the child goes on with a copy of this address space.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, errno};
use crate::error::{Error, Result};

/// `libc::CLONE_INTO_CGROUP` is an int and is cut to 0 on gnu targets: the kernel's value, from linux/sched.h.
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
/// CLONE_PARENT: the child's parent is the caller's parent.
pub const CLONE_PARENT: u64 = 0x8000;

/// A child process: its number in the caller's PID namespace, and a descriptor that can never mean another process.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Which side of the clone the caller finds itself on.
pub enum Side {
    Parent(Child),
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3(2) with `flags` (CLONE_NEW*), a pidfd, and the cgroup directory in which the child is born, if any.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the kernel wants none: the signal is the one of the caller itself.
        exit_signal: if flags & CLONE_PARENT != 0 { 0 } else { libc::SIGCHLD as u64 },
        ..Default::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of everything and returns here like fork(2); no thread
    // exists whose locks it could inherit (design invariant 4, checked by tests/tidy.rs).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Side::Child),
        pid if pid > 0 => Ok(Side::Parent(Child { pid: pid as i32, pidfd: owned(pidfd as i64) })),
        _ => Err(explain(Error::call(format_args!("clone3({:#x})", args.flags), errno()), flags)),
    }
}

fn explain(error: Error, flags: u64) -> Error {
    match error.errno() {
        libc::ENOSYS => error
            .why("the kernel is older than 5.3, or a seccomp filter around this process hides clone3")
            .next("use Linux 5.14 or newer, and allow clone3 in the outer container"),
        libc::EPERM if flags & libc::CLONE_NEWUSER as u64 != 0 => error
            .why("user namespaces may be switched off here")
            .next("look at sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone"),
        libc::EPERM => error
            .why("making these namespaces needs CAP_SYS_ADMIN")
            .next("run as root, or add a user namespace with mappings to the config"),
        libc::ENOSPC => {
            error.why("a limit on namespaces is reached").next("look at /proc/sys/user/max_*_namespaces")
        }
        libc::EOPNOTSUPP => {
            error.why("the cgroup is threaded, or lies below a threaded one (see cgroup.type)")
        }
        libc::EBUSY => {
            error.why("the cgroup hands controllers on to those below it, and takes no process itself")
        }
        libc::EAGAIN => error.why("the limit of processes is reached (RLIMIT_NPROC or pids.max)"),
        _ => error,
    }
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: changes only this process's own context.
    check!(unsafe { libc::unshare(flags) }, "unshare({flags:#x})")?;
    Ok(())
}

/// setns(2): a namespace descriptor with its one CLONE_NEW* flag, or a pidfd with several.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: changes only this process's own context.
    check!(unsafe { libc::setns(fd.as_raw_fd(), flags) }, "setns([{}], {flags:#x})", fd.as_raw_fd())?;
    Ok(())
}

/// The CLONE_NEW* flag of a namespace descriptor (NS_GET_NSTYPE, ioctl_ns(2)).
pub fn namespace_type(fd: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    check!(
        // SAFETY: the request takes no argument.
        unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) },
        "ioctl([{}], NS_GET_NSTYPE)",
        fd.as_raw_fd()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trap in libc's constant: without this the clone would silently stay in the caller's cgroup.
    #[test]
    fn into_cgroup_is_the_kernels_bit() {
        assert_eq!(CLONE_INTO_CGROUP, 1 << 33);
    }
}
