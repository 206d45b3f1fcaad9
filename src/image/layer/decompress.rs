//! Compressed bytes to a hashed stream. Reading, inflating and hashing happen in a thread of their own, so that a
//! second core can make the files meanwhile. What the bytes are is told by their first ones: registries mislabel.

use std::fs::File;
use std::io::{BufRead, BufReader, Chain, Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::Digest as _;

use super::Blob;
use super::tar::Stream;
use crate::error::{Error, Result};
use crate::sys::fd;

/// Bytes that go from thread to thread at once, and how many such pieces there are.
const PIECE: usize = 256 << 10;
const PIECES: usize = 6;
/// The largest zstd window, as a power of two: memory stays bounded whatever the frame asks for.
const WINDOW_LOG: u32 = 25;
/// The longest uncompressed layer.
const MAX_BYTES: u64 = 1 << 44;

enum Message {
    Piece(Vec<u8>),
    Failed(Error),
    /// The digest of everything, in hexadecimal, and its length.
    End(String, u64),
}

/// The stream, and the thread that fills it.
pub struct Pieces {
    pieces: Receiver<Message>,
    back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    end: Option<(String, u64)>,
}

impl Pieces {
    /// Starts the thread. It waits for `go` before it looks at the first byte.
    pub fn start(blob: Blob, diff_id: &Digest, go: Receiver<()>) -> Result<Self> {
        let hash = Hash::new(diff_id)?;
        let (send, pieces) = sync_channel(PIECES);
        let (back, returned) = sync_channel::<Vec<u8>>(PIECES);
        for _ in 0..PIECES {
            let _ = back.send(Vec::new());
        }
        let run = move || {
            if go.recv().is_ok() {
                let said = pump(blob, hash, &send, &returned);
                let _ = send.send(said.unwrap_or_else(Message::Failed));
            }
        };
        std::thread::Builder::new()
            .name("decompress".into())
            .spawn(run)
            .map_err(|e| Error::call("clone3(thread)", e.raw_os_error().unwrap_or(0)))?;
        Ok(Self { pieces, back, piece: Vec::new(), at: 0, end: None })
    }

    /// The digest of the stream (hexadecimal) and its length, once it was read to its end.
    pub fn end(&self) -> Option<(&str, u64)> {
        self.end.as_ref().map(|(digest, len)| (digest.as_str(), *len))
    }
}

impl Stream for &mut Pieces {
    fn chunk(&mut self) -> Result<&[u8]> {
        if self.at == self.piece.len() && self.end.is_none() {
            let done = std::mem::take(&mut self.piece);
            let _ = self.back.try_send(done);
            self.at = 0;
            match self.pieces.recv() {
                Ok(Message::Piece(piece)) => self.piece = piece,
                Ok(Message::End(digest, len)) => self.end = Some((digest, len)),
                Ok(Message::Failed(error)) => return Err(error),
                Err(_) => return Err(Error::new("the thread that decompresses is gone")),
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

/// Decompresses and hashes until the end, or until nobody listens any more.
fn pump(
    blob: Blob,
    mut hash: Hash,
    send: &SyncSender<Message>,
    returned: &Receiver<Vec<u8>>,
) -> Result<Message> {
    let mut plain = plain(Growing::new(blob))?;
    let mut total = 0;
    loop {
        let Ok(mut piece) = returned.recv() else { return Err(Error::new("nobody reads the layer")) };
        piece.resize(PIECE, 0);
        let mut len = 0;
        while len < PIECE {
            match plain.read(&mut piece[len..]).map_err(damaged)? {
                0 => break,
                n => len += n,
            }
        }
        if len == 0 {
            return Ok(Message::End(hash.finish(), total));
        }
        total += len as u64;
        if total > MAX_BYTES {
            return Err(Error::new(format!("the layer has more than {MAX_BYTES} bytes")));
        }
        piece.truncate(len);
        hash.update(&piece);
        if send.send(Message::Piece(piece)).is_err() {
            return Err(Error::new("nobody reads the layer"));
        }
    }
}

type Source = Chain<Cursor<Vec<u8>>, BufReader<Growing>>;

/// The decompressor that the first bytes ask for.
fn plain(blob: Growing) -> Result<Box<dyn Read>> {
    let mut blob = BufReader::with_capacity(PIECE, blob);
    let mut magic = Vec::new();
    (&mut blob).take(6).read_to_end(&mut magic).map_err(damaged)?;
    let unknown = |name| {
        Err(Error::new(format!("the layer is compressed with {name}, which layers are not"))
            .why("the image specification has gzip and zstd"))
    };
    let source = |magic| -> Source { Cursor::new(magic).chain(blob) };
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source(magic)))),
        // A frame, or one to be skipped (RFC 8878, 3.1).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => zstd(source(magic)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => unknown("xz"),
        [b'B', b'Z', b'h', ..] => unknown("bzip2"),
        _ => Ok(Box::new(source(magic))),
    }
}

fn zstd(source: impl BufRead + 'static) -> Result<Box<dyn Read>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
    Ok(Box::new(decoder))
}

fn damaged(e: std::io::Error) -> Error {
    // An error of ours on its way through a decompressor.
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(ours) => ours.clone(),
        None if e.to_string().contains("too much memory") => {
            Error::new(format!("the layer's zstd window is larger than {} MiB", (1 << WINDOW_LOG) >> 20))
                .next("compress it without --ultra and --long")
        }
        None => Error::new(format!("the layer's compressed bytes are damaged: {e}")),
    }
}

/// A file that may still be written: reads as far as its writer says, and waits there.
struct Growing {
    file: File,
    at: u64,
    /// How many bytes are there, and the pipe that says more; `None`: the file is complete.
    more: Option<(u64, OwnedFd)>,
}

impl Growing {
    fn new(blob: Blob) -> Self {
        Self { file: blob.file, at: 0, more: blob.growing.map(|pipe| (0, pipe)) }
    }
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some((ready, pipe)) = &mut self.more
            && *ready <= self.at
        {
            let mut word = [0; 8];
            match fd::read_full(pipe.as_fd(), &mut word).map_err(std::io::Error::other)? {
                8 if word == [0xff; 8] => self.more = None,
                8 => *ready = u64::from_le_bytes(word),
                _ => {
                    return Err(std::io::Error::other(Error::new("the download ended before the layer did")));
                }
            }
        }
        let ready = self.more.as_ref().map_or(u64::MAX, |(ready, _)| *ready);
        let len = buffer.len().min(usize::try_from(ready - self.at).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..len], self.at)?;
        if n == 0 && self.more.is_some() {
            return Err(std::io::Error::other(Error::new(
                "the layer's file is shorter than its writer says",
            )));
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// The algorithms that a diff ID may have.
enum Hash {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hash {
    fn new(diff_id: &Digest) -> Result<Self> {
        match diff_id.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::Sha256(sha2::Sha256::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(sha2::Sha512::new())),
            other => Err(Error::new(format!("the diff ID is of the unknown algorithm {other}"))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
