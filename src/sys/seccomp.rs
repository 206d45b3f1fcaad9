//! Loading a filter: seccomp(2). What the filter says is decided in `crate::seccomp`.

use std::os::fd::OwnedFd;

use super::fd::owned;
use super::{check, errno};
use crate::error::{Error, Result};

pub const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Loads a filter program. Returns the notification descriptor when `flags` holds FLAG_NEW_LISTENER.
pub fn load(program: &[libc::sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len())
        .map_err(|_| Error::new(format!("a seccomp filter of {} instructions is too long", program.len())))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: fprog points to `len` instructions that live across the call; the kernel copies and checks them.
    let ret = check!(
        unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog)
        },
        "seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {len} instructions)"
    )
    .map_err(|e| match e.errno() {
        libc::EACCES => e.why("without no_new_privs a filter needs CAP_SYS_ADMIN"),
        libc::EBUSY => e.why("another filter of this process already has a listener"),
        _ => e,
    })?;
    Ok((flags & FLAG_NEW_LISTENER != 0).then(|| owned(ret)))
}

/// Whether the kernel knows a filter flag: it answers EFAULT for a null program only after it accepted the flags.
pub fn flag_supported(flag: u32) -> bool {
    // SAFETY: a null program is refused with EFAULT before anything is installed.
    let ret = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flag, std::ptr::null::<libc::sock_fprog>())
    };
    ret < 0 && errno() == libc::EFAULT
}
