//! jug-payload's calls of the kernel that Rust's library has no word for, and its entry. It must not decide anything.

use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// C's main, so that an idle instance holds no memory for a runtime that it does not use.
// SAFETY: the only `main` of the program, which says `#![no_main]`; the C library calls it as its own.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    crate::run()
}

/// Waits for ever.
pub fn pause() -> ! {
    loop {
        // SAFETY: pause(2) has no argument.
        unsafe { libc::pause() };
    }
}

/// fork(2), for a process with one thread: the child may do what it likes.
pub fn fork() -> i32 {
    // SAFETY: the payload has one thread, so the child finds no lock held.
    unsafe { libc::fork() }
}

/// Ends the process at once, without the exit handlers that it inherited.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number.
    unsafe { libc::_exit(code) }
}

/// How a child ended: its exit code, or minus the signal.
pub fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

/// What `deed` answers in a child of its own that is ended after a second: its exit code, or minus the signal.
pub fn in_child(deed: impl FnOnce() -> i32) -> i32 {
    match fork() {
        0 => {
            // SAFETY: alarm(2) and setsid(2) take plain numbers. In a session of its own no call
            // meets a terminal.
            unsafe {
                libc::setsid();
                libc::alarm(1);
            }
            exit(deed());
        }
        pid if pid > 0 => wait(pid),
        _ => -1,
    }
}

/// Any system call with all arguments -1: bad addresses, bad descriptors, bad flags. The error number, 0 for success.
/// For a child that ends right after.
pub fn call_with_nonsense(number: i64) -> i32 {
    // SAFETY: -1 is an address that no process can have, so the kernel writes nothing here; the caller is a child that
    // does nothing more.
    match unsafe { libc::syscall(number, -1i64, -1i64, -1i64, -1i64, -1i64, -1i64) } {
        -1 => errno(),
        _ => 0,
    }
}

/// A system call with plain numbers; whether it succeeds.
pub fn call(number: i64, arguments: [i64; 5]) -> bool {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers in probe.rs and entries.rs hand in flags and descriptors only, or addresses of what outlives
    // the call and is as large as the kernel takes it for.
    unsafe { libc::syscall(number, a, b, c, d, e) >= 0 }
}

/// The same with a string for its first argument: the answer, or minus the error number.
pub fn call_with_name(number: i64, name: &str, [b, c, d, e]: [i64; 4]) -> i64 {
    let Ok(name) = CString::new(name) else { return -i64::from(libc::EINVAL) };
    // SAFETY: the string outlives the call; for the rest, as above.
    match unsafe { libc::syscall(number, name.as_ptr(), b, c, d, e) } {
        -1 => -i64::from(errno()),
        answer => answer,
    }
}

/// Whether open(2) gives a descriptor, which is closed again. Never waits, and takes no terminal.
pub fn opens(path: &Path, flags: i32) -> bool {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the string outlives the call, and the descriptor is nobody else's.
    unsafe {
        let file = libc::open(path.as_ptr(), flags);
        file >= 0 && libc::close(file) == 0
    }
}

/// Whether this device may be opened for reading or writing, without opening it: by its mode, by the cgroup (access(2)
/// asks what open(2) asks), and by its mount.
pub fn may_open_device(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the string and the plain data outlive the calls.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        let mount = libc::statvfs(path.as_ptr(), &raw mut about) == 0 && about.f_flag & libc::ST_NODEV == 0;
        mount && [libc::R_OK, libc::W_OK].iter().any(|mode| libc::access(path.as_ptr(), *mode) == 0)
    }
}

/// mknod(2) of the first device of a driver.
pub fn make_device(path: &Path, kind: u32, major: u32) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the string outlives the call.
    unsafe { libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, 0)) == 0 }
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The cheapest system call there is.
pub fn get_parent() {
    // SAFETY: getppid(2) has no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Stays on one CPU, so that two processes have to be switched.
pub fn stay_on_one_cpu() {
    // SAFETY: the set is plain bits, made of zeroes, and outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Maps `pages` of fresh memory, writes to each, and unmaps them.
pub fn fault_in(pages: usize) {
    let size = pages * 4096;
    // SAFETY: the mapping is private, new, and of `size` bytes; nothing else knows of it.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at = libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if at == libc::MAP_FAILED {
            return;
        }
        libc::madvise(at, size, libc::MADV_NOHUGEPAGE);
        for page in 0..pages {
            at.cast::<u8>().add(page * 4096).write_volatile(1);
        }
        libc::munmap(at, size);
    }
}

/// mount(2) of a kernel's file system, or of what is on a disk.
pub fn mount(source: &str, kind: &str, at: &str) -> bool {
    mount_with(source, kind, at, 0)
}

pub fn mount_read_only(source: &str, kind: &str, at: &str) -> bool {
    mount_with(source, kind, at, libc::MS_RDONLY)
}

fn mount_with(source: &str, kind: &str, at: &str, flags: libc::c_ulong) -> bool {
    let _ = std::fs::create_dir_all(at);
    let [Ok(source), Ok(kind), Ok(at)] = [source, kind, at].map(CString::new) else { return false };
    // SAFETY: the strings outlive the call; no data.
    unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) == 0 }
}

pub fn unmount(at: &str) -> bool {
    // SAFETY: the string outlives the call.
    CString::new(at).is_ok_and(|at| unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) == 0 })
}

/// Moves the mount over the root, which an initramfs is for ever: pivot_root(2) has no way around it.
pub fn make_root(at: &str) -> bool {
    let Ok(at) = CString::new(at) else { return false };
    let none = std::ptr::null();
    // SAFETY: literals and a string that outlives the calls: chdir(2), mount(2) of a move, chroot(2).
    unsafe {
        libc::chdir(at.as_ptr()) == 0
            && libc::mount(c".".as_ptr(), c"/".as_ptr(), none, libc::MS_MOVE, none.cast()) == 0
            && libc::chroot(c".".as_ptr()) == 0
    }
}

/// Whether two processes have one memory, as what clone(2) makes with CLONE_VM: kcmp(2), KCMP_VM.
pub fn same_memory(one: i64, other: i64) -> bool {
    const VM: i64 = 1;
    // SAFETY: kcmp(2) takes plain numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, VM, 0, 0) == 0 }
}

/// From here on no mount of this namespace reaches another one.
pub fn keep_mounts_here() -> bool {
    let none = std::ptr::null();
    // SAFETY: a literal and no other strings: mount(2) of a change of propagation.
    unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0 }
}

/// finit_module(2), without parameters.
pub fn load_module(file: &std::fs::File) {
    // SAFETY: an open file, an empty string of parameters, no flags.
    unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
}

/// An output, where the kernel could open no console for init: user-mode Linux has its first terminal only.
pub fn find_console() {
    // SAFETY: write(2), open(2) and dup2(2) of a literal and numbers; nothing is open that this could close.
    unsafe {
        if libc::write(1, c"\n".as_ptr().cast(), 1) < 1 {
            let console = libc::open(c"/dev/tty0".as_ptr(), libc::O_WRONLY | libc::O_NOCTTY);
            libc::dup2(console, 1);
            libc::dup2(console, 2);
        }
    }
}

pub fn bring_up_loopback() {
    // SAFETY: ifreq is plain data; the name is "lo" and zeroes; ioctl(2) reads it and writes nothing: netdevice(7).
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request);
        libc::close(socket);
    }
}

/// Switches the machine off. Under `-no-reboot` a restart ends a virtual machine, and needs no ACPI; user-mode Linux
/// would begin again, and is halted.
pub fn end_machine() {
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let how = if cpus.contains("User Mode Linux") { libc::RB_POWER_OFF } else { libc::RB_AUTOBOOT };
    // SAFETY: reboot(2) by init of a machine that was made for this program.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
}

/// Hides the extended register state from ptrace(2), for this process and what it executes. User-mode Linux 6.1 has
/// room for 2,696 bytes of it, and panics where the processor has more (AMX); told that there is none, it keeps to the
/// 512 bytes of FXSAVE, which every processor has. Programs inside must not use wider registers then.
pub fn hide_wide_registers() -> std::io::Result<()> {
    const SET_MODE_FILTER: libc::c_long = 1;
    const GETREGSET: u32 = 0x4204;
    const X86_XSTATE: u32 = 0x202;
    // struct seccomp_data: the number at 0, the low half of argument n at 16 + 8 n.
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, ret) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut program = [
        step(load, 0, 0, 0),
        step(equal, 0, 5, libc::SYS_ptrace as u32),
        step(load, 0, 0, 16),
        step(equal, 0, 3, GETREGSET),
        step(load, 0, 0, 32),
        step(equal, 0, 1, X86_XSTATE),
        step(ret, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENODEV as u32),
        step(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let whole = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `whole` and the program that it points to outlive the call, which copies them: seccomp(2).
    match unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const whole) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
