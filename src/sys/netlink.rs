//! rtnetlink(7): requests about network devices and their addresses, each with its answer.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Error, Result};

/// Longest answer in one datagram; the kernel makes them no longer than this (NLMSG_GOODSIZE, dumps up to 32 KiB).
const DATAGRAM: usize = 64 << 10;
/// struct nlmsghdr: length, type, flags, sequence number, sender.
const HEADER: usize = 16;

/// A socket in the network namespace in which it was opened, wherever the caller goes afterwards.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

/// The body of a request: a fixed structure, then attributes (`struct rtattr`), each padded to four bytes.
#[derive(Debug, Clone, Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// struct ifinfomsg (rtnetlink(7)).
    pub fn link(index: u32, flags: u32, change: u32) -> Self {
        let mut bytes = vec![0; 4];
        for word in [index, flags, change] {
            bytes.extend(word.to_ne_bytes());
        }
        Self(bytes)
    }

    /// struct ifaddrmsg (rtnetlink(7)).
    pub fn address(family: u8, prefix: u8, flags: u8, scope: u8, index: u32) -> Self {
        let mut bytes = vec![family, prefix, flags, scope];
        bytes.extend(index.to_ne_bytes());
        Self(bytes)
    }

    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // No attribute of ours is longer than some tens of bytes.
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A text attribute, which ends in NUL.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), b"\0"].concat())
    }
}

/// One message of an answer, without its header.
#[derive(Debug, Clone)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// The word at `at`, 0 where the message ends before.
    pub fn word(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Kind and value of each attribute behind a fixed structure of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> Vec<(u16, &[u8])> {
        let mut rest = self.0.get(fixed..).unwrap_or_default();
        let mut found = Vec::new();
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            let kind = u16::from_ne_bytes([rest[2], rest[3]]);
            let Some(value) = rest.get(4..length) else { break };
            found.push((kind, value));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        found
    }
}

impl Netlink {
    pub fn open() -> Result<Self> {
        socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            Some(SockProtocol::NetlinkRoute),
        )
        .map(Self)
        .map_err(|e| Error::call("socket(AF_NETLINK, NETLINK_ROUTE)", e as i32))
    }

    /// Sends one request and returns what the kernel answers. `what` is the request as an error shows it.
    pub fn ask(&self, kind: u16, flags: i32, body: &Body, what: &str) -> Result<Vec<Message>> {
        let failed = |errno: i32| Error::call(what, errno);
        let is_dump = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let flags = libc::NLM_F_REQUEST | flags | if is_dump { 0 } else { libc::NLM_F_ACK };
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + body.0.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(&body.0);
        send(self.0.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|e| failed(e as i32))?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let n = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.map_err(|e| failed(e as i32))?,
            };
            if take(&buffer[..n], &mut answer).map_err(failed)? {
                return Ok(answer);
            }
        }
    }
}

/// Adds the messages of one datagram; whether the answer ends with it. The error is the kernel's number.
fn take(mut datagram: &[u8], answer: &mut Vec<Message>) -> std::result::Result<bool, i32> {
    while datagram.len() >= HEADER {
        let length = u32::from_ne_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([datagram[4], datagram[5]]));
        let message = Message(datagram.get(HEADER..length).ok_or(libc::EBADMSG)?.to_vec());
        match kind {
            libc::NLMSG_ERROR => match message.word(0) as i32 {
                0 => return Ok(true),
                negative => return Err(-negative),
            },
            libc::NLMSG_DONE => return Ok(true),
            _ => answer.push(message),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let body = Body::link(7, 1, 1).with_text(3, "eth0").with(28, &9u32.to_ne_bytes());
        let message = Message(body.0);
        assert_eq!(message.word(4), 7);
        assert_eq!(message.attributes(16), [(3, &b"eth0\0"[..]), (28, &9u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn what_is_cut_short_is_no_panic() {
        let body = Body::address(2, 24, 0, 0, 1).with(2, &[10, 0, 0, 1]);
        for cut in 0..body.0.len() {
            assert!(Message(body.0[..cut].to_vec()).attributes(8).is_empty());
        }
        let mut header = vec![0; 16];
        header[0] = 200;
        assert_eq!(take(&header, &mut Vec::new()), Err(libc::EBADMSG));
    }
}
