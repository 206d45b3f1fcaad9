//! How many ways into the kernel a program has besides its system calls: devices, files of procfs and sysfs, sockets,
//! file systems, keys, namespaces. It opens, and neither reads nor writes nor mounts; nothing that would have the
//! kernel load a module is asked for, and no device is opened, as some begin to work then (a watchdog, a tape). What a
//! child makes goes with it. It must not judge.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::kernel::{self, call, in_child};
use crate::probe::{io_uring, perf};

/// For the files of one file system; more has no count.
const PATIENCE: Duration = Duration::from_secs(10);

/// Each kind with its number, as JSON.
pub fn all() -> String {
    let [[proc_read, proc_write], [sys_read, sys_write]] = ["/proc", "/sys"].map(files);
    let counts = [
        ("devices", Some(devices(Path::new("/dev"), &Drivers::now()))),
        ("drivers", counted(drivers)),
        ("proc_read", proc_read),
        ("proc_write", proc_write),
        ("sys_read", sys_read),
        ("sys_write", sys_write),
        ("families", counted(|| sockets().iter().map(|socket| socket.0).collect::<BTreeSet<_>>().len())),
        ("sockets", counted(|| sockets().len())),
        ("netlink", counted(netlink)),
        ("filesystems", counted(file_systems)),
        ("namespaces", Some(namespaces())),
        ("keys", counted(keys)),
        ("engines", Some(engines())),
    ];
    let known = counts.iter().filter_map(|(name, count)| Some(format!("\"{name}\":{}", (*count)?)));
    known.collect::<Vec<_>>().join(",")
}

/// In a child, whose descriptors go with it; None if it was ended. An exit code holds no more than 255.
fn counted(count: impl Fn() -> usize) -> Option<usize> {
    usize::try_from(in_child(|| count().min(255) as i32)).ok()
}

/// Major numbers that the kernel has a driver for, and the minor ones of "misc".
struct Drivers {
    block: BTreeSet<u32>,
    character: BTreeSet<u32>,
    misc: BTreeSet<u32>,
}

/// The major number of all small drivers.
const MISC: u32 = 10;

impl Drivers {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/devices").unwrap_or_default();
        let numbers = |text: &str| -> BTreeSet<u32> {
            text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
        };
        let (character, block) = text.split_once("Block devices:").unwrap_or((&text, ""));
        let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
        Self { block: numbers(block), character: numbers(character), misc: numbers(&misc) }
    }

    fn has(&self, block: bool, number: u64) -> bool {
        let (major, minor) = (libc::major(number), libc::minor(number));
        match block {
            true => self.block.contains(&major),
            false => self.character.contains(&major) && (major != MISC || self.misc.contains(&minor)),
        }
    }
}

/// Nodes of devices that are there and may be opened.
fn devices(dir: &Path, drivers: &Drivers) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let count = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => devices(&entry.path(), drivers),
        Ok(meta) => {
            let (block, character) = (meta.file_type().is_block_device(), meta.file_type().is_char_device());
            let there = (block || character) && drivers.has(block, meta.rdev());
            usize::from(there && kernel::may_open_device(&entry.path()))
        }
        Err(_) => 0,
    });
    count.sum()
}

/// Drivers whose devices may be opened through a node that the program makes.
fn drivers() -> usize {
    let drivers = Drivers::now();
    let block = drivers.block.iter().map(|major| (libc::S_IFBLK, *major));
    let all: Vec<_> = block.chain(drivers.character.iter().map(|major| (libc::S_IFCHR, *major))).collect();
    let below = |dir: &str| {
        let node = Path::new(dir).join(format!(".jug-payload-{}", std::process::id()));
        let opens = |(kind, major): &&(u32, u32)| {
            let made = kernel::make_device(&node, *kind, *major);
            let opens = made && kernel::may_open_device(&node);
            let _ = fs::remove_file(&node);
            opens
        };
        all.iter().filter(opens).count()
    };
    ["/tmp", "/run", "/dev"].into_iter().map(below).max().unwrap_or(0)
}

/// Files of one file system, but for those of processes, that can be opened for reading, and for writing. What is
/// mounted over a file or a directory of it is not of it.
fn files(root: &str) -> [Option<usize>; 2] {
    let Ok(device) = fs::symlink_metadata(root).map(|meta| meta.dev()) else { return [Some(0); 2] };
    let (deadline, mut counts) = (Instant::now() + PATIENCE, [0, 0]);
    let mut waiting = vec![Path::new(root).to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
            let of_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok() && root == "/proc";
            if meta.dev() == device && meta.is_dir() && !(of_process && dir == Path::new(root)) {
                waiting.push(entry.path());
            } else if meta.dev() == device && meta.is_file() {
                // Root opens a file that nobody may write to, for a write that has no code.
                let opens = |bits, flags| meta.mode() & bits != 0 && kernel::opens(&entry.path(), flags);
                counts[0] += usize::from(opens(0o444, libc::O_RDONLY));
                counts[1] += usize::from(opens(0o222, libc::O_WRONLY));
            }
        }
        if Instant::now() > deadline {
            return [None; 2];
        }
    }
    counts.map(Some)
}

/// Numbers of include/linux/socket.h that the libc crate lacks.
const KCM: i32 = 41;
const QIPCRTR: i32 = 42;
const SMC: i32 = 43;

/// Families of sockets by what /proc/net/protocols calls a protocol of theirs: of one that is not there the kernel
/// would load a module.
const FAMILIES: [(&str, i32); 22] = [
    ("UNIX", libc::AF_UNIX),
    ("TCP", libc::AF_INET),
    ("TCPv6", libc::AF_INET6),
    ("NETLINK", libc::AF_NETLINK),
    ("PACKET", libc::AF_PACKET),
    ("KEY", libc::AF_KEY),
    ("ALG", libc::AF_ALG),
    ("AF_VSOCK", libc::AF_VSOCK),
    ("XDP", libc::AF_XDP),
    ("TIPC", libc::AF_TIPC),
    ("RDS", libc::AF_RDS),
    ("SMC", SMC),
    ("QIPCRTR", QIPCRTR),
    ("KCM", KCM),
    ("PHONET", libc::AF_PHONET),
    ("X25", libc::AF_X25),
    ("AX25", libc::AF_AX25),
    ("DDP", libc::AF_APPLETALK),
    ("LLC", libc::AF_LLC),
    ("PPPOE", libc::AF_PPPOX),
    ("CAN_RAW", libc::AF_CAN),
    ("HCI", libc::AF_BLUETOOTH),
];

/// The families and types of sockets that can be had.
fn sockets() -> Vec<(i32, i32)> {
    let text = fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    let there: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut found = Vec::new();
    for (_, family) in FAMILIES.into_iter().filter(|(name, _)| there.contains(name)) {
        let internet = [libc::AF_INET, libc::AF_INET6].contains(&family);
        let types = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
        // For a protocol or type that the internet families lack, the kernel would look for a module.
        for kind in types.into_iter().filter(|kind| !internet || *kind != libc::SOCK_SEQPACKET) {
            let raw = internet && kind == libc::SOCK_RAW;
            let protocol = if raw { libc::IPPROTO_RAW } else { 0 };
            if call(libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0]) {
                found.push((family, kind));
            }
        }
    }
    found
}

/// Protocols of netlink with the kernel at the other end in this network namespace.
fn netlink() -> usize {
    let text = fs::read_to_string("/proc/net/netlink").unwrap_or_default();
    let of_kernel = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (protocol, port) = (fields.next()?.parse::<i64>().ok()?, fields.next()?);
        (port == "0").then_some(protocol)
    });
    let protocols: BTreeSet<i64> = of_kernel.collect();
    let (family, kind) = (libc::AF_NETLINK.into(), libc::SOCK_RAW.into());
    protocols.iter().filter(|protocol| call(libc::SYS_socket, [family, kind, **protocol, 0, 0])).count()
}

/// Types that fsopen(2) begins a mount of. It asks for the right to mount, and mounts nothing.
fn file_systems() -> usize {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    names.filter(|name| kernel::call_with_name(libc::SYS_fsopen, name, [0; 4]) >= 0).count()
}

/// Kinds of namespaces that can be made, by itself or in a user namespace of one's own.
fn namespaces() -> usize {
    const TIME: i32 = 0x80;
    let unshare = |flag: i32| call(libc::SYS_unshare, [flag.into(), 0, 0, 0, 0]);
    let made = |flag: &i32| {
        in_child(|| i32::from(!(unshare(*flag) || (unshare(libc::CLONE_NEWUSER) && unshare(*flag))))) == 0
    };
    let all = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
        TIME,
    ];
    all.iter().filter(|flag| made(flag)).count()
}

const KEYS: [&str; 14] = [
    "user",
    "logon",
    "keyring",
    "big_key",
    "encrypted",
    "trusted",
    "asymmetric",
    "dns_resolver",
    "fscrypt-provisioning",
    "rxrpc",
    "ceph",
    "cifs.spnego",
    "id_resolver",
    "psk",
];

/// Types of keys whose code looks at what it is given, in the child's own keyring: add_key(2).
fn keys() -> usize {
    const PROCESS: i64 = -2;
    let (name, bytes) = (c"jug:payload".as_ptr() as i64, c"1".as_ptr() as i64);
    let refused = [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENODEV].map(|errno| -i64::from(errno));
    let answer = |kind: &&str| kernel::call_with_name(libc::SYS_add_key, kind, [name, bytes, 1, PROCESS]);
    KEYS.iter().filter(|kind| !refused.contains(&answer(kind))).count()
}

/// bpf(2), perf_event_open(2), io_uring_setup(2), userfaultfd(2) and fanotify_init(2): those that can be had.
fn engines() -> usize {
    const USER_MODE_ONLY: i64 = 1;
    const REPORT_FID: i64 = 0x200;
    let map = || {
        // BPF_MAP_CREATE of an array with one element: struct bpf_attr.
        let mut attributes = [0u32; 32];
        attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
        call(libc::SYS_bpf, [0, attributes.as_ptr() as i64, 128, 0, 0])
    };
    let all: [&dyn Fn() -> bool; 5] =
        [&map, &perf, &io_uring, &|| call(libc::SYS_userfaultfd, [USER_MODE_ONLY, 0, 0, 0, 0]), &|| {
            call(libc::SYS_fanotify_init, [REPORT_FID, 0, 0, 0, 0])
        }];
    all.iter().filter(|ask| in_child(|| i32::from(!ask())) == 0).count()
}
