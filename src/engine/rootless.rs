//! The user namespace in which an unprivileged caller's store is worked on.
//!
//! Files of an image belong to many users. So that they can here, too, the whole process moves into a user namespace
//! that maps what [`ids`] gives the caller (root inside is the caller outside, the range of /etc/subuid follows), with
//! a mount namespace of its own, before it opens the store. Every process gets a new pair; since the maps are always
//! the same, files made in one belong to the same users in the next.
//!
//! Who must be where:
//! - **the store** (`image::store`, `image::pull`, everything that unpacks, removes or hashes layers): inside, so that
//!   the files of other ids can be made, read and removed. [`enter`] is called before `Store::open`.
//! - **`image::snapshot::mount` with `rootless`**: inside, since overlayfs asks for CAP_SYS_ADMIN over the mount
//!   namespace. The detached mount belongs to this user namespace: it can be attached here or in a namespace below,
//!   and the process that attaches it, or its descendants, must be those that make the container.
//! - **jug-oci of such a container**: a child of that process. It is root of the namespace, so that it makes a
//!   container without a user namespace of its own, whose ids are those of the store.
//! - **a container that joins a namespace of another's**: in that one's user namespace ([`enter_for`]).
//! - **who enters or signals the container later** (exec, kill, pause): outside, as the caller, who owns the namespace
//!   and so has every capability over it; or after setns(2) into it. A sibling made by another [`enter`] has none.

use std::os::fd::AsFd;
use std::path::Path;

use super::container::Container;
use super::ids;
use super::place::Place;
use super::settings::Settings;
use crate::apply;
use crate::error::{Error, Result};
use crate::host;
use crate::plan::ids::{IdMaps, Range};
use crate::sys::clone::{self, Side};
use crate::sys::{cred, path, process, socket};

/// Moves this process into the namespaces; nothing for root, and for who is root of a user namespace already. Only a
/// process of one thread can.
pub fn enter() -> Result<()> {
    host::remember();
    if cred::euid() == 0 {
        return Ok(());
    }
    let maps = maps();
    let (ours, theirs) = socket::pair()?;
    let own = process::pid();
    // Only who stays outside may write the maps.
    match clone::clone3(0, None)? {
        Side::Child => {
            drop(ours);
            let told = socket::receive(theirs.as_fd(), 1).is_ok_and(|(word, _)| !word.is_empty());
            let answer = match told.then(|| apply::ids::map_process(&maps, own)) {
                Some(Err(e)) => e.encode(),
                _ => Vec::new(),
            };
            let _ = socket::send(theirs.as_fd(), &[b"A", &answer[..]].concat(), None);
            process::exit_now(0)
        }
        Side::Parent(child) => {
            drop(theirs);
            let moved = clone::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(explained);
            let answer = moved.and_then(|()| {
                socket::send(ours.as_fd(), b"G", None)?;
                socket::receive(ours.as_fd(), 16 << 10)
            });
            drop(ours);
            process::wait(child.pidfd.as_fd(), true)?;
            match answer?.0.split_first() {
                Some((b'A', [])) => Ok(()),
                Some((b'A', said)) => Err(Error::decode(said)),
                _ => Err(Error::new("whoever maps the ids of the user namespace went away")),
            }
        }
    }
}

/// The same for what a container is made in: where it joins a namespace of another's, that belongs to the other's user
/// namespace, and so has the container to. The maps are the same but with keep-id, which is refused.
pub fn enter_for(place: &Place, settings: &Settings) -> Result<()> {
    if cred::euid() == 0 {
        return Ok(());
    }
    let mut joined: Option<(&str, i32)> = None;
    for name in settings.others() {
        let pid = Container::find(place, name)?.pid()?.ok_or_else(|| {
            Error::new(format!("cannot join a namespace of {name}: it is not running")).next("start it first")
        })?;
        match joined {
            Some((first, other)) if namespace(other)? != namespace(pid)? => {
                return Err(Error::new(format!("cannot join namespaces of both {first} and {name}"))
                    .why("each has a user namespace of its own, and a container is in one"));
            }
            _ => joined = Some((name, pid)),
        }
    }
    let Some((name, pid)) = joined else { return enter() };
    join(pid)?;
    if cred::euid() != 0 {
        return Err(Error::new(format!("cannot join a namespace of {name}"))
            .why("it was made with --userns keep-id: in its user namespace you are not root"));
    }
    clone::unshare(libc::CLONE_NEWNS)
}

/// The user namespace of a process, by its name in /proc.
fn namespace(pid: i32) -> Result<std::path::PathBuf> {
    path::readlinkat(crate::sys::cwd(), Path::new(&format!("/proc/{pid}/ns/user")))
}

/// Does something inside, in a process of its own: this one stays where it is. Nothing for root.
pub fn apart(deed: impl FnOnce() -> Result<()>) -> Result<()> {
    if cred::euid() == 0 {
        return deed();
    }
    match clone::clone3(0, None)? {
        Side::Child => process::exit_now(i32::from(enter().and_then(|()| deed()).is_err())),
        Side::Parent(child) => {
            process::wait(child.pidfd.as_fd(), true)?;
            Ok(())
        }
    }
}

/// Moves this process into the user namespace of a container's process, which another process of the caller's made. It
/// has all power over the container then.
pub fn join(pid: i32) -> Result<()> {
    host::remember();
    if cred::euid() == 0 {
        return Ok(());
    }
    let name = format!("/proc/{pid}/ns/user");
    let namespace = path::open(Path::new(&name), libc::O_RDONLY)?;
    clone::setns(namespace.as_fd(), libc::CLONE_NEWUSER)
}

/// Root inside is the caller, and the range follows.
fn maps() -> IdMaps {
    let (uid, gid) = ids::own();
    let ranges = |list: Vec<(u32, u32, u32)>| {
        list.into_iter().map(|(container, host, size)| Range { container, host, size }).collect()
    };
    IdMaps { uid: ranges(uid), gid: ranges(gid), unprivileged: true }
}

fn explained(error: Error) -> Error {
    match error.errno() {
        libc::EPERM | libc::ENOSPC => error
            .why("user namespaces are switched off here, or there are too many")
            .next("look at sysctl user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns"),
        _ => error,
    }
}
