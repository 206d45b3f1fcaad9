//! What a layer is made of: entries, each a path with a kind and its metadata.
//!
//! Paths are bytes, relative to the root, without a leading or trailing slash; the root itself is the empty path.
//! Nothing here touches the disk except to read the data an entry stands for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Doing, Error, Result};

#[derive(Debug, Clone)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
}

#[derive(Debug, Clone)]
pub enum Kind {
    File(Data),
    Dir,
    /// The target, as the link holds it.
    Symlink(Vec<u8>),
    /// The path below the root that this name is a second name of.
    Hardlink(Vec<u8>),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Permission bits (with setuid, setgid and sticky), numeric owner, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Owned by root, with no extended attributes.
    pub fn root(mode: u32, mtime: Mtime) -> Self {
        Self { mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }
}

/// Seconds since 1970 and nanoseconds; earlier times have negative seconds and positive nanoseconds, as in timespec(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    pub secs: i64,
    pub nanos: u32,
}

impl Mtime {
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// The bytes of a regular file: held, or a part of an open file, or a file to open when it is read.
///
/// A directory with more files than there may be open descriptors is the reason for the third.
#[derive(Debug, Clone)]
pub enum Data {
    Bytes(Arc<[u8]>),
    Range { file: Arc<File>, offset: u64, len: u64 },
    Path { path: PathBuf, len: u64 },
}

impl Data {
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(bytes.as_ref().into())
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range { len, .. } | Self::Path { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn reader(&self) -> Result<Box<dyn Read>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(Arc::clone(bytes))),
            Self::Range { file, offset, len } => {
                Box::new(RangeReader { file: Arc::clone(file), offset: *offset, left: *len })
            }
            Self::Path { path, len } => {
                // A symlink put in place of the file since it was listed must not be followed.
                let file = File::options()
                    .read(true)
                    .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                    .open(path)
                    .doing(|| format!("open {}", path.display()))?;
                Box::new(file.take(*len))
            }
        })
    }

    /// Writes exactly [`Data::len`] bytes: a file that shrank since it was listed is an error, not a short archive.
    pub fn copy_to(&self, out: &mut impl Write) -> Result<()> {
        let mut reader = self.reader()?;
        let mut buffer = vec![0; 128 * 1024];
        let mut copied = 0;
        loop {
            let n = reader.read(&mut buffer).doing(|| format!("read {}", self.shown()))?;
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n]).doing(|| "write the output".into())?;
            copied += n as u64;
        }
        if copied != self.len() {
            let what = format!("{} changed while it was read", self.shown());
            return Err(Error::new(what).why(format!("{copied} bytes came, {} were listed", self.len())));
        }
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::Path { path, .. } => path.display().to_string(),
            Self::Bytes(_) | Self::Range { .. } => "the data of an entry".into(),
        }
    }
}

/// Reads by position, so that many readers can share one descriptor.
struct RangeReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A path as entries hold it: no leading slash, no `.`; an absolute path is taken from the root.
///
/// `..` is refused rather than resolved: no honest archive has it, and engines differ in what they make of it.
pub fn clean_path(raw: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(raw.len());
    for part in raw.split(|&b| b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => {
                let what = format!("the path {} is refused: a '..' could leave the root", shown(raw));
                return Err(Error::new(what));
            }
            _ if part.contains(&0) => {
                return Err(Error::new(format!("the path {} is refused: it has a zero byte", shown(raw))));
            }
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

/// Directory and last component; the directory of a top-level name is the empty path.
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A path for a message: quoted, with what is not printable escaped.
pub fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) => format!("'{}'", text.escape_debug()),
        Err(_) => format!("'{}'", path.escape_ascii()),
    }
}
