//! What a compiled profile does, case by case, and what `compile` refuses. No root: programs run in the interpreter.

#[path = "support/bpf.rs"]
mod bpf;

use bpf::Call;
use jug::seccomp::{Arch, Filter, compile, tables};
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL_THREAD: u32 = 0;

fn try_filter(profile: Value, native: Arch) -> jug::error::Result<Filter> {
    let filter = compile(&serde_json::from_value(profile).expect("an OCI profile"), native)?;
    bpf::check(&filter.program).expect("the kernel takes the program");
    Ok(filter)
}

fn filter(profile: Value) -> Filter {
    try_filter(profile, Arch::X86_64).expect("compiles")
}

fn fault(profile: Value) -> String {
    let error = try_filter(profile, Arch::X86_64).err();
    error.expect("is refused").what().to_owned()
}

fn on(filter: &Filter, arch: Arch, number: u32, args: [u64; 6]) -> u32 {
    bpf::run(&filter.program, &Call { number, arch: arch.audit(), args })
}

fn named(filter: &Filter, arch: Arch, name: &str) -> u32 {
    let number = tables::numbers(name).and_then(|row| row.on(arch)).expect(name);
    on(filter, arch, number, [0; 6])
}

#[test]
fn the_default_action_alone_is_a_filter() {
    let filter = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    assert_eq!(named(&filter, Arch::X86_64, "read"), ALLOW);
    assert_eq!(named(&filter, Arch::X86, "read"), KILL_THREAD);
    assert_eq!(named(&filter, Arch::X32, "read"), KILL_THREAD);
    assert_eq!(on(&filter, Arch::X86_64, u32::MAX, [0; 6]), ALLOW, "-1 is how a tracer skips a call");
}

#[test]
fn calls_newer_than_libseccomp_are_known() {
    let names = ["mseal", "setxattrat", "open_tree_attr", "file_getattr", "file_setattr", "listns"];
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    }));
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for name in names {
            assert_eq!(named(&filter, arch, name), ALLOW, "{name} on {arch:?}");
        }
        assert_eq!(named(&filter, arch, "getxattrat"), EPERM);
        assert_eq!(on(&filter, arch, 471 | arch.number_bit(), [0; 6]), ENOSYS);
    }
}

#[test]
fn numbers_past_the_newest_named_answer_enosys_unless_the_default_lets_them_pass() {
    let profile = |default: &str| {
        json!({ "defaultAction": default, "syscalls": [
            { "names": ["openat2"], "action": "SCMP_ACT_TRAP" },
            // Names count even where the rule is dropped for saying what the default says.
            { "names": ["faccessat2"], "action": default },
        ]})
    };
    for (default, past) in [
        ("SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_KILL", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS),
        ("SCMP_ACT_TRAP", ENOSYS),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
    ] {
        let filter = filter(profile(default));
        let default = named(&filter, Arch::X86_64, "faccessat2");
        assert_ne!(default, ENOSYS);
        assert_eq!(on(&filter, Arch::X86_64, 440, [0; 6]), past);
        assert_eq!(on(&filter, Arch::X86_64, u32::MAX, [0; 6]), default);
    }
}

#[test]
fn errno_defaults_to_eperm_for_each_rule_whatever_the_default_errno() {
    let filter = filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        { "names": ["mount"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22 },
    ]}));
    assert_eq!(named(&filter, Arch::X86_64, "mount"), EPERM);
    assert_eq!(named(&filter, Arch::X86_64, "umount2"), 0x0005_0016);
    assert_eq!(named(&filter, Arch::X86_64, "read"), ENOSYS);
}

#[test]
fn an_ioctl_cannot_hide_its_number_in_the_high_word() {
    // CVE-2019-10063: the kernel looks at the low word only.
    let filter = filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [
            { "index": 1, "value": 0xffff_ffff_u64, "valueTwo": 0x5412, "op": "SCMP_CMP_MASKED_EQ" }] },
    ]}));
    for (request, expected) in [(0x5412, EPERM), (0x1_0000_5412, EPERM), (0x5413, ALLOW)] {
        assert_eq!(on(&filter, Arch::X86_64, 16, [0, request, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn x86_multiplexers_are_matched_by_their_call() {
    let filter =
        filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        { "names": ["bind", "shmget", "openat2"], "action": "SCMP_ACT_ALLOW" }]}));
    let socketcall = |call| on(&filter, Arch::X86, 102, [call, 0, 0, 0, 0, 0]);
    assert_eq!((socketcall(1), socketcall(2), socketcall(3)), (EPERM, ALLOW, EPERM));
    assert_eq!(on(&filter, Arch::X86, 117, [23, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(on(&filter, Arch::X86, 361, [0; 6]), ALLOW);
}

#[test]
fn flags_follow_runc() {
    let flags = |flags: Value| {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        if !flags.is_null() {
            profile["flags"] = flags;
        }
        let filter = filter(profile);
        (filter.flags, filter.warnings.len())
    };
    assert_eq!(flags(Value::Null), (1 << 2, 0), "absent: SPEC_ALLOW");
    assert_eq!(flags(json!([])), (0, 0), "empty: none");
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])), (1 << 1, 0));
    assert_eq!(
        flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])),
        (0, 1),
        "useless without a listener"
    );
    let unknown = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"] });
    assert!(serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(unknown).is_err());
}

#[test]
fn notify_asks_for_a_listener() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
    }));
    assert!(filter.notify);
    assert_eq!(filter.flags, 1 << 5);
    assert_eq!(named(&filter, Arch::X86_64, "mkdir"), 0x7fc0_0000);
}

#[test]
fn faults_say_where_they_are() {
    let rule = |rule: Value| fault(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    let arg = json!({ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" });
    for (what, expected) in [
        (
            fault(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
            "/linux/seccomp/defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            rule(json!({ "names": ["read", "write"], "action": "SCMP_ACT_NOTIFY" })),
            "/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            rule(json!({ "names": [""], "action": "SCMP_ACT_ERRNO" })),
            "/linux/seccomp/syscalls/0/names/0: empty string is not a valid syscall",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 })),
            "/linux/seccomp/syscalls/0/errnoRet: 4096 is above 4095",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [arg] })),
            "/linux/seccomp/syscalls/0/args/0/index: 6 is no argument of a system call",
        ),
    ] {
        assert_eq!(what, expected);
    }
}

#[test]
fn unknown_names_and_foreign_architectures_are_warnings() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_S390X", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["no_such_call", "mount"], "action": "SCMP_ACT_ERRNO" }],
    }));
    assert_eq!(
        filter.warnings,
        [
            "seccomp: SCMP_ARCH_S390X cannot run on SCMP_ARCH_X86_64, ignored",
            "seccomp: SCMP_ARCH_AARCH64 cannot run on SCMP_ARCH_X86_64, ignored",
            "seccomp: unknown system call no_such_call ignored",
        ]
    );
    assert_eq!(named(&filter, Arch::X86, "mount"), EPERM);
}

/// Conditions on `count` values of one argument, each with its own errno, so that nothing can be shared.
fn long(count: u32) -> Value {
    let entries = (0..count).map(|value| {
        let arg = json!({ "index": 0, "value": u64::from(value) << 20, "op": "SCMP_CMP_EQ" });
        json!({ "names": ["prctl", "openat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 + value, "args": [arg] })
    });
    let entries: Vec<Value> = entries.collect();
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries })
}

#[test]
fn jumps_longer_than_their_eight_bits_arrive() {
    let filter = filter(long(700));
    assert!(filter.program.len() > 2000, "{} instructions", filter.program.len());
    for number in [157, 257] {
        for value in 0..700_u32 {
            let args = [u64::from(value) << 20, 0, 0, 0, 0, 0];
            assert_eq!(on(&filter, Arch::X86_64, number, args), 0x0005_0002 + value);
            assert_eq!(on(&filter, Arch::X86_64, number, [args[0] | 1, 0, 0, 0, 0, 0]), ALLOW);
        }
    }
    assert_eq!(named(&filter, Arch::X86_64, "read"), ALLOW);
    assert_eq!(named(&filter, Arch::X86, "read"), KILL_THREAD);
}

#[test]
fn a_filter_the_kernel_would_not_take_is_an_error() {
    let what = fault(long(1500));
    assert!(what.starts_with("/linux/seccomp: the filter has"), "{what}");
    assert!(what.ends_with("the kernel takes 4096"), "{what}");
}
