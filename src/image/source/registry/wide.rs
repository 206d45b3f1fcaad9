//! A large blob by several requests at a time, each for a piece: one connection to a registry is seldom as quick as the
//! line. The pieces are handed on in their order, so that whoever reads sees one stream.
//!
//! The first piece decides: where it does not come as it was asked for, the blob comes by one stream, as small ones do;
//! and so does the rest of it where a later piece does not. What waits for its turn has a [`Room`], one for all blobs
//! of a pull. A blob that finds no place there goes on by itself, piece by piece. No thread outlives the reader.

use std::collections::VecDeque;
use std::io::{Cursor, Error, Read, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use oci_spec::image::Descriptor;

use super::Registry;
use super::body::Incoming;
use super::stop;

/// So many bytes, if they are still to come, are worth more than one request.
const LARGE: u64 = 32 << 20;

/// Bytes of a piece, and how many of a pull's pieces may be on their way, or wait, ahead of their turn.
const PIECE: u64 = 4 << 20;
const PLACES: usize = 4;

/// Bytes of the piece that a blob fetches by itself where there is no place.
const ALONE: u64 = 16 << 20;

/// Bytes that are handed on at once.
const CHUNK: usize = 128 << 10;

/// The memory for pieces that wait for their turn, [`PLACES`] times [`PIECE`] at most, and thereby the number of those
/// who fetch them.
#[derive(Default)]
pub struct Room(Mutex<Places>);

#[derive(Default)]
struct Places {
    taken: usize,
    /// What has been read, for those who come next: new memory costs the kernel more than a copy does.
    chunks: Vec<Vec<u8>>,
}

impl Room {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> bool {
        let mut places = self.places();
        let free = places.taken < PLACES;
        places.taken += usize::from(free);
        free
    }

    fn leave(&self) {
        self.places().taken -= 1;
    }

    fn chunk(&self) -> Vec<u8> {
        self.places().chunks.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give_back(&self, mut chunk: Vec<u8>) {
        if chunk.capacity() > 0 {
            chunk.clear();
            self.places().chunks.push(chunk);
        }
    }
}

/// The bytes of a blob from `offset` on.
pub fn open(
    registry: Arc<Registry>,
    blob: &Descriptor,
    offset: u64,
) -> crate::error::Result<Box<dyn Read + Send>> {
    let (digest, size) = (blob.digest().to_string(), blob.size());
    let mut first = Incoming::new(registry.clone(), digest.clone(), offset, size);
    if size.saturating_sub(offset) < LARGE {
        first.connect()?;
        return Ok(Box::new(first));
    }
    let end = offset + PIECE;
    match first.connect_until(end)? {
        None => {
            let (now, ahead, told) = (Box::new(first), VecDeque::new(), Arc::default());
            return Ok(Box::new(Wide {
                registry,
                digest,
                size,
                at: offset,
                end,
                now,
                ahead,
                next: end,
                told,
            }));
        }
        Some(whole) if whole.status().as_u16() == 200 => first.accept(whole)?,
        Some(_) => first.connect()?,
    }
    Ok(Box::new(first))
}

struct Wide {
    registry: Arc<Registry>,
    digest: String,
    size: u64,
    /// The next byte for whoever reads, what it is read from, and where that ends.
    at: u64,
    now: Box<dyn Read + Send>,
    end: u64,
    /// The pieces that follow, in their order, and where the first one begins that nobody fetches yet.
    ahead: VecDeque<Ahead>,
    next: u64,
    /// Tells those who fetch that nobody reads any more.
    told: Arc<AtomicBool>,
}

impl Read for Wide {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            self.fetch_ahead();
            let n = self.now.read(buffer)?;
            self.at += n as u64;
            if n > 0 || buffer.is_empty() || self.at >= self.size {
                return Ok(n);
            }
            self.turn()?;
        }
    }
}

impl Wide {
    /// Has pieces fetched while there are places for them.
    fn fetch_ahead(&mut self) {
        while self.next < self.size && self.registry.room.enter() {
            let end = self.size.min(self.next + PIECE);
            let Some(piece) = Ahead::start(self.incoming(self.next), end, self) else { return };
            self.ahead.push_back(piece);
            self.next = end;
        }
    }

    fn incoming(&self, at: u64) -> Incoming {
        Incoming::new(self.registry.clone(), self.digest.clone(), at, self.size)
    }

    /// Goes on to the piece that begins where this one ended.
    fn turn(&mut self) -> Result<()> {
        let short = self.at < self.end;
        if let (false, Some(piece)) = (short, self.ahead.pop_front()) {
            self.end = piece.end;
            self.now = Box::new(piece);
            return Ok(());
        }
        let mut own = self.incoming(self.at);
        self.end = self.size.min(self.at + ALONE);
        if short || own.connect_until(self.end).map_err(Error::other)?.is_some() {
            // The registry does not keep to pieces: all the rest, by one stream.
            self.stop();
            self.end = self.size;
            own.connect().map_err(Error::other)?;
        }
        self.next = self.end;
        self.now = Box::new(own);
        Ok(())
    }

    /// Ends all that is fetched ahead. All are told before one is waited for.
    fn stop(&mut self) {
        self.told.store(true, Ordering::Relaxed);
        self.ahead.clear();
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A piece, a place for it, and the thread that fetches it.
struct Ahead {
    registry: Arc<Registry>,
    end: u64,
    chunk: Cursor<Vec<u8>>,
    more: Receiver<Result<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// For one who has a place already. Without a thread there is nothing, and the place is free again.
    fn start(incoming: Incoming, end: u64, of: &Wide) -> Option<Self> {
        let (send, more) = channel();
        let (registry, told) = (of.registry.clone(), of.told.clone());
        let mut piece =
            Self { registry: registry.clone(), end, chunk: Cursor::default(), more, thread: None };
        let work = move || {
            stop::this_thread_by(told);
            fetch(incoming, end, &registry.room, &send);
        };
        piece.thread = Some(std::thread::Builder::new().name("piece".to_owned()).spawn(work).ok()?);
        Some(piece)
    }
}

/// Sends a piece in chunks, and at last the error that ended it, if one did. A piece that does not come at all is
/// asked for again by whoever reads, who is the one to say why.
fn fetch(mut piece: Incoming, end: u64, room: &Room, to: &Sender<Result<Vec<u8>>>) {
    if !matches!(piece.connect_until(end), Ok(None)) {
        return;
    }
    loop {
        let mut chunk = room.chunk();
        let read = piece.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        match chunk.is_empty() {
            true => room.give_back(chunk),
            false => drop(to.send(Ok(chunk))),
        }
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return drop(to.send(Err(error))),
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let n = self.chunk.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        self.registry.room.give_back(std::mem::take(&mut self.chunk).into_inner());
        match self.more.recv() {
            Ok(chunk) => {
                self.chunk = Cursor::new(chunk?);
                self.chunk.read(buffer)
            }
            Err(_) => Ok(0),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let _ = self.thread.take().map(JoinHandle::join);
        self.registry.room.leave();
    }
}
