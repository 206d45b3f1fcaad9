//! jug-floor: the bare system calls that a container with runc's default spec cannot avoid; what `scripts/bench start`
//! compares with.
//!
//!     jug-floor run  [--cgroup DIR] [--seccomp FILE] ROOTFS COMMAND [ARGUMENT]...
//!     jug-floor exec [--cgroup DIR] [--seccomp FILE] PID COMMAND [ARGUMENT]...
//!     jug-floor rss  COMMAND [ARGUMENT]...
//!
//! `run` makes the cgroup DIR, clones once into it and into new namespaces, mounts what `runc spec` lists, makes the
//! default devices, masks paths, pivots, loads the prepared filter (an array of `struct sock_filter`), becomes COMMAND,
//! waits, and removes the cgroup. `exec` joins the namespaces of PID and the cgroup DIR. No sealing, no state, no JSON,
//! no capabilities: it is a limit, not a container runtime. `rss` prints the peak resident memory of a command's
//! processes in KiB; a process as small as this one has to measure it, since a child begins with its parent's peak.
//!
//! It has to be bare calls, with neither jug's library nor the start-up of Rust's around them. All its pointers are C
//! string literals, the arguments of `main`, or locals that outlive the call.
#![no_main]

use libc::{c_char, c_int, c_ulong};
use std::ffi::CStr;
use std::ptr::null;

/// libc's constant is an int on gnu targets, where this one is cut to 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

const NAMESPACES: c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;

/// What follows the verb: the options, then the rootfs or the PID, then the command, NULL-terminated.
struct Arguments {
    cgroup: *const c_char,
    seccomp: *const c_char,
    rest: *const *const c_char,
}

/// A filter, as the file holds it.
struct Program {
    bytes: [u8; 4096 * 8],
    instructions: u16,
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the C library calls main with `count` strings and a NULL.
    let verb = if count < 3 { c"" } else { unsafe { CStr::from_ptr(*arguments.add(1)) } };
    // SAFETY: as above, and count >= 3 for the verbs that read on.
    unsafe {
        match verb.to_bytes() {
            b"run" => run(&read_arguments(arguments.add(2))),
            b"exec" => exec(&read_arguments(arguments.add(2))),
            b"rss" => rss(arguments.add(2)),
            _ => usage(),
        }
    }
}

fn usage() -> ! {
    eprintln!(
        "usage: jug-floor run|exec [--cgroup DIR] [--seccomp FILE] ROOTFS|PID COMMAND... | rss COMMAND..."
    );
    std::process::exit(2);
}

/// SAFETY: `next` points into a NULL-terminated array of C strings.
unsafe fn read_arguments(mut next: *const *const c_char) -> Arguments {
    let mut read = Arguments { cgroup: null(), seccomp: null(), rest: null() };
    // SAFETY: no step goes past the NULL.
    unsafe {
        while !(*next).is_null() && !(*next.add(1)).is_null() {
            match CStr::from_ptr(*next).to_bytes() {
                b"--cgroup" => read.cgroup = *next.add(1),
                b"--seccomp" => read.seccomp = *next.add(1),
                _ => {
                    read.rest = next;
                    return read;
                }
            }
            next = next.add(2);
        }
    }
    usage()
}

/// Ends the program when a call has failed.
fn check(result: impl Into<i64>, call: &CStr) -> c_int {
    let result = result.into();
    if result < 0 {
        // SAFETY: `call` is a C string.
        unsafe {
            libc::perror(call.as_ptr());
            libc::_exit(126)
        }
    }
    c_int::try_from(result).unwrap_or(0)
}

/// SAFETY: the arguments are those of `main`.
unsafe fn run(arguments: &Arguments) -> c_int {
    // SAFETY: see the head of the file.
    unsafe {
        let program = read_program(arguments.seccomp);
        let mut cgroup = -1;
        if !arguments.cgroup.is_null() {
            check(libc::mkdir(arguments.cgroup, 0o755), c"mkdir cgroup");
            cgroup = open_cgroup(arguments.cgroup);
        }
        let child = clone(NAMESPACES | libc::CLONE_NEWPID, cgroup);
        if child == 0 {
            build_root(*arguments.rest);
            become_command(arguments.rest.add(1), program.as_ref());
        }
        let code = wait(child);
        if cgroup >= 0 {
            check(libc::rmdir(arguments.cgroup), c"rmdir cgroup");
        }
        code
    }
}

/// SAFETY: the arguments are those of `main`.
unsafe fn exec(arguments: &Arguments) -> c_int {
    // SAFETY: see the head of the file.
    unsafe {
        let program = read_program(arguments.seccomp);
        let cgroup = if arguments.cgroup.is_null() { -1 } else { open_cgroup(arguments.cgroup) };
        let target =
            check(libc::syscall(libc::SYS_pidfd_open, libc::atoi(*arguments.rest), 0), c"pidfd_open");
        check(libc::setns(target, libc::CLONE_NEWPID), c"setns pid");
        let child = clone(0, cgroup);
        if child == 0 {
            check(libc::setns(target, NAMESPACES), c"setns");
            check(libc::chdir(c"/".as_ptr()), c"chdir");
            become_command(arguments.rest.add(1), program.as_ref());
        }
        wait(child)
    }
}

/// SAFETY: `path` is a C string.
unsafe fn open_cgroup(path: *const c_char) -> c_int {
    // SAFETY: the caller's.
    check(unsafe { libc::open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) }, c"open cgroup")
}

/// One clone3 with everything; `cgroup` is -1 for the caller's.
fn clone(namespaces: c_int, cgroup: c_int) -> c_int {
    // SAFETY: all-zero clone_args are valid; without CLONE_VM the child goes on with a copy of everything.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = namespaces as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if cgroup >= 0 {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup as u64;
        }
        check(libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()), c"clone3")
    }
}

fn wait(child: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: `status` is a local.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) }, c"waitpid");
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// SAFETY: `path` is NULL or a C string.
unsafe fn read_program(path: *const c_char) -> Option<Program> {
    if path.is_null() {
        return None;
    }
    let mut program = Program { bytes: [0; 4096 * 8], instructions: 0 };
    // SAFETY: read is given the size of the buffer.
    unsafe {
        let fd = check(libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC), c"open filter");
        let read = libc::read(fd, program.bytes.as_mut_ptr().cast(), program.bytes.len());
        program.instructions = (check(read as i64, c"read filter") / 8) as u16;
    }
    Some(program)
}

/// The tail that run and exec share.
///
/// SAFETY: `command` is a NULL-terminated array of C strings.
unsafe fn become_command(command: *const *const c_char, program: Option<&Program>) -> ! {
    // SAFETY: see the head of the file.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), c"no_new_privs");
        if let Some(program) = program {
            let filter = libc::sock_fprog {
                len: program.instructions,
                filter: program.bytes.as_ptr().cast_mut().cast(),
            };
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            check(libc::syscall(libc::SYS_seccomp, mode, 0, &raw const filter), c"seccomp");
        }
        check(libc::execv(*command, command), c"execv");
        libc::_exit(127)
    }
}

const NOSUID: c_ulong = libc::MS_NOSUID;
const NOEXEC: c_ulong = libc::MS_NOEXEC;
const NODEV: c_ulong = libc::MS_NODEV;
const RDONLY: c_ulong = libc::MS_RDONLY;

/// The mounts of `runc spec`: source, target, type, flags, data.
const MOUNTS: [(&CStr, &CStr, &CStr, c_ulong, Option<&CStr>); 7] = [
    (c"proc", c"proc", c"proc", 0, None),
    (c"tmpfs", c"dev", c"tmpfs", NOSUID | libc::MS_STRICTATIME, Some(c"mode=755,size=65536k")),
    (c"devpts", c"dev/pts", c"devpts", NOSUID | NOEXEC, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5")),
    (c"shm", c"dev/shm", c"tmpfs", NOSUID | NOEXEC | NODEV, Some(c"mode=1777,size=65536k")),
    (c"mqueue", c"dev/mqueue", c"mqueue", NOSUID | NOEXEC | NODEV, None),
    (c"sysfs", c"sys", c"sysfs", NOSUID | NOEXEC | NODEV | RDONLY, None),
    (c"cgroup", c"sys/fs/cgroup", c"cgroup2", NOSUID | NOEXEC | NODEV | RDONLY, None),
];
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];
const MASKED_FILES: [&CStr; 4] = [c"/proc/kcore", c"/proc/keys", c"/proc/timer_list", c"/proc/sched_debug"];
const MASKED_DIRECTORIES: [&CStr; 3] = [c"/proc/acpi", c"/proc/scsi", c"/sys/firmware"];
const READ_ONLY: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// mount(2), with None for NULL.
fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> c_int {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: C strings or NULL.
    unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) }
}

/// From the clone to the last mount.
///
/// SAFETY: `rootfs` is a C string.
unsafe fn build_root(rootfs: *const c_char) {
    // SAFETY: see the head of the file.
    unsafe {
        let rootfs = CStr::from_ptr(rootfs);
        check(mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None), c"mount private");
        check(mount(Some(rootfs), rootfs, None, libc::MS_BIND | libc::MS_REC, None), c"mount rootfs");
        check(libc::chdir(rootfs.as_ptr()), c"chdir");
        for (source, target, kind, flags, data) in MOUNTS {
            libc::mkdir(target.as_ptr(), 0o755);
            check(mount(Some(source), target, Some(kind), flags, data), target);
        }
        for (path, major, minor) in DEVICES {
            check(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)), path);
            check(libc::chmod(path.as_ptr(), 0o666), path);
        }
        for (target, path) in LINKS {
            check(libc::symlink(target.as_ptr(), path.as_ptr()), path);
        }
        check(libc::sethostname(c"floor".as_ptr(), 5), c"sethostname");
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), c"pivot_root");
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), c"umount2");
        check(libc::chdir(c"/".as_ptr()), c"chdir");
    }
    cover_paths();
}

/// Masked and read-only paths; those that this kernel does not have are skipped.
fn cover_paths() {
    for path in MASKED_FILES {
        mount(Some(c"/dev/null"), path, None, libc::MS_BIND, None);
    }
    for path in MASKED_DIRECTORIES {
        mount(Some(c"tmpfs"), path, Some(c"tmpfs"), RDONLY, None);
    }
    for path in READ_ONLY {
        if mount(Some(path), path, None, libc::MS_BIND | libc::MS_REC, None) == 0 {
            let flags = libc::MS_BIND | libc::MS_REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC;
            check(mount(None, path, None, flags, None), path);
        }
    }
    check(mount(None, c"/", None, libc::MS_REMOUNT | libc::MS_BIND | RDONLY, None), c"remount /");
}

/// SAFETY: `command` is a NULL-terminated array of C strings.
unsafe fn rss(command: *const *const c_char) -> c_int {
    // SAFETY: see the head of the file; usage is a local.
    unsafe {
        let child = clone(0, -1);
        if child == 0 {
            let silent = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR), c"open /dev/null");
            libc::dup2(silent, 0);
            libc::dup2(silent, 1);
            check(libc::execv(*command, command), c"execv");
        }
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        check(libc::wait4(child, &raw mut status, 0, &raw mut usage), c"wait4");
        println!("{}", usage.ru_maxrss);
        c_int::from(status != 0)
    }
}
