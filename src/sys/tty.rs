//! Terminals: a pseudo-terminal pair by descriptor, window sizes, raw mode.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fd::owned;
use super::{check, shown};
use crate::error::{Error, Result};

/// Unlocks a master and opens its slave by descriptor, never by name (TIOCGPTPEER, ioctl_tty(2)).
pub fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: i32 = 0;
    check!(
        // SAFETY: TIOCSPTLCK reads one int.
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) },
        "ioctl({}, TIOCSPTLCK)",
        shown(master)
    )?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let fd = check!(
        // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) },
        "ioctl({}, TIOCGPTPEER)",
        shown(master)
    )?;
    Ok(owned(fd as i64))
}

/// Makes the terminal the controlling one of this session.
pub fn set_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check!(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) }, "ioctl({}, TIOCSCTTY)", shown(tty))?;
    Ok(())
}

/// Window size in characters: (rows, columns).
pub fn size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut ws = MaybeUninit::<libc::winsize>::zeroed();
    check!(
        // SAFETY: ws is valid for the kernel to fill.
        unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, ws.as_mut_ptr()) },
        "ioctl({}, TIOCGWINSZ)",
        shown(tty)
    )?;
    // SAFETY: zeroed and then filled.
    let ws = unsafe { ws.assume_init() };
    Ok((ws.ws_row, ws.ws_col))
}

pub fn set_size(tty: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let ws = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    check!(
        // SAFETY: ws lives across the call.
        unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const ws) },
        "ioctl({}, TIOCSWINSZ, {rows}x{columns})",
        shown(tty)
    )?;
    Ok(())
}

/// A line feed that a program writes stays one: who carries the output decides about carriage returns.
pub fn leave_newlines(master: BorrowedFd<'_>) -> Result<()> {
    use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
    let called = |call: &str, e: nix::Error| Error::call(format_args!("{call}({})", shown(master)), e as i32);
    let mut settings = tcgetattr(master).map_err(|e| called("tcgetattr", e))?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(master, SetArg::TCSANOW, &settings).map_err(|e| called("tcsetattr", e))
}

/// Raw mode for as long as the value lives; the old mode comes back when it is dropped.
pub struct RawMode {
    tty: OwnedFd,
    before: nix::sys::termios::Termios,
}

impl RawMode {
    /// `None` when `tty` is no terminal.
    pub fn enter(tty: OwnedFd) -> Option<Self> {
        Self::with(tty, false)
    }

    /// The same for what comes with bare line feeds (see [`leave_newlines`]): each still begins a line.
    pub fn with_newlines(tty: OwnedFd) -> Option<Self> {
        Self::with(tty, true)
    }

    fn with(tty: OwnedFd, newlines: bool) -> Option<Self> {
        use nix::sys::termios::{OutputFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
        let before = tcgetattr(&tty).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags.set(OutputFlags::OPOST, newlines);
        tcsetattr(&tty, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { tty, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = nix::sys::termios::tcsetattr(&self.tty, nix::sys::termios::SetArg::TCSANOW, &self.before);
    }
}

/// A terminal that does not show what is typed, for as long as the value lives.
pub struct Quiet<'t> {
    tty: BorrowedFd<'t>,
    before: nix::sys::termios::Termios,
}

impl<'t> Quiet<'t> {
    /// `None` when `tty` is no terminal.
    pub fn enter(tty: BorrowedFd<'t>) -> Option<Self> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(tty).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // What was typed ahead was shown: it is no password.
        tcsetattr(tty, SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = nix::sys::termios::tcsetattr(self.tty, nix::sys::termios::SetArg::TCSANOW, &self.before);
    }
}
