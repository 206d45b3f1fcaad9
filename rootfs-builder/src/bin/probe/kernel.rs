//! The calls that std and nix do not offer, each as a safe function. Nothing here interprets an answer.

use std::ffi::CString;

use nix::errno::Errno;

/// One system call with up to six arguments, as they are: `syscall(2)`.
///
/// # Safety
///
/// Whatever `args` points to must be valid for the call `number` makes of it; the probe passes integers, or buffers
/// that it leaks on purpose.
pub unsafe fn syscall(number: i64, args: [i64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the pointers among the arguments.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// `prctl(2)` of an option that takes only integers.
pub fn prctl(option: i32, argument: u64) -> Result<i32, Errno> {
    // SAFETY: every option used here reads its arguments by value.
    Errno::result(unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

/// `PR_GET_PDEATHSIG` is the odd one: it answers through a pointer.
pub fn parent_death_signal() -> Result<i32, Errno> {
    let mut signal = 0i32;
    // SAFETY: the kernel writes one int through the pointer, which lives until the call is over.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) })?;
    Ok(signal)
}

/// `personality(2)`; 0xffffffff asks without changing.
pub fn personality() -> Result<u32, Errno> {
    // SAFETY: the call takes one integer.
    Errno::result(unsafe { libc::personality(0xffff_ffff) }).map(i32::cast_unsigned)
}

/// Serial number, description and security label (empty without a module that has one) of the session keyring:
/// `keyctl(2)`.
pub fn session_keyring() -> Result<(i64, String, String), Errno> {
    const GET_KEYRING_ID: i64 = 0;
    const DESCRIBE: i64 = 6;
    const GET_SECURITY: i64 = 17;
    const SESSION: i64 = -3;
    // SAFETY: integers only.
    let serial = unsafe { syscall(libc::SYS_keyctl, [GET_KEYRING_ID, SESSION, 0, 0, 0, 0]) }?;
    let words = |question| {
        let mut text = [0u8; 512];
        let at = text.as_mut_ptr() as i64;
        // SAFETY: the kernel writes at most the 512 bytes it is told of, into a buffer that outlives the call.
        let length = unsafe { syscall(libc::SYS_keyctl, [question, serial, at, 512, 0, 0]) }?;
        let end = usize::try_from(length).unwrap_or(0).min(text.len());
        Ok::<_, Errno>(String::from_utf8_lossy(&text[..end]).trim_end_matches('\0').to_owned())
    };
    Ok((serial, words(DESCRIBE)?, words(GET_SECURITY)?))
}

/// What `sched_getattr(2)` fills in.
#[repr(C)]
#[derive(Default)]
pub struct SchedAttr {
    size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn scheduler() -> Result<SchedAttr, Errno> {
    let mut attr = SchedAttr::default();
    let at = (&raw mut attr) as i64;
    // SAFETY: the kernel writes at most the 48 bytes it is told of, which is the size of SchedAttr.
    unsafe { syscall(libc::SYS_sched_getattr, [0, at, size_of::<SchedAttr>() as i64, 0, 0, 0]) }?;
    Ok(attr)
}

/// Class and level: `ioprio_get(2)`.
pub fn io_priority() -> Result<(i64, i64), Errno> {
    const WHO_PROCESS: i64 = 1;
    // SAFETY: integers only.
    let value = unsafe { syscall(libc::SYS_ioprio_get, [WHO_PROCESS, 0, 0, 0, 0, 0]) }?;
    Ok((value >> 13, value & 0x1fff))
}

/// Mode (with flags) and node mask of the memory policy: `get_mempolicy(2)`.
pub fn memory_policy() -> Result<(i32, u64), Errno> {
    let mut mode = 0i32;
    let mut nodes = [0u64; 16];
    let args = [(&raw mut mode) as i64, nodes.as_mut_ptr() as i64, 1024, 0, 0, 0];
    // SAFETY: the kernel writes one int and 1024 bits into buffers of that size that outlive the call.
    unsafe { syscall(libc::SYS_get_mempolicy, args) }?;
    Ok((mode, nodes[0]))
}

/// Rows, columns and pixels of a terminal: `ioctl_tty(2)`.
pub fn winsize(fd: i32) -> Result<libc::winsize, Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Pushes one byte into the controlling terminal's input, as an intruder would: `TIOCSTI`.
pub fn push_byte(fd: i32, byte: u8) -> Result<i32, Errno> {
    // SAFETY: TIOCSTI reads one byte through the pointer.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSTI, &raw const byte) })
}

/// Close-on-exec or not; EBADF when the descriptor is not open.
pub fn close_on_exec(fd: i32) -> Result<bool, Errno> {
    // SAFETY: F_GETFD takes no pointer, and a closed fd is an answer, not a fault.
    Ok(Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })? & libc::FD_CLOEXEC != 0)
}

/// `open(2)` with raw flags; the descriptor is never closed: the probe exits soon.
pub fn open(path: &str, flags: i32) -> Result<i32, Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a terminated string that outlives the call.
    Errno::result(unsafe { libc::open(path.as_ptr(), flags, 0o600) })
}

/// `mknod(2)`.
pub fn mknod(path: &str, mode: u32, major: u32, minor: u32) -> Result<i32, Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a terminated string that outlives the call.
    Errno::result(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })
}

/// Takes back what std did to a signal (it watches SIGSEGV and ignores SIGPIPE) and sends it to this process.
pub fn die_of(signal: i32) {
    // SAFETY: SIG_DFL is no function of ours, and raise(3) takes an integer.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// A child that waits to be killed, or exits at once: `fork(2)`.
pub fn fork(waits: bool) -> Result<i32, Errno> {
    // SAFETY: the probe has one thread, and the child calls only pause(2) and _exit(2).
    match Errno::result(unsafe { libc::fork() })? {
        0 => loop {
            if !waits {
                // SAFETY: _exit takes an integer and does not return.
                unsafe { libc::_exit(0) }
            }
            // SAFETY: pause takes nothing.
            unsafe { libc::pause() };
        },
        pid => Ok(pid),
    }
}

/// Forks for ever, and so does every child: a bomb, for a cgroup with a limit on processes.
pub fn bomb() -> ! {
    loop {
        // SAFETY: the probe has one thread, and whoever comes back from it only forks again.
        unsafe { libc::fork() };
    }
}

/// The old 32-bit door, `int 0x80`: what a seccomp filter must also watch.
#[cfg(target_arch = "x86_64")]
pub fn syscall32(number: i32, args: [i32; 3]) -> i32 {
    let result: i32;
    // SAFETY: integers only; rbx is reserved by LLVM, so it is swapped in and back; r8-r11 may be clobbered.
    unsafe {
        std::arch::asm!(
            "xchg {b:r}, rbx", "int 0x80", "xchg {b:r}, rbx",
            b = inout(reg) i64::from(args[0]) => _,
            inlateout("eax") number => result,
            in("ecx") args[1], in("edx") args[2],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}
