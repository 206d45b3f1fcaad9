//! The probe source: the static program that tells what a container sees, built as this crate's second binary.

use std::path::{Path, PathBuf};

use super::{Workshop, busybox, elf};
use crate::entry::Entry;
use crate::error::{Doing, Error, Result};

const BUILD: &str = "build it: cargo build -p rootfs-builder --bins";

/// The skeleton of every root with `/bin/probe`.
pub fn read(shop: &Workshop) -> Result<Vec<Entry>> {
    let mut entries = busybox::skeleton(shop.mtime());
    entries.push(busybox::program("bin/probe", &find()?, shop.mtime())?);
    Ok(entries)
}

/// Writes the probe to `path`.
pub fn write(path: &Path) -> Result<()> {
    let probe = find()?;
    std::fs::copy(&probe, path).doing(|| format!("copy {} to {}", probe.display(), path.display()))?;
    Ok(())
}

/// Next to the running program, where cargo puts both.
fn find() -> Result<PathBuf> {
    let this = std::env::current_exe().doing(|| "find the running program".into())?;
    let probe = this.with_file_name("probe");
    if !probe.is_file() {
        return Err(Error::new(format!("the probe is not at {}", probe.display())).next(BUILD));
    }
    elf::require_static(&probe, "build it with the workspace's .cargo/config.toml, which makes it static")?;
    Ok(probe)
}
