//! Undoing: of a create that failed, and of a container that is deleted. Both follow the record, not the memory of
//! whoever made it, so that both can be begun again after a SIGKILL at any instant.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::record::{self, Entry, Id, Record, Root};
use super::status::{self, Container, Status};
use crate::apply;
use crate::cgroup;
use crate::error::{Error, Result};
use crate::plan::Hooks;
use crate::sys::clone::Child;
use crate::sys::process::{self, Exit};

/// Undoes a create unless [`Undo::keep`] was reached.
pub struct Undo<'a> {
    pub record: Record,
    entry: &'a Entry,
    hooks: &'a Hooks,
    pidfd: Option<OwnedFd>,
    exit: Option<Exit>,
    /// The child has said a word, and so has lived.
    pub spoken: bool,
    /// Network devices that the child was given.
    pub moved: Option<apply::network::Moved>,
    kept: bool,
}

impl<'a> Undo<'a> {
    /// Writes the intent. From here on a SIGKILL leaves something that `delete -f` finds.
    pub fn new(record: Record, entry: &'a Entry, hooks: &'a Hooks) -> Result<Self> {
        entry.write(&record)?;
        Ok(Self { record, entry, hooks, pidfd: None, exit: None, spoken: false, moved: None, kept: false })
    }

    /// Remembers the process, which may have entered itself in the record ([`Undo::see_oneself`]).
    pub fn child(&mut self, child: &Child) -> Result<()> {
        self.exit = None;
        self.pidfd =
            Some(child.pidfd.try_clone().map_err(|e| Error::call("dup", e.raw_os_error().unwrap_or(0)))?);
        match self.record.pid == child.pid {
            true => Ok(()),
            false => self.identify(child.pid, child.pidfd.as_fd()),
        }
    }

    /// The child, which shares this memory but not these descriptors, enters itself: `pid` is its number here.
    pub fn see_oneself(&mut self, pid: i32) -> Result<()> {
        match process::pidfd_open(process::pid())? {
            Some(own) => self.identify(pid, own.as_fd()),
            None => Err(Error::new("a process cannot find itself")),
        }
    }

    fn identify(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.record.identity = record::identity(pid, pidfd)?.unwrap_or(0);
        self.record.pid = pid;
        Ok(())
    }

    /// A child that borrowed this memory has done all that was to be done, itself.
    pub fn is_created(&self) -> bool {
        self.record.phase == record::Phase::Created
    }

    /// Everything is made; the program may run.
    pub fn created(&mut self) -> Result<()> {
        self.record.phase = record::Phase::Created;
        self.entry.write(&self.record)
    }

    /// The cgroup that was announced is somebody else's: it is not undone.
    pub fn disown_cgroup(&mut self) -> Result<()> {
        self.record.cgroup = cgroup::Traces::default();
        self.entry.write(&self.record)
    }

    /// Hooks are about to run: written down first, since poststop hooks are owed for them.
    pub fn hooks_begin(&mut self) -> Result<()> {
        self.record.hooks_begun = true;
        self.entry.write(&self.record)
    }

    /// Why a child that said nothing is dead.
    pub fn obituary(&mut self) -> Error {
        match self.exit(true) {
            Some(Exit::Signal(libc::SIGKILL)) if cgroup::oom_kills(&self.record.cgroup) > 0 => {
                Error::new("container init was OOM-killed (memory limit too low?)")
                    .next("raise /linux/resources/memory/limit")
            }
            Some(Exit::Signal(signal)) => Error::new(format!("container init was killed by signal {signal}")),
            Some(Exit::Code(code)) => {
                Error::new(format!("container init ended with {code} and said nothing"))
            }
            None => Error::new("container init is gone"),
        }
    }

    /// How the child ended; asked of the kernel once, since that reaps it.
    fn exit(&mut self, block: bool) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = self.pidfd.as_ref().and_then(|fd| process::wait(fd.as_fd(), block).ok().flatten());
        }
        self.exit
    }

    /// The child was killed before its first word, and not for want of memory.
    pub fn killed_at_birth(&mut self) -> bool {
        // Its silence is heard a moment before its end is seen.
        const A_MOMENT: i32 = 200;
        if let (None, false, Some(pidfd)) = (self.exit, self.spoken, &self.pidfd) {
            let _ = crate::sys::fd::poll(&[(pidfd.as_fd(), libc::POLLIN)], A_MOMENT);
        }
        !self.spoken
            && self.exit(false) == Some(Exit::Signal(libc::SIGKILL))
            && cgroup::oom_kills(&self.record.cgroup) == 0
    }

    /// The container is made: nothing is undone any more.
    pub fn keep(mut self) -> Record {
        self.kept = true;
        if let Some(moved) = self.moved.take() {
            moved.keep();
        }
        self.record.clone()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(pidfd) = &self.pidfd {
            let _ = process::pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(pidfd.as_fd(), true);
        }
        // What cannot be undone stays in the record, for `delete -f`.
        if cgroup::kill(&self.record.cgroup).is_err() || cgroup::remove(&self.record.cgroup).is_err() {
            return;
        }
        if self.record.rdt.as_ref().is_some_and(|rdt| apply::rdt::remove(rdt).is_err()) {
            return;
        }
        if self.record.hooks_begun {
            poststop(self.hooks, &self.record);
        }
        let _ = self.entry.erase();
    }
}

fn poststop(hooks: &Hooks, record: &Record) {
    if hooks.poststop.is_empty() {
        return;
    }
    if let Ok(state) = status::state_json(record, 0, Status::Stopped) {
        for error in apply::hooks::run_all(&hooks.poststop, &state) {
            crate::cli::log::warn(&error.to_string());
        }
    }
}

/// How long `delete` waits for whoever holds the container.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// The same by force, which then kills what the record names. Whoever is alive and well needs a few milliseconds; it is
/// mostly the child of a runtime that was killed, which holds on until its next word.
const FORCED_PATIENCE: Duration = Duration::from_millis(100);
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Takes the lock. A creator that is stuck is freed of its child by `force`, and then gives up by itself.
pub fn lock_for_delete(entry: &Entry, force: bool) -> Result<()> {
    if entry.lock_within(if force { FORCED_PATIENCE } else { LOCK_PATIENCE })? {
        return Ok(());
    }
    if !force {
        return Err(Error::new("container is being created, started or deleted by another process"));
    }
    if let Some(record) = entry.record()? {
        cgroup::kill(&record.cgroup)?;
    }
    entry.lock(true).map(drop)
}

/// Removes everything that the record names; every step may find its work done already. A SIGKILL in between leaves a
/// stopped container, for which this begins again.
pub fn undo(container: &Container) -> Result<()> {
    if let Some(pidfd) = container.process()? {
        end_process(container, &pidfd)?;
    }
    // Processes that outlive the first one, where the container has no PID namespace, keep the cgroup busy.
    if !cgroup::remove_if_empty(&container.record.cgroup)? {
        cgroup::kill(&container.record.cgroup)?;
        cgroup::remove(&container.record.cgroup)?;
    }
    if let Some(rdt) = &container.record.rdt {
        apply::rdt::remove(rdt)?;
    }
    run_poststop(container);
    container.entry.erase()
}

/// Removes a container as [`undo`] does, for a caller that may neither wait nor run anything. `false`: that would be
/// needed, or somebody holds it; then `delete` is for who can wait, and finds done what was done.
pub fn undo_at_once(root: &Root, id: &Id) -> Result<bool> {
    let Some(entry) = root.try_entry(id)? else { return Ok(false) };
    let record = if entry.lock(false)? { entry.record()? } else { None };
    let Some(record) = record else { return Ok(false) };
    let plain = record.cgroup.places.len() <= 1 && record.cgroup.unit.is_none() && record.rdt.is_none();
    let container = Container { entry, record };
    if !plain || container.record.has_poststop || container.status()? != Status::Stopped {
        return Ok(false);
    }
    if !cgroup::remove_if_empty(&container.record.cgroup)? {
        return Ok(false);
    }
    container.entry.erase().map(|()| true)
}

fn end_process(container: &Container, pidfd: &OwnedFd) -> Result<()> {
    match process::pidfd_kill(pidfd.as_fd(), libc::SIGKILL) {
        Err(e) if e.errno() != libc::ESRCH => return Err(e),
        _ => {}
    }
    cgroup::kill(&container.record.cgroup)?;
    if !crate::sys::fd::poll(&[(pidfd.as_fd(), libc::POLLIN)], KILL_PATIENCE.as_millis() as i32)?[0] {
        return Err(Error::new(format!("process {} of the container does not die", container.record.pid))
            .why("it hangs inside the kernel")
            .next("look at /proc/PID/stack; run delete again later"));
    }
    Ok(())
}

/// What is left of a container whose process its maker has reaped: `run` in the foreground ends with it.
pub fn finish(container: &mut Container) -> Result<()> {
    lock_for_delete(&container.entry, true)?;
    if container.entry.is_mine()? {
        container.record.pid = 0;
        return undo(container);
    }
    // Somebody else has deleted it meanwhile, or given it more cgroups.
    match container.entry.record()? {
        None => Ok(()),
        Some(record) => {
            container.record = Record { pid: 0, ..record };
            undo(container)
        }
    }
}

/// The hooks stand in the config as it was at create; that there are none, the record knows.
fn run_poststop(container: &Container) {
    if !container.record.has_poststop {
        return;
    }
    let Ok(raw) = container.entry.config() else { return };
    let Ok((spec, _)) = crate::bundle::parse::<oci_spec::runtime::Spec>(&raw) else { return };
    if let Ok(hooks) = Hooks::new(spec.hooks().as_ref()) {
        poststop(&hooks, &container.record);
    }
}
