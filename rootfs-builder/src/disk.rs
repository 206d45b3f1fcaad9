//! A tree as a disk: ext4, made by mke2fs(8), which every distribution has. The same tree is the same files there, but
//! not the same bytes: mke2fs takes them in the order of the directory.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// Writes a directory of the host's into `file`, with its owners. Without a journal: nobody is to write to it.
pub fn ext4_of(dir: &Path, file: &Path) -> Result<()> {
    let [inodes, bytes] = sum(dir).doing(|| format!("list {}", dir.display()))?;
    // Its tables, and as much again as a quarter for what is not in the sum: holes of the file.
    let size = (16 << 20) + bytes + bytes / 4 + inodes * 1024;
    let count = (inodes + inodes / 4 + 64).to_string();
    let mut mke2fs = mke2fs();
    mke2fs.args(["-O", "^has_journal,^resize_inode", "-b", "4096", "-m", "0", "-N", &count, "-d"]).arg(dir);
    format(mke2fs, file, size)
}

/// An empty file system of `size` bytes.
pub fn ext4(file: &Path, size: u64) -> Result<()> {
    format(mke2fs(), file, size)
}

fn mke2fs() -> Command {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard"]);
    command
}

fn format(mut mke2fs: Command, file: &Path, size: u64) -> Result<()> {
    let made = File::create(file).and_then(|file| file.set_len(size));
    made.doing(|| format!("make {}", file.display()))?;
    let output = mke2fs
        .arg(file)
        .output()
        .map_err(|error| Error::new(format!("cannot run mke2fs: {error}")).next("install e2fsprogs"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("mke2fs -t ext4 failed: {}", output.status)).why(said.trim()))
}

/// How many files are below a directory, and the bytes of the blocks that hold them.
fn sum(dir: &Path) -> std::io::Result<[u64; 2]> {
    let mut all = [0, 0];
    for entry in fs::read_dir(dir)? {
        let (entry, mut below) = (entry?, [0, 0]);
        let meta = entry.metadata()?;
        if meta.is_dir() {
            below = sum(&entry.path())?;
        }
        all = [all[0] + 1 + below[0], all[1] + meta.len().next_multiple_of(4096) + below[1]];
    }
    Ok(all)
}
