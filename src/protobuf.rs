//! The few forms of Protocol Buffers that the messages of criu (its images/rpc.proto) and of containerd's shims are
//! made of: numbers, texts, messages. Must not know what a message means.

/// A message being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub fn number(&mut self, field: u64, value: i64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value.cast_unsigned());
        self
    }

    /// A number that proto3 leaves out when it is 0.
    pub fn unsigned(&mut self, field: u64, value: u64) -> &mut Self {
        if value == 0 { self } else { self.number(field, value.cast_signed()) }
    }

    /// A text that proto3 leaves out when it is empty.
    pub fn some_text(&mut self, field: u64, text: impl AsRef<[u8]>) -> &mut Self {
        if text.as_ref().is_empty() { self } else { self.text(field, text) }
    }

    /// A flag that is set; one that is not is left out, which means the same.
    pub fn flag(&mut self, field: u64, on: bool) -> &mut Self {
        if on { self.number(field, 1) } else { self }
    }

    pub fn text(&mut self, field: u64, text: impl AsRef<[u8]>) -> &mut Self {
        self.varint(field << 3 | BYTES);
        self.varint(text.as_ref().len() as u64);
        self.0.extend_from_slice(text.as_ref());
        self
    }

    pub fn message(&mut self, field: u64, message: &Message) -> &mut Self {
        self.text(field, &message.0)
    }

    /// All fields of another message.
    pub fn append(&mut self, other: &Message) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub fn number(self) -> i64 {
        match self {
            Value::Number(n) => n,
            Value::Bytes(_) => 0,
        }
    }

    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Number(_) => &[],
            Value::Bytes(bytes) => bytes,
        }
    }

    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// The fields of a message with their numbers. What is cut off ends the list.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut bytes)?.cast_signed()),
            FIXED64 => Value::Bytes(take(&mut bytes, 8)?),
            FIXED32 => Value::Bytes(take(&mut bytes, 4)?),
            BYTES => {
                let length = take_varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, usize::try_from(length).ok()?)?)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(n)?;
    *bytes = tail;
    Some(head)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes from the documentation of the encoding: field 1 is 150; field 2 is "testing"; a message in field 3.
    #[test]
    fn the_documentations_examples() {
        let mut inner = Message::default();
        inner.number(1, 150);
        assert_eq!(inner.bytes(), [0x08, 0x96, 0x01]);
        let mut text = Message::default();
        text.text(2, "testing");
        assert_eq!(text.bytes(), b"\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, &inner);
        assert_eq!(outer.bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::default();
        message.number(1, -1).flag(2, false).flag(49, true).text(63, "x");
        let read: Vec<_> = fields(message.bytes()).collect();
        assert_eq!(read, [(1, Value::Number(-1)), (49, Value::Number(1)), (63, Value::Bytes(b"x"))]);
    }

    #[test]
    fn what_is_cut_off_is_no_field() {
        for bytes in [&[0x12][..], &[0x12, 0x07, b't'], &[0x08, 0x80], &[0x0b], &[0xff; 20]] {
            assert_eq!(fields(bytes).count(), 0, "{bytes:?}");
        }
    }
}
