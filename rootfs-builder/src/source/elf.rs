//! Whether a program needs a dynamic loader: one that does would not run in a root that has none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Doing, Error, Result};

const PT_INTERP: u32 = 3;

/// An error unless `path` is a static 64-bit little-endian ELF program (elf(5)).
pub fn require_static(path: &Path, next: &str) -> Result<()> {
    let file = File::open(path).doing(|| format!("open {}", path.display()))?;
    match has_interpreter(&file) {
        Some(false) => Ok(()),
        Some(true) => Err(Error::new(format!("{} is dynamically linked", path.display()))
            .why("the root file system will hold no libraries for it")
            .next(next)),
        None => Err(Error::new(format!("{} is no 64-bit ELF program", path.display())).next(next)),
    }
}

fn has_interpreter(file: &File) -> Option<bool> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64::from_le_bytes(header[32..40].try_into().ok()?);
    let size = u64::from(u16::from_le_bytes(header[54..56].try_into().ok()?));
    let count = u64::from(u16::from_le_bytes(header[56..58].try_into().ok()?));
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.checked_add(index * size)?).ok()?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}
