//! update: other limits for a container that lives. What the last update left is in the record; where there was none,
//! the config's own limits count.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Spec};

use super::record::{Id, Root};
use super::status::{Container, Status};
use crate::bundle;
use crate::cgroup;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::UpdatePlan;
use crate::sys::path;

/// How long somebody else may be at work on the container.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Changes the limits that `change` names, all of them or none.
pub fn update(root: &Root, id: &Id, change: &LinuxResources) -> Result<()> {
    refuse_stopped(&Container::load(root, id)?)?;
    let entry = root.entry(id)?;
    if !entry.lock_within(LOCK_PATIENCE)? {
        return Err(Error::new("container is being started, updated or deleted by another process")
            .next("try again when that is over"));
    }
    // What was read before the lock may have changed.
    let record = entry.record()?.ok_or_else(|| Error::new("container does not exist"))?;
    let mut container = Container { entry, record };
    refuse_stopped(&container)?;
    let now = current(&container)?;
    let nowhere = (Path::new("/"), Path::new(""));
    let place = container.record.cgroup.places.first().map_or(nowhere, |place| (&place.mount, &place.path));
    let plan = UpdatePlan::new(&now, change, place, &Host::controllers()?)?;
    for name in &plan.passed_over {
        crate::cli::log::debug(&format!("{name}: not changed by update"));
    }
    apply(&mut container, &plan)?;
    if let Some(unit) = &container.record.cgroup.unit {
        // systemd writes what it believes whenever it reloads: it has to believe the same.
        let properties = crate::plan::unit::properties_of(&plan.writes);
        cgroup::systemd::set(unit, &properties)
            .map_err(|e| e.context("the limits are set, but not told to systemd, which may undo them"))?;
    }
    container.record.resources = Some(Box::new(plan.resources));
    container.entry.replace(&container.record)
}

fn refuse_stopped(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => Ok(()),
        Status::Creating | Status::Stopped => Err(Error::new("container not running")),
    }
}

fn current(container: &Container) -> Result<LinuxResources> {
    if let Some(resources) = &container.record.resources {
        return Ok(resources.as_ref().clone());
    }
    let (spec, _) = bundle::parse::<Spec>(&container.entry.config()?)?;
    Ok(spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default())
}

/// A limit of a v1 hierarchy in which the container has no cgroup yet makes one: it is recorded first, so that `delete`
/// removes it whatever happens here.
fn apply(container: &mut Container, plan: &UpdatePlan) -> Result<()> {
    let made = cgroup::update::missing(&container.record.cgroup, plan)?;
    if made.is_empty() || container.record.cgroup.places.is_empty() {
        return cgroup::update::update(&container.record.cgroup, plan, &[]);
    }
    let before = container.record.clone();
    container.record.cgroup.places.extend(made.iter().cloned());
    container.entry.replace(&container.record)?;
    let done = cgroup::update::update(&container.record.cgroup, plan, &made);
    if done.is_err() && cgroup::update::remove(&made).is_ok() {
        container.entry.replace(&before)?;
        container.record = before;
    }
    done?;
    wait_for_execs(container.record.id.as_str())?;
    cgroup::update::adopt_all(&container.record.cgroup, &made)
}

/// An exec that read the record before the new cgroup stood in it lets its process be born outside of it. It has no
/// lock, which every exec would pay for: so the few that have no child yet are waited for, if not for ever.
fn wait_for_execs(id: &str) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    let mut waiting = execs(id)?;
    loop {
        waiting.retain(|pid| has_no_child(*pid));
        if waiting.is_empty() || Instant::now() > deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The processes that were called as `... exec ... ID ...`.
fn execs(id: &str) -> Result<Vec<i32>> {
    let proc = path::open(Path::new("/proc"), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let pids = path::list(proc.as_fd())?.into_iter().filter_map(|name| name.to_str()?.parse::<i32>().ok());
    let is_exec = |pid: &i32| {
        let line = crate::host::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.any(|word| word == "exec") && words.any(|word| word == id)
    };
    Ok(pids.filter(is_exec).collect())
}

fn has_no_child(pid: i32) -> bool {
    crate::host::read(format!("/proc/{pid}/task/{pid}/children")).is_ok_and(|children| children.is_empty())
}
