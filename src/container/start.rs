//! `start`: one byte, and what comes of it. In two halves for whoever must not wait in between, such as a shim. Must
//! not make a process but for hooks.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::notify::Relay;
use super::record::{Id, Root, START};
use super::status::{self, Container, Status};
use crate::apply;
use crate::error::{Error, Result};
use crate::sys::{fd, path};

/// Lets a created container's process become its program. With a service manager's socket, returns when the program is
/// ready, or has ended.
pub fn start(root: &Root, id: &Id, notify_socket: Option<&Path>) -> Result<()> {
    let container = Container::load(root, id)?;
    container.entry.lock(true)?;
    may_start(&container)?;
    let relay = match notify_socket {
        Some(host) => Some((Relay::bind(&container.entry, host)?, container.process()?)),
        None => None,
    };
    let barrier = tell(&container)?;
    while !fd::poll(&[(barrier.as_fd(), 0)], -1)?[0] {}
    outcome(&barrier)?;
    if container.record.has_poststart {
        let (spec, _) = crate::bundle::parse::<oci_spec::runtime::Spec>(&container.entry.config()?)?;
        poststart(&container, spec.hooks().as_ref())?;
    }
    match relay {
        Some((relay, Some(process))) => {
            container.entry.unlock()?;
            relay.wait(process.as_fd(), container.record.pid)
        }
        _ => Ok(()),
    }
}

/// A start for a caller that may not wait: its process has been told, and the container is locked.
pub struct Begun {
    /// It hangs up (POLLHUP) when the program runs, or the process has ended.
    pub barrier: OwnedFd,
    _container: Container,
}

impl Begun {
    /// `None`: somebody holds the container, or hooks have to run afterwards. Then `start` is for who can wait.
    pub fn new(root: &Root, id: &Id) -> Result<Option<Self>> {
        let container = Container::load(root, id)?;
        if container.record.has_poststart || !container.entry.lock(false)? {
            return Ok(None);
        }
        may_start(&container)?;
        Ok(Some(Self { barrier: tell(&container)?, _container: container }))
    }

    /// After the hang-up: whether the program runs, or why not.
    pub fn end(self) -> Result<()> {
        outcome(&self.barrier)
    }
}

fn may_start(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created => Ok(()),
        Status::Stopped => Err(Error::new("cannot start a container that has stopped")),
        Status::Creating => Err(Error::new("cannot start a container that is still being created")),
        Status::Paused => Err(Error::new("cannot start a paused container").next("resume it first")),
        Status::Running => Err(Error::new("cannot start an already running container")),
    }
}

/// Writes the byte. The process keeps the barrier open for writing until execve closes it, or until it ends: then what
/// is returned hangs up (pipe(7)).
fn tell(container: &Container) -> Result<OwnedFd> {
    let open = |how: i32| {
        let flags = how | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        path::openat(container.entry.dir(), Path::new(START), flags, 0)
    };
    let barrier = open(libc::O_RDONLY)?;
    fd::write_all(open(libc::O_WRONLY)?.as_fd(), b"S")?;
    Ok(barrier)
}

/// What stands in the barrier after the hang-up: nothing, the child's error, or the byte that nobody took.
fn outcome(barrier: &OwnedFd) -> Result<()> {
    let mut answer = vec![0; 32 * 1024];
    match fd::read(barrier.as_fd(), &mut answer)? {
        0 => Ok(()),
        n if answer[0] == b'E' => Err(Error::decode(&answer[1..n])),
        _ => Err(Error::new("the container's process ended before it was started")),
    }
}

/// Runs the hooks. Failures are reported and change nothing (runtime.md#lifecycle).
pub fn poststart(container: &Container, hooks: Option<&oci_spec::runtime::Hooks>) -> Result<()> {
    let hooks = crate::plan::Hooks::new(hooks)?;
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    // It runs: from here on another verb may change it, such as one that a hook calls.
    if container.entry.is_locked() {
        container.entry.unlock()?;
    }
    let state = status::state_json(&container.record, container.record.pid, Status::Running)?;
    for error in apply::hooks::run_all(&hooks.poststart, &state) {
        crate::cli::log::warn(&error.to_string());
    }
    Ok(())
}
