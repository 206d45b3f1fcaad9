//! The log of a container, in the format of Kubernetes' CRI: `TIME STREAM F|P TEXT`, a line each. P: the line goes on
//! in the next entry of its stream. It is rotated by size: `log` is the newest, then `log.1`, `log.2`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use super::place::io;
use super::quantity;
use crate::container::record::rfc3339;
use crate::error::Result;
use crate::sys::process;

/// How much of a log is kept unless told otherwise.
pub const MAX_SIZE: u64 = 10_000_000;
pub const MAX_FILES: u32 = 3;

/// The writing side, in the monitor. It keeps no more in memory than one entry.
pub struct Writer {
    dir: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
}

impl Writer {
    pub fn open(dir: &Path, max_size: u64, max_files: u32) -> Self {
        let mut writer = Self { dir: dir.to_owned(), file: None, size: 0, max_size, max_files };
        writer.reopen();
        writer
    }

    fn reopen(&mut self) {
        self.file = File::options().append(true).create(true).open(self.dir.join("log")).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    /// Writes what was read in one piece. A disk that is full loses lines of the log, and nothing else.
    pub fn write(&mut self, stream: &str, bytes: &[u8]) {
        let time = rfc3339(process::now());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (tag, text) = match line.strip_suffix(b"\n") {
                Some(text) => ("F", text),
                None => ("P", line),
            };
            let mut entry = Vec::with_capacity(line.len() + 48);
            let _ = write!(entry, "{time} {stream} {tag} ");
            entry.extend_from_slice(text);
            entry.push(b'\n');
            if self.size + entry.len() as u64 > self.max_size && self.size > 0 {
                self.rotate();
            }
            if let Some(file) = &mut self.file
                && file.write_all(&entry).is_ok()
            {
                self.size += entry.len() as u64;
            }
        }
    }

    fn rotate(&mut self) {
        let name = |n: u32| if n == 0 { self.dir.join("log") } else { self.dir.join(format!("log.{n}")) };
        for n in (1..self.max_files).rev() {
            let _ = fs::rename(name(n - 1), name(n));
        }
        if self.max_files <= 1 {
            let _ = fs::remove_file(name(0));
        }
        self.reopen();
    }
}

/// One entry.
pub struct Entry {
    pub time: String,
    pub is_stderr: bool,
    /// With its end of line, where it has one.
    pub text: Vec<u8>,
}

fn parse(line: &[u8]) -> Option<Entry> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut text = text.to_vec();
    if tag == b"F" {
        text.push(b'\n');
    }
    Some(Entry { time: String::from_utf8_lossy(time).into_owned(), is_stderr: stream == b"stderr", text })
}

/// What of a log is wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Lines from the end; all of them without it.
    pub tail: Option<usize>,
    /// Seconds since the epoch.
    pub since: Option<i64>,
    pub until: Option<i64>,
}

impl Wanted {
    pub fn takes(&self, entry: &Entry) -> bool {
        let time = quantity::seconds_of(&entry.time).unwrap_or(0);
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// The reading side: follows the newest file, over rotations.
pub struct Reader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    part: Vec<u8>,
    rotated: bool,
}

impl Reader {
    /// The entries of all files, the oldest first, and a reader that stands behind them.
    pub fn open(dir: &Path, max_files: u32, wanted: &Wanted) -> Result<(Vec<Entry>, Self)> {
        let mut found = std::collections::VecDeque::<Entry>::new();
        let mut lines = 0;
        let mut reader = Self { dir: dir.to_owned(), file: None, part: Vec::new(), rotated: false };
        for n in (0..max_files.max(1)).rev() {
            let name = if n == 0 { dir.join("log") } else { dir.join(format!("log.{n}")) };
            let Ok(file) = File::open(name) else { continue };
            reader.file = Some(BufReader::new(file));
            reader.part.clear();
            while let Some(entry) = reader.next_entry()? {
                if wanted.takes(&entry) {
                    lines += usize::from(entry.text.ends_with(b"\n"));
                    found.push_back(entry);
                }
                // The tail counts lines: entries that end one.
                while wanted.tail.is_some_and(|tail| lines > tail || (tail == 0 && !found.is_empty())) {
                    let first = found.pop_front();
                    lines -= usize::from(first.is_some_and(|entry| entry.text.ends_with(b"\n")));
                }
            }
        }
        Ok((found.into(), reader))
    }

    /// The next whole entry, if it is there.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        loop {
            file.read_until(b'\n', &mut self.part).map_err(io("read the log"))?;
            if !self.part.ends_with(b"\n") {
                return Ok(None);
            }
            self.part.pop();
            let entry = parse(&self.part);
            self.part.clear();
            if let Some(entry) = entry {
                return Ok(Some(entry));
            }
        }
    }

    /// Goes over to the new file when the old one was rotated away. Call it when `next_entry` has nothing, then ask
    /// again, and do both twice.
    pub fn follow(&mut self) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(newest) = File::open(self.dir.join("log")) else { return Ok(()) };
        let number = |file: &File| file.metadata().map(|meta| meta.ino()).ok();
        if self.file.as_ref().is_none_or(|file| number(file.get_ref()) != number(&newest)) {
            // The old one is asked once more: it may have grown before it was rotated away.
            if self.file.is_some() && !std::mem::replace(&mut self.rotated, true) {
                return Ok(());
            }
            self.rotated = false;
            self.file = Some(BufReader::new(newest));
            self.part.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_over_rotations() {
        let dir = std::env::temp_dir().join(format!("jug-test-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut writer = Writer::open(&dir, 200, 3);
        for n in 0..12 {
            writer.write("stdout", format!("line {n}\npart").as_bytes());
            writer.write("stderr", b" \xff\n");
        }
        let (all, mut reader) =
            Reader::open(&dir, 3, &Wanted { tail: Some(3), ..Wanted::default() }).unwrap();
        let text: Vec<u8> = all.iter().flat_map(|entry| entry.text.clone()).collect();
        assert_eq!(text, b"part \xff\nline 11\npart \xff\n".as_slice());
        writer.write("stdout", b"more\n");
        for _ in 0..2 {
            reader.follow().unwrap();
        }
        assert_eq!(reader.next_entry().unwrap().unwrap().text, b"more\n");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "three files and no more");
        fs::remove_dir_all(&dir).unwrap();
    }
}
