//! Profiles through libseccomp, the way runc takes them there.
//!
//! runc's steps (`specconv`, `InitSeccomp`, `patchbpf`) are written here a second time, from runc's behaviour and apart
//! from `src/seccomp`, so that a misreading shows as a difference. libseccomp itself runs in a small C program.

use crate::bpf::{self, Call};
use jug::seccomp::Arch;
use libc::sock_filter;
use oci_spec::runtime::{Arch as OciArch, LinuxSeccomp, LinuxSeccompAction};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const ENOSYS: u32 = 0x0005_0026;

/// A profile as libseccomp and runc understand it.
pub struct Oracle {
    program: Vec<sock_filter>,
    /// Highest number named, by libseccomp's architecture token; nothing when the stub is not made.
    newest: Vec<(u32, u32)>,
    /// Names this libseccomp does not know.
    pub unknown: Vec<String>,
}

/// libseccomp refused a rule (-EEXIST: it contradicts another), and runc would have refused the profile.
#[derive(Debug, PartialEq)]
pub struct Refused(pub i32);

/// Builds the C program once.
fn libseccomp() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(file!()).with_file_name("libseccomp.c");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libseccomp-oracle");
        let cc = Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&target).arg(&source).arg("-lseccomp").output();
        match cc {
            Ok(out) if out.status.success() => target,
            Ok(out) => panic!(
                "cc cannot build the libseccomp oracle: install libseccomp-dev (apt-get install libseccomp-dev)\n{}",
                String::from_utf8_lossy(&out.stderr)
            ),
            Err(error) => panic!("no C compiler for the libseccomp oracle: install gcc ({error})"),
        }
    })
}

/// libseccomp's token for an architecture (seccomp_arch_add(3)).
fn token(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => 0xc000_003e,
        Arch::X86 => 0x4000_0003,
        Arch::X32 => 0x4000_003e,
        Arch::Aarch64 => 0xc000_00b7,
        Arch::Arm => 0x4000_0028,
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(Some(errno.unwrap_or(1)))
}

/// The directives for the C program.
fn directives(profile: &LinuxSeccomp, native: Arch) -> String {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut text = format!("default {default:x}\n");
    if native != Arch::X86_64 {
        text += &format!("arch {:x}\nonly\n", token(native));
    }
    for arch in profile.architectures().iter().flatten() {
        let arch = if *arch == OciArch::ScmpArchNative { token(native) } else { *arch as u32 };
        text += &format!("arch {arch:x}\n");
    }
    for entry in profile.syscalls().iter().flatten() {
        let act = action(entry.action(), entry.errno_ret());
        let args: Vec<(usize, String)> = entry
            .args()
            .iter()
            .flatten()
            .map(|arg| {
                let second = arg.value_two().unwrap_or(0);
                (
                    arg.index(),
                    format!(" {:x} {:x} {:x} {second:x}", arg.index(), arg.op() as u32, arg.value()),
                )
            })
            .collect();
        let repeated = (0..6).any(|index| args.iter().filter(|(at, _)| *at == index).count() > 1);
        for name in entry.names() {
            if repeated {
                for (_, arg) in &args {
                    text += &format!("rule {act:x} {name}{arg}\n");
                }
            } else {
                let all: String = args.iter().map(|(_, arg)| arg.as_str()).collect();
                text += &format!("rule {act:x} {name}{all}\n");
            }
        }
    }
    text
}

/// The calls libseccomp knows for `arch`, as it numbers them: its real numbers, and no pseudo ones.
pub fn names(arch: Arch) -> Vec<(u32, String)> {
    let lines = ask(&format!("default 0\nnames {:x}\n", token(arch)));
    let pairs = lines.lines().filter_map(|line| line.strip_prefix("name ")?.split_once(' '));
    pairs.map(|(number, name)| (number.parse().expect("a number"), name.to_owned())).collect()
}

fn ask(directives: &str) -> String {
    let mut child = Command::new(libseccomp())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the libseccomp oracle");
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(directives.as_bytes()).expect("write to the oracle");
    drop(stdin);
    let out = child.wait_with_output().expect("wait for the oracle");
    assert!(out.status.success(), "the libseccomp oracle failed: {}", out.status);
    String::from_utf8(out.stdout).expect("text")
}

pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Oracle, Refused> {
    let answer = ask(&directives(profile, native));
    let mut oracle = Oracle { program: Vec::new(), newest: Vec::new(), unknown: Vec::new() };
    for line in answer.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let hex = |at: usize| u32::from_str_radix(words[at], 16).expect("a hexadecimal number");
        match words[0] {
            "unknown" => oracle.unknown.push(words[1].to_owned()),
            "newest" => {
                let number: i32 = words[2].parse().expect("a number");
                oracle.newest.push((hex(1), number as u32));
            }
            "error" => return Err(Refused(words[1].parse().expect("an error number"))),
            _ => oracle.program.push(sock_filter {
                code: hex(0) as u16,
                jt: hex(1) as u8,
                jf: hex(2) as u8,
                k: hex(3),
            }),
        }
    }
    let permissive = matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    );
    if permissive {
        oracle.newest.clear();
    }
    Ok(oracle)
}

impl Oracle {
    pub fn instructions(&self) -> usize {
        self.program.len()
    }

    /// libseccomp 2.5.4 forgets to load the number when the call it puts first does not exist on an architecture
    /// (aarch64 and `stat`, for one): the section then compares the architecture with numbers. Such a program is no
    /// oracle.
    pub fn loads_numbers(&self) -> bool {
        let switch = self.program.iter().enumerate().filter(|(_, insn)| insn.code == 0x15);
        switch
            .filter(|(_, insn)| [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028].contains(&insn.k))
            .map(|(at, insn)| &self.program[at + 1 + usize::from(insn.jt)])
            .all(|first| first.code == 0x06 || first.code == 0x05 || (first.code, first.k) == (0x20, 0))
    }

    /// What runc's filter returns: its ENOSYS stub, then libseccomp's program.
    pub fn run(&self, call: &Call) -> u32 {
        if self.past_newest(call) { ENOSYS } else { bpf::run(&self.program, call) }
    }

    /// runc's `generateEnosysStub`: by audit architecture, and on x86_64 by the x32 bit.
    pub fn past_newest(&self, call: &Call) -> bool {
        self.newest.iter().any(|(token, newest)| {
            let x32_bit = call.number & 0x4000_0000 != 0;
            let here = match *token {
                0xc000_003e => call.arch == 0xc000_003e && !x32_bit,
                0x4000_003e => call.arch == 0xc000_003e && x32_bit,
                other => call.arch == other,
            };
            here && *newest > 0 && call.number > *newest
        })
    }
}
