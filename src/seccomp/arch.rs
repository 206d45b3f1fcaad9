//! The architectures a filter can speak of, and what seccomp(2) calls them.
//!
//! This file must know nothing of profiles or programs: it is the vocabulary both are written in.

use oci_spec::runtime::Arch as OciArch;

/// One way of making system calls: an audit architecture, and for x32 the bit that tells it from x86_64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

/// Set in the number of every x32 call: x32 shares `AUDIT_ARCH_X86_64` with x86_64 (seccomp(2), "x32 system calls").
pub const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// In the order of the columns of the number table.
    pub const ALL: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

    /// The name in an OCI profile.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// `seccomp_data.arch`: an `AUDIT_ARCH_*` value of linux/audit.h.
    pub fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 significant bits. libseccomp counts x32 among the 32-bit architectures and compares
    /// low words only, although the kernel hands over the whole registers.
    pub fn wide(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Aarch64)
    }

    /// What is added to a number of the kernel's table to make the number a filter sees.
    pub fn number_bit(self) -> u32 {
        if self == Arch::X32 { X32_BIT } else { 0 }
    }

    /// Whether a kernel of architecture `native` can run programs of this one.
    pub fn runs_on(self, native: Arch) -> bool {
        match native {
            Arch::Aarch64 | Arch::Arm => matches!(self, Arch::Aarch64 | Arch::Arm),
            _ => matches!(self, Arch::X86_64 | Arch::X86 | Arch::X32),
        }
    }

    /// The architecture an OCI name stands for; `None` for those jug has no tables for.
    pub fn from_oci(arch: OciArch, native: Arch) -> Option<Arch> {
        match arch {
            OciArch::ScmpArchNative => Some(native),
            OciArch::ScmpArchX86_64 => Some(Arch::X86_64),
            OciArch::ScmpArchX86 => Some(Arch::X86),
            OciArch::ScmpArchX32 => Some(Arch::X32),
            OciArch::ScmpArchAarch64 => Some(Arch::Aarch64),
            OciArch::ScmpArchArm => Some(Arch::Arm),
            _ => None,
        }
    }
}

/// The architecture jug was built for, which is the kernel's: jug is never run as a 32-bit program on a 64-bit kernel.
pub fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
}
