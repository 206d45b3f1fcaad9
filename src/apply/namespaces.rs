//! Namespaces: one clone into all of them.
//!
//! What is joined by path is joined by the parent just before the clone, so that the child is born in it, and left
//! again right after. A user namespace cannot be left again, nor may a caller without the host's power go back to the
//! host's namespaces: only there a short-lived process goes in and clones, with the runtime as the child's parent
//! (CLONE_PARENT). A cgroup namespace is joined by the child, once it is in its cgroup: from inside, the kernel lets
//! nobody be born outside of what the namespace shows.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::sysctl::Proc;
use crate::container::sync::Sync;
use crate::error::{Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::{Namespaces, Plan};
use crate::sys::clone::{CLONE_PARENT, Child, Side, clone3, clone3_asleep, setns, unshare};
use crate::sys::{path, process, socket};

/// Namespaces given by path, opened and checked.
#[derive(Debug, Default)]
pub struct Joined(Vec<(Kind, OwnedFd)>);

pub fn open(namespaces: &Namespaces) -> Result<Joined> {
    let mut joined = Vec::new();
    for (kind, file) in &namespaces.join {
        let fd = path::open(file, libc::O_RDONLY)
            .map_err(|e| e.context(format_args!("/linux/namespaces: {kind} namespace")))?;
        match crate::sys::clone::namespace_type(fd.as_fd()) {
            Ok(found) if found == kind.flag() => {}
            _ => {
                return Err(Error::new(format!(
                    "/linux/namespaces: {} is not a {kind} namespace",
                    file.display()
                )));
            }
        }
        joined.push((*kind, fd));
    }
    Ok(Joined(joined))
}

impl Joined {
    fn user(&self) -> Option<&OwnedFd> {
        self.0.iter().find(|(kind, _)| *kind == Kind::User).map(|(_, fd)| fd)
    }

    /// What is joined before the clone.
    fn before(&self, namespaces: &Namespaces) -> impl Iterator<Item = &(Kind, OwnedFd)> {
        let later = joins_cgroup_later(namespaces);
        let by_the_child = move |kind| kind == Kind::Mount || kind == Kind::Cgroup && later;
        self.0.iter().filter(move |(kind, _)| *kind != Kind::User && !by_the_child(*kind))
    }

    /// For the child itself. The mount namespace is joined last: with it paths change their meaning.
    fn enter(&self, wanted: Kind) -> Result<()> {
        for (kind, fd) in self.0.iter().filter(|(kind, _)| *kind == wanted) {
            setns(fd.as_fd(), kind.flag())
                .map_err(|e| e.context(format_args!("joining the {kind} namespace")))?;
        }
        Ok(())
    }
}

/// The flags of the one clone. Some kinds are entered otherwise: the cgroup namespace has to be made when the child is
/// in its cgroup already, the time namespace before the clone; and see [`ipc_comes_later`].
fn clone_flags(namespaces: &Namespaces) -> u64 {
    let by_clone = |kind: &&Kind| match kind {
        Kind::Cgroup | Kind::Time => false,
        Kind::Ipc => !ipc_comes_later(namespaces),
        _ => true,
    };
    namespaces.new.iter().filter(by_clone).map(|kind| kind.flag() as u64).sum()
}

/// The message queues of an ipc namespace belong to who makes it: in a user namespace to root inside, and nobody else
/// could give them a label.
fn ipc_comes_later(namespaces: &Namespaces) -> bool {
    namespaces.makes(Kind::Ipc) && namespaces.has(Kind::User)
}

/// Clones the container's first process. `cgroup` is where it is born.
pub fn clone(
    namespaces: &Namespaces,
    joined: &Joined,
    cgroup: Option<&OwnedFd>,
    rootless: bool,
) -> Result<Side> {
    let time = namespaces.makes(Kind::Time) && !time_comes_later(namespaces, rootless);
    let leaves = time || joined.before(namespaces).next().is_some();
    if joined.user().is_some() || leaves && crate::host::is_rootless() {
        return clone_through_another(namespaces, joined, cgroup, time);
    }
    let mut home = Vec::new();
    for (kind, fd) in joined.before(namespaces) {
        home.push((*kind, own(*kind)?));
        setns(fd.as_fd(), kind.flag())
            .map_err(|e| e.context(format_args!("joining the {kind} namespace")))?;
    }
    if time {
        home.push((Kind::Time, own(Kind::Time)?));
        make_time_namespace(namespaces)?;
    }
    let side = clone3(clone_flags(namespaces), cgroup.map(AsFd::as_fd))?;
    if let Side::Parent(_) = side {
        for (kind, fd) in home {
            setns(fd.as_fd(), kind.flag())?;
        }
    }
    Ok(side)
}

/// Clones it for a child that shares this memory while the caller sleeps ([`clone3_asleep`]); nothing is joined by
/// path.
pub fn clone_asleep(
    namespaces: &Namespaces,
    cgroup: &OwnedFd,
    child: &mut dyn FnMut(i32) -> Infallible,
) -> Result<Child> {
    clone3_asleep(clone_flags(namespaces), Some(cgroup.as_fd()), child)
}

/// The child joins the cgroup namespace itself where it has the power to: in no user namespace but the caller's.
fn joins_cgroup_later(namespaces: &Namespaces) -> bool {
    namespaces.joins(Kind::Cgroup) && !namespaces.has(Kind::User)
}

/// A new time namespace belongs to the user namespace of who makes it, and only who has power there may join it later:
/// with a new user namespace the child makes it, and so it does where the caller has no power.
fn time_comes_later(namespaces: &Namespaces, rootless: bool) -> bool {
    (rootless || namespaces.makes(Kind::User)) && !namespaces.joins(Kind::User)
}

/// A new network namespace has its loopback down; this one was made by somebody else, for that process.
pub fn loopback_up_in(pid: i32) -> Result<()> {
    let home = own(Kind::Network)?;
    let there = path::open(&Path::new("/proc").join(pid.to_string()).join("ns/net"), libc::O_RDONLY)?;
    setns(there.as_fd(), Kind::Network.flag())?;
    let done = socket::loopback_up();
    setns(home.as_fd(), Kind::Network.flag())?;
    done
}

fn own(kind: Kind) -> Result<OwnedFd> {
    path::open(&Path::new("/proc/self/ns").join(kind.file()), libc::O_RDONLY)
}

/// A new time namespace for the next child, with its clocks set before anybody is in it (time_namespaces(7)).
pub fn make_time_namespace(namespaces: &Namespaces) -> Result<()> {
    unshare(Kind::Time.flag()).map_err(|e| match e.errno() {
        libc::EINVAL => e.context("/linux/namespaces: time").why("this kernel has no time namespaces"),
        _ => e,
    })?;
    if namespaces.time_offsets.is_empty() {
        return Ok(());
    }
    let lines: String =
        namespaces.time_offsets.iter().map(|(clock, s, ns)| format!("{clock} {s} {ns}\n")).collect();
    Proc::open()?.write(Path::new("self/timens_offsets"), &lines).map_err(|e| e.context("/linux/timeOffsets"))
}

fn clone_through_another(
    namespaces: &Namespaces,
    joined: &Joined,
    cgroup: Option<&OwnedFd>,
    time: bool,
) -> Result<Side> {
    let (ours, theirs) = socket::pair()?;
    let Side::Parent(messenger) = clone3(0, None)? else {
        drop(ours);
        let born = || -> Result<Side> {
            // Which of the two user namespaces has the power over a namespace is not ours to know: first as the caller.
            let denied = |entry: &&(Kind, OwnedFd)| setns(entry.1.as_fd(), entry.0.flag()).is_err();
            let later: Vec<_> = joined.before(namespaces).filter(denied).collect();
            joined.enter(Kind::User)?;
            for (kind, fd) in later {
                setns(fd.as_fd(), kind.flag())
                    .map_err(|e| e.context(format_args!("joining the {kind} namespace")))?;
            }
            if time {
                make_time_namespace(namespaces)?;
            }
            clone3(clone_flags(namespaces) | CLONE_PARENT, cgroup.map(AsFd::as_fd))
        };
        return match born() {
            Ok(Side::Child) => Ok(Side::Child),
            Ok(Side::Parent(child)) => {
                let sent = socket::send(theirs.as_fd(), &child.pid.to_le_bytes(), Some(child.pidfd.as_fd()));
                process::exit_now(i32::from(sent.is_err()))
            }
            Err(e) => {
                let _ = socket::send(theirs.as_fd(), &[&[b'E'; 5][..], &e.encode()].concat(), None);
                process::exit_now(1)
            }
        };
    };
    drop(theirs);
    let heard = socket::receive(ours.as_fd(), 32 * 1024);
    process::wait(messenger.pidfd.as_fd(), true)?;
    match heard? {
        (bytes, Some(pidfd)) if bytes.len() == 4 => Ok(Side::Parent(Child {
            pid: i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            pidfd,
        })),
        (bytes, _) if bytes.len() > 5 => Err(Error::decode(&bytes[5..])),
        _ => Err(Error::new("the process that joined the namespaces died")),
    }
}

/// What the child does about its namespaces, first of all.
pub fn settle(plan: &Plan, joined: &Joined, rootless: bool, sync: &Sync) -> Result<()> {
    let namespaces = &plan.namespaces;
    if namespaces.makes(Kind::User) {
        sync.expect(crate::container::sync::Word::Build)?;
    }
    if namespaces.makes(Kind::Time) && time_comes_later(namespaces, rootless) {
        // With the ids of the caller: those of the container would take /proc/self from this process.
        make_time_namespace(namespaces)?;
        // Not with the execve alone: before Linux 6.0 that would not enter it.
        let fd = path::open(Path::new("/proc/self/ns/time_for_children"), libc::O_RDONLY)?;
        setns(fd.as_fd(), Kind::Time.flag())?;
    }
    if namespaces.has(Kind::User) {
        become_root_inside(plan.process.keep_groups)?;
    }
    if joins_cgroup_later(namespaces) {
        joined.enter(Kind::Cgroup)?;
    }
    joined.enter(Kind::Mount)?;
    if namespaces.makes(Kind::Network) {
        socket::loopback_up()?;
    }
    if namespaces.makes(Kind::Cgroup) {
        unshare(Kind::Cgroup.flag())?;
    }
    if ipc_comes_later(namespaces) {
        unshare(Kind::Ipc.flag())?;
    }
    Ok(())
}

/// The child is nobody in its new user namespace until it takes an id that is mapped there.
pub fn become_root_inside(keep_groups: bool) -> Result<()> {
    use crate::sys::cred;
    cred::setresgid(0)?;
    cred::setresuid(0).map_err(|e| e.why("id 0 is not mapped in the user namespace"))?;
    if keep_groups {
        return Ok(());
    }
    match cred::setgroups(&[]) {
        // Denied where an unprivileged user maps only itself (user_namespaces(7)).
        Err(e) if e.errno() == libc::EPERM => Ok(()),
        other => other,
    }
}
