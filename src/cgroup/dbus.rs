//! As much of D-Bus as asking systemd takes: one connection, calls one after the other, and the signals in between. It
//! knows nothing of units. What comes in is read with limits: no message may be longer, no answer later.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::plan::gvariant::Value;
use crate::sys::{fd, socket};

/// The longest message that is read; systemd's are far below it.
const LONGEST: usize = 1 << 20;
/// Signals that are kept for whoever asks for them later.
const KEPT: usize = 256;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(25);

const LITTLE: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A call's address. `destination` stays empty on a connection without a bus.
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// What came in: the header's words and the body.
#[derive(Debug, Default)]
pub struct Message {
    kind: u8,
    reply_to: u32,
    pub member: String,
    error: String,
    body: Vec<u8>,
}

/// An error that the other side answered with.
#[derive(Debug)]
pub struct Refusal {
    pub name: String,
    pub text: String,
}

#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    serial: u32,
    signals: Vec<Message>,
}

impl Connection {
    /// Connects to a socket and says who we are: by the credentials of the socket, so that no number is compared across
    /// user namespaces.
    pub fn open(path: &Path) -> Result<Self> {
        let socket = socket::connect_stream(path)?;
        let mut connection = Self { socket, serial: 0, signals: Vec::new() };
        fd::write_all(connection.socket.as_fd(), b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + PATIENCE;
        for want in ["DATA", "OK "] {
            let line = connection.line(deadline)?;
            if !line.starts_with(want) {
                return Err(Error::new(format!("D-Bus at {path:?} does not let us in: {line:?}")));
            }
        }
        Ok(connection)
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(Error::new("D-Bus: the greeting is too long"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            if left.is_zero() || !fd::poll(&[(self.socket.as_fd(), libc::POLLIN)], wait)?[0] {
                return Err(Error::call("waiting for D-Bus", libc::ETIMEDOUT).why("systemd or its bus hangs"));
            }
            match fd::read(self.socket.as_fd(), buffer)? {
                0 => return Err(Error::new("D-Bus: the other side hung up")),
                n => buffer = &mut buffer[n..],
            }
        }
        Ok(())
    }

    /// Calls a method and waits for the answer.
    pub fn call(
        &mut self,
        call: &Call<'_>,
        arguments: &[Value],
    ) -> Result<std::result::Result<Message, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        let message = message(call, serial, arguments)?;
        fd::write_all(self.socket.as_fd(), &message).map_err(|e| e.context(call.member))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.receive(deadline).map_err(|e| e.context(call.member))?;
            match answer.kind {
                ANSWER if answer.reply_to == serial => return Ok(Ok(answer)),
                ERROR if answer.reply_to == serial => {
                    let text = answer.reader().text().unwrap_or_default();
                    return Ok(Err(Refusal { name: answer.error, text }));
                }
                SIGNAL => self.keep(answer),
                _ => {}
            }
        }
    }

    fn keep(&mut self, signal: Message) {
        if self.signals.len() == KEPT {
            self.signals.remove(0);
        }
        self.signals.push(signal);
    }

    /// The next signal, one that came in before first.
    pub fn signal(&mut self, deadline: Instant) -> Result<Message> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = self.receive(deadline)?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let mut fixed = [0; 16];
        self.fill(&mut fixed, deadline)?;
        if fixed[0] != LITTLE || fixed[3] != 1 {
            return Err(garbled());
        }
        let word =
            |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if body > LONGEST || fields > LONGEST {
            return Err(
                Error::new("D-Bus: a message is too long").why(format!("{body} bytes, {LONGEST} at most"))
            );
        }
        let header = fields.next_multiple_of(8);
        let mut rest = vec![0; header + body];
        self.fill(&mut rest, deadline)?;
        let mut message = Message { kind: fixed[1], body: rest.split_off(header), ..Message::default() };
        rest.truncate(fields);
        message.fields(&rest).ok_or_else(garbled)?;
        Ok(message)
    }
}

fn garbled() -> Error {
    Error::new("D-Bus: what the other side sent is no message")
}

impl Message {
    /// The header's fields: an array of (code, variant).
    fn fields(&mut self, bytes: &[u8]) -> Option<()> {
        // Field 16 of the message: multiples of 8 are the same here and there.
        let mut reader = Reader { bytes, at: 0 };
        while reader.at < bytes.len() {
            reader.align(8);
            if reader.at >= bytes.len() {
                break;
            }
            let code = reader.take(1)?[0];
            match (reader.signature()?.as_str(), code) {
                ("s", 3) => self.member = reader.text()?,
                ("s", 4) => self.error = reader.text()?,
                ("u", 5) => self.reply_to = reader.number()?,
                ("s" | "o", _) => drop(reader.text()?),
                ("u", _) => drop(reader.number()?),
                ("g", _) => drop(reader.signature()?),
                _ => return None,
            }
        }
        Some(())
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Reads a body value by value; `None` where it is not what was expected.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    pub fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A string or an object path.
    pub fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    pub fn signature(&mut self) -> Option<String> {
        let length = self.take(1)?[0];
        let text = self.take(length.into())?;
        self.take(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// A call as it goes out: the header, padded, and the body.
fn message(call: &Call<'_>, serial: u32, arguments: &[Value]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    arguments.iter().for_each(|value| put(&mut body, value));
    let field =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(1, Value::ObjectPath(call.path.to_owned())),
        field(2, Value::text(call.interface)),
        field(3, Value::text(call.member)),
    ];
    if !call.destination.is_empty() {
        fields.push(field(6, Value::text(call.destination)));
    }
    if !arguments.is_empty() {
        let signature = arguments.iter().map(Value::signature).collect();
        fields.push(field(8, Value::Signature(signature)));
    }
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= LONGEST);
    let length = length.ok_or_else(|| Error::new("D-Bus: the properties of the unit are too long"))?;
    let mut bytes = vec![LITTLE, CALL, 0, 1];
    bytes.extend(length.to_ne_bytes());
    bytes.extend(serial.to_ne_bytes());
    put(&mut bytes, &Value::Array("(yv)".to_owned(), fields));
    pad(&mut bytes, 8);
    bytes.extend(body);
    Ok(bytes)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// The boundary on which a value of a type begins.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    pad(bytes, alignment(&value.signature()));
    match value {
        Value::Bool(b) => bytes.extend(u32::from(*b).to_ne_bytes()),
        Value::Byte(n) => bytes.push(*n),
        Value::I16(n) => bytes.extend(n.to_ne_bytes()),
        Value::U16(n) => bytes.extend(n.to_ne_bytes()),
        Value::I32(n) => bytes.extend(n.to_ne_bytes()),
        Value::U32(n) => bytes.extend(n.to_ne_bytes()),
        Value::I64(n) => bytes.extend(n.to_ne_bytes()),
        Value::U64(n) => bytes.extend(n.to_ne_bytes()),
        Value::Double(n) => bytes.extend(n.to_ne_bytes()),
        Value::Text(text) | Value::ObjectPath(text) => {
            bytes.extend((text.len() as u32).to_ne_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        Value::Signature(text) => put_signature(bytes, text),
        Value::Variant(value) => {
            put_signature(bytes, &value.signature());
            put(bytes, value);
        }
        Value::Struct(fields) => fields.iter().for_each(|field| put(bytes, field)),
        Value::Array(element, list) => {
            let at = bytes.len();
            bytes.extend([0; 4]);
            // The padding before the first element does not count.
            pad(bytes, alignment(element));
            let start = bytes.len();
            list.iter().for_each(|element| put(bytes, element));
            let length = (bytes.len() - start) as u32;
            bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }
}

fn put_signature(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_on_their_boundaries() {
        let mut bytes = Vec::new();
        put(&mut bytes, &Value::Byte(7));
        put(&mut bytes, &Value::text("ab"));
        put(&mut bytes, &Value::U64(1));
        assert_eq!(
            bytes.len(),
            24,
            "7, three of padding, the length, ab and its end, five of padding, eight"
        );
        let mut bytes = Vec::new();
        put(&mut bytes, &Value::Array("t".into(), vec![Value::U64(5)]));
        assert_eq!(bytes[..4], 8u32.to_ne_bytes(), "the padding before the first element does not count");
        assert_eq!(bytes.len(), 16);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let mut message = Message::default();
        assert_eq!(message.fields(&[3, 1, b's', 0, 255, 255, 255, 255, 0]), None);
        assert_eq!(message.fields(&[3, 1, b'v', 0]), None);
        assert_eq!(message.fields(&[]), Some(()));
    }
}
