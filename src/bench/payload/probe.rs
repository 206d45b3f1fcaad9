//! What a program sees of the kernel (fidelity) and what it can reach of it (safety, after Popek and Goldberg). Every
//! question is asked in a child that is ended after a second, and leaves nothing behind. It must not judge: the harness
//! compares the answers with those on the host.

use crate::entries;
use crate::kernel::{self, call, in_child};
use std::fs;

/// Past the newest number that any kernel of today knows.
const NUMBERS: std::ops::Range<i64> = 0..480;

/// Calls that would end or stop the child before it can say anything: the kernel has them everywhere.
const SILENT: [i64; 5] =
    [libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_vfork, libc::SYS_vhangup];

pub fn all() -> String {
    let calls: Vec<String> = NUMBERS.map(|number| reach(number).to_string()).collect();
    let features: Vec<String> = FEATURES
        .iter()
        .map(|(name, ask)| format!("\"{name}\":{}", in_child(|| i32::from(!ask())) == 0))
        .collect();
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().replace(['"', '\\'], "");
    let total = line("/proc/meminfo").lines().next().unwrap_or_default().to_owned();
    format!(
        "{{\"calls\":[{}],\"entries\":{{{}}},\"features\":{{{}}},\"boot_id\":\"{}\",\"release\":\"{}\",\
         \"memory\":\"{total}\",\"loadavg\":\"{}\",\"seccomp\":\"{}\"}}",
        calls.join(","),
        entries::all(),
        features.join(","),
        line("/proc/sys/kernel/random/boot_id"),
        line("/proc/sys/kernel/osrelease"),
        line("/proc/loadavg"),
        line("/proc/self/status").lines().find_map(|l| l.strip_prefix("Seccomp:")).unwrap_or("?").trim(),
    )
}

/// The error number that a call with nonsense for arguments ends with, 0 for success, minus the signal that ended it.
fn reach(number: i64) -> i32 {
    if SILENT.contains(&number) {
        return 0;
    }
    in_child(|| kernel::call_with_nonsense(number))
}

fn readable(path: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| !bytes.is_empty())
}

fn openable(path: &str) -> bool {
    fs::File::open(path).is_ok()
}

fn socket(family: i32, kind: i32) -> bool {
    call(libc::SYS_socket, [family.into(), kind.into(), 0, 0, 0])
}

fn unshare(flags: i32) -> bool {
    call(libc::SYS_unshare, [flags.into(), 0, 0, 0, 0])
}

type Question = (&'static str, fn() -> bool);

/// What programs ask a kernel for. True is what a whole machine of one's own would answer.
const FEATURES: [Question; 30] = [
    ("own process 1", || std::os::unix::process::parent_id() <= 1 || readable("/proc/1/environ")),
    ("/proc", || readable("/proc/self/status")),
    ("/sys", || openable("/sys/kernel")),
    ("/dev/null", || openable("/dev/null")),
    ("/dev/urandom", || openable("/dev/urandom")),
    ("/dev/kmsg", || openable("/dev/kmsg")),
    ("cgroup files", || openable("/sys/fs/cgroup/cgroup.procs")),
    ("writable sysctl", || fs::OpenOptions::new().write(true).open("/proc/sys/kernel/hostname").is_ok()),
    ("AF_UNIX sockets", || socket(libc::AF_UNIX, libc::SOCK_STREAM)),
    ("AF_INET sockets", || socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("AF_INET6 sockets", || socket(libc::AF_INET6, libc::SOCK_STREAM)),
    ("AF_NETLINK sockets", || socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("raw sockets", || socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("loopback address", || std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
    ("epoll", || call(libc::SYS_epoll_create1, [0; 5])),
    ("eventfd", || call(libc::SYS_eventfd2, [0; 5])),
    ("inotify", || call(libc::SYS_inotify_init1, [0; 5])),
    ("memfd", || call(libc::SYS_memfd_create, [c"m".as_ptr() as i64, 0, 0, 0, 0])),
    ("System V shared memory", || call(libc::SYS_shmget, [0, 4096, 0o600, 0, 0])),
    ("user namespaces", || unshare(libc::CLONE_NEWUSER)),
    ("mount namespaces", || unshare(libc::CLONE_NEWNS)),
    ("network namespaces", || unshare(libc::CLONE_NEWNET)),
    ("mounts", || {
        unshare(libc::CLONE_NEWNS) && kernel::keep_mounts_here() && kernel::mount("tmpfs", "tmpfs", "/proc")
    }),
    ("change of owner", || call(libc::SYS_setresuid, [1, 1, 1, 0, 0])),
    ("chroot", || call(libc::SYS_chroot, [c"/".as_ptr() as i64, 0, 0, 0, 0])),
    ("ptrace", || call(libc::SYS_ptrace, [0; 5])),
    ("keyrings", || call(libc::SYS_keyctl, [0, -3, 1, 0, 0])),
    ("io_uring", || io_uring()),
    ("perf events", || openable("/proc/sys/kernel/perf_event_paranoid") && perf()),
    ("kernel log", || call(libc::SYS_syslog, [10, 0, 0, 0, 0])),
];

/// io_uring_setup(2) looks at the parameters after the number of entries: an unknown flag is EINVAL where it exists.
pub fn io_uring() -> bool {
    let mut zeroes = [0u8; 256];
    call(libc::SYS_io_uring_setup, [4, zeroes.as_mut_ptr() as i64, 0, 0, 0])
}

/// A software clock of this process: perf_event_open(2).
pub fn perf() -> bool {
    let mut attributes = [0u32; 32];
    (attributes[0], attributes[1]) = (1, 128);
    call(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, 0, -1, -1, 0])
}
