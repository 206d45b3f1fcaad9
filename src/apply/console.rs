//! The terminal of a container: a pair from the container's own devpts, handed out by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::root::RootDir;
use crate::error::{Error, Result};
use crate::plan::ProcessPlan;
use crate::sys::{fd, mount, path, tty};

const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Opens a new pair and checks that it is one: the names are the image's (CVE-2025-52565).
pub fn open(root: &RootDir, plan: &ProcessPlan) -> Result<(OwnedFd, OwnedFd)> {
    let master = root.open(Path::new("dev/ptmx"), libc::O_RDWR | libc::O_NOCTTY).map_err(|e| {
        e.context("opening a terminal").next("mount a devpts on /dev/pts, or set process.terminal to false")
    })?;
    let st = path::stat(master.as_fd(), Path::new(""))?;
    if st.st_mode & libc::S_IFMT != libc::S_IFCHR || st.st_rdev != libc::makedev(5, 2) {
        return Err(Error::new("/dev/ptmx of the container is not the device 5:2"));
    }
    let slave = tty::open_slave(master.as_fd())?;
    if path::fs_magic(slave.as_fd())? != DEVPTS_MAGIC {
        return Err(Error::new("the terminal of the container does not lie on a devpts"));
    }
    if let Some((rows, columns)) = plan.console_size {
        tty::set_size(slave.as_fd(), rows, columns)?;
    }
    Ok((master, slave))
}

/// Binds the terminal on /dev/console, a fresh file there: never through a link of the image (CVE-2025-52565).
pub fn bind(root: &RootDir, slave: &OwnedFd) -> Result<()> {
    let dev = root.make_dir(Path::new("dev"))?;
    let name = Path::new("console");
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
    match path::openat(dev.as_fd(), name, flags, 0o666) {
        Err(e) if e.errno() == libc::EEXIST => {}
        other => drop(other?),
    }
    let target = path::openat(dev.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    match path::stat(target.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFCHR => {}
        _ => return Err(Error::new("/dev/console of the root file system is no ordinary file or device")),
    }
    let tree = mount::open_tree(slave.as_fd(), Path::new(""), false, false)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// Makes the terminal stdin, stdout and stderr of this process and the controlling terminal of its session.
pub fn take(slave: &OwnedFd) -> Result<()> {
    tty::set_controlling(slave.as_fd())?;
    for number in 0..3 {
        fd::dup_onto(slave.as_fd(), number)?;
    }
    Ok(())
}
