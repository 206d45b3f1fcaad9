//! Where things are: the root (images, containers, volumes) and the run root (what does not outlive a boot).

use std::fs::DirBuilder;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::container::record::Root;
use crate::error::{Error, Result};
use crate::host::{caller, is_rootless};
use crate::sys::{cred, path};

#[derive(Debug, Clone)]
pub struct Place {
    pub root: PathBuf,
    pub runroot: PathBuf,
}

impl Place {
    /// The given directories, or the defaults of this user. Nothing is made yet.
    pub fn new(root: Option<&Path>, runroot: Option<&Path>) -> Result<Self> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = || -> Result<PathBuf> {
            if !is_rootless() {
                return Ok(PathBuf::from("/var/lib/jug"));
            }
            let home = variable("HOME").map(|home| home.join(".local/share"));
            let data = variable("XDG_DATA_HOME").or(home);
            Ok(data
                .ok_or_else(|| Error::new("neither HOME nor XDG_DATA_HOME is set").next("give --root DIR"))?
                .join("jug"))
        };
        let run = || match variable("XDG_RUNTIME_DIR") {
            Some(dir) if is_rootless() => with_session(dir.join("jug"), caller()),
            None if is_rootless() => without_session(caller()),
            _ => PathBuf::from("/run/jug"),
        };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            root: absolute(&root.map_or_else(data, |path| Ok(path.to_owned()))?),
            runroot: {
                let dir = absolute(&runroot.map_or_else(run, Path::to_owned));
                is_ours(&dir)?;
                dir
            },
        })
    }

    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub fn names(&self) -> PathBuf {
        self.root.join("containers/.names")
    }

    /// The ranges of ids that containers have, see `ranges`.
    pub fn ranges(&self) -> PathBuf {
        self.root.join("containers/.ids")
    }

    /// The pairs of categories that containers have, see `selinux`.
    pub fn levels(&self) -> PathBuf {
        self.root.join("containers/.levels")
    }

    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// jug-oci's state root.
    pub fn oci(&self) -> PathBuf {
        self.runroot.join("oci")
    }

    /// The runtime's records; `None` before the first container of this boot.
    pub fn records(&self) -> Result<Option<Root>> {
        is_ours(&self.runroot)?;
        match Root::open(&self.oci(), false) {
            Ok(root) => Ok(Some(root)),
            Err(e) if e.what() == "container does not exist" => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a directory of ours, and what is above it, for nobody else (security: files in it may be setuid).
    pub fn make(&self, dir: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| {
            let error = Error::call(format_args!("mkdir({dir:?})"), e.raw_os_error().unwrap_or(0));
            if dir.starts_with(&self.runroot) && is_rootless() {
                return error.next("set XDG_RUNTIME_DIR, or give --runroot DIR");
            }
            error
        })?;
        is_ours(&self.runroot)
    }
}

/// In /tmp anybody may have made what has the name of ours.
fn is_ours(dir: &Path) -> Result<()> {
    if dir != in_tmp(caller()) {
        return Ok(());
    }
    let theirs = || {
        Error::new(format!("{}: somebody else made it, or may write there", dir.display()))
            .next("remove it, set XDG_RUNTIME_DIR, or give --runroot DIR")
    };
    match path::open(dir, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW) {
        Ok(found) => {
            let st = path::stat(found.as_fd(), Path::new(""))?;
            if st.st_uid == cred::euid() && st.st_mode & 0o077 == 0 { Ok(()) } else { Err(theirs()) }
        }
        Err(e) if e.errno() == libc::ENOENT => Ok(()),
        Err(_) => Err(theirs()),
    }
}

fn in_tmp(user: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/jug-run-{user}"))
}

/// The run directory of a user who has no session (su, cron): as Podman one in /tmp, by its name the user's
/// ([`is_ours`]).
fn without_session(user: u32) -> PathBuf {
    let session = PathBuf::from(format!("/run/user/{user}"));
    match path::open(&session, libc::O_PATH | libc::O_DIRECTORY) {
        Ok(_) => session.join("jug"),
        Err(_) => in_tmp(user),
    }
}

/// What was begun without a session goes on there, for as long as no container was made in the session's.
fn with_session(session: PathBuf, user: u32) -> PathBuf {
    let there = |dir: &Path| path::open(dir, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW).is_ok();
    let before = in_tmp(user);
    if !there(&session) && there(&before.join("oci")) && is_ours(&before).is_ok() { before } else { session }
}

/// An error of std::fs, in our words.
pub fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::io(what, &e)
}
