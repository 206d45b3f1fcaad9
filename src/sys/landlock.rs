//! Landlock (landlock(7)): a process gives up every file that does not lie below what it names.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::fd::owned;
use super::{check, shown};
use crate::error::Result;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// LANDLOCK_ACCESS_FS_* from linux/landlock.h, by their bit: execute, write_file, read_file, read_dir, remove_dir,
/// remove_file, make_char, make_dir, make_reg, make_sock, make_fifo, make_block, make_sym (all ABI 1), refer (2),
/// truncate (3), ioctl_dev (5).
pub const READ_AND_CHANGE: u64 = 0b0111_1111_1111_1110;
const EXECUTE: u64 = 1;
const IOCTL_DEV: u64 = 1 << 15;
/// Binding and connecting TCP sockets (ABI 4).
const ALL_NET: u64 = 0b11;
/// Abstract sockets and signals (ABI 6).
const ALL_SCOPES: u64 = 0b11;

#[repr(C)]
struct Ruleset {
    fs: u64,
    net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The version of the kernel's interface; 0 where it has none, or where it was not switched on at boot.
pub fn abi() -> i32 {
    // SAFETY: with this flag the call only answers; the pointer must be null and the size 0.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    i32::try_from(abi).unwrap_or(0).max(0)
}

/// Restricts this thread, and what it starts from now on, to `allowed` below `dir`: no other file, no TCP, no signal
/// to anybody outside. `abi` is at least 2 (1 cannot allow hard links between directories). Needs no_new_privs or
/// CAP_SYS_ADMIN.
pub fn restrict_to(dir: BorrowedFd<'_>, allowed: u64, abi: i32) -> Result<()> {
    let known = match abi {
        ..=2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    };
    let ruleset = Ruleset {
        fs: (READ_AND_CHANGE | EXECUTE | IOCTL_DEV) & known,
        net: if abi >= 4 { ALL_NET } else { 0 },
        scoped: if abi >= 6 { ALL_SCOPES } else { 0 },
    };
    let size = match abi {
        ..=3 => 8usize,
        4 | 5 => 16,
        _ => 24,
    };
    let rules = check!(
        // SAFETY: the structure is at least `size` bytes long and lives across the call.
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size, 0) },
        "landlock_create_ruleset(fs {:#x}, ABI {abi})",
        ruleset.fs
    )?;
    let rules = owned(rules);
    let beneath = PathBeneath { allowed: allowed & known, parent: dir.as_raw_fd() };
    check!(
        // SAFETY: the structure has the kernel's layout (packed) and lives across the call.
        unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                rules.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const beneath,
                0,
            )
        },
        "landlock_add_rule({}, {:#x})",
        shown(dir),
        allowed & known
    )?;
    check!(
        // SAFETY: plain call on an open descriptor.
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_fd().as_raw_fd(), 0) },
        "landlock_restrict_self()"
    )?;
    Ok(())
}
