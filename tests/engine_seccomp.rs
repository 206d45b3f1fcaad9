//! Our own seccomp profile: what it means for every number on every architecture that it names, read off the profile by
//! the model and off the compiled filter by an interpreter; and, from inside a container, off the kernel.
#![cfg(feature = "engine")]

#[path = "support/bpf.rs"]
mod bpf;
#[path = "support/model.rs"]
mod model;
mod support;
use support::*;

use std::collections::{BTreeMap, BTreeSet};

use bpf::Call;
use jug::engine::seccomp::{DEFAULT, Facts, compile};
use jug::seccomp::{Arch, native, tables};
use oci_spec::runtime::LinuxSeccomp;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// What a default container's bounding set is, as far as the profile asks.
fn profile() -> LinuxSeccomp {
    let caps = BTreeSet::from(["CAP_SYS_CHROOT".to_owned()]);
    let value = compile(DEFAULT.as_bytes(), &Facts { caps: &caps, kernel: "6.1" }).expect("our profile");
    serde_json::from_value(value).expect("an OCI profile")
}

#[test]
fn every_number_means_what_the_profile_says() {
    let profile = profile();
    let filter = jug::seccomp::compile(&profile, native()).expect("it compiles");
    bpf::check(&filter.program).expect("the kernel takes it");
    let listed =
        if native() == Arch::Aarch64 { [Arch::Aarch64, Arch::Arm] } else { [Arch::X86_64, Arch::X86] };
    let words =
        [0, 1, 2, 5, 16, 38, 40, 0x5412, 0x541c, 0x1_0000_5412, 0x2_0000, 0x1000_0000, 0xffff_ffff, u64::MAX];
    for arch in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028] {
        let numbers = (0..=600).chain(0x4000_0000..=0x4000_0258).chain([0xf_0002, 0x8000_0000, u32::MAX]);
        for (number, word) in numbers.flat_map(|number| words.map(|word| (number, word))) {
            let call = Call { number, arch, args: [word; 6] };
            let got = bpf::run(&filter.program, &call);
            let model = model::actions(&profile, &listed, &call);
            // Where several conditions hold, those that refuse stand first.
            let want = if model.len() > 1 {
                *model.iter().find(|a| **a != ALLOW).expect("a refusal")
            } else {
                model[0]
            };
            let clone_or_personality = model.len() > 1 && model.contains(&ALLOW);
            assert!(
                got == want || (clone_or_personality && model.contains(&got)),
                "{call:x?}: {got:x}, not {model:x?}"
            );
        }
    }
}

/// The names that must not be open, whatever becomes of the list.
#[test]
fn what_is_dangerous_is_closed() {
    let filter = jug::seccomp::compile(&profile(), native()).expect("it compiles");
    let answer = |arch: Arch, name: &str, args: [u64; 6]| {
        let number = tables::numbers(name).and_then(|row| row.on(arch)).unwrap_or_else(|| panic!("{name}"));
        bpf::run(&filter.program, &Call { number, arch: arch.audit(), args })
    };
    let closed = [
        "add_key",
        "bpf",
        "fsmount",
        "fsopen",
        "init_module",
        "io_uring_setup",
        "kexec_load",
        "keyctl",
        "mount",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "reboot",
        "request_key",
        "setns",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
        "vmsplice",
    ];
    for name in closed {
        assert_eq!(answer(native(), name, [0; 6]), EPERM, "{name}");
    }
    for (name, args, want) in [
        ("clone3", [0; 6], ENOSYS),
        ("chroot", [0; 6], ALLOW),
        ("clone", [0x11, 0, 0, 0, 0, 0], ALLOW),
        ("clone", [0x1000_0000, 0, 0, 0, 0, 0], EPERM),
        ("ioctl", [0, 0x5412, 0, 0, 0, 0], EPERM),
        ("ioctl", [0, 0x1_0000_5412, 0, 0, 0, 0], EPERM),
        ("ioctl", [0, 0x541c, 0, 0, 0, 0], EPERM),
        ("ioctl", [0, 0x5413, 0, 0, 0, 0], ALLOW),
        ("socket", [38, 0, 0, 0, 0, 0], EPERM),
        ("socket", [0xffff_ffff_0000_0028, 0, 0, 0, 0, 0], EPERM),
        ("socket", [2, 0, 0, 0, 0, 0], ALLOW),
        ("personality", [0xffff_ffff, 0, 0, 0, 0, 0], ALLOW),
        ("personality", [0x0004_0000, 0, 0, 0, 0, 0], EPERM),
    ] {
        assert_eq!(answer(native(), name, args), want, "{name} {args:x?}");
    }
    if native() == Arch::X86_64 {
        for call in 0..=20 {
            assert_eq!(answer(Arch::X86, "socketcall", [call; 6]), EPERM, "socketcall {call}");
        }
        let x32 = Call { number: 0x4000_0000, arch: Arch::X86_64.audit(), args: [0; 6] };
        assert_eq!(bpf::run(&filter.program, &x32), 0, "x32 is not for containers: it ends the thread");
    }
}

/// Every argument is this: no descriptor, no address, no process.
const NOTHING: u64 = 0x7fff_ffff;

/// These do not come back, or not to one who was not prepared.
const LEAVES: [&str; 17] = [
    "exit",
    "exit_group",
    "fork",
    "pause",
    "restart_syscall",
    "rt_sigreturn",
    "sigreturn",
    "vfork",
    "rt_sigsuspend",
    "sigsuspend",
    "clone",
    "vm86",
    "vm86old",
    "brk",
    "shmdt",
    "uprobe",
    "uretprobe",
];

/// The kernel lets these past every filter (Linux 6.14), and ends who is not probed.
const PROBES: [u32; 2] = [335, 336];

/// The answers of the kernel to every number, by number: an errno's name, `ok`, or `none` within a second.
fn answers(e: &Engine, flags: &[&str], probe: &str, numbers: &[u32]) -> BTreeMap<u32, String> {
    let count = if probe.ends_with("syscall") { 6 } else { 3 };
    let args = vec![NOTHING.to_string(); count].join(" ");
    let list = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let script = format!("for n in {list}; do echo \"#$n\"; {probe} $n {args}; done 2>/dev/null; true");
    let out = e.run(flags, &["sh", "-c", &script]).ok().stdout;
    let mut found = BTreeMap::new();
    for part in out.split('#').skip(1) {
        let (number, answer) = part.split_once('\n').expect("a line");
        let value: Value = serde_json::from_str(answer.trim()).unwrap_or(json!({ "errno": "none" }));
        let word = value["errno"].as_str().unwrap_or("ok").to_owned();
        found.insert(number.parse().expect("a number"), word);
    }
    found
}

fn probed(verb: &str, arch: Arch) {
    let e = Engine::new();
    let profile = profile();
    let filter = jug::seccomp::compile(&profile, native()).expect("it compiles");
    let leaves: Vec<u32> = LEAVES.iter().filter_map(|name| tables::numbers(name)?.on(arch)).collect();
    let (leaving, numbers): (Vec<u32>, Vec<u32>) = (0..=550).partition(|number| leaves.contains(number));
    let args: [u64; 6] = if verb == "syscall" { [NOTHING; 6] } else { [NOTHING, NOTHING, NOTHING, 0, 0, 0] };
    let means = |number: u32| bpf::run(&filter.program, &Call { number, arch: arch.audit(), args });
    let probe = format!("/bin/probe {verb}");
    let inside = answers(&e, &[], &probe, &numbers);
    let free = answers(&e, &["--security-opt", "seccomp=unconfined"], &probe, &numbers);
    assert_eq!(inside.len(), numbers.len());
    let (mut denied, mut allowed) = (0, 0);
    for number in numbers {
        let (got, without) = (&inside[&number], &free[&number]);
        match means(number) {
            EPERM => assert_eq!(got, "EPERM", "number {number}"),
            ENOSYS => assert_eq!(got, "ENOSYS", "number {number}"),
            ALLOW => assert_eq!(got, without, "number {number}: allowed, so the kernel's own answer"),
            other => panic!("number {number}: {other:x}"),
        }
        if means(number) == ALLOW { allowed += 1 } else { denied += 1 }
    }
    let inside = answers(&e, &[], &format!("/bin/busybox timeout -s KILL 1 {probe}"), &leaving);
    assert_eq!(inside.len(), leaving.len());
    for number in leaving {
        let got = inside[&number].as_str();
        match means(number) {
            _ if verb == "syscall" && PROBES.contains(&number) => assert!(got != "ok", "number {number}"),
            EPERM => assert_eq!(got, "EPERM", "number {number}"),
            ENOSYS => assert_eq!(got, "ENOSYS", "number {number}"),
            _ => assert!(!["EPERM", "ENOSYS"].contains(&got), "number {number}, which is allowed: {got}"),
        }
    }
    assert!(denied > 60 && allowed > 200, "{denied} denied, {allowed} allowed");
}

#[test]
fn the_kernel_answers_as_the_profile_says() {
    probed("syscall", native());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn and_so_it_does_for_32_bit_programs() {
    probed("syscall32", Arch::X86);
}
