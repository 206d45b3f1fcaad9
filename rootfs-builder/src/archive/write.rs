//! Entries to tar: ustar headers, PAX records only for what ustar cannot hold, no names of users or groups.

use std::io::Write;

use tar::{EntryType, Header};

use super::pax;
use crate::entry::{Entry, Kind, Meta};
use crate::error::{Doing, Result};

/// The largest numbers that the octal fields of ustar hold: seven digits for ids, eleven for size and time.
const MAX_ID: u32 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;
const NAME: usize = 100;

/// Writes the entries as they come, then the two zero blocks. Sorting is the caller's business: a layer's order means
/// something.
pub fn write(entries: &[Entry], out: &mut impl Write) -> Result<()> {
    for entry in entries {
        write_entry(entry, out)?;
    }
    put(out, &[0; 1024])
}

fn write_entry(entry: &Entry, out: &mut impl Write) -> Result<()> {
    let mut name = if entry.path.is_empty() { b".".to_vec() } else { entry.path.clone() };
    if matches!(entry.kind, Kind::Dir) {
        name.push(b'/');
    }
    let link = match &entry.kind {
        Kind::Symlink(target) | Kind::Hardlink(target) => target.as_slice(),
        _ => b"",
    };
    let size = if let Kind::File(data) = &entry.kind { data.len() } else { 0 };

    let records = records(&name, link, size, entry);
    if !records.is_empty() {
        let body = pax::encode(&records);
        let mut header = header(b"PaxHeaders", b"", EntryType::XHeader, body.len() as u64);
        header.set_mode(0o644);
        finish(&mut header, out)?;
        put(out, &body)?;
        pad(body.len() as u64, out)?;
    }

    let mut header = header(&name, link, entry_type(&entry.kind), size);
    set_meta(&mut header, &entry.meta);
    if let Kind::Device { major, minor, .. } = entry.kind {
        header.set_device_major(major).doing(|| "write a device number".into())?;
        header.set_device_minor(minor).doing(|| "write a device number".into())?;
    }
    finish(&mut header, out)?;
    if let Kind::File(data) = &entry.kind {
        data.copy_to(out)?;
        pad(size, out)?;
    }
    Ok(())
}

/// What ustar cannot hold, by its PAX key.
fn records(name: &[u8], link: &[u8], size: u64, entry: &Entry) -> pax::Records {
    let meta = &entry.meta;
    let mut records = pax::Records::new();
    let mut put = |key: &[u8], value: Vec<u8>| records.insert(key.to_vec(), value);
    if name.len() > NAME {
        put(b"path", name.to_vec());
    }
    if link.len() > NAME {
        put(b"linkpath", link.to_vec());
    }
    if size > MAX_LONG {
        put(b"size", size.to_string().into_bytes());
    }
    if meta.uid > MAX_ID {
        put(b"uid", meta.uid.to_string().into_bytes());
    }
    if meta.gid > MAX_ID {
        put(b"gid", meta.gid.to_string().into_bytes());
    }
    if meta.mtime.nanos != 0 || !(0..=MAX_LONG.cast_signed()).contains(&meta.mtime.secs) {
        put(b"mtime", pax::encode_mtime(meta.mtime));
    }
    for (name, value) in &meta.xattrs {
        put(&[pax::XATTR, name].concat(), value.clone());
    }
    records
}

/// A ustar header with everything but the owner, mode and time; what is too long is cut, its PAX record has the whole.
fn header(name: &[u8], link: &[u8], kind: EntryType, size: u64) -> Header {
    fn cut(bytes: &[u8]) -> &[u8] {
        &bytes[..bytes.len().min(NAME)]
    }
    let mut header = Header::new_ustar();
    let fields = header.as_old_mut();
    fields.name[..cut(name).len()].copy_from_slice(cut(name));
    fields.linkname[..cut(link).len()].copy_from_slice(cut(link));
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size.min(MAX_LONG));
    header
}

fn set_meta(header: &mut Header, meta: &Meta) {
    header.set_mode(meta.mode & 0o7777);
    header.set_uid(meta.uid.min(MAX_ID).into());
    header.set_gid(meta.gid.min(MAX_ID).into());
    header.set_mtime(u64::try_from(meta.mtime.secs).unwrap_or(0).min(MAX_LONG));
}

fn entry_type(kind: &Kind) -> EntryType {
    match kind {
        Kind::File(_) => EntryType::Regular,
        Kind::Dir => EntryType::Directory,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::Hardlink(_) => EntryType::Link,
        Kind::Device { block: true, .. } => EntryType::Block,
        Kind::Device { block: false, .. } => EntryType::Char,
        Kind::Fifo => EntryType::Fifo,
    }
}

fn finish(header: &mut Header, out: &mut impl Write) -> Result<()> {
    header.set_cksum();
    put(out, header.as_bytes())
}

fn pad(size: u64, out: &mut impl Write) -> Result<()> {
    let over = (size % 512) as usize;
    if over == 0 { Ok(()) } else { put(out, &[0; 512][over..]) }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).doing(|| "write the archive".into())
}
