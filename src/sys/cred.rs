//! Credentials: ids, groups, capabilities. Order matters and is decided by the caller (`apply::process`).

use super::{check, errno};
use crate::error::{Error, Result};

pub fn euid() -> u32 {
    // SAFETY: geteuid(2) cannot fail.
    unsafe { libc::geteuid() }
}

pub fn egid() -> u32 {
    // SAFETY: getegid(2) cannot fail.
    unsafe { libc::getegid() }
}

// The raw calls, not libc's wrappers: those walk all threads (nptl(7)), and there is only one here.
pub fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: changes only this thread, which is the only one.
    check!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, "setresuid({uid}, {uid}, {uid})")?;
    Ok(())
}

pub fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: changes only this thread, which is the only one.
    check!(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }, "setresgid({gid}, {gid}, {gid})")?;
    Ok(())
}

pub fn setgroups(groups: &[u32]) -> Result<()> {
    check!(
        // SAFETY: groups is valid for its length.
        unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) },
        "setgroups({groups:?})"
    )?;
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Sets the effective, permitted and inheritable sets in one call (capset(2)); bit n is capability n.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [
        [low(effective), low(permitted), low(inheritable)],
        [high(effective), high(permitted), high(inheritable)],
    ];
    check!(
        // SAFETY: version 3 takes exactly two data elements of three u32 each.
        unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) },
        "capset(effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x})"
    )?;
    Ok(())
}

/// The effective, permitted and inheritable sets of this process (capget(2)).
pub fn capget() -> Result<(u64, u64, u64)> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [[0u32; 3]; 2];
    // SAFETY: version 3 fills exactly two data elements of three u32 each.
    check!(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) }, "capget()")?;
    let join = |i: usize| u64::from(data[0][i]) | u64::from(data[1][i]) << 32;
    Ok((join(0), join(1), join(2)))
}

/// Drops everything that is not in `keep` from the bounding set, up to the last capability that the kernel knows.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for cap in 0..64u64 {
        if keep & (1 << cap) != 0 {
            continue;
        }
        // SAFETY: plain integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } != 0 {
            return match errno() {
                // The kernel knows no such capability: nor any above.
                libc::EINVAL => Ok(()),
                e => Err(Error::call(format_args!("prctl(PR_CAPBSET_DROP, {cap})"), e)),
            };
        }
    }
    Ok(())
}

/// Those of `wanted` that are in the bounding set of this process.
pub fn in_bounding_set(wanted: u64) -> Result<u64> {
    let mut set = 0;
    for cap in (0..64u64).filter(|cap| wanted & (1 << cap) != 0) {
        // SAFETY: plain integers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) } {
            1 => set |= 1 << cap,
            0 => {}
            // The kernel knows no such capability.
            _ if errno() == libc::EINVAL => {}
            _ => return Err(Error::call(format_args!("prctl(PR_CAPBSET_READ, {cap})"), errno())),
        }
    }
    Ok(set)
}

/// Makes the ambient set exactly `set`: cleared, then raised one by one (capabilities(7)).
pub fn set_ambient(set: u64) -> Result<()> {
    check!(
        // SAFETY: plain integers.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) },
        "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)"
    )?;
    for cap in (0..64u64).filter(|cap| set & (1 << cap) != 0) {
        check!(
            // SAFETY: plain integers.
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap, 0, 0) },
            "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {cap})"
        )?;
    }
    Ok(())
}
