//! What a kernel unpacks as its first root: "newc" of cpio, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst has it.

use std::collections::HashMap;
use std::io::Write;

use crate::entry::{Data, Entry, Kind, Meta, Mtime, shown};
use crate::error::{Doing, Error, Result};

/// A whole tree as `Rootfs::into_entries` gives it: parents before children, hard links last. An entry with extended
/// attributes is an error, since the format has none.
pub fn write(entries: &[Entry], out: &mut impl Write) -> Result<()> {
    let mut names: HashMap<&[u8], u32> = HashMap::new();
    for entry in entries {
        if let Kind::Hardlink(target) = &entry.kind {
            *names.entry(target).or_insert(1) += 1;
        }
    }
    let (mut archive, mut numbers) = (Archive::new(out), HashMap::new());
    for entry in entries.iter().filter(|entry| !entry.path.is_empty()) {
        let mut put = |archive: &mut Archive<_>| {
            if !entry.meta.xattrs.is_empty() {
                return Err(Error::new("an initramfs has no room for its extended attributes")
                    .next("leave them out, or write a disk (ext4:PATH)"));
            }
            if let Kind::Hardlink(target) = &entry.kind {
                let number = numbers.get(target.as_slice()).copied();
                let number =
                    number.ok_or_else(|| Error::new("a second name of what is no file before it"))?;
                let nothing = Kind::File(Data::bytes(b""));
                return archive.put(&entry.path, &nothing, &entry.meta, (number, names[target.as_slice()]));
            }
            let number = archive.next_number();
            if matches!(entry.kind, Kind::File(_)) {
                numbers.insert(entry.path.as_slice(), number);
            }
            let names = names.get(entry.path.as_slice()).copied().unwrap_or(1);
            archive.put(&entry.path, &entry.kind, &entry.meta, (number, names))
        };
        put(&mut archive).map_err(|error| error.context(shown(&entry.path)))?;
    }
    archive.end().map(drop)
}

/// An archive that is being written.
pub struct Archive<W> {
    out: W,
    number: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, number: 0 }
    }

    /// What every machine needs to come up with that program as its first process.
    pub fn machine(&mut self, program: &[u8]) -> Result<()> {
        for dir in ["dev", "proc", "sys"] {
            self.directory(dir)?;
        }
        // Without it init has no output: console_on_rootfs().
        self.roots("dev/console", &Kind::Device { block: false, major: 5, minor: 1 }, 0o600)?;
        self.roots("init", &Kind::File(Data::bytes(program)), 0o755)
    }

    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.roots(name, &Kind::Dir, 0o755)
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.roots(name, &Kind::File(Data::bytes(bytes)), 0o644)
    }

    /// Gives back what it was written to.
    pub fn end(mut self) -> Result<W> {
        let meta = Meta::root(0, Mtime::default());
        self.put(b"TRAILER!!!", &Kind::File(Data::bytes(b"")), &meta, (0, 1))?;
        Ok(self.out)
    }

    fn roots(&mut self, name: &str, kind: &Kind, mode: u32) -> Result<()> {
        let number = self.next_number();
        self.put(name.as_bytes(), kind, &Meta::root(mode, Mtime::default()), (number, 1))
    }

    fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// `number` is the same for all the `names` of a file, of which the first has its bytes.
    fn put(&mut self, path: &[u8], kind: &Kind, meta: &Meta, (number, names): (u32, u32)) -> Result<()> {
        let (format, [major, minor]) = match kind {
            Kind::File(_) | Kind::Hardlink(_) => (0o100_000, [0, 0]),
            Kind::Dir => (0o040_000, [0, 0]),
            Kind::Symlink(_) => (0o120_000, [0, 0]),
            Kind::Device { block, major, minor } => {
                (if *block { 0o060_000 } else { 0o020_000 }, [*major, *minor])
            }
            Kind::Fifo => (0o010_000, [0, 0]),
        };
        let nothing = Data::bytes(b"");
        let target = if let Kind::Symlink(target) = kind { Data::bytes(target) } else { nothing };
        let data = if let Kind::File(data) = kind { data } else { &target };
        let small =
            |number: u64| u32::try_from(number).map_err(|_| Error::new("an initramfs holds 4 GiB at most"));
        // Times before 1970, which it cannot hold either, are 1970.
        let seconds = u32::try_from(meta.mtime.secs.max(0)).unwrap_or(u32::MAX);
        let (size, length) = (small(data.len())?, small(path.len() as u64 + 1)?);
        let mode = format | meta.mode;
        let fields = [number, mode, meta.uid, meta.gid, names, seconds, size, 0, 0, major, minor, length, 0];
        let mut header = b"070701".to_vec();
        header.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        header.extend(path);
        header.resize((header.len() + 1).next_multiple_of(4), 0);
        self.out.write_all(&header).doing(|| "write the output".into())?;
        data.copy_to(&mut self.out)?;
        let rest = &[0; 3][..(size.wrapping_neg() % 4) as usize];
        self.out.write_all(rest).doing(|| "write the output".into())
    }
}
