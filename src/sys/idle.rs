//! For programs that mostly wait: what is not needed for waiting goes back to the kernel.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Result};

/// First byte and length of this program's code and constants, in whole pages.
fn code() -> (usize, usize) {
    unsafe extern "C" {
        /// The first byte of the program, and the first one behind its code (ld(1); etext(3)). In between lie the
        /// read-only segments.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let first = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let end = (&raw const etext).addr() / PAGE * PAGE;
    (first, end.saturating_sub(first))
}

/// Gives the pages of this program's code and constants back to the page cache (madvise(2), MADV_DONTNEED): what is
/// needed again is mapped again, 64 kB at a time.
pub fn forget_code() {
    let (first, length) = code();
    // SAFETY: the range is of private file mappings that nobody writes to (the program is static and not relocated;
    // what is relocated lies behind it), so the file gives back the same bytes. A failure changes nothing.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(first), length, libc::MADV_DONTNEED) };
}

/// [`forget_code`], then poll(2) for ever, with not one call in between: each function that runs would map 64 kB around
/// itself, and what waits would keep them. Returns which descriptors are ready.
pub fn poll_without_code(fds: &[(BorrowedFd<'_>, i16)]) -> Result<Vec<bool>> {
    let mut set: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    let (first, length) = code();
    // SAFETY: as in `forget_code`; set is a valid array of its length.
    let n = unsafe { forget_then_poll(first, length, set.as_mut_ptr(), set.len()) };
    if n < 0 && n != -(libc::EINTR as isize) {
        return Err(Error::call(format_args!("ppoll({} fds)", set.len()), -n as i32));
    }
    Ok(set.iter().map(|p| n > 0 && p.revents != 0).collect())
}

/// madvise(first, length, MADV_DONTNEED), then ppoll(set, n, NULL, NULL); gives the latter's answer, or minus errno.
///
/// # Safety
/// Nobody writes to the range, which is mapped from a file; `set` is an array of `n`.
#[cfg(target_arch = "x86_64")]
unsafe fn forget_then_poll(first: usize, length: usize, set: *mut libc::pollfd, n: usize) -> isize {
    let answer;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11 (syscall(2)); ppoll(2) writes to set alone.
    unsafe {
        core::arch::asm!(
            "syscall",
            "mov rdi, r12",
            "mov rsi, r13",
            "xor edx, edx",
            "xor r10d, r10d",
            "mov r8d, 8",
            "mov eax, {ppoll}",
            "syscall",
            ppoll = const libc::SYS_ppoll,
            inlateout("rax") libc::SYS_madvise as isize => answer,
            inlateout("rdi") first => _, inlateout("rsi") length => _,
            inlateout("rdx") libc::MADV_DONTNEED as usize => _,
            in("r12") set, in("r13") n,
            lateout("r10") _, lateout("r8") _, lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    answer
}

/// # Safety
/// As the one above.
#[cfg(target_arch = "aarch64")]
unsafe fn forget_then_poll(first: usize, length: usize, set: *mut libc::pollfd, n: usize) -> isize {
    let answer;
    // SAFETY: the kernel keeps all registers but x0 (syscall(2)); ppoll(2) writes to set alone.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "mov x0, x9",
            "mov x1, x10",
            "mov x2, xzr",
            "mov x3, xzr",
            "mov x4, 8",
            "mov x8, {ppoll}",
            "svc 0",
            ppoll = const libc::SYS_ppoll,
            inlateout("x8") libc::SYS_madvise as isize => _,
            inlateout("x0") first as isize => answer, inlateout("x1") length => _,
            inlateout("x2") libc::MADV_DONTNEED as usize => _,
            in("x9") set, in("x10") n, lateout("x3") _, lateout("x4") _, options(nostack),
        );
    }
    answer
}
