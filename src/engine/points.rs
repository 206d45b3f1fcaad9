//! The mount points that a root without an upper layer lacks: nothing can be made in it, so they are made in a
//! directory of the container's that lies on top of the image's layers, read-only as these. A directory that the
//! layers have, too, looks there as it does in them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::sys::path;

/// What a config needs to be there: each path, and whether it is a directory. What lies below another mount is made in
/// that one.
pub fn wanted(config: &Value) -> Vec<(PathBuf, bool)> {
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let is_file = |mount: &Value| {
        let source = mount["source"].as_str().filter(|_| mount["type"] == "bind").map(Path::new);
        source.and_then(|source| path::stat(crate::sys::cwd(), source).ok()).is_some_and(|st| !is_dir(&st))
    };
    let mut all: Vec<(PathBuf, bool)> = mounts
        .filter_map(|mount| Some((PathBuf::from(mount["destination"].as_str()?), !is_file(mount))))
        .collect();
    let targets: Vec<PathBuf> = all.iter().map(|(target, _)| target.clone()).collect();
    all.extend(config["process"]["cwd"].as_str().map(|cwd| (PathBuf::from(cwd), true)));
    all.retain(|(path, _)| !targets.iter().any(|above| path != above && path.starts_with(above)));
    all
}

fn is_dir(st: &libc::stat) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Makes below `points` what `root` lacks; `true`: something was.
pub fn make(points: &Path, root: &RootDir, wanted: &[(PathBuf, bool)]) -> Result<bool> {
    let into = RootDir::new(path::open(points, libc::O_PATH | libc::O_DIRECTORY)?);
    let mut made = false;
    for (target, directory) in wanted {
        if root.open_existing(target)?.is_some() {
            continue;
        }
        let (above, lies) = deepest(root, target)?;
        for place in prefixes(&above) {
            let there =
                root.open_existing(&place)?.ok_or_else(|| Error::new("the root changes meanwhile"))?;
            alike(&there, &into.make_dir(&place)?)?;
        }
        let whole = above.join(lies);
        if *directory {
            into.make_dir(&whole)?
        } else {
            into.make_file(&whole)?
        };
        made = true;
    }
    Ok(made)
}

/// The lowest directory on the way that is there, by its true path in the root, and the rest of the way.
fn deepest<'a>(root: &RootDir, target: &'a Path) -> Result<(PathBuf, &'a Path)> {
    for above in target.ancestors().skip(1) {
        if let Some(there) = root.open_existing(above)?
            && is_dir(&path::stat(there.as_fd(), Path::new(""))?)
        {
            let top = path::name_of(root.fd())?;
            let name = path::name_of(there.as_fd())?;
            let name = name.strip_prefix(&top).unwrap_or(&name);
            let plain = name.components().filter(|part| matches!(part, Component::Normal(_)));
            return Ok((plain.collect(), target.strip_prefix(above).unwrap_or(target)));
        }
    }
    Err(Error::new(format!("no directory is above {}", target.display())))
}

/// `a`, `a/b`, `a/b/c`.
fn prefixes(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
    all.retain(|prefix| !prefix.as_os_str().is_empty());
    all.reverse();
    all
}

/// Mode and owner.
fn alike(there: &OwnedFd, here: &OwnedFd) -> Result<()> {
    let st = path::stat(there.as_fd(), Path::new(""))?;
    let name = path::name_of(here.as_fd())?;
    let here = path::open(&name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    path::fchown(here.as_fd(), st.st_uid, st.st_gid)?;
    path::fchmod(here.as_fd(), st.st_mode & 0o7777)
}
