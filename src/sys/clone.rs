//! One clone: clone3(2) straight into namespaces and a cgroup, with a pidfd.
//!
//! No thread may exist when this is called: the child goes on with a copy of this address space.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, errno};
use crate::error::{Error, Result};

/// `libc::CLONE_INTO_CGROUP` is an int and is cut to 0 on gnu targets: the kernel's value, from linux/sched.h.
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;
/// What a child on its sleeping parent's stack says is its stack's size, in bytes: the kernel wants one, and adds it to
/// find the top. How far the stack may grow is the parent's limit.
const STACK_SIZE: u64 = 4096;
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

impl CloneArgs {
    /// For a child with `flags`, in a cgroup; the number of its pidfd goes to `pidfd`.
    fn new(flags: u64, cgroup: Option<BorrowedFd<'_>>, pidfd: &mut i32) -> Self {
        Self {
            flags: flags | CLONE_PIDFD | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
            pidfd: std::ptr::from_mut(pidfd) as u64,
            // With CLONE_PARENT the kernel wants none: the signal is the one of the caller itself.
            exit_signal: if flags & CLONE_PARENT != 0 { 0 } else { libc::SIGCHLD as u64 },
            cgroup: cgroup.map_or(0, |dir| dir.as_raw_fd() as u64),
            ..Self::default()
        }
    }
}

/// clone3(2) with `flags` (CLONE_NEW*), a pidfd, and the cgroup directory in which the child is born, if any.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    let mut pidfd: i32 = -1;
    let args = CloneArgs::new(flags, cgroup, &mut pidfd);
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

/// clone3(2) with `flags` and into `cgroup`, as above, for a child that shares this memory while the caller sleeps
/// (CLONE_VM, CLONE_VFORK): nothing is copied, and nothing is faulted in again. `child` hears its number as the caller
/// sees it; it never returns, and the caller goes on when it has executed a program or ended.
///
/// What `child` writes the caller finds written. Descriptors are the child's own, as after fork(2): of those that the
/// caller owns it closes none but by number, or as a [`super::fd::twin`].
pub fn clone3_asleep(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut dyn FnMut(i32) -> Infallible,
) -> Result<Child> {
    /// Whom the child is to run, and where the kernel writes its number before it does.
    struct Birth<'a> {
        child: &'a mut dyn FnMut(i32) -> Infallible,
        pid: i32,
    }
    extern "C" fn enter(birth: *mut Birth<'_>) -> ! {
        // SAFETY: the pointer is to the caller's frame, which sleeps, and is passed on by `clone3_calling` only.
        let birth = unsafe { &mut *birth };
        match (birth.child)(birth.pid) {}
    }
    let mut pidfd: i32 = -1;
    let mut birth = Birth { child, pid: 0 };
    let birth = &raw mut birth;
    let sharing = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID) as u64;
    let mut args = CloneArgs {
        // SAFETY: birth is a live local; only the address of its field is taken.
        parent_tid: unsafe { (&raw mut (*birth).pid) as u64 },
        stack_size: STACK_SIZE,
        ..CloneArgs::new(flags | sharing, cgroup, &mut pidfd)
    };
    // SAFETY: enter never returns, and takes the pointer that it is given.
    match unsafe { clone3_calling(&mut args, enter as *const () as usize, birth as usize) } {
        pid if pid > 0 => Ok(Child { pid: pid as i32, pidfd: owned(pidfd as i64) }),
        error => Err(explain(Error::call(format_args!("clone3({:#x})", args.flags), -error as i32), flags)),
    }
}

/// clone3(2) with `flags` for a child that runs beside the caller, in its memory, on a `stack` of its own. The kernel
/// writes 0 to `alive` when it is gone. Not clone(3): musl's knows no such children.
///
/// # Safety
/// `stack`, `alive` and what `argument` points to outlive the child, which touches nothing else that the caller
/// changes.
pub unsafe fn clone3_beside<T>(
    flags: u64,
    stack: &mut [u128],
    alive: *mut i32,
    enter: extern "C" fn(*const T) -> !,
    argument: *const T,
) -> Result<()> {
    let flags = flags | (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64;
    let mut args = CloneArgs {
        flags,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: size_of_val(stack) as u64,
        child_tid: alive as u64,
        ..CloneArgs::default()
    };
    // SAFETY: enter never returns, and takes what it is given; the stack is the child's alone.
    match unsafe { clone3_calling(&mut args, enter as *const () as usize, argument as usize) } {
        pid if pid > 0 => Ok(()),
        error => Err(explain(Error::call(format_args!("clone3({flags:#x})"), -error as i32), flags)),
    }
}

/// clone3(2), whose child calls `enter(argument)`: on the stack that `args` name, else on the part of this one that the
/// caller, asleep, does not use.
///
/// # Safety
/// `enter` is an `extern "C" fn(usize) -> !` that may be called with `argument`, and `args` have a stack or make the
/// caller sleep.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_calling(args: &mut CloneArgs, enter: usize, argument: usize) -> i64 {
    let result: i64;
    // SAFETY: the child's stack begins a page below this frame, beyond its red zone, so that neither side touches what
    // the other has there; its memory is known to change across the call. The kernel keeps every register but rax, rcx
    // and r11, for both sides. rsp is aligned to 16 where the callee expects it to be.
    unsafe {
        std::arch::asm!(
            "cmp qword ptr [rdi + {stack}], 0",
            "jne 3f",
            "lea rcx, [rsp - 4096 - {size}]",
            "and rcx, -16",
            "mov [rdi + {stack}], rcx",
            "3:",
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {enter}",
            "ud2",
            "2:",
            size = const STACK_SIZE,
            stack = const std::mem::offset_of!(CloneArgs, stack),
            argument = in(reg) argument,
            enter = in(reg) enter,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_mut(args),
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3_calling(args: &mut CloneArgs, enter: usize, argument: usize) -> i64 {
    let result: i64;
    // SAFETY: as above; the kernel keeps every register but x0, for both sides, and sp is always aligned to 16.
    unsafe {
        std::arch::asm!(
            "ldr x9, [x0, #{stack}]",
            "cbnz x9, 3f",
            "sub x9, sp, #4096",
            "sub x9, x9, #{size}",
            "str x9, [x0, #{stack}]",
            "3:",
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {enter}",
            "brk #1",
            "2:",
            size = const STACK_SIZE,
            stack = const std::mem::offset_of!(CloneArgs, stack),
            argument = in(reg) argument,
            enter = in(reg) enter,
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_mut(args) => result,
            in("x1") size_of::<CloneArgs>(),
            out("x9") _,
        );
    }
    result
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

    /// What the child of a sleeping parent writes is written; what it closes is closed for itself alone.
    #[test]
    fn a_child_that_borrows_memory_has_descriptors_of_its_own() {
        let kept = super::super::fd::eventfd().unwrap();
        let mut said = 0;
        let child = clone3_asleep(0, None, &mut |pid| {
            // Deeper than the page that lies between the two stacks.
            let deep = std::hint::black_box([1_u8; 16 * 1024]);
            said = pid * i32::from(deep[deep.len() - 1]);
            drop(super::super::fd::twin(&kept));
            super::super::process::exit_now(7)
        })
        .unwrap();
        assert_eq!(said, child.pid);
        // SAFETY: asks only whether the number is open.
        assert!(unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_GETFD) } >= 0);
        let end = super::super::process::wait(std::os::fd::AsFd::as_fd(&child.pidfd), true).unwrap();
        assert_eq!(end, Some(super::super::process::Exit::Code(7)));
    }

    /// The trap in libc's constant: without this the clone would silently stay in the caller's cgroup.
    #[test]
    fn into_cgroup_is_the_kernels_bit() {
        assert_eq!(CLONE_INTO_CGROUP, 1 << 33);
    }
}
