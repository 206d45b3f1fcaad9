//! The messages of the task service (containerd's api/runtime/task/v2 and v3, whose fields are the same) and those of
//! containerd's that they hold. Must not act on them.

use crate::error::{Error, Result};
use crate::protobuf::{Message, Value, fields};

/// A time as containerd wants it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    pub fn now() -> Self {
        let (seconds, nanoseconds) = crate::sys::process::now();
        Self { seconds, nanoseconds }
    }

    pub fn message(self) -> Message {
        let mut message = Message::default();
        message.unsigned(1, self.seconds.cast_unsigned()).unsigned(2, self.nanoseconds.into());
        message
    }
}

/// google.protobuf.Any: a message with the name of its type.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Any {
    pub type_url: String,
    pub value: Vec<u8>,
}

impl Any {
    pub fn read(bytes: &[u8]) -> Self {
        let mut any = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => any.type_url = value.text(),
                2 => any.value = value.bytes().to_vec(),
                _ => {}
            }
        }
        any
    }

    pub fn write(type_url: &str, value: &Message) -> Message {
        let mut any = Message::default();
        any.text(1, type_url).some_text(2, value.bytes());
        any
    }
}

/// containerd.types.Mount.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    /// Below the root file system; empty: the root itself.
    pub target: String,
    pub options: Vec<String>,
}

impl Mount {
    fn read(bytes: &[u8]) -> Self {
        let mut mount = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => mount.kind = value.text(),
                2 => mount.source = value.text(),
                3 => mount.target = value.text(),
                4 => mount.options.push(value.text()),
                _ => {}
            }
        }
        mount
    }

    pub fn message(&self) -> Message {
        let mut message = Message::default();
        message.some_text(1, &self.kind).some_text(2, &self.source).some_text(3, &self.target);
        for option in &self.options {
            message.text(4, option);
        }
        message
    }
}

/// Where a process's streams lead: paths of FIFOs, URIs, or nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Streams {
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, Default)]
pub struct Create {
    pub id: String,
    pub bundle: String,
    pub rootfs: Vec<Mount>,
    pub streams: Streams,
    pub checkpoint: String,
    pub options: Any,
}

impl Create {
    pub fn read(bytes: &[u8]) -> Self {
        let mut create = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => create.id = value.text(),
                2 => create.bundle = value.text(),
                3 => create.rootfs.push(Mount::read(value.bytes())),
                4 => create.streams.terminal = value.number() != 0,
                5 => create.streams.stdin = value.text(),
                6 => create.streams.stdout = value.text(),
                7 => create.streams.stderr = value.text(),
                8 => create.checkpoint = value.text(),
                10 => create.options = Any::read(value.bytes()),
                _ => {}
            }
        }
        create
    }
}

#[derive(Debug, Default)]
pub struct Exec {
    pub id: String,
    pub exec_id: String,
    pub streams: Streams,
    /// The process, as JSON.
    pub spec: Vec<u8>,
}

impl Exec {
    pub fn read(bytes: &[u8]) -> Self {
        let mut exec = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => exec.id = value.text(),
                2 => exec.exec_id = value.text(),
                3 => exec.streams.terminal = value.number() != 0,
                4 => exec.streams.stdin = value.text(),
                5 => exec.streams.stdout = value.text(),
                6 => exec.streams.stderr = value.text(),
                7 => exec.spec = Any::read(value.bytes()).value,
                _ => {}
            }
        }
        exec
    }
}

/// The other requests: a container, mostly a process in it, and two numbers (Kill: signal, all; ResizePty: width,
/// height) or a message (Update: resources).
#[derive(Debug, Default)]
pub struct Named {
    pub id: String,
    pub second: Vec<u8>,
    pub third: i64,
    pub third_bytes: Vec<u8>,
    pub fourth: i64,
}

impl Named {
    pub fn read(bytes: &[u8]) -> Self {
        let mut named = Self::default();
        for (field, value) in fields(bytes) {
            match (field, value) {
                (1, _) => named.id = value.text(),
                (2, _) => named.second = value.bytes().to_vec(),
                (3, Value::Number(n)) => named.third = n,
                (3, Value::Bytes(bytes)) => named.third_bytes = bytes.to_vec(),
                (4, _) => named.fourth = value.number(),
                _ => {}
            }
        }
        named
    }

    /// The process within the container; empty: its first.
    pub fn exec_id(&self) -> String {
        String::from_utf8_lossy(&self.second).into_owned()
    }
}

/// containerd.runc.v1.CheckpointOptions.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    pub exit: bool,
    pub flags: Vec<&'static str>,
    pub image_path: String,
    pub work_path: String,
}

impl CheckpointOptions {
    pub fn read(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        for (field, value) in fields(bytes) {
            let flag = match field {
                1 => {
                    options.exit = value.number() != 0;
                    continue;
                }
                2 => "--tcp-established",
                3 => "--ext-unix-sk",
                4 => "--shell-job",
                5 => "--file-locks",
                8 => {
                    options.image_path = value.text();
                    continue;
                }
                9 => {
                    options.work_path = value.text();
                    continue;
                }
                _ => continue,
            };
            if value.number() != 0 {
                options.flags.push(flag);
            }
        }
        options
    }
}

/// A message with one number in it.
pub fn number(field: u64, value: u64) -> Message {
    let mut message = Message::default();
    message.unsigned(field, value);
    message
}

/// containerd's own rule for names (pkg/identifiers): they become files.
pub fn check_name(name: &str) -> Result<()> {
    let part = |c: char| c.is_ascii_alphanumeric();
    let whole = |c: char| part(c) || matches!(c, '-' | '_' | '.' | '+');
    match name.starts_with(part) && name.chars().all(whole) && name.len() <= 76 {
        true => Ok(()),
        false => Err(Error::new(format!("invalid identifier {name:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_request_is_read() {
        let mut any = Message::default();
        any.text(1, "containerd.runc.v1.Options").text(2, b"\x4a\x01x");
        let mount = Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec!["lowerdir=/a".to_owned(), "ro".to_owned()],
        };
        let mut bytes = Message::default();
        bytes
            .text(1, "lamb")
            .text(2, "/b")
            .message(3, &mount.message())
            .flag(4, true)
            .text(6, "/f")
            .message(10, &any);
        let create = Create::read(bytes.bytes());
        assert_eq!((create.id.as_str(), create.bundle.as_str()), ("lamb", "/b"));
        assert_eq!(create.rootfs, [mount]);
        assert!(create.streams.terminal && create.streams.stdout == "/f" && create.streams.stdin.is_empty());
        assert_eq!(
            (create.options.type_url.as_str(), create.options.value.len()),
            ("containerd.runc.v1.Options", 3)
        );
    }

    #[test]
    fn names_that_are_files_elsewhere() {
        for name in ["", ".", "..", "a/b", "-a", "a\0", "a b", &"x".repeat(77)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "8f2c", "a.b-c_d+e", &"x".repeat(76)] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
