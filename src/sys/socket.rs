//! Unix sockets: the pair on which parent and child talk, and descriptors sent to an engine's console socket.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recv, recvmsg, sendmsg, socket, socketpair,
};

use super::shown;
use crate::error::{Error, Result};

/// Two ends that keep message boundaries and report the other's death as end of file.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| Error::call("socketpair(AF_UNIX, SOCK_SEQPACKET)", e as i32))
}

/// Connects to a stream socket. A path too long for sun_path is reached through its directory's descriptor.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    connect_to(SockType::Stream, SockFlag::SOCK_CLOEXEC, path)
}

/// The same without waiting, neither now (EAGAIN when too many wait already) nor when it is read and written.
pub fn connect_stream_now(path: &Path) -> Result<OwnedFd> {
    connect_to(SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, path)
}

/// Connects to a socket that keeps message boundaries.
pub fn connect_packets(path: &Path) -> Result<OwnedFd> {
    connect_to(SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, path)
}

/// A socket under this name in an open directory, to which [`connect_packets`] connects; accepting never waits.
pub fn listen_packets(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let failed = |e| Error::call(format_args!("bind({}/{name})", shown(dir)), e as i32);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    bind(fd.as_raw_fd(), &UnixAddr::new(path.as_str()).map_err(failed)?).map_err(failed)?;
    listen(&fd, Backlog::new(16).map_err(failed)?).map_err(failed)?;
    Ok(fd)
}

/// The next who connected; `None` when there is nobody.
pub fn accept_packets(listener: BorrowedFd<'_>) -> Option<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
    Some(super::fd::owned(i64::from(fd)))
}

/// Sends one message without waiting. `Ok(false)`: there is no room for it now.
pub fn try_send(sock: BorrowedFd<'_>, bytes: &[u8]) -> Result<bool> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match nix::sys::socket::send(sock.as_raw_fd(), bytes, flags) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN) => Ok(false),
        Err(e) => Err(Error::call(format_args!("send({})", shown(sock)), e as i32)),
    }
}

/// Connects to a datagram socket; `@name` is one in the abstract namespace (unix(7)), as systemd writes it.
pub fn connect_datagram(path: &Path) -> Result<OwnedFd> {
    connect_to(SockType::Datagram, SockFlag::SOCK_CLOEXEC, path)
}

fn connect_to(kind: SockType, flags: SockFlag, path: &Path) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, kind, flags, None)
        .map_err(|e| Error::call(format_args!("socket(AF_UNIX, {kind:?})"), e as i32))?;
    let direct = match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    };
    let dir;
    let address = match (direct, path.parent(), path.file_name()) {
        (Ok(address), _, _) => Ok(address),
        (Err(_), Some(parent), Some(name)) => {
            dir = super::path::open(parent, libc::O_PATH | libc::O_DIRECTORY)?;
            UnixAddr::new(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
        }
        (Err(e), _, _) => Err(e),
    }
    .map_err(|e| Error::call(format_args!("connect({path:?})"), e as i32))?;
    connect(fd.as_raw_fd(), &address)
        .map_err(|e| Error::call(format_args!("connect({path:?})"), e as i32))?;
    Ok(fd)
}

/// A stream socket that takes connections at `path`, which only this user may make. A path too long for sun_path is
/// reached through its directory's descriptor. EADDRINUSE: something is there already.
pub fn listen_stream(path: &Path) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let failed = |e| Error::call(format_args!("bind({path:?})"), e as i32);
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    let dir;
    let address = match (UnixAddr::new(path), path.parent(), path.file_name()) {
        (Err(_), Some(parent), Some(name)) => {
            dir = super::path::open(parent, libc::O_PATH | libc::O_DIRECTORY)?;
            UnixAddr::new(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
        }
        (address, ..) => address,
    }
    .map_err(failed)?;
    let mask = super::path::umask(0o177);
    let bound = bind(fd.as_raw_fd(), &address);
    super::path::umask(mask);
    bound.map_err(failed)?;
    nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::MAXCONN).map_err(failed)?;
    Ok(fd)
}

/// The path that a socket is bound to, if it has one (getsockname(2)).
pub fn local_path(sock: BorrowedFd<'_>) -> Result<Option<std::path::PathBuf>> {
    let address: UnixAddr = nix::sys::socket::getsockname(sock.as_raw_fd())
        .map_err(|e| Error::call(format_args!("getsockname({})", shown(sock)), e as i32))?;
    Ok(address.path().map(Path::to_owned))
}

/// The next connection, which never blocks; `None` when there is none.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match nix::sys::socket::accept4(listener.as_raw_fd(), flags) {
        Ok(fd) => Ok(Some(super::fd::owned(fd.into()))),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => {
            Ok(None)
        }
        Err(e) => Err(Error::call(format_args!("accept4({})", shown(listener)), e as i32)),
    }
}

/// A datagram socket in an open directory, which anybody may write to who reaches it.
pub fn bind_datagram(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|e| Error::call("socket(AF_UNIX, SOCK_DGRAM)", e as i32))?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let failed = |e| Error::call(format_args!("bind({}/{name})", shown(dir)), e as i32);
    let address = UnixAddr::new(path.as_str()).map_err(failed)?;
    let mask = super::path::umask(0);
    let bound = bind(fd.as_raw_fd(), &address);
    super::path::umask(mask);
    bound.map_err(failed)?;
    Ok(fd)
}

/// No more is said on this socket (shutdown(2)): the other end reads an end of file.
pub fn shut_down_writing(sock: BorrowedFd<'_>) -> Result<()> {
    nix::sys::socket::shutdown(sock.as_raw_fd(), nix::sys::socket::Shutdown::Write)
        .map_err(|e| Error::call(format_args!("shutdown({}, SHUT_WR)", shown(sock)), e as i32))
}

/// One datagram of at most `limit` bytes, `None` when none waits. The kernel closes descriptors that came with it, as
/// there is no room given for them.
pub fn receive_datagram(sock: BorrowedFd<'_>, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; limit];
    match recv(sock.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(n) => {
            bytes.truncate(n);
            Ok(Some(bytes))
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
        Err(e) => Err(Error::call(format_args!("recv({})", shown(sock)), e as i32)),
    }
}

/// One send(2) on a stream socket: how many bytes were taken. `None`: none now.
pub fn send_some(sock: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<usize>> {
    match nix::sys::socket::send(sock.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
        Ok(n) => Ok(Some(n)),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
        Err(e) => Err(Error::call(format_args!("send({}, {} bytes)", shown(sock), bytes.len()), e as i32)),
    }
}

/// Sends one message, with at most one descriptor.
pub fn send(sock: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let raw: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(sock.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).map_err(
        |e| Error::call(format_args!("sendmsg({}, {} bytes)", shown(sock), bytes.len()), e as i32),
    )?;
    Ok(())
}

/// The length of the message that comes next, once it is there: buffers of the longest one would cost a start more than
/// its own work does.
fn next_length(sock: BorrowedFd<'_>) -> Result<usize> {
    loop {
        // SAFETY: with a length of 0 nothing is written; MSG_TRUNC makes the kernel return the real length.
        let n = unsafe {
            libc::recv(sock.as_raw_fd(), std::ptr::null_mut(), 0, libc::MSG_PEEK | libc::MSG_TRUNC)
        };
        match n {
            0.. => return Ok(n as usize),
            _ if super::errno() == libc::EINTR => {}
            // The other end went away with something unheard. Said once; what it had said itself comes next.
            _ if super::errno() == libc::ECONNRESET => {}
            _ => return Err(Error::call(format_args!("recv({}, MSG_PEEK)", shown(sock)), super::errno())),
        }
    }
}

/// Receives one message of at most `limit` bytes and at most one descriptor; zero bytes mean that the other end is
/// gone.
pub fn receive(sock: BorrowedFd<'_>, limit: usize) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let length = next_length(sock)?;
    if length == 0 {
        return Ok((Vec::new(), None));
    }
    receive_up_to(sock, length.min(limit))
}

/// What a stream socket has next, at most `length` bytes, and at most one descriptor that came with it.
pub fn receive_up_to(sock: BorrowedFd<'_>, length: usize) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0u8; length];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let (len, fd) = loop {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<()>(sock.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => {
                let mut fd = None;
                for part in message.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(fds) = part {
                        // SAFETY: the kernel just installed these descriptors for us; nobody else owns them.
                        fd = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
                    }
                }
                break (message.bytes, fd);
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
            Err(e) => return Err(Error::call(format_args!("recvmsg({})", shown(sock)), e as i32)),
        }
    };
    bytes.truncate(len);
    Ok((bytes, fd))
}

/// Brings `lo` of the current network namespace up (netdevice(7)): a new one has it down.
pub fn loopback_up() -> Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .or_else(|_| socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))
        .map_err(|e| Error::call("socket(AF_INET, SOCK_DGRAM)", e as i32))?;
    // SAFETY: an all-zero ifreq is valid; name and flags are set below.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK) as libc::c_short;
    super::check!(
        // SAFETY: the request lives across the call.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) },
        "ioctl(SIOCSIFFLAGS, lo, IFF_UP)"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// scripts/prove faults: the last word of a child that had not heard everything was lost to ECONNRESET.
    #[test]
    fn a_last_word_is_heard_although_its_sender_left_something_unheard() {
        let (ours, theirs) = pair().expect("socketpair(2)");
        send(ours.as_fd(), b"keep", None).expect("send");
        send(theirs.as_fd(), b"last word", None).expect("send");
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), 64).expect("receive").0, b"last word");
        assert_eq!(receive(ours.as_fd(), 64).expect("receive").0, b"");
    }
}
