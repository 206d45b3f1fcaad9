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
    let ret = check!(
        // SAFETY: fprog points to `len` instructions that live across the call; the kernel copies and checks them.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) },
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
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flag,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    ret < 0 && errno() == libc::EFAULT
}

/// What the loading process and its messenger share.
struct Handover<'a> {
    /// -1 until the filter is loaded, then the listener; -2 when there will be none.
    listener: std::sync::atomic::AtomicI32,
    /// Cleared by the kernel when the messenger is gone (CLONE_CHILD_CLEARTID).
    alive: std::sync::atomic::AtomicI32,
    socket: std::os::fd::BorrowedFd<'a>,
    message: &'a [u8],
}

/// Loads a filter with a listener, and hands the listener with `message` to `socket`.
///
/// After the load every system call of this process is under the filter, even the one that would hand the listener
/// over, and the agent that could let it pass would not have it yet. So a messenger is cloned first: it shares memory
/// and descriptors but not the filter. Until it is gone, this process only reads memory.
pub fn load_and_hand_over(
    program: &[libc::sock_filter],
    flags: u32,
    socket: std::os::fd::BorrowedFd<'_>,
    message: &[u8],
) -> Result<()> {
    use std::sync::atomic::{AtomicI32, Ordering};
    super::signal::reap_children_at_once()?;
    let shared = Handover { listener: AtomicI32::new(-1), alive: AtomicI32::new(1), socket, message };
    let mut stack = vec![0u128; 4096];
    let files = libc::CLONE_FILES as u64;
    // SAFETY: the stack and `shared` outlive the messenger: this function does not return before `alive` is cleared.
    // The messenger touches nothing else of this memory, and this process makes no libc call meanwhile.
    unsafe {
        super::clone::clone3_beside(files, &mut stack, shared.alive.as_ptr(), messenger, &raw const shared)
    }
    .map_err(|e| e.context("the messenger"))?;
    let loaded = load(program, flags | FLAG_NEW_LISTENER);
    let number = match &loaded {
        Ok(Some(fd)) => std::os::fd::AsRawFd::as_raw_fd(fd),
        _ => -2,
    };
    shared.listener.store(number, Ordering::Release);
    while shared.alive.load(Ordering::Acquire) != 0 {
        std::hint::spin_loop();
    }
    // Not closed here: close(2) is under the filter too. The descriptor is close-on-exec.
    loaded.map(std::mem::forget)
}

extern "C" fn messenger(shared: *const Handover<'_>) -> ! {
    use std::sync::atomic::Ordering;
    // SAFETY: the parent keeps the structure alive until this process is gone.
    let shared = unsafe { &*shared };
    let nap = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
    let listener = loop {
        match shared.listener.load(Ordering::Acquire) {
            // SAFETY: nap lives across the call.
            -1 => unsafe { libc::nanosleep(&raw const nap, std::ptr::null_mut()) },
            number => break number,
        };
    };
    if listener >= 0 {
        // SAFETY: the descriptor was just opened by seccomp(2) in the shared table, and nobody closes it before exec.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(listener) };
        let _ = super::socket::send(shared.socket, shared.message, Some(fd));
    }
    super::process::exit_now(0)
}
