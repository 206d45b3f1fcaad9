//! Tar to entries, from a stream: ustar, GNU long names, PAX, sparse files. `tar::Header` is the codec of the block.
//!
//! One strict reader: what the readers of others disagree on (two long names, sizes where there is no data, a stray
//! block of zeros: CVE-2025-62518 and its kin) is an error that names the entry, never a guess. Memory is bounded
//! whatever the bytes say. Nothing is unpacked here.

use tar::{EntryType, Header};

use super::pax::{self, Records, Xattr, shown};
use super::sparse;
use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// PATH_MAX without its NUL (limits.h).
const MAX_PATH: usize = 4095;
/// Most entries of a layer, headers of headers counted: an inode flood ends here.
pub const MAX_ENTRIES: u64 = 1 << 22;
/// The longest file, holes included.
const MAX_SIZE: u64 = 1 << 44;
/// What may follow the end of the archive: padding, which only costs time.
const MAX_TRAILING: u64 = 64 << 20;

/// Where the bytes of a tar come from: what is at hand, without a copy.
pub trait Stream {
    /// The bytes that come next; empty at the end.
    fn chunk(&mut self) -> Result<&[u8]>;
    /// `n` bytes of the chunk are done with.
    fn consume(&mut self, n: usize);
}

impl Stream for &[u8] {
    fn chunk(&mut self) -> Result<&[u8]> {
        Ok(self)
    }

    fn consume(&mut self, n: usize) {
        *self = &self[n..];
    }
}

#[derive(Debug)]
pub struct Entry {
    /// As the archive has it: see `name::parse`.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    /// `size` with holes; the data that is stored goes where `extents` say, one (offset, length) after the other.
    File {
        size: u64,
        extents: Vec<(u64, u64)>,
    },
    Symlink(Vec<u8>),
    /// The path of a file that came before, as the archive has it.
    Link(Vec<u8>),
    Fifo,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Default)]
pub struct Meta {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Seconds, nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<Xattr>,
}

pub struct Reader<S> {
    stream: S,
    /// Headers so far.
    headers: u64,
    /// Bytes of the current entry's data that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Before {
    pax: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<S: Stream> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, headers: 0, left: 0, padding: 0 }
    }

    /// The next entry; what of the last one's data was not read is skipped. `None`: the archive is over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut before = Before::default();
        loop {
            let Some(header) = self.header()? else {
                return match before {
                    Before { pax: None, name: None, link: None } => Ok(None),
                    _ => Err(Error::new("the archive ends after the header of a header")),
                };
            };
            let path = before.name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
            if self.prepares(&header, &mut before).map_err(|e| e.context(shown(&path)))? {
                continue;
            }
            let path = before.path(&header).map_err(|e| e.context(shown(&path)))?;
            let entry = self.entry(&header, before, &path);
            return entry.map(Some).map_err(|e| e.context(shown(&path)));
        }
    }

    /// Whether this header belongs to one that follows; then it is kept.
    fn prepares(&mut self, header: &Header, before: &mut Before) -> Result<bool> {
        let twice = match header.entry_type() {
            EntryType::XHeader => before.pax.replace(pax::parse(&self.extension(header)?)?).is_some(),
            EntryType::GNULongName => before.name.replace(self.long_name(header)?).is_some(),
            EntryType::GNULongLink => before.link.replace(self.long_name(header)?).is_some(),
            EntryType::XGlobalHeader => {
                pax::parse_global(&self.extension(header)?)?;
                false
            }
            _ => return Ok(false),
        };
        if header.as_ustar().is_none() && header.as_gnu().is_none() {
            return Err(Error::new("a header of a header has no mark of ustar")
                .why("some readers take it for a file, others for the name of the next one"));
        }
        if twice {
            return Err(Error::new("an entry has two headers of the same kind before it"));
        }
        Ok(true)
    }

    fn entry(&mut self, header: &Header, before: Before, path: &[u8]) -> Result<Entry> {
        let link = before.link(header)?;
        let Before { pax, name: long, .. } = before;
        let mut records = pax.unwrap_or_default();
        let size = match records.size {
            Some(size) => size,
            None => natural(&header.as_old().size, "size")?,
        };
        if size > MAX_SIZE {
            return Err(Error::new(format!("a file of {size} bytes is longer than {MAX_SIZE}")));
        }
        let meta = meta(header, &mut records)?;
        (self.left, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
        let device = |block| device(header, block);
        let kind = match header.entry_type() {
            EntryType::GNUSparse => self.old_sparse(header)?,
            EntryType::Regular | EntryType::Continuous if records.sparse.is_some() => {
                return self.pax_sparse(&records, path.to_vec(), long.is_some(), meta);
            }
            // The oldest archives mark a directory by nothing but the slash at the end of its name.
            EntryType::Regular if path.ends_with(b"/") && size == 0 => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => Kind::File { size, extents: vec![(0, size)] },
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::Link(link),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device(false)?,
            EntryType::Block => device(true)?,
            other => {
                return Err(Error::new(format!("type {:?} is not known", char::from(other.as_byte()))));
            }
        };
        if !matches!(kind, Kind::File { .. }) && size != 0 {
            return Err(Error::new(format!("{size} bytes of data where there can be none"))
                .why("readers of tar disagree on whether they are there"));
        }
        match &kind {
            Kind::Symlink(target) | Kind::Link(target) if target.is_empty() => {
                Err(Error::new("a link without a target"))
            }
            _ => Ok(Entry { path: path.to_vec(), kind, meta }),
        }
    }

    /// An entry of type `S`: the map is in the header, and goes on in blocks behind it (tar.info, "Old GNU Format").
    fn old_sparse(&mut self, header: &Header) -> Result<Kind> {
        let gnu = header.as_gnu().ok_or_else(|| Error::new("a sparse file without GNU tar's header"))?;
        let size = natural(&gnu.realsize, "realsize")?;
        let mut numbers = Vec::new();
        let mut take = |slots: &[tar::GnuSparseHeader]| -> Result<()> {
            for slot in slots.iter().filter(|slot| slot.offset[0] != 0) {
                numbers.push(natural(&slot.offset, "offset")?);
                numbers.push(natural(&slot.numbytes, "numbytes")?);
            }
            sparse::bounded(numbers.len())
        };
        take(&gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            take(&block.sparse)?;
            more = block.isextended[0] != 0;
        }
        Ok(Kind::File { size, extents: sparse::extents(&numbers, size, self.left)? })
    }

    /// A sparse file of GNU tar's PAX formats. In 1.0 the map is the first blocks of the data.
    fn pax_sparse(&mut self, records: &Records, path: Vec<u8>, long: bool, meta: Meta) -> Result<Entry> {
        let said = &records.sparse;
        let format = (said.major.unwrap_or(0), said.minor.unwrap_or(0));
        if format > (1, 0) || long {
            return Err(Error::new(format!("sparse format {}.{} is not known here", format.0, format.1)));
        }
        let size = said.realsize.ok_or_else(|| Error::new("a sparse file without its size"))?;
        let numbers = if format == (1, 0) { self.sparse_map()? } else { said.map.clone() };
        let extents = sparse::extents(&numbers, size, self.left)?;
        let path = said.name.clone().unwrap_or(path);
        within(&path, "a name")?;
        Ok(Entry { path, kind: Kind::File { size, extents }, meta })
    }

    /// Decimal numbers, a newline after each, the first of them the number of extents; padded to whole blocks.
    fn sparse_map(&mut self) -> Result<Vec<u64>> {
        let (mut numbers, mut wanted, mut digits) = (Vec::new(), usize::MAX, Vec::new());
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            self.data(&mut block)?;
            for byte in block {
                match byte {
                    _ if numbers.len() == wanted => break,
                    b'\n' => {
                        let n =
                            pax::decimal(&digits).ok_or_else(|| Error::new("the sparse map is damaged"))?;
                        digits.clear();
                        if wanted == usize::MAX {
                            wanted = usize::try_from(n).unwrap_or(usize::MAX).saturating_mul(2);
                            sparse::bounded(wanted)?;
                        } else {
                            numbers.push(n);
                        }
                    }
                    _ if digits.len() > 20 => return Err(Error::new("the sparse map is damaged")),
                    _ => digits.push(byte),
                }
            }
        }
        Ok(numbers)
    }

    /// Hands the next `len` bytes of the entry's data to `sink`, in pieces.
    pub fn read(&mut self, mut len: u64, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if len > self.left {
            return Err(Error::new("the entry's data is shorter than its extents"));
        }
        self.left -= len;
        while len > 0 {
            let chunk = some(self.stream.chunk()?)?;
            let n = chunk.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            sink(&chunk[..n])?;
            self.stream.consume(n);
            len -= n as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, so that its digest is of all of it.
    pub fn drain(&mut self) -> Result<()> {
        let mut trailing = 0;
        loop {
            let n = self.stream.chunk()?.len();
            if n == 0 {
                return Ok(());
            }
            trailing += n as u64;
            if trailing > MAX_TRAILING {
                return Err(Error::new(format!(
                    "more than {MAX_TRAILING} bytes follow the end of the archive"
                )));
            }
            self.stream.consume(n);
        }
    }

    /// The next header block; `None` at the end of the archive: two blocks of zeros, or the end of the stream where a
    /// header could be (as all readers take it).
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut zeros = 0;
        loop {
            if self.stream.chunk()?.is_empty() {
                return Ok(None);
            }
            self.fill(header.as_mut_bytes())?;
            match header.as_bytes().iter().all(|byte| *byte == 0) {
                true if zeros == 1 => return Ok(None),
                true => zeros += 1,
                false if zeros == 1 => return Err(Error::new("a block of zeros stands amid the archive")),
                false => break,
            }
        }
        self.headers += 1;
        if self.headers > MAX_ENTRIES {
            return Err(Error::new(format!("the layer has more than {MAX_ENTRIES} entries")));
        }
        if !checksum_is_right(&header) {
            return Err(Error::new(format!("header {} has a wrong checksum", self.headers))
                .why("this is no tar archive, or it is damaged"));
        }
        Ok(Some(header))
    }

    /// The data of a header that prepares another.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = natural(&header.as_old().size, "size")?;
        if size > pax::MAX_BYTES {
            return Err(Error::new(format!("a header of {size} bytes is longer than {}", pax::MAX_BYTES)));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.skip(size.wrapping_neg() % BLOCK as u64)?;
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        if name[end..].iter().any(|byte| *byte != 0) {
            return Err(Error::new("a long name goes on behind its NUL byte"));
        }
        name.truncate(end);
        if end == 0 {
            return Err(Error::new("a long name that is empty"));
        }
        within(&name, "a long name")?;
        Ok(name)
    }

    fn data(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut at = 0;
        self.read(buffer.len() as u64, |piece| {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
            Ok(())
        })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            let chunk = some(self.stream.chunk()?)?;
            let n = chunk.len().min(buffer.len() - at);
            buffer[at..at + n].copy_from_slice(&chunk[..n]);
            self.stream.consume(n);
            at += n;
        }
        Ok(())
    }

    fn skip(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let n = some(self.stream.chunk()?)?.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.stream.consume(n);
            len -= n as u64;
        }
        Ok(())
    }
}

impl Before {
    fn path(&self, header: &Header) -> Result<Vec<u8>> {
        let pax = self.pax.as_ref().and_then(|pax| pax.path.as_ref());
        one_of(pax, self.name.as_ref(), || header.path_bytes().into_owned())
    }

    fn link(&self, header: &Header) -> Result<Vec<u8>> {
        let pax = self.pax.as_ref().and_then(|pax| pax.linkpath.as_ref());
        one_of(pax, self.link.as_ref(), || header.link_name_bytes().unwrap_or_default().into_owned())
    }
}

/// PAX and GNU each have a way to say a long name; an entry that has both means two things.
fn one_of(pax: Option<&Vec<u8>>, gnu: Option<&Vec<u8>>, own: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>> {
    let name = match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            return Err(Error::new("the entry has one name of PAX and another of GNU tar"));
        }
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => own(),
    };
    within(&name, "a name")?;
    Ok(name)
}

fn within(name: &[u8], what: &str) -> Result<()> {
    if name.len() > MAX_PATH {
        return Err(Error::new(format!("{what} of {} bytes is longer than {MAX_PATH}", name.len())));
    }
    Ok(())
}

fn some(chunk: &[u8]) -> Result<&[u8]> {
    if chunk.is_empty() { Err(Error::new("the archive ends in the middle of an entry")) } else { Ok(chunk) }
}

fn meta(header: &Header, records: &mut Records) -> Result<Meta> {
    let old = header.as_old();
    let id = |record: Option<u64>, field: &[u8], what| -> Result<u32> {
        let id = record.map_or_else(|| natural(field, what), Ok)?;
        // The highest number means "leave it" to chown(2).
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| Error::new(format!("{what} {id} is too large")))
    };
    let mode = natural(&old.mode, "mode")?;
    Ok(Meta {
        uid: id(records.uid, &old.uid, "uid")?,
        gid: id(records.gid, &old.gid, "gid")?,
        mode: (mode & 0o7777) as u32,
        mtime: records.mtime.map_or_else(|| Ok((integer(&old.mtime, "mtime")?, 0)), Ok)?,
        xattrs: std::mem::take(&mut records.xattrs),
    })
}

fn device(header: &Header, block: bool) -> Result<Kind> {
    let (major, minor) = match (header.as_gnu(), header.as_ustar()) {
        (Some(gnu), _) => (&gnu.dev_major, &gnu.dev_minor),
        (None, Some(ustar)) => (&ustar.dev_major, &ustar.dev_minor),
        (None, None) => return Err(Error::new("a device without numbers")),
    };
    let number = |field: &[u8], what| -> Result<u32> {
        u32::try_from(natural(field, what)?)
            .map_err(|_| Error::new(format!("the {what} number is too large")))
    };
    Ok(Kind::Device { block, major: number(major, "major")?, minor: number(minor, "minor")? })
}

fn natural(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(integer(field, what)?).map_err(|_| Error::new(format!("{what} is negative")))
}

/// A number of a header: octal digits, blanks around them; or, the highest bit set, binary with a sign (base-256).
fn integer(field: &[u8], what: &str) -> Result<i64> {
    let wrong = || Error::new(format!("{what} is no number: {}", shown(field)));
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0]) - 0x100 } else { i128::from(field[0] & 0x3f) };
        let value = field[1..].iter().fold(first, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).map_err(|_| wrong());
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return Err(wrong());
    }
    digits
        .iter()
        .try_fold(0i64, |value, digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
        .ok_or_else(wrong)
}

/// The sum of all bytes, those of the sum itself as blanks; some old writers took bytes as signed.
fn checksum_is_right(header: &Header) -> bool {
    let sum = |byte: fn(u8) -> i64| -> i64 {
        let blank = |(i, b): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *b };
        header.as_bytes().iter().enumerate().map(blank).map(byte).sum()
    };
    let said = integer(&header.as_old().cksum, "checksum").ok();
    said == Some(sum(i64::from)) || said == Some(sum(|byte| i64::from(byte as i8)))
}
