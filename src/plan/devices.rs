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
    rules.push(allow(CHAR, Some(136), None, ALL));
    rules.push(allow(CHAR, Some(5), Some(2), ALL));
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

/// The program of a rule list: what is exceptional by kind, major and minor, and one common end for all the rest. The
/// leaves are decided here, not in the kernel, and the paths are few and short: the verifier's time is most of what a
/// device filter costs.
///
/// The kernel hands over `{ u32 access_type; u32 major; u32 minor; }` with the kind in the low half of `access_type`
/// and the access in the high half (bpf_cgroup_dev_ctx in linux/bpf.h). R2 kind, R3 access, R4 major, R5 minor.
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load_word(2, 0),
        move_register(3, 2),
        immediate(ALU64_AND, 2, 0xffff),
        immediate(ALU64_RSH, 3, 16),
        load_word(4, 4),
        load_word(5, 8),
    ];
    let rest = allowed(rules, BLOCK, None, None);
    for kind in [CHAR, BLOCK] {
        let branch = kind_branch(rules, kind, rest);
        if !branch.is_empty() {
            program.push(jump(JNE, 2, u32::from(kind), branch.len()));
            program.extend(branch);
        }
    }
    program.extend(answer(rest));
    program
}

/// Falls through where the answer is `rest`.
fn kind_branch(rules: &[Rule], kind: u8, rest: u8) -> Vec<Instruction> {
    let other = major_branch(rules, kind, None, rest);
    let mut branch = Vec::new();
    for major in numbers(rules, kind, |rule| rule.major) {
        let one = major_branch(rules, kind, Some(major), rest);
        if one != other {
            branch.push(jump(JNE, 4, major, one.len() + usize::from(!other.is_empty())));
            branch.extend(one);
            if !other.is_empty() {
                // Past the branch of the other majors; patched below, when its end is known.
                branch.push(jump_always(usize::MAX));
            }
        }
    }
    branch.extend(other);
    let end = branch.len();
    for (at, i) in branch.iter_mut().enumerate() {
        if i.code == JA && i.offset == i16::MAX {
            *i = jump_always(end - at - 1);
        }
    }
    branch
}

fn major_branch(rules: &[Rule], kind: u8, major: Option<u32>, rest: u8) -> Vec<Instruction> {
    let other = allowed(rules, kind, major, None);
    let minors = numbers(rules, kind, |rule| rule.minor);
    let mut branch = Vec::new();
    let mut small = 0u32;
    for minor in minors {
        let one = allowed(rules, kind, major, Some(minor));
        if one == other {
            continue;
        }
        if one == ALL && minor < 31 {
            small |= 1 << minor;
        } else {
            let leaf = answer(one);
            branch.push(jump(JNE, 5, minor, leaf.len()));
            branch.extend(leaf);
        }
    }
    if small != 0 {
        // All small minors with every access at once: bit `minor` of a mask.
        let test = [
            jump(JGT, 5, 30, 6),
            immediate(MOV64, 1, 1),
            Instruction { code: LSH64_REGISTER, registers: 1 | 5 << 4, offset: 0, immediate: 0 },
            immediate(ALU64_AND, 1, small.cast_signed()),
            jump(JEQ, 1, 0, 2),
        ];
        branch.extend(test);
        branch.extend(answer(ALL));
    }
    if other != rest {
        branch.extend(answer(other));
    }
    branch
}

/// The numbers that the rules of a kind name, each once.
fn numbers(rules: &[Rule], kind: u8, number: fn(&Rule) -> Option<u32>) -> Vec<u32> {
    let mut list: Vec<u32> =
        rules.iter().filter(|r| r.kind.is_none_or(|k| k == kind)).filter_map(number).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Returns 1 if nothing but `allowed` is asked for.
fn answer(allowed: u8) -> Vec<Instruction> {
    let result = |n: i32| [immediate(MOV64, 0, n), exit()];
    match allowed {
        ALL => result(1).to_vec(),
        0 => result(0).to_vec(),
        some => {
            let mut leaf = vec![immediate(ALU64_AND, 3, i32::from(ALL & !some)), jump(JNE, 3, 0, 2)];
            leaf.extend(result(1));
            leaf.extend(result(0));
            leaf
        }
    }
}

const MOV64: u8 = 0xb7;
const ALU64_AND: u8 = 0x57;
const ALU64_RSH: u8 = 0x77;
const LSH64_REGISTER: u8 = 0x6f;
const JA: u8 = 0x05;
/// BPF_JMP32: device numbers above 2^31 are not sign-extended then.
const JEQ: u8 = 0x16;
const JNE: u8 = 0x56;
const JGT: u8 = 0x26;

fn load_word(register: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: register | 1 << 4, offset, immediate: 0 }
}

fn move_register(to: u8, from: u8) -> Instruction {
    Instruction { code: 0xbf, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn immediate(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn jump_always(over: usize) -> Instruction {
    Instruction { code: JA, registers: 0, offset: i16::try_from(over).unwrap_or(i16::MAX), immediate: 0 }
}

fn jump(code: u8, register: u8, value: u32, over: usize) -> Instruction {
    let offset = i16::try_from(over).unwrap_or(i16::MAX);
    Instruction { code, registers: register, offset, immediate: value.cast_signed() }
}

fn exit() -> Instruction {
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would; the registers it uses are the only state.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut r = [0u64; 11];
        let mut at = 0;
        for _ in 0..10_000 {
            let i = program[at];
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let imm = i64::from(i.immediate) as u64;
            let mut next = at + 1;
            match i.code {
                0x61 => r[dst] = u64::from(context[i.offset as usize / 4]),
                0xbf => r[dst] = r[src],
                MOV64 => r[dst] = imm,
                ALU64_AND => r[dst] &= imm,
                ALU64_RSH => r[dst] >>= imm,
                LSH64_REGISTER => r[dst] <<= r[src],
                JA => next = next.wrapping_add_signed(i.offset as isize),
                JEQ if r[dst] as u32 == imm as u32 => next = next.wrapping_add_signed(i.offset as isize),
                JGT if r[dst] as u32 > imm as u32 => next = next.wrapping_add_signed(i.offset as isize),
                JEQ | JGT => {}
                JNE if r[dst] as u32 != imm as u32 => next = next.wrapping_add_signed(i.offset as isize),
                JNE => {}
                0x95 => return r[0] == 1,
                code => panic!("unknown code {code:#x}"),
            }
            at = next;
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
                    minor: [None, Some(2), Some(3), Some(7), Some(40)][random(5) as usize],
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
                        [(1, 3), (1, 2), (1, 7), (1, 40), (5, 2), (5, 3), (136, 7), (8, 0), (8, 40)]
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
