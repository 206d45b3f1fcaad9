//! Blobs: bytes in a file without a name, with their length and SHA-256, hashed while they are written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use flate2::{Compression as Level, GzBuilder};
use sha2::{Digest, Sha256};

use crate::entry::Data;
use crate::error::{Doing, Error, Result};

#[derive(Debug, Clone)]
pub struct Blob {
    pub data: Data,
    /// Lower-case hexadecimal SHA-256.
    pub hex: String,
}

impl Blob {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { hex: sha256_hex(&bytes), data: Data::bytes(bytes) }
    }

    /// `sha256:HEX`.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

/// Collects what `write` writes.
pub fn spool(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Blob> {
    let file = tempfile::tempfile().doing(|| "make a temporary file".into())?;
    let mut hashing =
        Hashing { out: BufWriter::with_capacity(128 * 1024, file), hash: Sha256::new(), len: 0 };
    write(&mut hashing)?;
    let file = hashing.out.into_inner().doing(|| "write a temporary file".into())?;
    let data = Data::Range { file: Arc::new(file), offset: 0, len: hashing.len };
    Ok(Blob { data, hex: hex(&hashing.hash.finalize()) })
}

struct Hashing {
    out: BufWriter<File>,
    hash: Sha256,
    len: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl std::str::FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Error::new(format!("`{text}` is no compression: it must be none, gzip or zstd"))),
        }
    }
}

impl Compression {
    /// What the media type of a layer ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }

    /// Runs `write` with the compressed side of `out`. The header of a gzip stream gets neither name nor time.
    pub fn write(self, out: &mut dyn Write, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Self::None => write(out),
            Self::Gzip => {
                let mut gzip = GzBuilder::new().write(out, Level::new(6));
                write(&mut gzip)?;
                gzip.finish().doing(|| "finish the gzip stream".into()).map(drop)
            }
            Self::Zstd => {
                let mut zstd = zstd::Encoder::new(out, 3).doing(|| "start a zstd stream".into())?;
                write(&mut zstd)?;
                zstd.finish().doing(|| "finish the zstd stream".into()).map(drop)
            }
        }
    }
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
