//! Extended attributes (xattr(7)), of open files and of names in an open directory, never following a link.
//!
//! setxattrat(2) is younger than the lowest kernel of ours: a name is reached as `/proc/self/fd/N/NAME`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{c_bytes, check, errno, shown};
use crate::error::{Error, Result};

/// The longest list and value there are (XATTR_LIST_MAX, XATTR_SIZE_MAX in linux/limits.h).
const MAX: usize = 64 << 10;

/// A plain name in an open directory, as a path; empty: the directory itself.
fn below(dir: BorrowedFd<'_>, name: &Path) -> Result<CString> {
    let name = if name.as_os_str().is_empty() { b"." } else { name.as_os_str().as_bytes() };
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    c_bytes(&path)
}

/// Where SELinux keeps the label of a file.
pub const SELINUX: &[u8] = b"security.selinux";

/// fsetxattr(2).
pub fn fset(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let k = c_bytes(key)?;
    check!(
        // SAFETY: k is NUL-terminated, value is valid for its length.
        unsafe { libc::fsetxattr(fd.as_raw_fd(), k.as_ptr(), value.as_ptr().cast(), value.len(), 0) },
        "fsetxattr({}, {k:?}, {} bytes)",
        shown(fd),
        value.len()
    )?;
    Ok(())
}

/// The same for what a descriptor of any kind stands for, one opened with O_PATH too.
pub fn set_of(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let (path, k) = (c_bytes(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes())?, c_bytes(key)?);
    check!(
        // SAFETY: both strings are NUL-terminated, value is valid for its length.
        unsafe { libc::setxattr(path.as_ptr(), k.as_ptr(), value.as_ptr().cast(), value.len(), 0) },
        "setxattr({}, {k:?}, {} bytes)",
        shown(fd),
        value.len()
    )?;
    Ok(())
}

/// lsetxattr(2).
pub fn set(dir: BorrowedFd<'_>, name: &Path, key: &[u8], value: &[u8]) -> Result<()> {
    let (path, k) = (below(dir, name)?, c_bytes(key)?);
    check!(
        // SAFETY: both strings are NUL-terminated, value is valid for its length.
        unsafe { libc::lsetxattr(path.as_ptr(), k.as_ptr(), value.as_ptr().cast(), value.len(), 0) },
        "lsetxattr({}, {name:?}, {k:?}, {} bytes)",
        shown(dir),
        value.len()
    )?;
    Ok(())
}

/// The value (lgetxattr(2)); `None` where there is none, or where the file system has no xattrs.
pub fn get(dir: BorrowedFd<'_>, name: &Path, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let (path, k) = (below(dir, name)?, c_bytes(key)?);
    let call = |buffer: &mut [u8]| {
        // SAFETY: both strings are NUL-terminated, buffer is valid for writes of its length; a length of 0 only asks.
        unsafe { libc::lgetxattr(path.as_ptr(), k.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    match grown(call) {
        Ok(value) => Ok(Some(value)),
        Err(libc::ENODATA | libc::ENOTSUP) => Ok(None),
        Err(e) => Err(Error::call(format_args!("lgetxattr({}, {name:?}, {k:?})", shown(dir)), e)),
    }
}

/// All names that the caller may see (llistxattr(2)), sorted; none where the file system has no xattrs.
pub fn list(dir: BorrowedFd<'_>, name: &Path) -> Result<Vec<Vec<u8>>> {
    let path = below(dir, name)?;
    let call = |buffer: &mut [u8]| {
        // SAFETY: path is NUL-terminated, buffer is valid for writes of its length; a length of 0 only asks.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    let bytes = match grown(call) {
        Ok(bytes) => bytes,
        Err(libc::ENOTSUP) => Vec::new(),
        Err(e) => return Err(Error::call(format_args!("llistxattr({}, {name:?})", shown(dir)), e)),
    };
    let names = bytes.split_inclusive(|byte| *byte == 0).flat_map(CStr::from_bytes_with_nul);
    let mut names: Vec<Vec<u8>> = names.map(|name| name.to_bytes().to_vec()).collect();
    names.sort();
    Ok(names)
}

/// Most answers are short: a small buffer first, then the largest that there can be.
fn grown(call: impl Fn(&mut [u8]) -> isize) -> std::result::Result<Vec<u8>, i32> {
    for len in [256, MAX] {
        let mut buffer = vec![0; len];
        match call(&mut buffer) {
            n if n >= 0 => {
                buffer.truncate(n as usize);
                return Ok(buffer);
            }
            _ if errno() == libc::ERANGE && len < MAX => {}
            _ => return Err(errno()),
        }
    }
    Err(libc::E2BIG)
}
