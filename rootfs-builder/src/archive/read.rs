//! Tar to entries: ustar, GNU long names and PAX, from a file that can be read by position.
//!
//! Names are handed on as the archive has them; whoever uses an entry cleans its path first. Nothing is unpacked here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tar::{EntryType, Header};

use super::pax::{self, Records};
use crate::entry::{Data, Entry, Kind, Meta, Mtime, shown};
use crate::error::{Doing, Error, Result};

/// Long names and PAX records of one entry: far above any honest archive, far below what hurts.
const MAX_EXTENDED: u64 = 1024 * 1024;
const BLOCK: u64 = 512;

/// All entries in their order; the data stays in `file`.
pub fn read(file: &Arc<File>) -> Result<Vec<Entry>> {
    let len = file.metadata().doing(|| "stat the archive".into())?.len();
    let mut reader = Reader { file, len, at: 0, global: Records::new() };
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    Ok(entries)
}

struct Reader<'a> {
    file: &'a Arc<File>,
    len: u64,
    at: u64,
    /// From `g` headers: the defaults of all entries that follow.
    global: Records,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        let mut records = self.global.clone();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let at = self.at;
            match header.entry_type() {
                EntryType::XHeader => pax::decode(&self.extended(&header)?, &mut records)?,
                EntryType::XGlobalHeader => {
                    let body = self.extended(&header)?;
                    pax::decode(&body, &mut self.global)?;
                    pax::decode(&body, &mut records)?;
                }
                EntryType::GNULongName => self.long_name(&header, b"path", &mut records)?,
                EntryType::GNULongLink => self.long_name(&header, b"linkpath", &mut records)?,
                _ => {
                    let entry = self.entry(&header, &records);
                    return entry
                        .map(Some)
                        .map_err(|error| error.context(format!("the entry at byte {}", at - BLOCK)));
                }
            }
        }
    }

    /// The next header block; `None` at the zero blocks or the end of the file.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.at == self.len {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = self.bytes(BLOCK)?;
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        header.as_mut_bytes().copy_from_slice(&block);
        let sum: u32 = block.iter().enumerate().map(|(i, &b)| sum_byte(i, b)).sum();
        if header.cksum().ok() != Some(sum) {
            let what = format!("the header at byte {} has a wrong checksum", self.at - BLOCK);
            return Err(Error::new(what).why("this is no tar archive, or it is damaged"));
        }
        Ok(Some(header))
    }

    fn entry(&mut self, header: &Header, records: &Records) -> Result<Entry> {
        let path = match records.get(b"path".as_slice()) {
            Some(path) => path.clone(),
            None => header.path_bytes().into_owned(),
        };
        self.body(header, records, &path).map_err(|error| error.context(shown(&path)))
    }

    fn body(&mut self, header: &Header, records: &Records, path: &[u8]) -> Result<Entry> {
        if header.entry_type() == EntryType::GNUSparse
            || records.keys().any(|k| k.starts_with(b"GNU.sparse."))
        {
            let next = "make the archive without sparse files (GNU tar without --sparse)";
            return Err(Error::new("sparse files in tar archives are not read").next(next));
        }
        let size = match number(records, b"size")? {
            Some(size) => size,
            None => header.entry_size().doing(|| "read the size field".into())?,
        };
        let kind = self.kind(header, records, path, size)?;
        // Links and directories of old archives carry a size without data; POSIX says that it is to be ignored.
        let stored = if matches!(kind, Kind::File(_)) { size } else { 0 };
        self.skip(stored)?;
        Ok(Entry { path: path.to_vec(), kind, meta: meta(header, records)? })
    }

    fn kind(&self, header: &Header, records: &Records, path: &[u8], size: u64) -> Result<Kind> {
        let link = || match records.get(b"linkpath".as_slice()) {
            Some(link) => link.clone(),
            None => header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
        };
        let device = |block| -> Result<Kind> {
            let major = header.device_major().doing(|| "read the device number".into())?;
            let minor = header.device_minor().doing(|| "read the device number".into())?;
            Ok(Kind::Device { block, major: major.unwrap_or(0), minor: minor.unwrap_or(0) })
        };
        Ok(match header.entry_type() {
            // The oldest archives mark a directory by nothing but the slash at the end of its name.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => {
                Kind::File(Data::Range { file: Arc::clone(self.file), offset: self.at, len: size })
            }
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::Hardlink(link()),
            EntryType::Char => device(false)?,
            EntryType::Block => device(true)?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(Error::new(format!("its type {:?} is unknown", char::from(other.as_byte()))));
            }
        })
    }

    fn long_name(&mut self, header: &Header, key: &[u8], records: &mut Records) -> Result<()> {
        let mut name = self.extended(header)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        records.insert(key.to_vec(), name);
        Ok(())
    }

    /// The data of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.entry_size().doing(|| "read the size of an extended header".into())?;
        if size > MAX_EXTENDED {
            return Err(Error::new(format!("an extended header of {size} bytes is refused"))
                .why(format!("no more than {MAX_EXTENDED} are read")));
        }
        let body = self.bytes(size)?;
        self.skip_to(self.at.next_multiple_of(BLOCK))?;
        Ok(body)
    }

    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let from = self.at;
        self.skip_to(from + n)?;
        let mut bytes = vec![0; n as usize];
        self.file.read_exact_at(&mut bytes, from).doing(|| "read the archive".into())?;
        Ok(bytes)
    }

    /// Steps over data and its padding.
    fn skip(&mut self, size: u64) -> Result<()> {
        let data_end = self.at.saturating_add(size);
        let end = data_end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        // The padding of the last entry may be missing where an archive was cut after its data.
        if end > self.len && data_end <= self.len {
            self.at = self.len;
            return Ok(());
        }
        self.skip_to(end)
    }

    fn skip_to(&mut self, to: u64) -> Result<()> {
        if to > self.len {
            return Err(Error::new(format!("the archive ends at byte {} inside an entry", self.len)));
        }
        self.at = to;
        Ok(())
    }
}

/// The checksum counts its own eight bytes as spaces.
fn sum_byte(index: usize, byte: u8) -> u32 {
    if (148..156).contains(&index) { u32::from(b' ') } else { u32::from(byte) }
}

fn meta(header: &Header, records: &Records) -> Result<Meta> {
    let id = |key: &[u8], field: std::io::Result<u64>| -> Result<u32> {
        let id = match number(records, key)? {
            Some(id) => id,
            None => field.doing(|| "read the owner".into())?,
        };
        u32::try_from(id).doing(|| format!("use the id {id}"))
    };
    let mtime = match records.get(b"mtime".as_slice()) {
        Some(text) => pax::decode_mtime(text)
            .ok_or_else(|| Error::new(format!("its PAX mtime is no number: {}", shown(text))))?,
        // GNU tar writes times before 1970 in base 256; the crate reads the field as unsigned and wraps it.
        None => Mtime::from_secs(header.mtime().doing(|| "read the time".into())?.cast_signed()),
    };
    let xattr =
        |(key, value): (&Vec<u8>, &Vec<u8>)| Some((key.strip_prefix(pax::XATTR)?.to_vec(), value.clone()));
    Ok(Meta {
        mode: header.mode().doing(|| "read the mode".into())? & 0o7777,
        uid: id(b"uid", header.uid())?,
        gid: id(b"gid", header.gid())?,
        mtime,
        xattrs: records.iter().filter_map(xattr).collect(),
    })
}

fn number(records: &Records, key: &[u8]) -> Result<Option<u64>> {
    let Some(text) = records.get(key) else {
        return Ok(None);
    };
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Error::new(format!("its PAX {} is no number: {}", shown(key), shown(text))))
}
