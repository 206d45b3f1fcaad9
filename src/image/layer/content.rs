//! The digest of a file's content that does not mind holes: blocks of zeros count by their place alone, so that a
//! sparse file of terabytes costs no more than what is in it, and the same bytes have one digest however they are
//! stored.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::unistd::{Whence, lseek};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

const BLOCK: usize = 4096;

#[derive(Default)]
pub struct Content {
    /// Blocks that are not all zeros, and where each run of them begins and ends.
    data: Sha256,
    runs: Sha256,
    /// Where the current run ends, in bytes.
    run: u64,
    at: u64,
    /// The beginning of a block that is not whole yet.
    part: Vec<u8>,
}

impl Content {
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.part.is_empty() {
            let n = bytes.len().min(BLOCK - self.part.len());
            self.part.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.part.len() < BLOCK {
                return;
            }
            let part = std::mem::take(&mut self.part);
            self.blocks(&part);
            self.part = part;
            self.part.clear();
        }
        let whole = bytes.len() / BLOCK * BLOCK;
        self.blocks(&bytes[..whole]);
        self.part.extend_from_slice(&bytes[whole..]);
    }

    /// `n` zeros that nobody has to look at.
    pub fn skip(&mut self, mut n: u64) {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        let first = n.min(((BLOCK - self.part.len()) % BLOCK) as u64);
        self.update(&ZEROS[..first as usize]);
        n -= first;
        if n >= BLOCK as u64 {
            self.at += n / BLOCK as u64 * BLOCK as u64;
        }
        self.update(&ZEROS[..(n % BLOCK as u64) as usize]);
    }

    pub fn finish(mut self) -> [u8; 32] {
        let part = std::mem::take(&mut self.part);
        self.blocks(&part);
        let mut all = Sha256::new();
        all.update(self.data.finalize());
        all.update(self.runs.finalize());
        all.update(self.run.to_le_bytes());
        all.update(self.at.to_le_bytes());
        all.finalize().into()
    }

    fn blocks(&mut self, bytes: &[u8]) {
        let mut begin = 0;
        for (i, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().all(|byte| *byte == 0) {
                self.run(&bytes[begin..i * BLOCK]);
                self.at += block.len() as u64;
                begin = (i * BLOCK + BLOCK).min(bytes.len());
            }
        }
        self.run(&bytes[begin..]);
    }

    fn run(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.at != self.run {
            self.runs.update(self.run.to_le_bytes());
            self.runs.update(self.at.to_le_bytes());
        }
        self.data.update(bytes);
        self.at += bytes.len() as u64;
        self.run = self.at;
    }
}

/// The digest of what is in a file, holes skipped.
pub fn of(file: &File, len: u64) -> Result<[u8; 32]> {
    let (mut content, mut end) = (Content::default(), 0);
    pieces(file, len, |at, piece| {
        content.skip(at - end);
        content.update(piece);
        end = at + piece.len() as u64;
        Ok(())
    })?;
    content.skip(len - end);
    Ok(content.finish())
}

/// What is in the first `len` bytes of a file and is no hole: where it begins, and the bytes.
pub fn pieces(file: &File, len: u64, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(128 << 10)];
    let seek = |offset: u64, whence| lseek(file.as_fd(), offset as i64, whence);
    let mut at = 0;
    while at < len {
        // ENXIO: nothing but a hole until the end. Where seeking is not known, all is data.
        at = match seek(at, Whence::SeekData) {
            Ok(data) => (data as u64).min(len),
            Err(nix::errno::Errno::ENXIO) => len,
            Err(_) => at,
        };
        let end = seek(at, Whence::SeekHole).map_or(len, |end| (end as u64).min(len));
        while at < end {
            let n = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = file
                .read_at(&mut buffer[..n], at)
                .map_err(|e| Error::call("pread(a file of a layer)", e.raw_os_error().unwrap_or(0)))?;
            if n == 0 {
                return Err(Error::new("a file became shorter while it was read"));
            }
            each(at, &buffer[..n])?;
            at += n as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pieces: &[&[u8]]) -> [u8; 32] {
        let mut content = Content::default();
        pieces.iter().for_each(|piece| content.update(piece));
        content.finish()
    }

    #[test]
    fn pieces_and_holes_do_not_matter() {
        let mut bytes = vec![0u8; 40_000];
        bytes[5] = 1;
        bytes[20_000..30_000].fill(7);
        let whole = digest(&[&bytes]);
        for size in [1, 7, 4095, 4096, 4097, 9000] {
            assert_eq!(digest(&bytes.chunks(size).collect::<Vec<_>>()), whole, "pieces of {size}");
        }
        let mut sparse = Content::default();
        sparse.update(&bytes[..6]);
        sparse.skip(20_000 - 6);
        sparse.update(&bytes[20_000..30_000]);
        sparse.skip(10_000);
        assert_eq!(sparse.finish(), whole);
    }

    #[test]
    fn places_and_lengths_matter() {
        let one = |at: usize, len: usize| {
            let mut bytes = vec![0u8; len];
            bytes[at] = 1;
            digest(&[&bytes])
        };
        let all = [one(0, 9000), one(4096, 9000), one(8192, 9000), one(0, 9001), digest(&[&[0; 9000]])];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
