//! The fence: every `unsafe`, every raw system call. Above this room there are only safe functions.
//!
//! Each function is one kernel call under its own name, and an error here *is* the call with its arguments, so that no
//! caller has to invent words for it. Nothing in this room decides anything.
//!
//! `bare/` holds what the programs of `jug bench` need that must not link this library: not modules of it.

pub mod alloc;
pub mod bpf;
pub mod clone;
pub mod cred;
pub mod entry;
pub mod epoll;
pub mod fd;
pub mod idle;
pub mod landlock;
pub mod loopdev;
pub mod mount;
pub mod netlink;
pub mod path;
pub mod process;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tty;
pub mod xattr;

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};

/// The error number of the call just made by this thread.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Turns a kernel return value into a result whose error names the call.
macro_rules! check {
    ($ret:expr, $($call:tt)+) => {{
        let ret = $ret;
        if ret < 0 {
            Err($crate::error::Error::call(format_args!($($call)+), $crate::sys::errno()))
        } else {
            Ok(ret)
        }
    }};
}
use check;

/// A path as the kernel takes it. A NUL byte inside is an error: the kernel would silently cut the path there.
fn c_path(path: &Path) -> Result<CString> {
    c_bytes(path.as_os_str().as_bytes())
}

fn c_bytes(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| Error::new(format!("{:?} contains a NUL byte", String::from_utf8_lossy(bytes))))
}

/// How an fd is shown in an error: `[7]`, and `[cwd]` for AT_FDCWD.
struct Shown(i32);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == libc::AT_FDCWD { f.write_str("[cwd]") } else { write!(f, "[{}]", self.0) }
    }
}

fn shown(fd: BorrowedFd<'_>) -> Shown {
    Shown(fd.as_raw_fd())
}

/// The current directory as a directory fd, for the `*at` calls.
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not an open descriptor but a value that every *at call accepts (openat(2)); it is never
    // closed, since BorrowedFd does not own it.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}
