//! Masked and read-only paths.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::opened::Trees;
use super::root::RootDir;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::sys::mount::{self, SetAttr};
use crate::sys::path;

/// Covers what is to be seen by nobody: files with the host's /dev/null, directories with one shared empty tmpfs.
pub fn mask(plan: &Plan, trees: &mut Trees, root: &RootDir) -> Result<()> {
    let mut empty = Cover::new(None);
    let mut null = Cover::new(trees.null.take());
    for masked in &plan.masked {
        let Some(target) = root.open_existing(masked)? else { continue };
        let is_dir = path::stat(target.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let label = plan.mount_label.as_deref();
        if is_dir { empty.put(&target, || empty_dir(label)) } else { null.put(&target, host_null) }
            .map_err(|e| e.context(format_args!("can't mask path \"/{}\"", masked.display())))?;
    }
    Ok(())
}

/// A mount of which every further place gets a copy.
struct Cover {
    tree: Option<OwnedFd>,
    /// open_tree(2) copies what is attached; what is still detached is attached as it is.
    /// It covers a place. To attach it again would move it away from there.
    attached: bool,
}

impl Cover {
    fn new(tree: Option<OwnedFd>) -> Self {
        Self { tree, attached: false }
    }

    fn put(&mut self, target: &OwnedFd, make: impl FnOnce() -> Result<OwnedFd>) -> Result<()> {
        let tree = match self.tree.take() {
            Some(tree) if self.attached => mount::open_tree(tree.as_fd(), Path::new(""), false, false)?,
            Some(tree) => tree,
            None => make()?,
        };
        mount::attach(tree.as_fd(), target.as_fd())?;
        (self.tree, self.attached) = (Some(tree), true);
        Ok(())
    }
}

/// `label`: its SELinux context.
fn empty_dir(label: Option<&str>) -> Result<OwnedFd> {
    let context = mount::fsopen("tmpfs")?;
    label.map_or(Ok(()), |label| context.set("context", label))?;
    context.set("size", "4k")?;
    context.set("nr_inodes", "2")?;
    context.mount(mount::MOUNT_ATTR_RDONLY)
}

fn host_null() -> Result<OwnedFd> {
    Err(Error::new("the host's /dev/null was not opened"))
}

/// Makes paths read-only where they are, keeping what else they are (nosuid, nodev, noexec).
pub fn make_readonly(plan: &Plan, root: &RootDir) -> Result<()> {
    for readonly in &plan.readonly {
        let Some(target) = root.open_existing(readonly)? else { continue };
        let apply = || -> Result<()> {
            let tree = mount::open_tree(target.as_fd(), Path::new(""), true, false)?;
            let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
            mount::set_attributes(tree.as_fd(), change, true)?;
            mount::attach(tree.as_fd(), target.as_fd())
        };
        apply().map_err(|e| e.context(format_args!("can't make \"/{}\" read-only", readonly.display())))?;
    }
    Ok(())
}
