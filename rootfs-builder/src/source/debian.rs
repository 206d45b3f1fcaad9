//! The Debian source: a tar made by mmdebstrap(1), kept in the cache so that the next build needs no network.
//!
//! The cache key is what was asked for, not what came: the first fetch pins the package versions for this cache. Who
//! needs the same bytes on two machines names a snapshot.debian.org mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Workshop, tarball};
use crate::blob;
use crate::entry::Entry;
use crate::error::{Doing, Error, Result};
use crate::recipe::Debian;

/// The time mmdebstrap works with; entries get the build's time when they are read, so that a new SOURCE_DATE_EPOCH
/// does not need the network. Not 0: passwd(5) tools write it, in days, where 0 means "must change the password".
const MMDEBSTRAP_EPOCH: &str = "1577836800";

pub fn read(debian: &Debian, shop: &Workshop) -> Result<Vec<Entry>> {
    let tar = shop.cache.join("debian").join(file_name(debian, &shop.arch));
    if !tar.is_file() {
        fetch(debian, shop, &tar)?;
    }
    let mut entries = tarball::read(&tar, None)?;
    for entry in &mut entries {
        entry.meta.mtime = shop.mtime();
    }
    Ok(entries)
}

/// Readable in front, unambiguous at the end.
fn file_name(debian: &Debian, arch: &str) -> String {
    let Debian { suite, include, variant, mirror } = debian;
    let mirror = mirror.as_deref().unwrap_or("");
    let key = format!("1\0{suite}\0{arch}\0{}\0{}\0{mirror}", variant.name(), include.join(","));
    let digest = blob::sha256_hex(key.as_bytes());
    format!("{}-{arch}-{}-{}.tar", suite.replace('/', "_"), variant.name(), &digest[..16])
}

fn fetch(debian: &Debian, shop: &Workshop, tar: &Path) -> Result<()> {
    let what = format!("Debian {} with [{}]", debian.suite, debian.include.join(", "));
    if shop.offline {
        return Err(Error::new(format!("{what} is not in the cache"))
            .why(format!("there is no {} and --offline forbids fetching", tar.display()))
            .next("build once without --offline"));
    }
    let dir: PathBuf = tar.parent().map(Path::to_path_buf).unwrap_or_default();
    fs::create_dir_all(&dir).doing(|| format!("make the cache folder {}", dir.display()))?;
    // Beside the final name, so that the rename is atomic: a build that died leaves no half tar under the key.
    let part = tempfile::Builder::new().prefix(".part-").suffix(".tar").tempfile_in(&dir);
    let part = part.doing(|| format!("make a file in {}", dir.display()))?;
    run_mmdebstrap(debian, &shop.arch, part.path()).map_err(|error| error.context(what))?;
    part.persist(tar).doing(|| format!("put {} into the cache", tar.display()))?;
    Ok(())
}

/// Debian's name for what Go calls `arch` (image-spec names platforms as Go does).
fn debian_arch(arch: &str) -> &str {
    match arch {
        "386" => "i386",
        "arm" => "armhf",
        "ppc64le" => "ppc64el",
        same => same,
    }
}

fn run_mmdebstrap(debian: &Debian, arch: &str, to: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", MMDEBSTRAP_EPOCH)
        .arg(format!("--variant={}", debian.variant.name()))
        .arg(format!("--architectures={}", debian_arch(arch)))
        .args(["--format=tar", "--quiet"])
        .arg("--aptopt=Acquire::Languages \"none\"");
    if !debian.include.is_empty() {
        command.arg(format!("--include={}", debian.include.join(",")));
    }
    command.arg(&debian.suite).arg(to).args(&debian.mirror);
    let output = command.output().map_err(|error| {
        Error::new("mmdebstrap cannot be run").why(error).next("install it: apt-get install mmdebstrap")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = errors.lines().rev().take(5).collect();
    let why = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
    Err(Error::new(format!("mmdebstrap failed with {}", output.status)).why(why))
}
