//! Where things are: the root (images, containers, volumes) and the run root (what does not outlive a boot).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::container::record::Root;
use crate::error::{Error, Result};
use crate::host::{caller, is_rootless};

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
            Some(dir) if is_rootless() => dir.join("jug"),
            None if is_rootless() => PathBuf::from(format!("/run/user/{}/jug", caller())),
            _ => PathBuf::from("/run/jug"),
        };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            root: absolute(&root.map_or_else(data, |path| Ok(path.to_owned()))?),
            runroot: absolute(&runroot.map_or_else(run, Path::to_owned)),
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

    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// jug-oci's state root.
    pub fn oci(&self) -> PathBuf {
        self.runroot.join("oci")
    }

    /// The runtime's records; `None` before the first container of this boot.
    pub fn records(&self) -> Result<Option<Root>> {
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
        })
    }
}

/// An error of std::fs, in our words.
pub fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::call(what, e.raw_os_error().unwrap_or(0))
}
