//! A tar as a place of named bytes: what the archive transports read and write.
//!
//! Nothing is ever extracted. A name in the archive is a key of a map and never a path, so nothing in it can escape;
//! links are followed in the map only. How many entries there are, how long their names are, and how large a compressed
//! archive may grow is limited.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use crate::error::{Error, Result};
use crate::image::digest::Hasher;

const BLOCK: u64 = 512;
/// An image of 1000 layers in the oldest form has 3 files and a directory for each.
const MOST_ENTRIES: usize = 10_000;
/// The longest extended header, and so the longest name, in bytes.
const LONGEST_EXTENSION: u64 = 1 << 20;
/// How large a compressed archive may become, in bytes.
const LONGEST_UNPACKED: u64 = 256 << 30;
const MOST_LINKS: usize = 8;

/// Where the bytes of an entry are, or the name that they have elsewhere in the archive.
#[derive(Debug, Clone)]
enum Entry {
    Bytes { offset: u64, size: u64 },
    Link(String),
}

/// An archive that was read through once.
#[derive(Debug)]
pub struct Archive {
    file: File,
    entries: HashMap<String, Entry>,
}

impl Archive {
    /// Opens a tar, which gzip or zstd may have compressed. What cannot be read at any place (a pipe, a compressed
    /// file) is copied to a file without a name in `$TMPDIR`, else `/var/tmp`.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(path.display(), &e);
        let mut file = File::open(path).map_err(failed)?;
        let kind = kind(&file.metadata().map_err(failed)?);
        if [libc::S_IFDIR, libc::S_IFBLK].contains(&kind) {
            return Err(Error::new(format!("{} is no archive", path.display())));
        }
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic).map_err(failed)?;
        let file = if kind == libc::S_IFREG && !is_compressed(&magic) {
            file
        } else {
            let whole = std::io::Cursor::new(magic.clone()).chain(file);
            spool(decompressed(&magic, whole).map_err(failed)?).map_err(|e| e.context(path.display()))?
        };
        let entries = scan(&file).map_err(|e| e.context(path.display()))?;
        Ok(Self { file, entries })
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// How many bytes an entry has.
    pub fn size(&self, name: &str) -> Result<u64> {
        self.find(name).map(|(_, size)| size)
    }

    /// All the bytes of an entry, at most `limit`.
    pub fn bytes(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        let (offset, size) = self.find(name)?;
        let length = usize::try_from(size).ok().filter(|length| *length <= limit);
        let length = length
            .ok_or_else(|| Error::new(format!("{name} in the archive is longer than {limit} bytes")))?;
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|e| Error::new(format!("{name} in the archive: {e}")))?;
        Ok(bytes)
    }

    /// The bytes of an entry from `skip` on.
    pub fn read(&self, name: &str, skip: u64) -> Result<Box<dyn Read + Send>> {
        let (offset, size) = self.find(name)?;
        let file = self.file.try_clone().map_err(|e| Error::new(format!("dup(archive): {e}")))?;
        let skip = skip.min(size);
        Ok(Box::new(Part { file, at: offset + skip, left: size - skip }))
    }

    fn find(&self, name: &str) -> Result<(u64, u64)> {
        let mut name = name.to_owned();
        for _ in 0..MOST_LINKS {
            match self.entries.get(&name) {
                Some(Entry::Bytes { offset, size }) => return Ok((*offset, *size)),
                Some(Entry::Link(target)) => name.clone_from(target),
                None => return Err(Error::new(format!("the archive has no {name:?}"))),
            }
        }
        Err(Error::new(format!("{name:?} in the archive is a link too many")))
    }
}

/// A part of a file, read at its own place: several may be read at once.
struct Part {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The type of a file that is open: `S_IFREG` and its like (inode(7)).
pub fn kind(found: &std::fs::Metadata) -> u32 {
    found.mode() & libc::S_IFMT
}

fn is_compressed(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// The stream behind a magic number; what has none of ours is taken as it is.
fn decompressed<'r>(magic: &[u8], bytes: impl Read + 'r) -> std::io::Result<Box<dyn Read + 'r>> {
    if magic.starts_with(&[0x1f, 0x8b]) {
        let buffered = std::io::BufReader::with_capacity(128 << 10, bytes);
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)));
    }
    if is_compressed(magic) {
        let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
        // A window of 128 MiB is the most that zstd(1) itself writes with --long.
        decoder.window_log_max(27)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(bytes))
}

/// A copy in a file without a name.
fn spool(bytes: impl Read) -> Result<File> {
    let mut file = nameless()?;
    let copied = std::io::copy(&mut bytes.take(LONGEST_UNPACKED + 1), &mut file);
    match copied.map_err(|e| Error::io("reading the archive", &e))? {
        all if all > LONGEST_UNPACKED => {
            Err(Error::new(format!("the archive unpacks to more than {LONGEST_UNPACKED} bytes")))
        }
        _ => Ok(file),
    }
}

/// A file without a name in `$TMPDIR`, else `/var/tmp`: it is gone when it is closed, whatever happens.
fn nameless() -> Result<File> {
    let dir = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    options.open(&dir).map_err(|e| {
        Error::new(format!("a temporary file in {}: {e}", dir.display()))
            .next("set TMPDIR to a directory with room")
    })
}

/// Reads the headers of a tar (pax(1), GNU tar's long names) and remembers where everything is.
fn scan(mut file: &File) -> Result<HashMap<String, Entry>> {
    let length = file.seek(SeekFrom::End(0)).map_err(|e| Error::new(format!("lseek: {e}")))?;
    let mut entries = HashMap::new();
    let (mut at, mut long, mut pax_size, mut seen) = (0, None, None, 0);
    while at + BLOCK <= length {
        let mut block = [0; BLOCK as usize];
        file.read_exact_at(&mut block, at).map_err(|e| Error::new(format!("reading at {at}: {e}")))?;
        if block.iter().all(|b| *b == 0) {
            break;
        }
        let header = tar::Header::from_byte_slice(&block);
        check_sum(&block, header).map_err(|e| e.context(format_args!("the header at {at}")))?;
        let stated = header.entry_size().map_err(|e| Error::new(format!("the header at {at}: {e}")))?;
        let kind = header.entry_type();
        let extends = kind.is_gnu_longname() || kind.is_pax_local_extensions();
        let size = if extends { stated } else { pax_size.take().unwrap_or(stated) };
        let offset = at + BLOCK;
        let next = size.checked_next_multiple_of(BLOCK).and_then(|padded| offset.checked_add(padded));
        at = next
            .filter(|_| offset.checked_add(size).is_some_and(|end| end <= length))
            .ok_or_else(|| Error::new("the archive ends in the middle of an entry"))?;
        seen += 1;
        if seen > MOST_ENTRIES {
            return Err(Error::new(format!("the archive has more than {MOST_ENTRIES} entries")));
        }
        if extends {
            let bytes = extension(file, offset, size)?;
            if kind.is_gnu_longname() {
                long = Some(text(&bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())])?);
            } else {
                let (path, size) = pax(&bytes)?;
                long = path.or(long);
                pax_size = size;
            }
            continue;
        }
        let name = long.take().map_or_else(|| text(&header.path_bytes()), Ok)?;
        let name = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/').to_owned();
        let entry = match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => Entry::Bytes { offset, size },
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = text(&header.link_name_bytes().unwrap_or_default())?;
                let beside = kind == tar::EntryType::Symlink;
                Entry::Link(link_target(if beside { &name } else { "" }, &target))
            }
            _ => continue,
        };
        // Which of two would be meant, readers disagree about.
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::new(format!("the archive has {name:?} twice")));
        }
    }
    Ok(entries)
}

fn check_sum(block: &[u8; 512], header: &tar::Header) -> Result<()> {
    let field = 148..156;
    let sum = |i: usize, b: u8| if field.contains(&i) { u32::from(b' ') } else { u32::from(b) };
    let found: u32 = block.iter().enumerate().map(|(i, b)| sum(i, *b)).sum();
    if header.cksum().is_ok_and(|stated| stated == found) {
        Ok(())
    } else {
        Err(Error::new("this is no tar header"))
    }
}

fn extension(file: &File, offset: u64, size: u64) -> Result<Vec<u8>> {
    if size > LONGEST_EXTENSION {
        return Err(Error::new(format!("an extended header of the archive has {size} bytes")));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset).map_err(|e| Error::new(format!("reading at {offset}: {e}")))?;
    Ok(bytes)
}

/// The records `path` and `size` of a pax header.
fn pax(bytes: &[u8]) -> Result<(Option<String>, Option<u64>)> {
    let (mut path, mut size) = (None, None);
    for record in tar::PaxExtensions::new(bytes) {
        let record = record.map_err(|e| Error::new(format!("a pax header of the archive: {e}")))?;
        match record.key_bytes() {
            b"path" => path = Some(text(record.value_bytes())?),
            b"size" => {
                let number = text(record.value_bytes())?.parse();
                size =
                    Some(number.map_err(|e| Error::new(format!("a pax header of the archive: size: {e}")))?);
            }
            _ => {}
        }
    }
    Ok((path, size))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::new("a name in the archive is not UTF-8"))
}

/// The name that a link means: a symbolic link's is taken from the directory of its own name.
fn link_target(name: &str, target: &str) -> String {
    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A tar that is being written. It takes the place of `target` only when it is whole.
#[derive(Debug)]
pub struct Writer {
    file: File,
    target: PathBuf,
    /// The name until then; `None` where the target is a pipe or a terminal, and the file has no name at all.
    partial: Option<PathBuf>,
    blobs: Vec<Digest>,
}

impl Writer {
    pub fn new(target: &Path) -> Result<Self> {
        let stream = std::fs::metadata(target).is_ok_and(|found| kind(&found) != libc::S_IFREG);
        let (file, partial) = if stream {
            (nameless()?, None)
        } else {
            let name =
                target.file_name().ok_or_else(|| Error::new(format!("{target:?} is no file's name")))?;
            let partial = target.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
            let file = OpenOptions::new().write(true).read(true).create_new(true).open(&partial);
            (file.map_err(|e| Error::io(target.display(), &e))?, Some(partial))
        };
        Ok(Self { file, target: target.to_owned(), partial, blobs: Vec::new() })
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// Appends a blob of the layout, whose bytes are hashed on the way.
    pub fn blob(&mut self, digest: &Digest, size: u64, bytes: &mut dyn Read) -> Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        self.append(&super::blob_path(digest), size, bytes, Some(digest))?;
        self.blobs.push(digest.clone());
        Ok(())
    }

    /// Appends a file. A write that failed is cut off again.
    pub fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.append(name, bytes.len() as u64, &mut &bytes[..], None)
    }

    fn append(&mut self, name: &str, size: u64, bytes: &mut dyn Read, digest: Option<&Digest>) -> Result<()> {
        let failed =
            |e: std::io::Error| Error::io(format_args!("writing {name} to {}", self.target.display()), &e);
        let start = self.file.stream_position().map_err(failed)?;
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(failed)?;
        header.set_size(size);
        // Times and owners of whoever saves say nothing about the image, and would make every archive another one.
        header.set_mtime(0);
        header.set_mode(0o644);
        header.set_cksum();
        let written = (|| {
            self.file.write_all(header.as_bytes()).map_err(failed)?;
            copy_exactly(bytes, &mut self.file, size, digest)?;
            let padding = size.next_multiple_of(BLOCK) - size;
            self.file.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(failed)
        })();
        if written.is_err() {
            self.file.set_len(start).and_then(|()| self.file.seek(SeekFrom::Start(start))).map_err(failed)?;
        }
        written
    }

    /// Ends the tar and puts it in its place.
    pub fn finish(&mut self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(self.target.display(), &e);
        self.file.write_all(&[0; 2 * BLOCK as usize]).map_err(failed)?;
        match self.partial.take() {
            Some(partial) => {
                self.file.sync_all().map_err(failed)?;
                std::fs::rename(&partial, &self.target).map_err(failed)
            }
            None => {
                self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
                let mut stream = OpenOptions::new().write(true).open(&self.target).map_err(failed)?;
                std::io::copy(&mut self.file, &mut stream).map(drop).map_err(failed)
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take() {
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// Copies as many bytes as stated, no more and no less, and compares what they hash to.
pub fn copy_exactly(
    from: &mut dyn Read,
    to: &mut dyn Write,
    size: u64,
    digest: Option<&Digest>,
) -> Result<()> {
    let mut hash = digest.map(Hasher::like).transpose()?;
    let (mut buf, mut left) = (vec![0; 128 << 10], size);
    loop {
        let n = match from.read(&mut buf) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(|e| Error::new(format!("reading a blob: {e}")))?,
        };
        if n == 0 && left == 0 {
            break;
        }
        left = left.checked_sub(n as u64).filter(|_| n > 0).ok_or_else(|| {
            let word = if n == 0 { "shorter" } else { "longer" };
            Error::new(format!("the blob is {word} than the {size} bytes that it should have"))
        })?;
        to.write_all(&buf[..n]).map_err(|e| Error::new(format!("writing a blob: {e}")))?;
        if let Some(hash) = &mut hash {
            hash.update(&buf[..n]);
        }
    }
    match (hash.map(Hasher::finish), digest) {
        (Some(found), Some(wanted)) if found != *wanted => Err(Error::new(format!(
            "blob {wanted} has the digest {found}: it is damaged, or not what was asked for"
        ))),
        _ => Ok(()),
    }
}
