//! ttrpc (its PROTOCOL.md): frames of a 10-byte header and a protobuf message, on a stream socket. Bytes come from
//! whoever reaches the socket and meet limits here; what a method means is no business of this file.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::Result;
use crate::protobuf::{Message, fields};
use crate::sys;

const HEADER: usize = 10;
/// The protocol's own limit on a message.
pub const LONGEST: usize = 4 << 20;
/// What may wait to be read by a client before it counts as gone.
const UNREAD: usize = 16 << 20;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;
const REMOTE_OPEN: u8 = 2;

/// Codes of google.rpc.Code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// Why a call failed, as the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<crate::error::Error> for Status {
    fn from(error: crate::error::Error) -> Self {
        Self::new(Code::Unknown, error.to_string())
    }
}

/// What a call gives: the response message, or why not.
pub type Answer = std::result::Result<Message, Status>;

/// A call that came in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Request {
    pub stream: u32,
    pub service: String,
    pub method: String,
    pub payload: Vec<u8>,
}

/// What stands at the beginning of the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Request(Request),
    /// A response to a call of our own: whether it is good.
    Response {
        stream: u32,
        good: bool,
    },
    /// Something that is answered with an error.
    Refused {
        stream: u32,
        status: Status,
    },
    /// Something that needs no answer.
    Ignored,
}

/// One connection: bytes that came and bytes that have to go.
pub struct Connection {
    pub socket: OwnedFd,
    input: Vec<u8>,
    /// Bytes still to come of a message that is too long.
    skip: usize,
    output: Vec<u8>,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, input: Vec::new(), skip: 0, output: Vec::new() }
    }

    /// Reads what is there, at most one message's worth. `false`: the other end is gone.
    pub fn fill(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        while self.input.len() < LONGEST {
            match sys::fd::read_some(self.socket.as_fd(), &mut buffer)? {
                Some(0) => return Ok(false),
                Some(n) => {
                    let skipped = n.min(self.skip);
                    self.skip -= skipped;
                    self.input.extend_from_slice(&buffer[skipped..n]);
                    if n < buffer.len() {
                        break;
                    }
                }
                None => break,
            }
        }
        Ok(true)
    }

    /// The next whole frame, if there is one.
    pub fn take(&mut self) -> Option<Frame> {
        let header: [u8; HEADER] = self.input.get(..HEADER)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, stream, kind, flags) = (word(0) as usize, word(4), header[8], header[9]);
        if length > LONGEST {
            let here = length.min(self.input.len() - HEADER);
            self.skip = length - here;
            self.input.drain(..HEADER + here);
            let message = format!("message length {length} exceeds maximum message size of {LONGEST}");
            return Some(refused(stream, Code::ResourceExhausted, message));
        }
        let body = self.input.get(HEADER..HEADER + length)?;
        let frame = read(stream, kind, flags, body);
        self.input.drain(..HEADER + length);
        if self.input.is_empty() {
            // Most of the time nothing is said: an idle shim keeps no buffer.
            self.input = Vec::new();
        }
        Some(frame)
    }

    pub fn answer(&mut self, stream: u32, answer: &Answer) {
        let mut response = Message::default();
        match answer {
            Ok(message) => {
                response.some_text(2, message.bytes());
            }
            Err(status) => {
                let mut words = Message::default();
                words.number(1, status.code as i64).text(2, &status.message);
                response.message(1, &words);
            }
        }
        self.push(stream, RESPONSE, &response);
    }

    /// A call of our own; `stream` must be odd and new.
    pub fn call(&mut self, stream: u32, service: &str, method: &str, payload: &Message) {
        let mut request = Message::default();
        request.text(1, service).text(2, method).message(3, payload);
        self.push(stream, REQUEST, &request);
    }

    fn push(&mut self, stream: u32, kind: u8, message: &Message) {
        let length = u32::try_from(message.bytes().len()).unwrap_or(u32::MAX);
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(&stream.to_be_bytes());
        self.output.extend_from_slice(&[kind, 0]);
        self.output.extend_from_slice(message.bytes());
    }

    /// Writes what the other end takes. `false`: it takes nothing any more, or far too little.
    pub fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match sys::socket::send_some(self.socket.as_fd(), &self.output) {
                Ok(Some(n)) => drop(self.output.drain(..n)),
                Ok(None) => return self.output.len() <= UNREAD,
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        true
    }

    /// Whether something waits to be written.
    pub fn is_full(&self) -> bool {
        !self.output.is_empty()
    }
}

fn refused(stream: u32, code: Code, message: impl Into<String>) -> Frame {
    Frame::Refused { stream, status: Status::new(code, message) }
}

fn read(stream: u32, kind: u8, flags: u8, body: &[u8]) -> Frame {
    match kind {
        REQUEST if stream.is_multiple_of(2) => {
            refused(stream, Code::InvalidArgument, "StreamID must be odd for client initiated streams")
        }
        REQUEST if flags & REMOTE_OPEN != 0 => {
            refused(stream, Code::Unimplemented, "no method of this service takes a stream")
        }
        REQUEST => match request(stream, body) {
            Some(request) => Frame::Request(request),
            None => refused(stream, Code::InvalidArgument, "the request is no ttrpc request"),
        },
        RESPONSE => {
            Frame::Response { stream, good: !fields(body).any(|(field, value)| failed(field, value)) }
        }
        DATA => refused(stream, Code::InvalidArgument, "data for a stream that was not opened"),
        _ => Frame::Ignored,
    }
}

/// Whether a field of a response is a status other than OK.
fn failed(field: u64, value: crate::protobuf::Value<'_>) -> bool {
    field == 1 && fields(value.bytes()).any(|(field, code)| field == 1 && code.number() != 0)
}

fn request(stream: u32, body: &[u8]) -> Option<Request> {
    let mut request = Request { stream, ..Request::default() };
    for (field, value) in fields(body) {
        match field {
            1 => request.service = value.text(),
            2 => request.method = value.text(),
            3 => request.payload = value.bytes().to_vec(),
            _ => {}
        }
    }
    (!request.service.is_empty() && !request.method.is_empty()).then_some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection and its other end.
    fn connected() -> (Connection, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("socketpair(2)");
        ours.set_nonblocking(true).expect("fcntl(2)");
        (Connection::new(ours.into()), theirs)
    }

    fn frame(length: u32, stream: u32, kind: u8, body: &[u8]) -> Vec<u8> {
        [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0], body].concat()
    }

    #[test]
    fn what_is_called_is_heard() {
        let (mut ours, theirs) = connected();
        let mut client = Connection::new(theirs.into());
        let mut payload = Message::default();
        payload.text(1, "lamb");
        client.call(7, "containerd.task.v2.Task", "State", &payload);
        assert!(client.flush() && ours.fill().expect("read"));
        let want = Request {
            stream: 7,
            service: "containerd.task.v2.Task".to_owned(),
            method: "State".to_owned(),
            payload: payload.bytes().to_vec(),
        };
        assert_eq!(ours.take(), Some(Frame::Request(want)));
        assert_eq!(ours.take(), None);
        ours.answer(7, &Err(Status::new(Code::NotFound, "no lamb")));
        assert!(ours.flush() && client.fill().expect("read"));
        assert_eq!(client.take(), Some(Frame::Response { stream: 7, good: false }));
    }

    #[test]
    fn what_is_too_long_is_skipped_and_said() {
        use std::io::Write as _;
        let (mut ours, mut theirs) = connected();
        let bytes =
            [frame(LONGEST as u32 + 1, 3, REQUEST, &vec![0; LONGEST + 1]), frame(0, 5, 9, b"")].concat();
        let mut seen = Vec::new();
        for part in bytes.chunks(1 << 16) {
            theirs.write_all(part).expect("write");
            ours.fill().expect("read");
            seen.extend(std::iter::from_fn(|| ours.take()));
            assert!(ours.input.len() < 1 << 17, "what is skipped is not kept");
        }
        assert!(
            matches!(&seen[0], Frame::Refused { stream: 3, status } if status.code == Code::ResourceExhausted)
        );
        assert_eq!(seen[1], Frame::Ignored);
    }

    #[test]
    fn nonsense_is_refused() {
        let (mut ours, mut theirs) = connected();
        use std::io::Write as _;
        for (bytes, code) in [
            (frame(2, 2, REQUEST, b"\x0a\x00"), Code::InvalidArgument),
            (frame(3, 1, REQUEST, b"\xff\xff\xff"), Code::InvalidArgument),
            (frame(0, 1, REQUEST, b""), Code::InvalidArgument),
            (frame(1, 1, DATA, b"x"), Code::InvalidArgument),
        ] {
            theirs.write_all(&bytes).expect("write");
            ours.fill().expect("read");
            let frame = ours.take();
            assert!(
                matches!(&frame, Some(Frame::Refused { status, .. }) if status.code == code),
                "{frame:?}"
            );
        }
    }
}
