//! OCI seccomp profile -> classic BPF program, ready for seccomp(2).
//!
//! Pure: bytes in, bytes out. The call that installs a filter is `sys`'s, the listener's socket belongs to `container`;
//! this room must neither open, load nor print anything. What a filter does is what runc with libseccomp makes of the
//! same profile, which `tests/seccomp_equivalence.rs` proves number by number. In short:
//!
//! - architectures: those listed, and always the native one; any other audit architecture kills the thread
//!   (`SCMP_ACT_KILL`, libseccomp's answer), and so do x32 numbers where x32 is not listed;
//! - a rule equal to the default action is dropped; a rule without conditions beats those with;
//! - calls x86 multiplexes (`socketcall`, `ipc`) are matched both ways. The multiplexer passes its arguments in memory,
//!   so a condition on the first argument is lost there, and one on a later argument tests the multiplexer's own: an
//!   argument rule does not hold on x86 unless `socketcall` itself is denied;
//! - numbers past the newest call the profile names answer ENOSYS, unless the default action lets them pass.
//!
//! The path through the files: `rules` reads, `sections` gives meaning to numbers, `assemble` writes instructions.

mod arch;
mod assemble;
mod rules;
mod sections;
pub mod tables;

pub use arch::{Arch, native};

use crate::error::Result;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

/// A compiled profile.
#[derive(Clone, Debug)]
pub struct Filter {
    /// At least one instruction and at most 4096.
    pub program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2). Without `NEW_LISTENER`: that is the loader's, when `notify` says so.
    pub flags: u32,
    /// Some rule has the action NOTIFY: the filter needs a listener.
    pub notify: bool,
    /// What the profile asked for and nobody can have: for the debug log only.
    pub warnings: Vec<String>,
}

/// Compiles `profile` for a kernel of architecture `native`. No I/O.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Filter> {
    let mut warnings = Vec::new();
    let rules = rules::read(profile)?;
    let archs = architectures(profile, native, &mut warnings);
    let flags = flags(profile, rules.notify, &mut warnings);
    let (sections, checks, unknown) = sections::sections(&rules, &archs);
    warnings.extend(unknown.iter().map(|name| format!("seccomp: unknown system call {name} ignored")));
    let program = assemble::assemble(&sections, &checks, rules.default_action)?;
    Ok(Filter { program, flags, notify: rules.notify, warnings })
}

/// The listed architectures and the native one. Those this kernel cannot run never reach the filter.
fn architectures(profile: &LinuxSeccomp, native: Arch, warnings: &mut Vec<String>) -> Vec<Arch> {
    let mut archs = vec![native];
    for listed in profile.architectures().as_deref().unwrap_or_default() {
        match Arch::from_oci(*listed, native) {
            Some(arch) if arch.runs_on(native) => archs.push(arch),
            _ => warnings.push(format!("seccomp: {listed} cannot run on {}, ignored", native.name())),
        }
    }
    archs
}

/// An absent list means `SPEC_ALLOW`, as in runc since 1.2; an empty one means none.
fn flags(profile: &LinuxSeccomp, notify: bool, warnings: &mut Vec<String>) -> u32 {
    use LinuxSeccompFilterFlag as Flag;
    let Some(listed) = profile.flags() else { return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32 };
    listed.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
                Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
                // Init has one thread when the filter is installed: nothing to synchronize. runc ignores it too.
                Flag::SeccompFilterFlagTsync => 0,
                Flag::SeccompFilterFlagWaitKillableRecv if notify => WAIT_KILLABLE_RECV,
                Flag::SeccompFilterFlagWaitKillableRecv => {
                    // seccomp(2) refuses the flag without a listener.
                    warnings.push(format!("seccomp: {flag} without a rule that notifies, ignored"));
                    0
                }
            }
    })
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19).
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The actions a profile may name, sorted; for `features`.
pub const KNOWN_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The operators a condition may use, sorted; for `features`.
pub const KNOWN_OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The architectures jug compiles for, sorted; for `features`.
pub const KNOWN_ARCHS: &[&str] =
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// The flags a profile may list; for `features`.
pub const KNOWN_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
