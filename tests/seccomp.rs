//! config-linux.md#seccomp: every action, every operator, the numbers nobody knows, and the listener.
mod support;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use support::*;

/// A call without effect or permission: its one argument is a policy, 0 to 6.
const CALL: &str = "sched_get_priority_max";
const NR: i64 = libc::SYS_sched_get_priority_max;
/// An errno that this call never gives by itself.
const EDOM: i32 = libc::EDOM;

fn with(seccomp: Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["seccomp"] = seccomp);
    b
}

/// Everything is allowed but what these rules say.
fn rules(syscalls: Value) -> Bundle {
    with(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls }))
}

fn refuse(extra: Value) -> Bundle {
    let mut rule = json!({ "names": [CALL], "action": "SCMP_ACT_ERRNO", "errnoRet": EDOM });
    rule.as_object_mut().expect("a rule").extend(extra.as_object().expect("an object").clone());
    rules(json!([rule]))
}

fn call(b: &Bundle, nr: i64, args: &[&str]) -> Value {
    let nr = nr.to_string();
    let line: Vec<&str> = ["/bin/probe", "syscall", &nr].iter().chain(args).copied().collect();
    b.run_args(&line).ok().json()
}

/// For each argument: did the filter refuse the call?
fn refused(b: &Bundle, arguments: &[u64]) -> Vec<bool> {
    let calls: Vec<String> =
        arguments.iter().map(|arg| format!("/bin/probe syscall {NR} {arg:#x}")).collect();
    let out = b.run_args(&["/bin/sh", "-c", &calls.join("; ")]).ok();
    out.stdout.lines().filter(|line| !line.is_empty()).map(|line| line.contains("EDOM")).collect()
}

#[track_caller]
fn operator(op: &str, value: u64, two: u64, cases: &[(u64, bool)]) {
    let b = refuse(json!({ "args": [{ "index": 0, "value": value, "valueTwo": two, "op": op }] }));
    let arguments: Vec<u64> = cases.iter().map(|case| case.0).collect();
    let want: Vec<bool> = cases.iter().map(|case| case.1).collect();
    assert_eq!(refused(&b, &arguments), want, "{op} {value:#x} {two:#x}: {arguments:x?}");
}

const HIGH: u64 = 1 << 32;

#[test]
fn equal() {
    operator("SCMP_CMP_EQ", 2, 0, &[(1, false), (2, true), (3, false), (HIGH + 2, false)]);
    operator("SCMP_CMP_EQ", HIGH + 2, 0, &[(2, false), (HIGH + 2, true), (2 * HIGH + 2, false)]);
}

#[test]
fn not_equal() {
    operator("SCMP_CMP_NE", 2, 0, &[(1, true), (2, false), (3, true), (HIGH + 2, true)]);
}

#[test]
fn less_than() {
    operator(
        "SCMP_CMP_LT",
        HIGH,
        0,
        &[(0, true), (HIGH - 1, true), (HIGH, false), (HIGH + 1, false), (u64::MAX, false)],
    );
}

#[test]
fn less_or_equal() {
    operator(
        "SCMP_CMP_LE",
        HIGH,
        0,
        &[(0, true), (HIGH - 1, true), (HIGH, true), (HIGH + 1, false), (u64::MAX, false)],
    );
}

#[test]
fn greater_or_equal() {
    operator(
        "SCMP_CMP_GE",
        HIGH,
        0,
        &[(0, false), (HIGH - 1, false), (HIGH, true), (HIGH + 1, true), (u64::MAX, true)],
    );
}

#[test]
fn greater_than() {
    operator(
        "SCMP_CMP_GT",
        HIGH,
        0,
        &[(0, false), (HIGH - 1, false), (HIGH, false), (HIGH + 1, true), (u64::MAX, true)],
    );
}

#[test]
fn masked_equal() {
    operator(
        "SCMP_CMP_MASKED_EQ",
        0x6,
        0x2,
        &[(0x2, true), (0x3, true), (0x6, false), (0x0, false), (HIGH + 2, true)],
    );
    operator(
        "SCMP_CMP_MASKED_EQ",
        HIGH | 1,
        HIGH,
        &[(HIGH, true), (HIGH + 2, true), (HIGH + 1, false), (0, false)],
    );
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let b = refuse(json!({ "args": [
        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 7, "op": "SCMP_CMP_EQ" },
    ] }));
    assert_eq!(call(&b, NR, &["1", "7"])["errno"], "EDOM");
    assert_eq!(call(&b, NR, &["1", "8"])["ok"], 99);
    assert_eq!(call(&b, NR, &["2", "7"])["ok"], 99);
}

#[test]
fn of_conditions_on_one_argument_any_may_hold() {
    let b = refuse(json!({ "args": [
        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 2, "op": "SCMP_CMP_EQ" },
    ] }));
    assert_eq!(refused(&b, &[0, 1, 2, 3]), [false, true, true, false]);
}

#[test]
fn of_two_rules_for_one_call_either_may_match() {
    let rule = |value: u64| {
        json!({ "names": [CALL], "action": "SCMP_ACT_ERRNO", "errnoRet": EDOM,
        "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    assert_eq!(refused(&rules(json!([rule(1), rule(3)])), &[0, 1, 2, 3]), [false, true, false, true]);
}

#[test]
fn an_errno_is_eperm_unless_given() {
    let b = rules(json!([{ "names": [CALL], "action": "SCMP_ACT_ERRNO" }]));
    assert_eq!(call(&b, NR, &["1"])["errno"], "EPERM");
}

#[test]
fn an_errno_is_the_one_given() {
    assert_eq!(call(&refuse(json!({})), NR, &["1"])["errno"], "EDOM");
}

#[test]
fn several_names_are_one_rule() {
    let b = refuse(json!({ "names": [CALL, "sched_get_priority_min"] }));
    assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM");
    assert_eq!(call(&b, libc::SYS_sched_get_priority_min, &["1"])["errno"], "EDOM");
    assert_eq!(call(&b, libc::SYS_getppid, &[])["ok"], 0);
}

#[test]
fn kill_ends_the_program() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        let b = rules(json!([{ "names": [CALL], "action": action }]));
        b.run_args(&["/bin/probe", "syscall", &NR.to_string(), "1"]).exits(128 + libc::SIGSYS);
    }
}

#[test]
fn trap_sends_a_signal() {
    let b = rules(json!([{ "names": [CALL], "action": "SCMP_ACT_TRAP" }]));
    b.run_args(&["/bin/probe", "syscall", &NR.to_string(), "1"]).exits(128 + libc::SIGSYS);
}

#[test]
fn trace_without_a_tracer_is_enosys() {
    let b = rules(json!([{ "names": [CALL], "action": "SCMP_ACT_TRACE" }]));
    assert_eq!(call(&b, NR, &["1"])["errno"], "ENOSYS");
}

#[test]
fn log_lets_the_call_pass() {
    let b = rules(json!([{ "names": [CALL], "action": "SCMP_ACT_LOG" }]));
    assert_eq!(call(&b, NR, &["1"])["ok"], 99);
    assert_eq!(b.probe(&[])["seccomp"]["mode"], 2);
}

/// What a static program and the runtime's last steps need.
const LIFE: [&str; 80] = [
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clock_gettime",
    "clock_nanosleep",
    "clone",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "eventfd2",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchown",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "geteuid",
    "getgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "getsid",
    "gettid",
    "getuid",
    "ioctl",
    "keyctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe2",
    "poll",
    "ppoll", // what aarch64 has instead of poll
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
    "sigaltstack",
    "stat",
    "statx",
    "tgkill",
    "write",
];

fn only_life(extra: Value) -> Bundle {
    let mut seccomp = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": LIFE.as_slice(), "action": "SCMP_ACT_ALLOW" }],
    });
    seccomp.as_object_mut().expect("a profile").extend(extra.as_object().expect("an object").clone());
    with(seccomp)
}

#[test]
fn what_no_rule_names_gets_the_default_action() {
    let b = only_life(json!({}));
    assert_eq!(call(&b, NR, &["1"])["errno"], "EPERM");
    assert_eq!(call(&b, libc::SYS_getpid, &[])["ok"], 1);
}

#[test]
fn the_default_errno_is_the_one_given() {
    assert_eq!(call(&only_life(json!({ "defaultErrnoRet": EDOM })), NR, &["1"])["errno"], "EDOM");
}

/// A C library tries the newest call first and falls back on ENOSYS; EPERM would break it.
#[test]
fn a_number_above_all_known_ones_is_enosys() {
    let b = only_life(json!({}));
    assert_eq!(call(&b, 5000, &[])["errno"], "ENOSYS");
    assert_eq!(call(&b, libc::SYS_sethostname, &["0", "0"])["errno"], "EPERM");
}

#[test]
fn an_unknown_name_is_left_out() {
    let b = rules(json!([
        { "names": ["no_such_call", CALL], "action": "SCMP_ACT_ERRNO", "errnoRet": EDOM },
        { "names": ["another_one"], "action": "SCMP_ACT_KILL" },
    ]));
    assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM");
}

#[test]
fn unknown_words_are_refused() {
    for (what, seccomp) in [
        ("SCMP_ACT_BAA", json!({ "defaultAction": "SCMP_ACT_BAA" })),
        ("SCMP_ARCH_BAA", json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_BAA"] })),
        (
            "SCMP_CMP_BAA",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                "names": [CALL], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_BAA" }] }] }),
        ),
    ] {
        with(seccomp).run_args(&["/bin/true"]).fails(what);
    }
}

/// Whether this kernel answers `int 0x80` at all.
fn has_32_bit_calls() -> bool {
    // 20 is getpid.
    let out = Bundle::new().run_args(&["/bin/probe", "syscall32", "20"]);
    out.code == 0 && out.stdout.contains("\"ok\":1")
}

#[test]
fn the_other_door_is_watched_too() {
    if !has_32_bit_calls() {
        say_skip("SKIP", "this kernel has no 32-bit system calls");
        return;
    }
    let both = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let b = refuse(json!({}));
    b.edit(|spec| spec["linux"]["seccomp"]["architectures"] = both);
    // 159 is sched_get_priority_max there.
    assert_eq!(b.run_args(&["/bin/probe", "syscall32", "159", "1"]).ok().json()["errno"], "EDOM");
    assert_eq!(b.run_args(&["/bin/probe", "syscall32", "160", "1"]).ok().json()["ok"], 1);
    assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM");
}

#[test]
fn an_architecture_that_is_not_listed_is_fatal() {
    if !has_32_bit_calls() {
        say_skip("SKIP", "this kernel has no 32-bit system calls");
        return;
    }
    let b = refuse(json!({}));
    b.edit(|spec| spec["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_X86_64"]));
    b.run_args(&["/bin/probe", "syscall32", "20"]).exits(128 + libc::SIGSYS);
}

#[test]
fn x32_numbers_do_not_pass() {
    let b = refuse(json!({}));
    b.edit(|spec| spec["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_X86_64"]));
    let nr = (0x4000_0000 + NR).to_string();
    let out = b.run_args(&["/bin/probe", "syscall", &nr, "1"]);
    assert!(out.code == 128 + libc::SIGSYS || out.stdout.contains("errno"), "{out}");
    assert!(!out.stdout.contains("ok"), "{out}");
}

#[test]
fn flags_are_taken() {
    newer!("seccomp flags");
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        let b = refuse(json!({}));
        b.edit(|spec| spec["linux"]["seccomp"]["flags"] = json!([flag]));
        assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM", "{flag}");
    }
}

#[test]
fn an_unknown_flag_is_refused() {
    newer!("an error for an unknown seccomp flag");
    let b = refuse(json!({}));
    b.edit(|spec| spec["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_BAA"]));
    b.run_args(&["/bin/true"]).fails("SECCOMP_FILTER_FLAG_BAA");
}

#[test]
fn the_filter_holds_with_and_without_no_new_privileges() {
    for no_new_privileges in [true, false] {
        let b = refuse(json!({}));
        b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM", "{no_new_privileges}");
        let report = b.probe(&[]);
        assert_eq!(report["seccomp"]["mode"], 2);
        assert_eq!(report["noNewPrivileges"], no_new_privileges);
    }
}

#[test]
fn the_filter_holds_for_a_user_without_capabilities() {
    let b = refuse(json!({}));
    b.edit(|spec| {
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"].as_object_mut().expect("process").remove("capabilities");
    });
    assert_eq!(call(&b, NR, &["1"])["errno"], "EDOM");
}

#[test]
fn the_filter_holds_for_exec() {
    let b = refuse(json!({}));
    let c = b.running();
    assert_eq!(c.exec(&["/bin/probe", "syscall", &NR.to_string(), "1"]).ok().json()["errno"], "EDOM");
    let report = c.exec_probe(&[], &[]);
    assert_eq!(report["seccomp"], json!({ "mode": 2, "filters": 1 }));
}

#[test]
fn without_a_profile_there_is_no_filter() {
    assert_eq!(Bundle::new().probe(&[])["seccomp"]["mode"], 0);
}

/// As many rules as an engine's default profile has.
#[test]
fn a_profile_may_be_long() {
    let rule = |value: u64| {
        json!({ "names": [CALL], "action": "SCMP_ACT_ERRNO", "errnoRet": EDOM,
        "args": [{ "index": 0, "value": value * 1000, "op": "SCMP_CMP_EQ" }] })
    };
    let b = rules((1..=200).map(rule).collect());
    assert_eq!(refused(&b, &[0, 1000, 200_000, 201_000]), [false, true, true, false]);
}

// Notifications: seccomp_unotify(2).

const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;

/// Waits for one call and answers it with this value.
fn answer(listener: &OwnedFd, value: i64) -> libc::seccomp_notif {
    let mut wanted =
        [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(listener), nix::poll::PollFlags::POLLIN)];
    let ready =
        nix::poll::poll(&mut wanted, nix::poll::PollTimeout::try_from(patience()).expect("a timeout"));
    assert_eq!(ready, Ok(1), "no notification came");
    // SAFETY: a plain structure of integers, for which zero is what the kernel demands.
    let mut seen: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: SECCOMP_IOCTL_NOTIF_RECV writes one seccomp_notif through the pointer, which outlives the call.
    let got = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV, &raw mut seen) };
    assert_eq!(got, 0, "SECCOMP_IOCTL_NOTIF_RECV: {}", std::io::Error::last_os_error());
    let reply = libc::seccomp_notif_resp { id: seen.id, val: value, error: 0, flags: 0 };
    // SAFETY: SECCOMP_IOCTL_NOTIF_SEND reads one seccomp_notif_resp through the pointer.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND, &raw const reply) };
    assert_eq!(sent, 0, "SECCOMP_IOCTL_NOTIF_SEND: {}", std::io::Error::last_os_error());
    seen
}

fn notifying(b: &Bundle) -> Console {
    let path = b.path("seccomp.sock");
    b.edit(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path, "listenerMetadata": "for the shepherd",
            "syscalls": [{ "names": [CALL], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
    Console::listen_at(Path::new(&path))
}

#[test]
fn a_listener_gets_the_descriptor_and_the_state() {
    let b = Bundle::new();
    let agent = notifying(&b);
    b.edit(|spec| spec["annotations"] = json!({ "org.example.sheep": "Dolly" }));
    b.set_args(&["/bin/probe", "syscall", &NR.to_string(), "3"]);
    let running = b.verb("run", &[]).spawn();
    let (text, fds) = agent.receive();
    assert_eq!(fds.len(), 1);
    let state: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the shepherd");
    assert!(state["ociVersion"].is_string());
    assert_eq!(state["state"]["id"], json!(b.id()));
    assert_eq!(state["state"]["status"], "creating");
    assert_eq!(state["state"]["bundle"], json!(format!("/tmp/{}", b.tag())));
    assert_eq!(state["state"]["annotations"]["org.example.sheep"], "Dolly");
    let pid = i32::try_from(state["pid"].as_i64().expect("a pid")).expect("a pid");
    assert_ne!(namespace(pid, "pid"), own_namespace("pid"));
    let seen = answer(&fds[0], 4242);
    assert_eq!((i64::from(seen.data.nr), seen.data.args[0]), (NR, 3));
    assert_eq!(running.wait().ok().json()["ok"], 4242);
}

#[test]
fn exec_tells_the_listener_again() {
    let b = Bundle::new();
    let agent = notifying(&b);
    // Detached `run` waits until the program runs, and the agent must have been there by then.
    let c = b.container();
    let started = b.verb("run", &["--detach"]).output_to(&memory_file(), &memory_file()).spawn();
    let (_, _first) = agent.receive();
    started.wait().ok();
    let running = c.call("exec", &[], &["/bin/probe", "syscall", &NR.to_string(), "3"]).spawn();
    let (text, fds) = agent.receive();
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_ne!(state["pid"], c.pid());
    assert_eq!(state["state"]["pid"], c.pid());
    assert_eq!(state["state"]["status"], "running");
    answer(&fds[0], 77);
    assert_eq!(running.wait().ok().json()["ok"], 77);
}

fn memory_file() -> std::fs::File {
    nix::sys::memfd::memfd_create("out", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .expect("memfd_create(2)")
        .into()
}

#[test]
fn notify_without_no_new_privileges() {
    let b = Bundle::new();
    let agent = notifying(&b);
    b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    b.set_args(&["/bin/probe", "syscall", &NR.to_string(), "3"]);
    let running = b.verb("run", &[]).spawn();
    let (_, fds) = agent.receive();
    answer(&fds[0], 11);
    assert_eq!(running.wait().ok().json()["ok"], 11);
}

#[test]
fn notify_needs_a_listener() {
    let b = rules(json!([{ "names": [CALL], "action": "SCMP_ACT_NOTIFY" }]));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("listenerPath"), "{out}");
}

#[test]
fn a_listener_that_is_not_there_is_an_error() {
    let b = Bundle::new();
    drop(notifying(&b));
    b.run_args(&["/bin/true"]).fails("seccomp.sock");
}

#[test]
fn notify_is_no_default_action() {
    let b = with(json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nowhere" }));
    b.run_args(&["/bin/true"]).fails("SCMP_ACT_NOTIFY");
}

/// The runtime itself writes after the filter is loaded: it would wait for ever.
#[test]
fn notify_on_write_is_refused() {
    let b = rules(json!([{ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }]));
    b.edit(|spec| spec["linux"]["seccomp"]["listenerPath"] = json!("/nowhere"));
    b.run_args(&["/bin/true"]).fails("write");
}

#[test]
fn a_listener_is_ignored_where_nothing_notifies() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["seccomp"] =
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere/agent.sock" });
    });
    b.run_args(&["/bin/true"]).ok();
}

/// Profiles of some years ago list no younger call: Docker's of 2017 is what runtime-tools' validation runs with. With
/// no_new_privs off the runtime itself is under the filter before the program is.
#[test]
fn a_profile_that_knows_no_young_call_starts_the_program() {
    let young = "close_range openat2 faccessat2 clone3 pidfd_open pidfd_send_signal pidfd_getfd open_tree \
        move_mount mount_setattr fsopen statx rseq execveat epoll_pwait2 fchmodat2 futex_waitv";
    let young: Vec<&str> = young.split_whitespace().collect();
    for no_new_privileges in [false, true] {
        let b = rules(json!([{ "names": young, "action": "SCMP_ACT_ERRNO" }]));
        b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(no_new_privileges));
        assert_eq!(b.run_args(&["/bin/echo", "hello"]).ok().stdout, "hello\n");
        b.set_args(&["/bin/sleep", "1000"]);
        let c = b.running();
        assert_eq!(c.exec(&["/bin/echo", "hello"]).ok().stdout, "hello\n");
        let user = ["--user", "1000:1000", "--additional-gids", "7", "--cwd", "/bin"];
        assert_eq!(c.exec_with(&user, &["/bin/echo", "hello"]).ok().stdout, "hello\n");
    }
}
