//! A large blob by several requests at a time, each for a piece: one connection to a registry is seldom as quick as the
//! line. The pieces are handed on in their order, so that whoever reads sees one stream.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::thread::JoinHandle;

use oci_spec::image::Descriptor;

use super::Registry;
use super::body::Incoming;
use crate::error::{Error, Result};

/// From so many bytes on it is worth more than one request.
const LARGE: u64 = 32 << 20;

/// Bytes of a piece, and how many are on their way at the same time: they wait in memory for their turn.
const PIECE: u64 = 2 << 20;
const AT_ONCE: usize = 3;

/// The bytes of a blob from `offset` on: in pieces, where it is large and the registry knows ranges.
pub fn open(registry: Arc<Registry>, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
    let (digest, size) = (blob.digest().to_string(), blob.size());
    let wide = size.saturating_sub(offset) >= LARGE;
    let end = if wide { offset + PIECE } else { size };
    let mut first = Incoming::new(registry.clone(), digest.clone(), offset, end, size);
    first.connect()?;
    if first.end() == size {
        return Ok(Box::new(first));
    }
    Ok(Box::new(Wide { next: end, piece: Box::new(first), ahead: VecDeque::new(), registry, digest, size }))
}

struct Wide {
    registry: Arc<Registry>,
    digest: String,
    size: u64,
    /// The piece that is being read.
    piece: Box<dyn Read + Send>,
    /// Those after it, each with a thread that fetches it.
    ahead: VecDeque<JoinHandle<Result<Vec<u8>>>>,
    /// Where the first piece begins that nobody fetches yet.
    next: u64,
}

impl Wide {
    fn fetch_ahead(&mut self) {
        while self.ahead.len() < AT_ONCE && self.next < self.size {
            let end = (self.next + PIECE).min(self.size);
            let piece = Incoming::new(self.registry.clone(), self.digest.clone(), self.next, end, self.size);
            self.ahead.push_back(std::thread::spawn(move || fetch(piece, end)));
            self.next = end;
        }
    }
}

fn fetch(mut piece: Incoming, end: u64) -> Result<Vec<u8>> {
    piece.connect()?;
    if piece.end() != end {
        return Err(Error::new("the registry sends whole blobs now, and parts before"));
    }
    let mut bytes = Vec::with_capacity(PIECE as usize);
    piece.read_to_end(&mut bytes).map_err(|e| Error::new(e.to_string()))?;
    Ok(bytes)
}

impl Read for Wide {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.fetch_ahead();
            let n = self.piece.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let Some(piece) = self.ahead.pop_front() else { return Ok(0) };
            let fetched =
                piece.join().unwrap_or_else(|_| Err(Error::new("the thread that fetches panicked")));
            self.piece = Box::new(Cursor::new(fetched.map_err(io::Error::other)?));
        }
    }
}
