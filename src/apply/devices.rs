//! /dev: the default nodes and links, and the devices of the config.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::opened::Trees;
use super::root::RootDir;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::devices::{DEFAULT, Device, LINKS, is_default};
use crate::sys::{mount, path};

pub fn make(plan: &Plan, trees: &Trees, root: &RootDir) -> Result<()> {
    if !plan.builds_tree() {
        return Ok(());
    }
    for (target, tree) in &trees.nodes {
        let target = root.make_file(target)?;
        mount::attach(tree.as_fd(), target.as_fd())?;
    }
    if plan.setup_dev {
        let dev = root.make_dir(Path::new("dev"))?;
        if !plan.bind_devices {
            for (name, major, minor) in DEFAULT {
                let device = Device {
                    path: Path::new("dev").join(name),
                    kind: libc::S_IFCHR,
                    major,
                    minor,
                    mode: 0o666,
                    uid: 0,
                    gid: 0,
                };
                node(dev.as_fd(), Path::new(name), configured(plan, &device))?;
            }
        }
        links(dev.as_fd())?;
    }
    if !plan.bind_devices {
        for device in plan.devices.iter().filter(|d| !(plan.setup_dev && is_default(&d.path))) {
            let parent = root.make_dir(device.path.parent().unwrap_or(Path::new("")))?;
            let name = device.path.file_name().ok_or_else(|| Error::new("a device needs a path"))?;
            node(parent.as_fd(), Path::new(name), device)?;
        }
    }
    Ok(())
}

/// The config's word about a default device (its mode and owner), if it has one.
fn configured<'a>(plan: &'a Plan, default: &'a Device) -> &'a Device {
    plan.devices.iter().find(|d| d.path == default.path).unwrap_or(default)
}

fn node(dir: BorrowedFd<'_>, name: &Path, device: &Device) -> Result<()> {
    // The umask is 0 here, so the mode is the one asked for.
    match path::mknodat(dir, name, device.kind | device.mode, (device.major, device.minor)) {
        Err(e) if e.errno() == libc::EEXIST => {
            let st = path::stat(dir, name)?;
            let same = st.st_mode & libc::S_IFMT == device.kind
                && (device.kind == libc::S_IFIFO || st.st_rdev == libc::makedev(device.major, device.minor));
            if !same {
                return Err(Error::new(format!(
                    "/{} of the root file system is not the device {}:{}",
                    device.path.display(),
                    device.major,
                    device.minor
                ))
                .why("the image has something else in its place (CVE-2025-31133)")
                .next("mount a tmpfs on /dev, or remove it from the image"));
            }
        }
        other => other?,
    }
    if device.uid != 0 || device.gid != 0 {
        path::chownat(dir, name, device.uid, device.gid)?;
    }
    Ok(())
}

/// The links of runtime-linux.md, `core`, and `ptmx`, which must be the one of the container's own devpts.
fn links(dev: BorrowedFd<'_>) -> Result<()> {
    for (name, target) in LINKS {
        link(dev, name, target)?;
    }
    if path::statfs(Path::new("/proc/kcore")).is_some() {
        link(dev, "core", "/proc/kcore")?;
    }
    match path::symlinkat(Path::new("pts/ptmx"), dev, Path::new("ptmx")) {
        Err(e) if e.errno() == libc::EEXIST => {
            path::unlinkat(dev, Path::new("ptmx"), 0)?;
            path::symlinkat(Path::new("pts/ptmx"), dev, Path::new("ptmx"))
        }
        other => other,
    }
}

fn link(dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    match path::symlinkat(Path::new(target), dev, Path::new(name)) {
        Err(e) if e.errno() == libc::EEXIST => Ok(()),
        other => other,
    }
}
