//! The report: one JSON object. Keys are stable; a fact that cannot be read is `null`, or `{"errno":…}` where the
//! refusal itself is of interest. Nothing is left behind: `--write` only opens, and removes what it had to create.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::errno::Errno;
use serde_json::{Map, Value, json};

use crate::kernel;

/// What the command line asks beyond the standing questions.
#[derive(Default)]
pub struct Questions {
    reads: Vec<String>,
    writes: Vec<String>,
    stats: Vec<String>,
    lists: Vec<String>,
    sysctls: Vec<String>,
}

impl Questions {
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut questions = Self::default();
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let list = match flag.as_str() {
                "--read" => &mut questions.reads,
                "--write" => &mut questions.writes,
                "--stat" => &mut questions.stats,
                "--list" => &mut questions.lists,
                "--sysctl" => &mut questions.sysctls,
                _ => return Err(format!("{flag}: no such flag")),
            };
            list.push(args.next().ok_or(format!("{flag} needs an argument"))?.clone());
        }
        Ok(questions)
    }
}

/// Every fact the probe knows, and the answers to `questions`.
pub fn report(questions: &Questions) -> Value {
    let status = text("/proc/self/status").unwrap_or_default();
    let mut all = Map::new();
    for part in [itself(), privileges(&status), scheduling(&status), surroundings(), asked(questions)] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

/// The value of a line of proc_pid_status(5).
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn ids(status: &str, name: &str) -> Option<Vec<u32>> {
    field(status, name).map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect())
}

fn four_ids(status: &str, name: &str) -> Value {
    match ids(status, name).as_deref() {
        Some([real, effective, saved, fs]) => {
            json!({ "real": real, "effective": effective, "saved": saved, "fs": fs })
        }
        _ => Value::Null,
    }
}

fn itself() -> Value {
    json!({
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "sid": nix::unistd::getsid(None).map(nix::unistd::Pid::as_raw).ok(),
        "args": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": environment(),
        "cwd": std::env::current_dir().ok(),
        "exe": fs::read_link("/proc/self/exe").ok(),
        "fds": fds(),
        "tty": tty(),
    })
}

fn privileges(status: &str) -> Value {
    let number = |name| field(status, name).and_then(|value| value.parse::<i64>().ok());
    let keyring = kernel::session_keyring();
    json!({
        "uid": four_ids(status, "Uid"),
        "gid": four_ids(status, "Gid"),
        "groups": ids(status, "Groups"),
        "umask": field(status, "Umask").and_then(|octal| u32::from_str_radix(octal, 8).ok()),
        "capabilities": capabilities(status),
        "noNewPrivileges": number("NoNewPrivs").map(|value| value == 1),
        "seccomp": { "mode": number("Seccomp"), "filters": number("Seccomp_filters") },
        "securebits": kernel::prctl(libc::PR_GET_SECUREBITS, 0).ok(),
        "dumpable": kernel::prctl(libc::PR_GET_DUMPABLE, 0).ok(),
        "parentDeathSignal": kernel::parent_death_signal().ok(),
        "loginuid": text("/proc/self/loginuid").and_then(|value| value.parse::<i64>().ok()),
        "keyring": keyring.map_or_else(refused, |(serial, description, label)| {
            json!({ "serial": serial, "description": description, "label": label })
        }),
        "label": {
            "current": text("/proc/self/attr/current"),
            "exec": text("/proc/self/attr/exec"),
            "apparmor": text("/proc/self/attr/apparmor/current"),
        },
    })
}

fn scheduling(status: &str) -> Value {
    let number = |name| field(status, name).and_then(|value| value.parse::<i64>().ok());
    json!({
        "signals": {
            "blocked": field(status, "SigBlk"),
            "ignored": field(status, "SigIgn"),
            "caught": field(status, "SigCgt"),
        },
        "threads": number("Threads"),
        "rlimits": rlimits(),
        "oomScoreAdj": text("/proc/self/oom_score_adj").and_then(|value| value.parse::<i64>().ok()),
        "personality": kernel::personality().ok(),
        "scheduler": scheduler(),
        "ioPriority": io_priority(),
        "cpuAffinity": field(status, "Cpus_allowed_list"),
        "memoryPolicy": kernel::memory_policy()
            .map_or_else(refused, |(mode, nodes)| json!({ "mode": mode, "nodes": nodes })),
    })
}

fn surroundings() -> Value {
    json!({
        "namespaces": namespaces(),
        "timeOffsets": time_offsets(),
        "uidMap": id_map("/proc/self/uid_map"),
        "gidMap": id_map("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "hostname": text("/proc/sys/kernel/hostname"),
        "domainname": text("/proc/sys/kernel/domainname"),
        "mounts": mounts(),
        "devices": devices(),
        "interfaces": interfaces(),
        "cgroup": { "paths": cgroup_paths(), "files": cgroup_files() },
    })
}

fn asked(questions: &Questions) -> Value {
    json!({
        "reads": answers(&questions.reads, |path| read(Path::new(path))),
        "writes": answers(&questions.writes, |path| write(Path::new(path))),
        "stats": answers(&questions.stats, |path| stat(Path::new(path))),
        "lists": answers(&questions.lists, |path| list(Path::new(path))),
        "sysctls": answers(&questions.sysctls, sysctl),
    })
}

fn refused(errno: Errno) -> Value {
    json!({ "errno": format!("{errno:?}") })
}

fn failed(why: &io::Error) -> Value {
    refused(Errno::from_raw(why.raw_os_error().unwrap_or(0)))
}

fn answers(questions: &[String], ask: impl Fn(&str) -> Value) -> Map<String, Value> {
    questions.iter().map(|question| (question.clone(), ask(question))).collect()
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\0']).to_owned())
}

/// As the kernel handed it over: in order, duplicates and all.
fn environment() -> Vec<String> {
    match fs::read("/proc/self/environ") {
        Ok(bytes) => bytes
            .split(|byte| *byte == 0)
            .filter(|entry| !entry.is_empty())
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect(),
        Err(_) => std::env::vars_os()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect(),
    }
}

const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Five sorted name lists, and the same as hex under `hex`.
fn capabilities(status: &str) -> Value {
    let mut sets = Map::new();
    let mut hexes = Map::new();
    for (name, key) in [
        ("bounding", "CapBnd"),
        ("effective", "CapEff"),
        ("inheritable", "CapInh"),
        ("permitted", "CapPrm"),
        ("ambient", "CapAmb"),
    ] {
        let hex = field(status, key);
        let bits = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let names = bits.map(|bits| {
            let known = CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
            known.map(|(_, name)| (*name).to_owned()).collect::<BTreeSet<_>>()
        });
        sets.insert(name.into(), json!(names));
        hexes.insert(name.into(), json!(hex));
    }
    sets.insert("hex".into(), Value::Object(hexes));
    Value::Object(sets)
}

/// Infinity is 18446744073709551615, as in config.json.
fn rlimits() -> Value {
    use nix::sys::resource::{Resource as R, getrlimit};
    let all = [
        ("RLIMIT_AS", R::RLIMIT_AS),
        ("RLIMIT_CORE", R::RLIMIT_CORE),
        ("RLIMIT_CPU", R::RLIMIT_CPU),
        ("RLIMIT_DATA", R::RLIMIT_DATA),
        ("RLIMIT_FSIZE", R::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", R::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", R::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", R::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", R::RLIMIT_NICE),
        ("RLIMIT_NOFILE", R::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", R::RLIMIT_NPROC),
        ("RLIMIT_RSS", R::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", R::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", R::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", R::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", R::RLIMIT_STACK),
    ];
    let mut limits = Map::new();
    for (name, resource) in all {
        let limit =
            getrlimit(resource).map_or_else(refused, |(soft, hard)| json!({ "soft": soft, "hard": hard }));
        limits.insert(name.into(), limit);
    }
    Value::Object(limits)
}

fn scheduler() -> Value {
    let attr = match kernel::scheduler() {
        Ok(attr) => attr,
        Err(errno) => return refused(errno),
    };
    let names =
        ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
    json!({
        "policy": names.get(attr.policy as usize), "flags": attr.flags, "nice": attr.nice, "priority": attr.priority,
        "runtime": attr.runtime, "deadline": attr.deadline, "period": attr.period,
    })
}

fn io_priority() -> Value {
    let names = ["IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
    kernel::io_priority().map_or_else(refused, |(class, level)| {
        json!({ "class": usize::try_from(class).ok().and_then(|class| names.get(class)), "priority": level })
    })
}

/// Kind (as in /proc/self/ns) to inode number.
fn namespaces() -> Value {
    let mut kinds = Map::new();
    for entry in entries("/proc/self/ns") {
        let inode = fs::metadata(Path::new("/proc/self/ns").join(&entry)).ok().map(|meta| meta.ino());
        kinds.insert(entry, json!(inode));
    }
    Value::Object(kinds)
}

fn time_offsets() -> Value {
    let Some(lines) = text("/proc/self/timens_offsets") else { return Value::Null };
    let mut clocks = Map::new();
    for line in lines.lines() {
        if let [clock, secs, nanos] = line.split_whitespace().collect::<Vec<_>>()[..] {
            let number = |text: &str| text.parse::<i64>().ok();
            clocks.insert(clock.into(), json!({ "secs": number(secs), "nanosecs": number(nanos) }));
        }
    }
    Value::Object(clocks)
}

fn id_map(path: &str) -> Option<Vec<Value>> {
    let map = text(path)?;
    let line = |line: &str| {
        let ids: Vec<u64> = line.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        json!({ "containerID": ids.first(), "hostID": ids.get(1), "size": ids.get(2) })
    };
    Some(map.lines().map(line).collect())
}

/// `\040` and its like, as in proc_pid_mountinfo(5).
fn unescape(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One line of mountinfo per entry, in the kernel's order.
fn mounts() -> Option<Vec<Value>> {
    let info = text("/proc/self/mountinfo")?;
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let list = |text: Option<&&str>| text.map(|text| text.split(',').map(unescape).collect::<Vec<_>>());
        Some(json!({
            "id": left.first()?.parse::<u64>().ok(),
            "parent": left.get(1)?.parse::<u64>().ok(),
            "device": left.get(2)?,
            "root": unescape(left.get(3)?),
            "mountPoint": unescape(left.get(4)?),
            "options": list(left.get(5)),
            "propagation": left.get(6..)?,
            "type": right.first()?,
            "source": right.get(1).map(|source| unescape(source)),
            "superOptions": list(right.get(2)),
        }))
    };
    Some(info.lines().filter_map(parse).collect())
}

fn entries(path: impl AsRef<Path>) -> Vec<String> {
    let Ok(dir) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> =
        dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn devices() -> Map<String, Value> {
    entries("/dev")
        .into_iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            (path.clone(), stat(Path::new(&path)))
        })
        .collect()
}

/// What lstat(2) says; `type` is one letter as in `ls -l`, `mode` the permission bits.
fn stat(path: &Path) -> Value {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(why) => return failed(&why),
    };
    let kind = meta.file_type();
    let letter = match () {
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_dir() => "d",
        () if kind.is_symlink() => "l",
        () if kind.is_fifo() => "p",
        () if kind.is_socket() => "s",
        () => "-",
    };
    let is_node = kind.is_char_device() || kind.is_block_device();
    json!({
        "type": letter,
        "mode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size": meta.size(),
        "inode": meta.ino(),
        "major": is_node.then(|| libc::major(meta.rdev())),
        "minor": is_node.then(|| libc::minor(meta.rdev())),
        "target": fs::read_link(path).ok(),
    })
}

fn list(path: &Path) -> Value {
    match fs::read_dir(path) {
        Ok(_) => json!(entries(path)),
        Err(why) => failed(&why),
    }
}

/// The first 4 KiB as text, and how many bytes there were to read.
fn read(path: &Path) -> Value {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes)) {
        Ok(length) => json!({ "ok": String::from_utf8_lossy(&bytes), "bytes": length }),
        Err(why) => failed(&why),
    }
}

/// Opens for writing, writes nothing; a file that had to be created is removed. In a directory: can a file be made?
fn write(path: &Path) -> Value {
    let fresh = if path.is_dir() { path.join(".probe") } else { path.to_owned() };
    let existed = fresh.exists();
    match fs::OpenOptions::new().write(true).create(!existed).open(&fresh) {
        Ok(_) => {
            if !existed {
                let _ = fs::remove_file(&fresh);
            }
            json!({ "ok": true })
        }
        Err(why) => failed(&why),
    }
}

fn sysctl(name: &str) -> Value {
    let path = Path::new("/proc/sys").join(if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    });
    match fs::read_to_string(path) {
        Ok(value) => json!(value.trim_end()),
        Err(why) => failed(&why),
    }
}

/// Every interface with its flags and addresses: getifaddrs(3).
fn interfaces() -> Value {
    let addresses = match nix::ifaddrs::getifaddrs() {
        Ok(addresses) => addresses,
        Err(errno) => return refused(errno),
    };
    let mut names = Map::new();
    for address in addresses {
        let up = address.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        let entry =
            names.entry(address.interface_name).or_insert_with(|| json!({ "up": up, "addresses": [] }));
        let ip = address.address.and_then(|address| {
            let four = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
            four.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().to_string()))
        });
        if let (Some(ip), Some(list)) = (ip, entry["addresses"].as_array_mut()) {
            list.push(json!(ip));
        }
    }
    Value::Object(names)
}

/// Open descriptors, without the one that reads the directory.
fn fds() -> Option<Map<String, Value>> {
    let dir = fs::read_dir("/proc/self/fd").ok()?;
    let numbers: Vec<i32> =
        dir.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut open = Map::new();
    for fd in numbers {
        // The directory's own descriptor is closed by now.
        if let Ok(cloexec) = kernel::close_on_exec(fd) {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok();
            let target = target.map(|path| String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned());
            open.insert(fd.to_string(), json!({ "target": target, "cloexec": cloexec }));
        }
    }
    Some(open)
}

fn tty() -> Value {
    use std::io::IsTerminal as _;
    let size = kernel::winsize(0).ok();
    json!({
        "stdin": io::stdin().is_terminal(),
        "stdout": io::stdout().is_terminal(),
        "stderr": io::stderr().is_terminal(),
        "name": nix::unistd::ttyname(io::stdin()).ok(),
        "controlling": fs::File::open("/dev/tty").is_ok(),
        "rows": size.map(|size| size.ws_row),
        "columns": size.map(|size| size.ws_col),
    })
}

/// Controller list (empty for v2) to path.
fn cgroup_paths() -> Option<Map<String, Value>> {
    let lines = text("/proc/self/cgroup")?;
    let split = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), json!(parts.next()?)))
    };
    Some(lines.lines().filter_map(split).collect())
}

/// Every limit file that is readable below /sys/fs/cgroup: at the top (v2) and one level down (v1 controllers).
fn cgroup_files() -> Map<String, Value> {
    const PREFIXES: [&str; 8] =
        ["cpu.", "cpuset.", "memory.", "pids.", "io.", "blkio.", "hugetlb.", "cgroup."];
    let mut files = Map::new();
    let top = Path::new("/sys/fs/cgroup");
    let mut look = |dir: &Path, prefix: &str| {
        for name in entries(dir).iter().filter(|name| PREFIXES.iter().any(|start| name.starts_with(start))) {
            if let Some(value) = dir.join(name).is_file().then(|| text(dir.join(name))).flatten() {
                files.insert(format!("{prefix}{name}"), json!(value));
            }
        }
    };
    look(top, "");
    if !top.join("cgroup.procs").exists() {
        for controller in entries(top) {
            look(&top.join(&controller), &format!("{controller}/"));
        }
    }
    files
}
