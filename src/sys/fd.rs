//! Descriptors: reading, writing, locking, duplicating, closing. Must not open paths: that is `path`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, errno, shown};
use crate::error::{Error, Result};

/// Takes ownership of a descriptor that a system call just returned.
pub(super) fn owned(fd: i64) -> OwnedFd {
    // SAFETY: only called on a fresh, successful return of a call that opens a descriptor; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// The same descriptor once more, for a child that shares this memory but has descriptors of its own
/// (`clone::clone3_asleep`): what it closes stays open here.
pub fn twin(fd: &OwnedFd) -> OwnedFd {
    // SAFETY: in the child's table the number has no other owner: it never returns to where `fd` is dropped.
    unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) }
}

/// An inherited descriptor by number (stdio, `--preserve-fds`), if it is open.
pub fn inherited(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: fcntl(F_GETFD) on any number is harmless; it tells whether the number is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the number is open, and inherited descriptors are never closed by this process before exec.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Reads until `buf` is full or the file ends; returns the number of bytes read.
pub fn read_full(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read(fd, &mut buf[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// One read(2), repeated when interrupted.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: buf is valid for writes of its length.
        let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        if n >= 0 {
            return Ok(n as usize);
        }
        if errno() != libc::EINTR {
            return Err(Error::call(format_args!("read({}, {} bytes)", shown(fd), buf.len()), errno()));
        }
    }
}

/// The whole of a file of at most `limit` bytes; a longer one is an error, so that nothing untrusted fills the memory.
pub fn read_to_end(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096.min(limit + 1));
    loop {
        let n = read_more(fd, &mut bytes)?;
        if bytes.len() > limit {
            return Err(Error::new(format!("file {} is longer than {limit} bytes", shown(fd))));
        }
        if n == 0 {
            return Ok(bytes);
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve_exact((bytes.len() * 3).min(limit + 1 - bytes.len()));
        }
    }
}

/// One read(2) into what `bytes` has room for, behind what it holds: nobody has to write zeros there first.
fn read_more(fd: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> Result<usize> {
    let room = bytes.spare_capacity_mut();
    loop {
        // SAFETY: room is valid for writes of its length.
        let n = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        if n >= 0 {
            // SAFETY: the kernel has written n bytes behind the first len().
            unsafe { bytes.set_len(bytes.len() + n as usize) };
            return Ok(n as usize);
        }
        if errno() != libc::EINTR {
            return Err(Error::call(format_args!("read({}, {} bytes)", shown(fd), room.len()), errno()));
        }
    }
}

/// The file from its beginning, whatever was read of it before: a file of the kernel's that changes is asked anew, and
/// kernfs takes its announcement (POLLPRI) back only when it is read through the descriptor that is polled.
pub fn read_anew(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4096.min(limit)];
    let mut len = 0;
    loop {
        let rest = &mut bytes[len..];
        // SAFETY: rest is valid for writes of its length (pread(2)).
        let n = unsafe { libc::pread(fd.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), len as i64) };
        match n {
            0 => break,
            n if n > 0 => len += n as usize,
            _ if errno() == libc::EINTR => {}
            _ => return Err(Error::call(format_args!("pread({}, {len})", shown(fd)), errno())),
        }
        if len == bytes.len() {
            if len == limit {
                return Err(Error::new(format!("file {} is longer than {limit} bytes", shown(fd))));
            }
            bytes.resize((len * 4).min(limit), 0);
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// A counter that the kernel can be told to raise (eventfd(2)); reading it never waits.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: plain call that returns a descriptor.
    let fd = check!(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd(0)")?;
    Ok(owned(i64::from(fd)))
}

/// Calls on this open file answer EAGAIN instead of waiting (F_SETFL, O_NONBLOCK).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain fcntl on an open descriptor.
    let now = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    let flags = check!(now, "fcntl({}, F_GETFL)", shown(fd))?;
    check!(
        // SAFETY: the same, with the flags just read and one more.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) },
        "fcntl({}, F_SETFL)",
        shown(fd)
    )?;
    Ok(())
}

/// Writes everything, repeated when interrupted or cut short.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: bytes is valid for reads of its length.
        let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        if n >= 0 {
            bytes = &bytes[n as usize..];
        } else if errno() != libc::EINTR {
            return Err(Error::call(
                format_args!(
                    "write({}, {:?})",
                    shown(fd),
                    String::from_utf8_lossy(&bytes[..bytes.len().min(64)])
                ),
                errno(),
            ));
        }
    }
    Ok(())
}

/// One write(2), repeated when interrupted: how many bytes were taken. `None`: none now (EAGAIN).
pub fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<usize>> {
    loop {
        // SAFETY: bytes is valid for reads of its length.
        let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match errno() {
            _ if n >= 0 => return Ok(Some(n as usize)),
            libc::EINTR => {}
            libc::EAGAIN => return Ok(None),
            e => return Err(Error::call(format_args!("write({}, {} bytes)", shown(fd), bytes.len()), e)),
        }
    }
}

/// One read(2), repeated when interrupted. `None`: nothing now (EAGAIN).
pub fn read_some(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Option<usize>> {
    match read(fd, buf) {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.errno() == libc::EAGAIN => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether reads and writes wait (O_NONBLOCK). It is a property of the open file, and of all who share it.
pub fn set_blocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = check!(
        // SAFETY: plain fcntl on an open descriptor.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) },
        "fcntl({}, F_GETFL)",
        shown(fd)
    )?;
    let flags = if on { flags & !libc::O_NONBLOCK } else { flags | libc::O_NONBLOCK };
    check!(
        // SAFETY: as above.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) },
        "fcntl({}, F_SETFL, {flags:#x})",
        shown(fd)
    )?;
    Ok(())
}

/// A file in memory that holds `bytes`, to be read from its beginning (memfd_create(2)).
pub fn in_memory(bytes: &[u8]) -> Result<OwnedFd> {
    // SAFETY: a constant NUL-terminated name.
    let fd = check!(unsafe { libc::memfd_create(c"jug".as_ptr(), libc::MFD_CLOEXEC) }, "memfd_create()")?;
    let file = owned(fd.into());
    write_all(std::os::fd::AsFd::as_fd(&file), bytes)?;
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) }, "lseek(0)")?;
    Ok(file)
}

/// flock(2). `Ok(false)`: somebody else holds it (only with LOCK_NB).
pub fn flock(fd: BorrowedFd<'_>, operation: i32) -> Result<bool> {
    loop {
        // SAFETY: plain call on an open descriptor.
        if unsafe { libc::flock(fd.as_raw_fd(), operation) } == 0 {
            return Ok(true);
        }
        match errno() {
            libc::EINTR => {}
            libc::EWOULDBLOCK => return Ok(false),
            e => return Err(Error::call(format_args!("flock({}, {operation})", shown(fd)), e)),
        }
    }
}

/// Makes `target` a copy of `fd` that survives exec (dup2(2)).
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        return set_cloexec(fd, false);
    }
    // SAFETY: duplicating onto a number that this process hands to its program on purpose (stdio).
    check!(unsafe { libc::dup2(fd.as_raw_fd(), target) }, "dup2({}, {target})", shown(fd))?;
    Ok(())
}

/// Takes a descriptor that was handed over by its number (an argument of this program), if it is open.
pub fn take(number: RawFd) -> Option<OwnedFd> {
    inherited(number)?;
    let fd = owned(i64::from(number));
    // Whoever handed it over left it open across the exec; it goes no further.
    set_cloexec(fd.as_fd(), true).ok().map(|()| fd)
}

/// Moves `fd` to a number of its own choice, close-on-exec; the number must be free or the caller's to overwrite.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    if fd.as_raw_fd() == number {
        return Ok(());
    }
    // SAFETY: only the child uses this, before it closes everything that is not placed.
    check!(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) }, "dup3({}, {number})", shown(fd))?;
    Ok(())
}

/// A descriptor that [`place`] put at a known number.
pub fn placed(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number was just made by `place` and stays open until exec.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Opens /dev/null on each of stdin, stdout and stderr that is closed: else the next file opened would become one, and
/// with it the container's.
pub fn ensure_stdio() -> Result<()> {
    for number in 0..3 {
        if inherited(number).is_none() {
            // SAFETY: a constant path; open(2) returns the lowest free number, which is this one.
            check!(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }, "open(\"/dev/null\")")?;
        }
    }
    Ok(())
}

pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    check!(
        // SAFETY: plain fcntl on an open descriptor.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flag) },
        "fcntl({}, F_SETFD, {flag})",
        shown(fd)
    )?;
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)): the last fence against a leaked one.
pub fn cloexec_from(first: RawFd) -> Result<()> {
    close_range(first as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes the descriptors `first..=last` now. The caller must not own any of them as `OwnedFd` and drop it later.
pub fn close_between(first: RawFd, last: u32) -> Result<()> {
    if first as u32 > last { Ok(()) } else { close_range(first as u32, last, 0) }
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    check!(
        // SAFETY: no OwnedFd in the range is dropped afterwards: the only caller is the child right before it waits for
        // start or execs, and it leaves by exec or _exit, never by unwinding.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) },
        "close_range({first}, {last}, {flags})"
    )?;
    Ok(())
}

/// Closes an inherited descriptor that [`inherited`] showed, and that nobody owns.
pub fn close_inherited(fd: RawFd) {
    // SAFETY: the number was inherited; no OwnedFd has it. The caller uses its own copy from now on.
    unsafe { libc::close(fd) };
}

/// Waits until one of `fds` is readable or hung up, at most `timeout_ms` (-1: for ever). Returns which are ready.
pub fn poll(fds: &[(BorrowedFd<'_>, i16)], timeout_ms: i32) -> Result<Vec<bool>> {
    let mut set: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    // SAFETY: set is a valid array of its length.
    let n = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout_ms) };
    if n < 0 && errno() != libc::EINTR {
        return Err(Error::call(format_args!("poll({} fds, {timeout_ms})", set.len()), errno()));
    }
    Ok(set.iter().map(|p| n > 0 && p.revents != 0).collect())
}

/// A pipe: the end to read from and the end to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two numbers that pipe2(2) writes.
    check!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2(O_CLOEXEC)")?;
    Ok((owned(ends[0].into()), owned(ends[1].into())))
}

/// A copy of `fd` with the lowest free number from `least` on, close-on-exec.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd> {
    let copy = check!(
        // SAFETY: plain fcntl on an open descriptor.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) },
        "fcntl({}, F_DUPFD_CLOEXEC, {least})",
        shown(fd)
    )?;
    Ok(owned(copy as i64))
}

/// fsync(2).
pub fn fsync(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::fsync(fd.as_raw_fd()) }, "fsync({})", shown(fd))?;
    Ok(())
}

/// syncfs(2): everything of the file system that the descriptor lies on.
pub fn syncfs(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::syncfs(fd.as_raw_fd()) }, "syncfs({})", shown(fd))?;
    Ok(())
}

/// ftruncate(2).
pub fn truncate(fd: BorrowedFd<'_>, length: u64) -> Result<()> {
    // SAFETY: plain call on an open descriptor.
    check!(unsafe { libc::ftruncate(fd.as_raw_fd(), length as i64) }, "ftruncate({}, {length})", shown(fd))?;
    Ok(())
}
