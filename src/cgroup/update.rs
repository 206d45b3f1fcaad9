//! Other limits for a cgroup that holds processes. All of them are set or none: what was written is taken back when a
//! later one is refused.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use super::{
    PATIENCE, Place, Traces, apply, collect_pids, descend, hierarchy, pids, place, prepare_v1, read,
};
use crate::error::{Error, Result};
use crate::plan::UpdatePlan;
use crate::plan::cgroup::{V1Plan, Write};
use crate::sys;

/// The v1 cgroups that the plan needs and the container does not have: to be written down before [`update`] makes them.
pub fn missing(traces: &Traces, plan: &UpdatePlan) -> Result<Vec<Place>> {
    let known = |v1: &&V1Plan| !traces.places.iter().any(|place| place.mount == v1.mount);
    plan.v1.iter().filter(known).map(|v1| place(&v1.mount, &v1.path)).collect()
}

/// Sets the limits. `made` are those places of `traces` that [`missing`] named: they are made, and the container's
/// processes are moved there, which costs an RCU grace period each.
pub fn update(traces: &Traces, plan: &UpdatePlan, made: &[Place]) -> Result<()> {
    let Some(v2) = traces.places.first() else {
        return if plan.writes.is_empty() && plan.v1.is_empty() {
            Ok(())
        } else {
            Err(Error::new("the container has no cgroup: its limits cannot be updated")
                .why("it was made by a caller without a delegated cgroup"))
        };
    };
    let dir = descend(hierarchy(&v2.mount)?.as_fd(), &v2.path)?;
    let v1 = plan.v1.iter().map(|v1| dir_of(v1, made).map(|dir| (v1, dir))).collect::<Result<Vec<_>>>()?;
    if let Some(limits) = plan.at_least {
        refuse_below_usage(&dir, "memory.current", limits)?;
        v1.iter().try_for_each(|(_, dir)| refuse_below_usage(dir, "memory.usage_in_bytes", limits))?;
    }
    let mut before = Before::default();
    before.write_all(&dir, &plan.writes)?;
    for (v1, dir) in &v1 {
        before.write_all(dir, &v1.writes)?;
    }
    adopt_all(traces, made)?;
    before.done();
    Ok(())
}

/// The cgroup of a v1 hierarchy, made if it is one of `made`.
fn dir_of(plan: &V1Plan, made: &[Place]) -> Result<OwnedFd> {
    if made.iter().any(|place| place.mount == plan.mount) {
        return prepare_v1(plan);
    }
    descend(hierarchy(&plan.mount)?.as_fd(), &plan.path)
}

/// A limit below the usage would be kept by killing. What cannot be read is not compared.
fn refuse_below_usage(dir: &OwnedFd, file: &str, (memory, swap): (i64, i64)) -> Result<()> {
    let usage = read(dir.as_fd(), file).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let Some(usage) = usage else { return Ok(()) };
    for (name, limit) in [("memory+swap", swap), ("memory", memory)] {
        if limit > 0 && limit <= usage {
            return Err(Error::new(format!("rejecting {name} limit {limit} <= usage {usage}"))
                .why("checkBeforeUpdate asks for that"));
        }
    }
    Ok(())
}

/// What the files held before; dropped before [`Before::done`]: they hold it again.
#[derive(Default)]
struct Before<'d> {
    files: Vec<(&'d OwnedFd, String, String)>,
}

impl<'d> Before<'d> {
    /// Some limits bind one another (memory and memsw, quota and burst, shares and idle): one that is refused is tried
    /// again when others of its hierarchy were set.
    fn write_all(&mut self, dir: &'d OwnedFd, writes: &'d [Write]) -> Result<()> {
        let mut waiting: Vec<&Write> = writes.iter().collect();
        while !waiting.is_empty() {
            let mut refused = Vec::new();
            let mut first = None;
            for limit in &waiting {
                match self.write(dir, limit) {
                    Err(e) if e.errno() == libc::EINVAL => {
                        refused.push(*limit);
                        first.get_or_insert(e);
                    }
                    other => other?,
                }
            }
            match first {
                Some(e) if refused.len() == waiting.len() => return Err(e),
                _ => waiting = refused,
            }
        }
        Ok(())
    }

    fn write(&mut self, dir: &'d OwnedFd, limit: &Write) -> Result<()> {
        let names = [Some(&limit.file), limit.otherwise.as_ref().map(|(file, _)| file)];
        let old = names.into_iter().flatten().find_map(|name| Some((name, read(dir.as_fd(), name).ok()?)));
        apply(dir.as_fd(), limit).map_err(|e| too_much_in_use(dir.as_fd(), limit, e))?;
        if let Some((name, text)) = old {
            self.files.push((dir, name.clone(), text));
        }
        Ok(())
    }

    fn done(mut self) {
        self.files.clear();
    }
}

impl Drop for Before<'_> {
    fn drop(&mut self) {
        for (dir, file, text) in self.files.drain(..).rev() {
            if let Err(e) = super::write(dir.as_fd(), &file, &text) {
                crate::cli::log::warn(&format!("{file} stays changed: {e}"));
            }
        }
    }
}

/// v1 does not lower a limit below what is in use.
fn too_much_in_use(dir: BorrowedFd<'_>, limit: &Write, e: Error) -> Error {
    if e.errno() != libc::EBUSY || limit.file != "memory.limit_in_bytes" {
        return e;
    }
    let number = |file: &str| read(dir, file).unwrap_or_default().trim().to_owned();
    Error::new(format!(
        "{}: unable to set memory limit to {} (current usage: {}, peak usage: {})",
        limit.at,
        limit.value,
        number("memory.usage_in_bytes"),
        number("memory.max_usage_in_bytes")
    ))
}

/// Moves every process of the container into the cgroups that [`update`] made.
pub fn adopt_all(traces: &Traces, made: &[Place]) -> Result<()> {
    for place in made {
        let moved =
            descend(hierarchy(&place.mount)?.as_fd(), &place.path).and_then(|dir| adopt(traces, dir.as_fd()));
        moved.map_err(|e| {
            e.context(format_args!("moving into {} below {}", place.path.display(), place.mount.display()))
        })?;
    }
    Ok(())
}

/// Moves every process of the container into `dir`. Children of those who are there already are born there, so this
/// comes to an end.
fn adopt(traces: &Traces, dir: BorrowedFd<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut inside = Vec::new();
        collect_pids(dir, &mut inside)?;
        let inside: HashSet<i32> = inside.into_iter().collect();
        let outside: Vec<i32> = pids(traces)?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("{} processes stay outside after {PATIENCE:?}", outside.len())));
        }
        for pid in outside {
            match super::write(dir, "cgroup.procs", &pid.to_string()) {
                // It has ended meanwhile.
                Err(e) if e.errno() == libc::ESRCH => {}
                other => other?,
            }
        }
    }
}

/// Takes back what [`update`] made when it failed. Processes go back to the cgroup above before.
pub fn remove(made: &[Place]) -> Result<()> {
    for place in made {
        let root = hierarchy(&place.mount)?;
        if let Ok(dir) = descend(root.as_fd(), &place.path) {
            let mut inside = Vec::new();
            collect_pids(dir.as_fd(), &mut inside)?;
            let above = match place.path.parent().filter(|path| !path.as_os_str().is_empty()) {
                Some(path) => descend(root.as_fd(), path)?,
                None => sys::path::openat(root.as_fd(), Path::new("."), libc::O_PATH | libc::O_DIRECTORY, 0)?,
            };
            for pid in inside {
                let _ = super::write(above.as_fd(), "cgroup.procs", &pid.to_string());
            }
        }
    }
    super::remove(&Traces { places: made.to_vec(), unit: None })
}
