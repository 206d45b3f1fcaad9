//! Devices: which nodes /dev gets, and the device filter of the cgroup as a program.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::sys::bpf::Instruction;

/// A node below the container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Relative to the root.
    pub path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The devices that every container has (config-linux.md#default-devices), as (name, minor, major).
pub const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links in /dev (config.md, runtime-linux.md#dev-symbolic-links).
pub const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

pub fn plan(devices: &[LinuxDevice]) -> Result<Vec<Device>> {
    devices
        .iter()
        .enumerate()
        .map(|(i, device)| {
            let at = format!("/linux/devices/{i}");
            if !device.path().is_absolute() {
                return Err(Error::new(format!("{at}/path: {} is not absolute", device.path().display())));
            }
            let number = |n: i64, name: &str| {
                u32::try_from(n).map_err(|_| Error::new(format!("{at}/{name}: {n} is no device number")))
            };
            let kind = match device.typ() {
                LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
                LinuxDeviceType::B => libc::S_IFBLK,
                LinuxDeviceType::P => libc::S_IFIFO,
                LinuxDeviceType::A => {
                    return Err(Error::new(format!("{at}/type: \"a\" is no kind of device node")));
                }
            };
            let fifo = kind == libc::S_IFIFO;
            Ok(Device {
                path: super::lexical(device.path()),
                kind,
                major: if fifo { 0 } else { number(device.major(), "major")? },
                minor: if fifo { 0 } else { number(device.minor(), "minor")? },
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
            })
        })
        // Podman's privileged containers ask for all that the host has. This one leads to the container's own devpts.
        .filter(|device| !device.as_ref().is_ok_and(|device| device.path == Path::new("dev/ptmx")))
        .collect()
}

/// Whether `path` is one of the default nodes, which need not be made twice.
pub fn is_default(path: &Path) -> bool {
    path.parent() == Some(Path::new("dev"))
        && path.file_name().is_some_and(|name| DEFAULT.iter().any(|(default, ..)| name == *default))
}

/// One line of the device list: which kinds and numbers, and which of read, write and mknod it allows or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// BPF_DEVCG_DEV_BLOCK (1) or BPF_DEVCG_DEV_CHAR (2); `None` for all.
    pub kind: Option<u8>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// BPF_DEVCG_ACC_MKNOD (1) | READ (2) | WRITE (4).
    pub access: u8,
}

const BLOCK: u8 = 1;
const CHAR: u8 = 2;
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The config's rules, then what every container may use, as runc appends it.
pub fn rules(config: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(config.len() + 10);
    for (i, rule) in config.iter().enumerate() {
        let at = format!("/linux/resources/devices/{i}");
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
            Some(LinuxDeviceType::P) => return Err(Error::new(format!("{at}/type: a FIFO is no device"))),
        };
        let number = |n: Option<i64>, name: &str| match n {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .map_err(|_| Error::new(format!("{at}/{name}: {n} is no device number"))),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(Error::new(format!("{at}/access: {letter:?} is none of r, w, m"))),
            };
        }
        // A wildcard of every type means all devices and every access, whatever else it says (devices.rst, cgroup v1).
        let (major, minor) = (number(rule.major(), "major")?, number(rule.minor(), "minor")?);
        if kind.is_none() {
            rules.push(Rule { allow: rule.allow(), kind, major: None, minor: None, access: ALL });
        } else {
            rules.push(Rule {
                allow: rule.allow(),
                kind,
                major,
                minor,
                access: if access == 0 { ALL } else { access },
            });
        }
    }
    let allow = |kind, major, minor, access| Rule { allow: true, kind: Some(kind), major, minor, access };
    rules.push(allow(CHAR, None, None, MKNOD));
    rules.push(allow(BLOCK, None, None, MKNOD));
    rules.extend(DEFAULT.iter().map(|(_, major, minor)| allow(CHAR, Some(*major), Some(*minor), ALL)));
    rules.push(allow(CHAR, Some(5), Some(2), ALL));
    rules.push(allow(CHAR, Some(136), None, ALL));
    Ok(rules)
}

/// Whether the rules forbid nothing: then no program is needed.
pub fn allows_everything(rules: &[Rule]) -> bool {
    let start = rules.iter().rposition(|r| r.allow && r.kind.is_none()).map_or(usize::MAX, |i| i);
    start != usize::MAX && rules[start..].iter().all(|r| r.allow)
}

/// What the rules allow of an access to one device: later rules win, bit by bit, and what no rule allows is denied.
/// `None` stands for a number that no rule names.
fn allowed(rules: &[Rule], kind: u8, major: Option<u32>, minor: Option<u32>) -> u8 {
    let matches = |rule: &&Rule| {
        rule.kind.is_none_or(|k| k == kind)
            && rule.major.is_none_or(|m| Some(m) == major)
            && rule.minor.is_none_or(|m| Some(m) == minor)
    };
    rules
        .iter()
        .filter(matches)
        .fold(0, |bits, rule| if rule.allow { bits | rule.access } else { bits & !rule.access })
}

/// What the rules allow, as systemd's DeviceAllow= has it: paths or groups of devices, with the letters of the access.
/// The list allows all that the rules allow, and where systemd has no words more than that.
pub fn allow_list(rules: &[Rule]) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for (kind, name) in [(CHAR, "char"), (BLOCK, "block")] {
        let minors: Vec<_> =
            numbers(rules, kind, |rule| rule.minor).into_iter().map(Some).chain([None]).collect();
        // A minor number of every major has no name of its own.
        let all = minors.iter().fold(0, |bits, minor| bits | allowed(rules, kind, None, *minor));
        let mut add = |path: String, bits: u8, known: u8| {
            let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
            let access: String = letters.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, c)| *c).collect();
            if bits & !known != 0 {
                list.push((path, access));
            }
        };
        add(format!("{name}-*"), all, 0);
        for major in numbers(rules, kind, |rule| rule.major) {
            let whole = allowed(rules, kind, Some(major), None) | all;
            add(format!("{name}-{major}"), whole, all);
            for minor in minors.iter().flatten() {
                let one = allowed(rules, kind, Some(major), Some(*minor));
                add(format!("/dev/{name}/{major}:{minor}"), one, whole);
            }
        }
    }
    list
}

/// The numbers that the rules of a kind name, each once.
fn numbers(rules: &[Rule], kind: u8, number: fn(&Rule) -> Option<u32>) -> Vec<u32> {
    let mut list: Vec<u32> =
        rules.iter().filter(|r| r.kind.is_none_or(|k| k == kind)).filter_map(number).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// The program of a rule list: what is allowed, bit by bit, as each rule in turn adds to it or takes away.
///
/// There is not one jump in it. The kernel's verifier follows every path of a program and keeps a state for each
/// branch, and its time is most of what a device filter costs: twice as many instructions in a straight line load no
/// slower.
///
/// The kernel hands over `{ u32 access_type; u32 major; u32 minor; }` with the kind in the low half of `access_type`
/// and the access in the high half (bpf_cgroup_dev_ctx in linux/bpf.h).
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let (from_the_start, mut rules) = unconditional(rules);
    let mut program = vec![
        load_word(KIND, 0),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
        registers(MOVE, ASKED, KIND),
        immediate(AND, KIND, 0xffff),
        immediate(SHIFT_RIGHT, ASKED, 16),
        immediate(SET, ALLOWED, from_the_start.into()),
    ];
    while let Some(rule) = rules.first() {
        let minors = rules.iter().map_while(|next| small_minor(rule, next));
        let alike = minors.clone().count().max(1);
        let mask = if alike > 1 { minors.fold(0, |mask, minor| mask | 1 << minor) } else { 0 };
        program.extend(change(rule, mask));
        rules = &rules[alike..];
    }
    // 1 if nothing is asked for that is not allowed: only 0 becomes negative when 1 is taken from it.
    program.extend([
        immediate(XOR, ALLOWED, ALL.into()),
        registers(AND_REGISTER, ASKED, ALLOWED),
        immediate(ADD, ASKED, -1),
        immediate(SHIFT_RIGHT, ASKED, 63),
        registers(MOVE, ALLOWED, ASKED),
        immediate(EXIT, 0, 0),
    ]);
    program
}

/// What holds for every device before the first rule that looks at one, and the rules from there on.
fn unconditional(rules: &[Rule]) -> (u8, &[Rule]) {
    let change = |bits: u8, rule: &Rule| if rule.allow { bits | rule.access } else { bits & !rule.access };
    let first = rules.iter().rposition(|rule| rule.kind.is_none()).unwrap_or(0);
    let mut bits = 0;
    let mut rules = &rules[first..];
    loop {
        rules = match rules {
            [rule, rest @ ..] if rule.kind.is_none() => {
                bits = change(bits, rule);
                rest
            }
            // The same for both kinds.
            [rule, other, rest @ ..]
                if rule.kind != other.kind
                    && rule.major.is_none()
                    && rule.minor.is_none()
                    && (Rule { kind: rule.kind, ..*other }) == *rule =>
            {
                bits = change(bits, rule);
                rest
            }
            rest => return (bits, rest),
        }
    }
}

/// The minor number of `next`, when it differs from `rule` in nothing else, and both are small.
fn small_minor(rule: &Rule, next: &Rule) -> Option<u32> {
    let small = |rule: &Rule| rule.minor.filter(|minor| *minor < 32);
    (small(rule).is_some() && Rule { minor: rule.minor, ..*next } == *rule).then(|| small(next)).flatten()
}

/// What one rule, or those that differ in the small minor numbers of `mask` alone, does to what is allowed.
fn change(rule: &Rule, mask: u32) -> Vec<Instruction> {
    // Nought where everything that the rule names is as it says.
    let mut code = vec![immediate(SET, DIFFERENCE, 0)];
    let differ = |register, number: u32| {
        [
            registers(MOVE, SCRATCH, register),
            immediate(XOR_32, SCRATCH, number.cast_signed()),
            registers(OR_REGISTER, DIFFERENCE, SCRATCH),
        ]
    };
    if let Some(kind) = rule.kind {
        code.extend(differ(KIND, kind.into()));
    }
    if let Some(major) = rule.major {
        code.extend(differ(MAJOR, major));
    }
    match rule.minor {
        Some(_) if mask != 0 => code.extend([
            registers(MOVE, SCRATCH, MINOR),
            immediate(SHIFT_RIGHT, SCRATCH, 5),
            registers(OR_REGISTER, DIFFERENCE, SCRATCH),
        ]),
        Some(minor) => code.extend(differ(MINOR, minor)),
        None => {}
    }
    // All ones for nought, and nothing for the rest, none of which is longer than 32 bits.
    code.extend([immediate(ADD, DIFFERENCE, -1), immediate(SHIFT_SIGN, DIFFERENCE, 63)]);
    if mask != 0 {
        // The bit of this minor number, as all ones or none.
        code.extend([
            immediate(SET_32, SCRATCH, mask.cast_signed()),
            registers(SHIFT_RIGHT_REGISTER, SCRATCH, MINOR),
            immediate(AND, SCRATCH, 1),
            immediate(NEGATE, SCRATCH, 0),
            registers(AND_REGISTER, DIFFERENCE, SCRATCH),
        ]);
    }
    code.push(immediate(AND, DIFFERENCE, rule.access.into()));
    if rule.allow {
        code.push(registers(OR_REGISTER, ALLOWED, DIFFERENCE));
    } else {
        code.extend([immediate(XOR, DIFFERENCE, -1), registers(AND_REGISTER, ALLOWED, DIFFERENCE)]);
    }
    code
}

// Registers; R1 holds the context until everything is loaded from it.
const ALLOWED: u8 = 0;
const DIFFERENCE: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Codes (bpf_common.h, bpf.h): 64 bits wide, with an immediate that is sign-extended, unless the name says otherwise.
const SET: u8 = 0xb7;
const SET_32: u8 = 0xb4;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const AND_REGISTER: u8 = 0x5f;
const OR_REGISTER: u8 = 0x4f;
const XOR: u8 = 0xa7;
const XOR_32: u8 = 0xa4;
const NEGATE: u8 = 0x87;
const SHIFT_RIGHT: u8 = 0x77;
const SHIFT_RIGHT_REGISTER: u8 = 0x7f;
const SHIFT_SIGN: u8 = 0xc7;
const LOAD_WORD: u8 = 0x61;
const EXIT: u8 = 0x95;

fn load_word(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | 1 << 4, offset, immediate: 0 }
}

fn registers(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn immediate(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would; the registers it uses are the only state.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut r = [0u64; 11];
        for i in program {
            let (dst, src) = (usize::from(i.registers & 15), r[usize::from(i.registers >> 4)]);
            let imm = i64::from(i.immediate) as u64;
            match i.code {
                LOAD_WORD => r[dst] = u64::from(context[i.offset as usize / 4]),
                MOVE => r[dst] = src,
                SET => r[dst] = imm,
                SET_32 => r[dst] = u64::from(imm as u32),
                ADD => r[dst] = r[dst].wrapping_add(imm),
                AND => r[dst] &= imm,
                AND_REGISTER => r[dst] &= src,
                OR_REGISTER => r[dst] |= src,
                XOR => r[dst] ^= imm,
                XOR_32 => r[dst] = u64::from(r[dst] as u32 ^ imm as u32),
                NEGATE => r[dst] = r[dst].wrapping_neg(),
                SHIFT_RIGHT => r[dst] >>= imm,
                // The processor looks at six bits of the number.
                SHIFT_RIGHT_REGISTER => r[dst] >>= src & 63,
                SHIFT_SIGN => r[dst] = (r[dst].cast_signed() >> imm).cast_unsigned(),
                EXIT => {
                    assert!(r[0] <= 1, "the kernel takes 0 and 1");
                    return r[0] == 1;
                }
                code => panic!("unknown code {code:#x}"),
            }
        }
        panic!("the program does not end");
    }

    /// What the rules mean, said without a program.
    fn meaning(rules: &[Rule], kind: u8, access: u8, major: u32, minor: u32) -> bool {
        (0..3).map(|bit| 1 << bit).filter(|bit| access & bit != 0).all(|bit| {
            rules
                .iter()
                .rev()
                .find(|r| {
                    r.access & bit != 0
                        && r.kind.is_none_or(|k| k == kind)
                        && r.major.is_none_or(|m| m == major)
                        && r.minor.is_none_or(|m| m == minor)
                })
                .is_some_and(|r| r.allow)
        })
    }

    #[test]
    fn the_program_means_what_the_rules_mean() {
        let deny_all = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };
        let mut lists = vec![rules(&[]).unwrap()];
        let mut seed = 1u32;
        let mut random = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % n
        };
        for _ in 0..600 {
            let mut list = vec![deny_all];
            for _ in 0..random(8) {
                list.push(Rule {
                    allow: random(2) == 0,
                    kind: [Some(BLOCK), Some(CHAR), Some(CHAR)][random(3) as usize],
                    major: [None, Some(1), Some(5)][random(3) as usize],
                    minor: [None, Some(2), Some(3), Some(7), Some(40), Some(66)][random(6) as usize],
                    access: (random(7) + 1) as u8,
                });
            }
            lists.push(list);
        }
        for list in lists {
            let program = program(&list);
            for kind in [BLOCK, CHAR] {
                for access in 1..8 {
                    for (major, minor) in
                        [(1, 3), (1, 2), (1, 7), (1, 40), (1, 66), (5, 2), (5, 3), (136, 7), (8, 0), (8, 40)]
                    {
                        assert_eq!(
                            run(&program, kind.into(), access, major, minor),
                            meaning(&list, kind, access as u8, major, minor),
                            "{list:?} {kind} {access} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_allow_list_names_what_is_allowed() {
        let deny_all = LinuxDeviceCgroup::default();
        let list = allow_list(&rules(&[deny_all]).unwrap());
        let has = |path: &str, access: &str| list.contains(&(path.to_owned(), access.to_owned()));
        assert!(has("char-*", "m") && has("block-*", "m") && has("char-136", "rwm"), "{list:?}");
        assert!(has("/dev/char/1:3", "rwm") && has("/dev/char/5:2", "rwm"), "{list:?}");
        assert!(!list.iter().any(|(path, _)| path == "/dev/char/1:2" || path == "char-1"), "{list:?}");
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        let all = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
        let some = Rule { allow: true, kind: Some(CHAR), major: Some(1), minor: None, access: READ };
        assert!(allows_everything(&[all, some]));
        assert!(!allows_everything(&[some]));
        assert!(!allows_everything(&[all, Rule { allow: false, ..some }]));
    }
}
