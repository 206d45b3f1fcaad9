//! An image as payload: the layers below the payload's own files, and the program that the payload becomes when it has
//! said that it is ready. It must not know where the image comes from.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug, Default)]
pub struct Base {
    /// Name and id, for the report.
    pub name: String,
    /// Directories as overlayfs has them, bottom first.
    pub layers: Vec<PathBuf>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// NAME=VALUE.
    pub env: Vec<String>,
    pub directory: String,
}

impl Base {
    /// What the payload reads, see its `COMMAND`.
    pub fn text(&self) -> String {
        let directory = if self.directory.is_empty() { "/" } else { &self.directory };
        let count = self.env.len().to_string();
        let parts = [directory, &count].into_iter().map(str::to_owned);
        parts.chain(self.env.clone()).chain(self.command.clone()).map(|part| part + "\0").collect()
    }

    /// Mounts the layers below what is in `top` already. In the run's own mount namespace, with which it goes.
    pub fn mount_below(&self, dir: &Path, top: &Path) -> io::Result<()> {
        // mount(2) takes a page of options, and a store may lie deep: short names for the layers.
        let short = dir.join("l");
        fs::create_dir_all(&short)?;
        let (upper, mut lower) = (dir.join("t"), String::from("../t"));
        fs::rename(top, &upper)?;
        fs::create_dir_all(top)?;
        for (at, layer) in self.layers.iter().enumerate().rev() {
            symlink(layer, short.join(at.to_string()))?;
            lower += &format!(":{at}");
        }
        let mut mount = Command::new("mount");
        mount.current_dir(&short).args(["-t", "overlay", "-o", &format!("lowerdir={lower}"), "overlay"]);
        match mount.arg(top).status()? {
            status if status.success() => Ok(()),
            status => {
                Err(io::Error::other(format!("mount -t overlay of {} layers: {status}", self.layers.len())))
            }
        }
    }
}
