//! User namespaces: writing the maps of a child, and namespaces made only for their maps.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::plan::ids::{IdMaps, Range, map_text};
use crate::sys::clone::{Child, Side, clone3};
use crate::sys::{cred, fd, path, process, socket};

/// Writes the maps of a child in a new user namespace, which waits for that.
pub fn map(maps: &IdMaps, child: &Child) -> Result<()> {
    map_process(maps, child.pid)
}

/// The same of any process in a new user namespace, by its number.
pub fn map_process(maps: &IdMaps, pid: i32) -> Result<()> {
    if !maps.unprivileged {
        write(pid, "uid_map", &map_text(&maps.uid))?;
        return write(pid, "gid_map", &map_text(&maps.gid));
    }
    if maps.single((cred::euid(), cred::egid())) {
        // The one map that needs no privilege, once setgroups(2) is given up (user_namespaces(7)).
        write(pid, "setgroups", "deny")?;
        write(pid, "uid_map", &map_text(&maps.uid))?;
        return write(pid, "gid_map", &map_text(&maps.gid));
    }
    helper("newuidmap", "/etc/subuid", pid, &maps.uid)?;
    helper("newgidmap", "/etc/subgid", pid, &maps.gid)
}

fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    let name = format!("/proc/{pid}/{file}");
    let map = path::open(Path::new(&name), libc::O_WRONLY)?;
    fd::write_all(map.as_fd(), text.as_bytes()).map_err(|e| {
        let e = e.context(name);
        match e.errno() {
            libc::EPERM => e
                .why("these ids are not yours to map")
                .next("map only your own id, or ids that /etc/subuid and /etc/subgid give you"),
            libc::EINVAL => e.why("the kernel takes at most 340 mappings, none of them overlapping"),
            _ => e,
        }
    })
}

/// newuidmap(1) is setuid root and checks /etc/subuid for us.
fn helper(program: &str, table: &str, pid: i32, ranges: &[Range]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for r in ranges {
        command.args([r.container, r.host, r.size].map(|n| n.to_string()));
    }
    let output = command.output().map_err(|e| {
        Error::call(format_args!("running {program}"), e.raw_os_error().unwrap_or(0))
            .why("mapping more than your own id needs this setuid program")
            .next("install the package uidmap (or shadow-utils), or map a single id")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
        .next(format!("give your user a range in {table}, and use ids from it in the config")))
}

/// A user namespace with these maps and nothing in it, for idmapped mounts. The caller must be privileged.
pub fn namespace_with(uid: &[Range], gid: &[Range]) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    match clone3(libc::CLONE_NEWUSER as u64, None)? {
        Side::Child => {
            drop(ours);
            // Stays until the parent has what it wants, or is gone.
            let _ = socket::receive(theirs.as_fd(), 1);
            process::exit_now(0)
        }
        Side::Parent(child) => {
            drop(theirs);
            let made = write(child.pid, "uid_map", &map_text(uid))
                .and_then(|()| write(child.pid, "gid_map", &map_text(gid)))
                .and_then(|()| {
                    path::open(Path::new(&format!("/proc/{}/ns/user", child.pid)), libc::O_RDONLY)
                });
            drop(ours);
            process::wait(child.pidfd.as_fd(), true)?;
            made
        }
    }
}
