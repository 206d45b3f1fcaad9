//! The busybox source: one static program, a symbolic link for each applet, and the few files every root needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::{Workshop, elf};
use crate::entry::{Data, Entry, Kind, Meta, Mtime, clean_path};
use crate::error::{Doing, Error, Result};

const PLACES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
const INSTALL: &str = "install the static one: apt-get install busybox-static";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    jug:x:1000:1000:jug:/home/jug:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
/// `jug` is also in `wheel`, so that the supplementary groups of a user can be tested.
const GROUP: &str = "root:x:0:\nwheel:x:10:jug\njug:x:1000:\nnogroup:x:65534:\n";

/// Directories, with the modes that differ from 0755.
const DIRS: [(&str, u32); 15] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

pub fn read(path: Option<&Path>, shop: &Workshop) -> Result<Vec<Entry>> {
    let path = match path {
        Some(path) => shop.path(path),
        None => find()?,
    };
    elf::require_static(&path, INSTALL)?;
    let mut entries = skeleton(shop.mtime());
    entries.push(program("bin/busybox", &path, shop.mtime())?);
    for applet in applets(&path)? {
        let target = b"../".repeat(applet.iter().filter(|&&b| b == b'/').count());
        // Relative, so that the tree can also be looked through from outside without leaving it.
        let target = match applet.strip_prefix(b"bin/") {
            Some(_) => b"busybox".to_vec(),
            None => [&target[..], b"bin/busybox"].concat(),
        };
        entries.push(Entry {
            path: applet,
            kind: Kind::Symlink(target),
            meta: Meta::root(0o777, shop.mtime()),
        });
    }
    Ok(entries)
}

/// Directories and /etc: what every root made here has, whatever program is in it.
pub fn skeleton(mtime: Mtime) -> Vec<Entry> {
    let dir = |(path, mode): (&str, u32)| Entry {
        path: path.into(),
        kind: Kind::Dir,
        meta: Meta::root(mode, mtime),
    };
    let file = |(path, text): (&str, &str)| Entry {
        path: path.into(),
        kind: Kind::File(Data::bytes(text)),
        meta: Meta::root(0o644, mtime),
    };
    let home = Entry {
        path: b"home/jug".to_vec(),
        kind: Kind::Dir,
        meta: Meta { uid: 1000, gid: 1000, ..Meta::root(0o755, mtime) },
    };
    let files = [("etc/passwd", PASSWD), ("etc/group", GROUP)];
    DIRS.into_iter().map(dir).chain(files.into_iter().map(file)).chain([home]).collect()
}

/// An executable of the host as an entry.
pub fn program(path: &str, host: &Path, mtime: Mtime) -> Result<Entry> {
    let file = File::open(host).doing(|| format!("open {}", host.display()))?;
    let len = file.metadata().doing(|| format!("stat {}", host.display()))?.len();
    Ok(Entry {
        path: path.into(),
        kind: Kind::File(Data::Range { file: Arc::new(file), offset: 0, len }),
        meta: Meta::root(0o755, mtime),
    })
}

fn find() -> Result<PathBuf> {
    let found = PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::new("no busybox was found").why(format!("looked at {}", PLACES.join(" and "))).next(INSTALL)
    })
}

/// What this busybox was built with, as paths below the root; it must run here to tell.
fn applets(path: &Path) -> Result<Vec<Vec<u8>>> {
    let output = Command::new(path).arg("--list-full").output();
    let output = output.doing(|| format!("run {} --list-full", path.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(format!("{} --list-full failed", path.display())).why(why));
    }
    let mut applets = Vec::new();
    for line in output.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let applet = clean_path(line)?;
        if applet != b"bin/busybox" {
            applets.push(applet);
        }
    }
    Ok(applets)
}
