//! Archives made by hand, entry by entry, hostile ones too: no writer would make them.

#![allow(dead_code, reason = "every test file uses its own part")]

use tar::{EntryType, Header};

#[derive(Default, Clone)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.entry(path, b'0', "", data.as_bytes())
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(path, b'5', "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, b'2', target, b"")
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, b'1', target, b"")
    }

    pub fn entry(self, path: &str, kind: u8, link: &str, data: &[u8]) -> Self {
        self.header(path, kind, link, data.len() as u64, |_| {}).data(data)
    }

    /// A header that `change` may damage; the checksum is right afterwards.
    pub fn header(
        mut self,
        path: &str,
        kind: u8,
        link: &str,
        size: u64,
        change: impl Fn(&mut [u8; 512]),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(size);
        // A device needs numbers: the null device, which is somebody's all over the world.
        header.set_device_major(1).expect("ustar");
        header.set_device_minor(3).expect("ustar");
        header.as_mut_bytes()[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        change(header.as_mut_bytes());
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    /// Bytes, padded to whole blocks.
    pub fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry("pax", b'x', "", &data)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let len = (body..).find(|len| *len == body + len.to_string().len()).expect("a length");
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}
