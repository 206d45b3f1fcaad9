//! Paths: opening, making, reading and removing names below a directory fd. No function here joins paths.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::fd::owned;
use super::{c_bytes, c_path, check, cwd, errno, shown};
use crate::error::{Error, Result};

pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), always with O_CLOEXEC. EAGAIN (a rename raced with the lookup) is tried again a bounded number of times.
pub fn openat2(dir: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    openat2_errno(dir, path, flags, mode, resolve)?.map_err(|e| {
        Error::call(format_args!("openat2({}, {path:?}, {flags:#x}, resolve {resolve:#x})", shown(dir)), e)
    })
}

/// The same for a path that may well be absent: the inner error is the bare number, since its words would cost more
/// than the call.
pub fn openat2_errno(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<std::result::Result<OwnedFd, i32>> {
    let c = c_path(path)?;
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u32 as u64,
        mode: if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
            mode as u64
        } else {
            0
        },
        resolve,
    };
    for _ in 0..128 {
        // SAFETY: c and how live across the call; the size is that of the structure passed.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                c.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        if fd >= 0 {
            return Ok(Ok(owned(fd)));
        }
        if !matches!(errno(), libc::EAGAIN | libc::EINTR) {
            break;
        }
    }
    Ok(Err(errno()))
}

/// Opens a path that the caller trusts (config, state, the host's own files).
pub fn open(path: &Path, flags: i32) -> Result<OwnedFd> {
    openat(cwd(), path, flags, 0)
}

pub fn openat(dir: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    let c = c_path(path)?;
    let fd = check!(
        // SAFETY: c is a valid NUL-terminated string; mode is only read when O_CREAT asks for it.
        unsafe { libc::openat(dir.as_raw_fd(), c.as_ptr(), flags | libc::O_CLOEXEC, mode as libc::c_uint) },
        "openat({}, {path:?}, {flags:#x})",
        shown(dir)
    )?;
    Ok(owned(fd as i64))
}

pub fn mkdirat(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let c = c_path(name)?;
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::mkdirat(dir.as_raw_fd(), c.as_ptr(), mode) },
        "mkdirat({}, {name:?}, {mode:#o})",
        shown(dir)
    )?;
    Ok(())
}

/// mknodat(2); `device` is (major, minor) for the character and block kinds.
pub fn mknodat(dir: BorrowedFd<'_>, name: &Path, mode: u32, device: (u32, u32)) -> Result<()> {
    let c = c_path(name)?;
    let dev = libc::makedev(device.0, device.1);
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::mknodat(dir.as_raw_fd(), c.as_ptr(), mode, dev) },
        "mknodat({}, {name:?}, {mode:#o}, {}:{})",
        shown(dir),
        device.0,
        device.1
    )?;
    Ok(())
}

pub fn symlinkat(target: &Path, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let (t, n) = (c_path(target)?, c_path(name)?);
    check!(
        // SAFETY: both are valid NUL-terminated strings.
        unsafe { libc::symlinkat(t.as_ptr(), dir.as_raw_fd(), n.as_ptr()) },
        "symlinkat({target:?}, {}, {name:?})",
        shown(dir)
    )?;
    Ok(())
}

pub fn unlinkat(dir: BorrowedFd<'_>, name: &Path, flags: i32) -> Result<()> {
    let c = c_path(name)?;
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::unlinkat(dir.as_raw_fd(), c.as_ptr(), flags) },
        "unlinkat({}, {name:?}, {flags:#x})",
        shown(dir)
    )?;
    Ok(())
}

/// linkat(2) between names of two open directories; a symbolic link is linked itself, not followed.
pub fn linkat(from: BorrowedFd<'_>, old: &Path, to: BorrowedFd<'_>, new: &Path) -> Result<()> {
    let (o, n) = (c_path(old)?, c_path(new)?);
    check!(
        // SAFETY: both are valid NUL-terminated strings.
        unsafe { libc::linkat(from.as_raw_fd(), o.as_ptr(), to.as_raw_fd(), n.as_ptr(), 0) },
        "linkat({}, {old:?}, {}, {new:?})",
        shown(from),
        shown(to)
    )?;
    Ok(())
}

/// unlinkat(2) of what may be gone already: `false` then.
pub fn remove_if_there(dir: BorrowedFd<'_>, name: &Path, flags: i32) -> Result<bool> {
    let c = c_path(name)?;
    // SAFETY: c is a valid NUL-terminated string.
    match unsafe { libc::unlinkat(dir.as_raw_fd(), c.as_ptr(), flags) } {
        0 => Ok(true),
        _ if errno() == libc::ENOENT => Ok(false),
        _ => Err(Error::call(format_args!("unlinkat({}, {name:?}, {flags:#x})", shown(dir)), errno())),
    }
}

/// renameat2(2) within one directory; `flags` may carry RENAME_NOREPLACE.
pub fn renameat(dir: BorrowedFd<'_>, from: &Path, to: &Path, flags: u32) -> Result<()> {
    let (f, t) = (c_path(from)?, c_path(to)?);
    check!(
        // SAFETY: both are valid NUL-terminated strings.
        unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                dir.as_raw_fd(),
                f.as_ptr(),
                dir.as_raw_fd(),
                t.as_ptr(),
                flags,
            )
        },
        "renameat2({}, {from:?}, {to:?})",
        shown(dir)
    )?;
    Ok(())
}

/// renameat2(2) from one directory into another, where nothing has the name yet.
pub fn rename_between(
    from_dir: BorrowedFd<'_>,
    from: &Path,
    to_dir: BorrowedFd<'_>,
    to: &Path,
) -> Result<()> {
    let (f, t) = (c_path(from)?, c_path(to)?);
    check!(
        // SAFETY: both are valid NUL-terminated strings.
        unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                from_dir.as_raw_fd(),
                f.as_ptr(),
                to_dir.as_raw_fd(),
                t.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        },
        "renameat2({}, {from:?}, {}, {to:?})",
        shown(from_dir),
        shown(to_dir)
    )?;
    Ok(())
}

/// Gives a file that was opened with O_TMPFILE its name (linkat(2), by way of /proc, which needs no capability).
pub fn link_open_file(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let (from, to) = (c_bytes(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())?, c_path(name)?);
    check!(
        // SAFETY: both are valid NUL-terminated strings.
        unsafe {
            libc::linkat(libc::AT_FDCWD, from.as_ptr(), dir.as_raw_fd(), to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
        },
        "linkat({}, {}, {name:?})",
        shown(file),
        shown(dir)
    )?;
    Ok(())
}

/// The target of a symbolic link, which must be shorter than PATH_MAX.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let c = c_path(name)?;
    let mut buf = vec![0u8; libc::PATH_MAX as usize];
    let n = check!(
        // SAFETY: buf is valid for writes of its length.
        unsafe { libc::readlinkat(dir.as_raw_fd(), c.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) },
        "readlinkat({}, {name:?})",
        shown(dir)
    )?;
    buf.truncate(n as usize);
    Ok(std::ffi::OsString::from_vec(buf).into())
}

/// Where an open file lies, below the root of its mount namespace.
pub fn name_of(file: BorrowedFd<'_>) -> Result<std::path::PathBuf> {
    readlinkat(super::cwd(), Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

/// fstatat(2) without following a final symbolic link; an empty name means the descriptor itself.
pub fn stat(dir: BorrowedFd<'_>, name: &Path) -> Result<libc::stat> {
    let c = c_path(name)?;
    let mut st = MaybeUninit::<libc::stat>::uninit();
    check!(
        // SAFETY: st is valid for the kernel to fill; it is read only after success.
        unsafe {
            libc::fstatat(
                dir.as_raw_fd(),
                c.as_ptr(),
                st.as_mut_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW,
            )
        },
        "fstatat({}, {name:?})",
        shown(dir)
    )?;
    // SAFETY: the call succeeded, so the structure is filled.
    Ok(unsafe { st.assume_init() })
}

/// Whether an open file is the root of the mount that it lies on (statx(2), STATX_ATTR_MOUNT_ROOT).
pub fn is_mount_root(fd: BorrowedFd<'_>) -> bool {
    let mut st = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name is NUL-terminated and st is valid for the kernel to fill.
    let ret = unsafe {
        libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_TYPE, st.as_mut_ptr())
    };
    // SAFETY: zeroed before, and filled where the call succeeded.
    ret == 0 && unsafe { st.assume_init() }.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
}

/// The file system type of an open file (statfs(2) `f_type`).
pub fn fs_magic(fd: BorrowedFd<'_>) -> Result<i64> {
    let mut st = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: st is valid for the kernel to fill; it is read only after success.
    check!(unsafe { libc::fstatfs(fd.as_raw_fd(), st.as_mut_ptr()) }, "fstatfs({})", shown(fd))?;
    // SAFETY: the call succeeded, so the structure is filled.
    Ok(unsafe { st.assume_init() }.f_type as _)
}

/// statvfs(3): the mount has relative access times. musl's headers do not name it.
pub const ST_RELATIME: u64 = 4096;

/// The flags of the mount that an open file lies on (ST_RDONLY ..., fstatvfs(3)).
pub fn fs_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut st = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: st is valid for the kernel to fill; it is read only after success.
    check!(unsafe { libc::fstatvfs(fd.as_raw_fd(), st.as_mut_ptr()) }, "fstatvfs({})", shown(fd))?;
    // SAFETY: the call succeeded, so the structure is filled.
    Ok(unsafe { st.assume_init() }.f_flag)
}

/// `f_type` and the mount flags (ST_RDONLY ...) of a trusted path; `None` when it does not exist.
pub fn statfs(path: &Path) -> Option<(i64, u64)> {
    let st = nix::sys::statfs::statfs(path).ok()?;
    Some((st.filesystem_type().0 as _, st.flags().bits()))
}

pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }, "fchown({}, {uid}, {gid})", shown(fd))?;
    Ok(())
}

/// fchownat(2) on a name in `dir`, never following a symbolic link.
pub fn chownat(dir: BorrowedFd<'_>, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let c = c_path(name)?;
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::fchownat(dir.as_raw_fd(), c.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) },
        "fchownat({}, {name:?}, {uid}, {gid})",
        shown(dir)
    )?;
    Ok(())
}

/// fchmod(2).
pub fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }, "fchmod({}, {mode:#o})", shown(fd))?;
    Ok(())
}

/// chmod(2) of a name in `dir` that the caller knows to be no symbolic link.
pub fn chmodat(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let c = c_path(name)?;
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::syscall(libc::SYS_fchmodat, dir.as_raw_fd(), c.as_ptr(), mode) },
        "fchmodat({}, {name:?}, {mode:#o})",
        shown(dir)
    )?;
    Ok(())
}

/// Seconds and nanoseconds since the epoch.
pub type Time = (i64, u32);

/// Sets the times of access and of change of a name in `dir`, itself and not what it may point to (utimensat(2)).
pub fn set_times(dir: BorrowedFd<'_>, name: &Path, access: Time, change: Time) -> Result<()> {
    let c = c_path(name)?;
    let times = [access, change].map(timespec);
    check!(
        // SAFETY: c is NUL-terminated, and the array has the two elements that the call reads.
        unsafe { libc::utimensat(dir.as_raw_fd(), c.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) },
        "utimensat({}, {name:?}, {change:?})",
        shown(dir)
    )?;
    Ok(())
}

/// The same for an open file (futimens(3)).
pub fn set_times_of(fd: BorrowedFd<'_>, access: Time, change: Time) -> Result<()> {
    let times = [access, change].map(timespec);
    check!(
        // SAFETY: the array has the two elements that the call reads.
        unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) },
        "futimens({}, {change:?})",
        shown(fd)
    )?;
    Ok(())
}

fn timespec((seconds, nanoseconds): Time) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
}

pub fn fchdir(dir: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::fchdir(dir.as_raw_fd()) }, "fchdir({})", shown(dir))?;
    Ok(())
}

pub fn chdir(path: &Path) -> Result<()> {
    let c = c_path(path)?;
    // SAFETY: c is a valid NUL-terminated string.
    check!(unsafe { libc::chdir(c.as_ptr()) }, "chdir({path:?})")?;
    Ok(())
}

pub fn chroot(path: &Path) -> Result<()> {
    let c = c_path(path)?;
    // SAFETY: c is a valid NUL-terminated string.
    check!(unsafe { libc::chroot(c.as_ptr()) }, "chroot({path:?})")?;
    Ok(())
}

/// The kernel's own getcwd: below a root that was left it begins with "(unreachable)" (getcwd(2), CVE-2024-21626).
pub fn getcwd() -> Result<Vec<u8>> {
    let mut buf = Vec::<u8>::with_capacity(libc::PATH_MAX as usize);
    // SAFETY: buf is valid for writes of its capacity.
    let n = check!(unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.capacity()) }, "getcwd()")?;
    // SAFETY: the kernel has written n bytes, the last of which is a NUL.
    unsafe { buf.set_len((n as usize).saturating_sub(1)) };
    Ok(buf)
}

/// Sets the file mode mask; returns the previous one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: umask(2) cannot fail.
    unsafe { libc::umask(mask) }
}

/// Whether the caller may execute `path` (faccessat2(2) with the effective ids).
pub fn executable(path: &Path) -> Result<()> {
    let c = c_path(path)?;
    check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe {
            libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, c.as_ptr(), libc::X_OK, libc::AT_EACCESS)
        },
        "faccessat2({path:?}, X_OK)"
    )?;
    Ok(())
}

/// Whether a file lies where nobody can write it: asked of the mount, since a privileged caller may write anything
/// else.
pub fn on_read_only_mount(path: &Path) -> bool {
    let Ok(c) = c_path(path) else { return false };
    // SAFETY: c is a valid NUL-terminated string.
    let denied = unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, c.as_ptr(), libc::W_OK, libc::AT_EACCESS)
    };
    denied != 0 && errno() == libc::EROFS
}

/// The names in a directory, without `.` and `..`, unsorted.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let dir = openat(dir, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut names = Vec::new();
    let mut buf = Vec::<u8>::with_capacity(32 * 1024);
    loop {
        let n = check!(
            // SAFETY: buf is valid for writes of its capacity.
            unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.capacity()) },
            "getdents64({})",
            dir.as_raw_fd()
        )? as usize;
        // SAFETY: the kernel has written n bytes.
        unsafe { buf.set_len(n) };
        if n == 0 {
            return Ok(names);
        }
        let mut at = 0;
        while at + 19 <= n {
            // struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name with NUL (getdents(2)).
            let len = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
            let name = &buf[at + 19..(at + len).min(n)];
            let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." {
                names.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
            at += len.max(19);
        }
    }
}
