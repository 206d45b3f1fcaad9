//! Signals: names, and the mask of a foreground `run` that forwards them.

use std::os::fd::OwnedFd;

use super::fd::owned;
use super::{check, errno};
use crate::error::{Error, Result};

/// The number for `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`; `None` for anything else. 0 only asks whether the
/// process is there (kill(2)).
pub fn number(name: &str) -> Option<i32> {
    if let Ok(n) = name.parse::<i32>() {
        return (0..=64).contains(&n).then_some(n);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(n) = short.strip_prefix("RTMIN") {
        let plus = if n.is_empty() { 0 } else { n.strip_prefix('+')?.parse::<i32>().ok()? };
        return (0..=30).contains(&plus).then_some(34 + plus);
    }
    if let Some(n) = short.strip_prefix("RTMAX") {
        let minus = if n.is_empty() { 0 } else { n.strip_prefix('-')?.parse::<i32>().ok()? };
        return (0..=30).contains(&minus).then_some(64 - minus);
    }
    let short = match short {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{short}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

/// Blocks every signal and returns a descriptor that reads them (signalfd(2)).
pub fn block_all() -> Result<OwnedFd> {
    let all = full_set();
    check!(
        // SAFETY: all is an initialised set; the old-set pointer may be null.
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) },
        "sigprocmask(SIG_BLOCK)"
    )?;
    let fd = check!(
        // SAFETY: all is an initialised set; -1 asks for a new descriptor.
        unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) },
        "signalfd()"
    )?;
    Ok(owned(fd as i64))
}

/// The next signal that arrived on a signalfd, if any.
pub fn next(fd: std::os::fd::BorrowedFd<'_>) -> Result<Option<i32>> {
    Ok(next_and_origin(fd)?.map(|(number, _)| number))
}

/// The same, and whether it is the kernel's own: a key of the terminal goes to the whole foreground process group
/// (`ssi_code` is SI_KERNEL), a kill(2) to one.
pub fn next_and_origin(fd: std::os::fd::BorrowedFd<'_>) -> Result<Option<(i32, bool)>> {
    const SI_KERNEL: i32 = 0x80;
    let mut buf = [0u8; 128];
    let word =
        |buf: &[u8; 128], at: usize| i32::from_ne_bytes([buf[at], buf[at + 1], buf[at + 2], buf[at + 3]]);
    match super::fd::read(fd, &mut buf) {
        Ok(128) => Ok(Some((word(&buf, 0), word(&buf, 8) == SI_KERNEL))),
        Ok(n) => Err(Error::new(format!("signalfd gave {n} bytes"))),
        Err(e) if e.errno() == libc::EAGAIN => Ok(None),
        Err(e) => Err(e),
    }
}

/// HUP, INT and TERM end this process, even as the first one of a PID namespace, which the kernel spares what it does
/// not catch (pid_namespaces(7)). An exec takes it back.
pub fn end_on_request() {
    extern "C" fn end(number: i32) {
        // SAFETY: _exit(2) may be called in a handler (signal-safety(7)).
        unsafe { libc::_exit(128 + number) }
    }
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: end is a handler of the right type, and calls nothing but _exit.
        unsafe { libc::signal(number, end as *const () as libc::sighandler_t) };
    }
}

/// Gives the program the signals of a fresh process: nothing blocked, every disposition the default. The runtime
/// changed none but SIGPIPE (Rust's start-up ignores it), and exec resets caught ones, not ignored ones. Two more are
/// ignored in whatever glibc's posix_spawn(3) has started: those that it keeps for threads.
pub fn reset() -> Result<()> {
    const OF_GLIBC: [i32; 2] = [32, 33];
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    for number in OF_GLIBC {
        let (default, size) = ([0_u64; 4], size_of::<u64>());
        // SAFETY: the kernel's sigaction, four words that are nought: SIG_DFL, no flags, no restorer, an empty mask.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null::<u64>(), size)
        };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, which is then read.
    let ret = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if ret < 0 { Err(Error::call("sigprocmask(SIG_SETMASK)", errno())) } else { Ok(()) }
}

/// A reader that went away is an error of write(2), not the end of this process.
pub fn ignore_pipe() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Children that end leave no zombie, until the next exec (SA_NOCLDWAIT; exec resets the flags, sigaction(2)).
pub fn reap_children_at_once() -> Result<()> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a zeroed sigaction is SIG_DFL with an empty mask; only the flags are set.
    let ret = unsafe {
        (*action.as_mut_ptr()).sa_flags = libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, action.as_ptr(), std::ptr::null_mut())
    };
    check!(ret, "sigaction(SIGCHLD, SA_NOCLDWAIT)")?;
    Ok(())
}

/// The way back, for who waits for its children.
pub fn keep_children() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn full_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_as_engines_write_them() {
        for (name, want) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("15", Some(15)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("IOT", Some(6)),
            ("0", Some(0)),
            ("-1", None),
            ("65", None),
            ("SIGNOPE", None),
            ("", None),
        ] {
            assert_eq!(number(name), want, "{name:?}");
        }
    }
}
