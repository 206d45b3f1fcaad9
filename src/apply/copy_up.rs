//! `tmpcopyup`: a fresh tmpfs gets what the image has at its place. Everything by descriptor, nothing followed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::path;

/// Deepest tree that is copied.
const MAX_DEPTH: usize = 64;

/// Copies the content of the directory `from` (which may be an O_PATH descriptor) into the directory `to`.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let st = path::stat(from, Path::new(""))?;
    path::chownat(to, Path::new(""), st.st_uid, st.st_gid)
        .or_else(|_| path::chownat(to, Path::new("."), st.st_uid, st.st_gid))?;
    copy_dir(from, to, 0)
}

fn copy_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("tmpcopyup: directories are nested deeper than {MAX_DEPTH}")));
    }
    for name in path::list(from)? {
        let name = Path::new(&name);
        let st = path::stat(from, name)?;
        match st.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                path::mkdirat(to, name, st.st_mode & 0o7777)?;
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let inner_from = path::openat(from, name, flags, 0)?;
                let inner_to = path::openat(to, name, flags, 0)?;
                copy_dir(inner_from.as_fd(), inner_to.as_fd(), depth + 1)?;
                path::chownat(to, name, st.st_uid, st.st_gid)?;
                path::fchmod(inner_to.as_fd(), st.st_mode & 0o7777)?;
            }
            libc::S_IFREG => copy_file(from, to, name, &st)?,
            libc::S_IFLNK => {
                path::symlinkat(&path::readlinkat(from, name)?, to, name)?;
                path::chownat(to, name, st.st_uid, st.st_gid)?;
            }
            kind => {
                path::mknodat(
                    to,
                    name,
                    kind | (st.st_mode & 0o7777),
                    (libc::major(st.st_rdev), libc::minor(st.st_rdev)),
                )?;
                path::chownat(to, name, st.st_uid, st.st_gid)?;
            }
        }
    }
    Ok(())
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path, st: &libc::stat) -> Result<()> {
    let source = path::openat(from, name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let target = path::openat(to, name, flags, 0o600)?;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match crate::sys::fd::read(source.as_fd(), &mut buffer)? {
            0 => break,
            n => crate::sys::fd::write_all(target.as_fd(), &buffer[..n])
                .map_err(|e| e.context(format_args!("tmpcopyup [{}]", target.as_raw_fd())))?,
        }
    }
    path::fchown(target.as_fd(), st.st_uid, st.st_gid)?;
    path::fchmod(target.as_fd(), st.st_mode & 0o7777)
}
