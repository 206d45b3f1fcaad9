//! The bundles that every contender gets: one root file system, runc's default spec, and the same with a seccomp
//! profile of Docker's kind.
//!
//! The payload is a static program of one system call, so that what is measured is the runtime: a program with a C
//! library would add its own start-up to everybody's time and bring the ratios closer together.

use crate::seccomp;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `runc spec` of runc 1.1 on a cgroup v2 host, with `terminal` false, `args` /true, and without `linux.resources`:
/// crun cannot apply its device rules without CAP_SYS_RESOURCE.
const SPEC: &str = include_str!("spec.json");

/// An allow-list as Docker's default profile has it for a container with the capabilities of [`SPEC`]: the names are
/// those of containers/common's seccomp.json (Apache-2.0), minus what needs a capability that the container lacks.
const PROFILE: &str = include_str!("seccomp.json");

/// What /answer exits with: the error number of clone3(2) without arguments. The profile hides the call.
pub const ANSWER_PLAIN: i32 = libc::EINVAL;
pub const ANSWER_SECCOMP: i32 = libc::ENOSYS;

pub struct Bundles {
    pub rootfs: PathBuf,
    /// The default spec, running /true.
    pub plain: PathBuf,
    /// The same with the seccomp profile.
    pub seccomp: PathBuf,
    /// The default spec, running /pause, which never ends: what `exec` goes into.
    pub pause: PathBuf,
    /// `plain` and `seccomp`, running /answer, which shows whether a container was made and the profile is in force.
    pub answers: [PathBuf; 2],
    /// The compiled profile, an array of `struct sock_filter`.
    pub filter: PathBuf,
}

impl Bundles {
    /// Writes everything below `dir`.
    pub fn write(dir: &Path) -> io::Result<Self> {
        let rootfs = dir.join("rootfs");
        for mount_point in ["proc", "dev", "sys"] {
            fs::create_dir_all(rootfs.join(mount_point))?;
        }
        write_program(&rootfs.join("true"), EXIT)?;
        write_program(&rootfs.join("pause"), PAUSE)?;
        write_program(&rootfs.join("answer"), ANSWER)?;

        let mut spec: Value = serde_json::from_str(SPEC)?;
        spec["root"]["path"] = json!(rootfs);
        let plain = write_bundle(&dir.join("plain"), &spec)?;
        spec["process"]["args"] = json!(["/pause"]);
        let pause = write_bundle(&dir.join("pause"), &spec)?;
        spec["process"]["args"] = json!(["/answer"]);
        let plain_answer = write_bundle(&dir.join("answer"), &spec)?;
        spec["linux"]["seccomp"] = serde_json::from_str(PROFILE)?;
        let seccomp_answer = write_bundle(&dir.join("seccomp-answer"), &spec)?;
        spec["process"]["args"] = json!(["/true"]);
        let seccomp = write_bundle(&dir.join("seccomp"), &spec)?;

        let filter = dir.join("filter");
        fs::write(&filter, compiled_profile()?)?;
        Ok(Self { rootfs, plain, seccomp, pause, answers: [plain_answer, seccomp_answer], filter })
    }
}

fn write_bundle(dir: &Path, spec: &Value) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(spec)?)?;
    Ok(dir.to_owned())
}

/// The default spec and the seccomp profile, for bundles with another program.
pub fn spec() -> io::Result<Value> {
    let mut spec: Value = serde_json::from_str(SPEC)?;
    spec["linux"]["seccomp"] = serde_json::from_str(PROFILE)?;
    Ok(spec)
}

/// The profile as jug compiles it, so that floor and jug give the kernel the same work.
pub fn compiled_profile() -> io::Result<Vec<u8>> {
    let profile: LinuxSeccomp = serde_json::from_str(PROFILE)?;
    let filter = seccomp::compile(&profile, seccomp::native()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(filter.program.len() * 8);
    for instruction in &filter.program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// exit_group(0).
#[cfg(target_arch = "x86_64")]
const EXIT: &[u8] = &[0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
/// pause() for ever.
#[cfg(target_arch = "x86_64")]
const PAUSE: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
/// exit_group(-clone3(NULL, 0)).
#[cfg(target_arch = "x86_64")]
const ANSWER: &[u8] = &[
    0xb8, 0xb3, 0x01, 0, 0, 0x31, 0xff, 0x31, 0xf6, 0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 231, 0, 0, 0,
    0x0f, 0x05,
];
#[cfg(target_arch = "x86_64")]
const ELF_MACHINE: u16 = 62;

/// exit_group(0): mov x8, 94; mov x0, 0; svc 0.
#[cfg(target_arch = "aarch64")]
const EXIT: &[u8] = &[0xc8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4];
/// ppoll(NULL, 0, NULL, NULL) for ever: five movs, svc 0, b -24.
#[cfg(target_arch = "aarch64")]
const PAUSE: &[u8] = &[
    0x28, 0x09, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0x80, 0xd2, 0x02, 0, 0x80, 0xd2, 0x03, 0, 0x80, 0xd2,
    0x01, 0, 0, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];
/// exit_group(-clone3(NULL, 0)): mov x8, 435; mov x0, 0; mov x1, 0; svc 0; neg w0, w0; mov x8, 94; svc 0.
#[cfg(target_arch = "aarch64")]
const ANSWER: &[u8] = &[
    0x68, 0x36, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4, 0xe0, 0x03, 0, 0x4b,
    0xc8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4,
];
#[cfg(target_arch = "aarch64")]
const ELF_MACHINE: u16 = 183;

/// The smallest static program around `code`: an ELF header and one segment (elf(5)).
fn write_program(path: &Path, code: &[u8]) -> io::Result<()> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2, ELF_MACHINE] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for half in [1u32, 5] {
        elf.extend(half.to_le_bytes());
    }
    let size = HEADERS + code.len() as u64;
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    fs::write(path, elf)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}
