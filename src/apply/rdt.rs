//! Groups of resctrl: made, written, entered, removed. What is removed is what the record names.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::rdt::{RdtPlan, agrees};
use crate::sys::{fd, path};

/// What the container has of resctrl: where processes enter, and what is to be removed with it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Traces {
    pub mount: PathBuf,
    /// Directories below the mount whose `tasks` a process of the container is written to.
    pub groups: Vec<PathBuf>,
    /// Those of them that are the container's own.
    pub own: Vec<PathBuf>,
}

/// What making the groups will touch. What is there already is somebody else's, whom an undoing would rob.
pub fn traces(plan: &RdtPlan) -> Result<Traces> {
    let group = PathBuf::from(&plan.group);
    let monitoring = plan.monitoring.as_ref().map(|id| group.join("mon_groups").join(id));
    let own: Vec<PathBuf> = monitoring.iter().cloned().chain(plan.own.then(|| group.clone())).collect();
    for group in &own {
        match open(&plan.mount, group) {
            Err(e) if e.errno() == libc::ENOENT => {}
            Ok(_) => {
                return Err(Error::new(format!(
                    "/linux/intelRdt: the group {} exists already",
                    group.display()
                ))
                .next("choose another container ID, or remove the group"));
            }
            Err(e) => return Err(e.context("/linux/intelRdt")),
        }
    }
    Ok(Traces { mount: plan.mount.clone(), groups: [group].into_iter().chain(monitoring).collect(), own })
}

fn open(mount: &Path, dir: &Path) -> Result<OwnedFd> {
    let root = path::open(mount, libc::O_PATH | libc::O_DIRECTORY)?;
    if dir.as_os_str().is_empty() {
        return Ok(root);
    }
    let resolve = path::RESOLVE_BENEATH | path::RESOLVE_NO_SYMLINKS | path::RESOLVE_NO_XDEV;
    path::openat2(root.as_fd(), dir, libc::O_PATH | libc::O_DIRECTORY, 0, resolve)
}

/// Makes the groups and writes their schemata (config-linux.md#intelrdt has the rules).
pub fn make(plan: &RdtPlan) -> Result<()> {
    make_class(plan).map_err(|e| e.context("/linux/intelRdt"))?;
    let Some(id) = &plan.monitoring else { return Ok(()) };
    let groups = open(&plan.mount, &Path::new(&plan.group).join("mon_groups"));
    groups
        .and_then(|dir| path::mkdirat(dir.as_fd(), Path::new(id), 0o755))
        .map_err(|e| e.context("/linux/intelRdt/enableMonitoring"))
}

fn make_class(plan: &RdtPlan) -> Result<()> {
    let group = Path::new(&plan.group);
    let dir = match open(&plan.mount, group) {
        Ok(dir) => return compare(plan, &dir),
        Err(e) if e.errno() != libc::ENOENT => return Err(e),
        Err(_) if !plan.own && plan.schemata.is_empty() => {
            return Err(Error::new(format!("the class of service {:?} does not exist", plan.group))
                .next("make it, or give schemata for a new one"));
        }
        Err(_) => {
            let root = open(&plan.mount, Path::new(""))?;
            path::mkdirat(root.as_fd(), group, 0o755).map_err(|e| match e.errno() {
                libc::ENOSPC => e.why("the CPU has no class of service left"),
                _ => e,
            })?;
            open(&plan.mount, group)?
        }
    };
    if plan.schemata.is_empty() {
        return Ok(());
    }
    let file = path::openat(dir.as_fd(), Path::new("schemata"), libc::O_WRONLY, 0)?;
    fd::write_all(file.as_fd(), format!("{}\n", plan.schemata.join("\n")).as_bytes())
        .map_err(|e| e.why("info/last_cmd_status of resctrl says more"))
}

/// A class that exists is somebody's: it is used, and must be what the config says.
fn compare(plan: &RdtPlan, dir: &OwnedFd) -> Result<()> {
    if plan.schemata.is_empty() {
        return Ok(());
    }
    let file = path::openat(dir.as_fd(), Path::new("schemata"), libc::O_RDONLY, 0)?;
    let text = String::from_utf8_lossy(&fd::read_to_end(file.as_fd(), 1 << 20)?).into_owned();
    match plan.schemata.iter().find(|line| !agrees(line, &text)) {
        Some(line) => Err(Error::new(format!("the class of service {:?} has other schemata", plan.group))
            .why(format!("the config asks for {line:?}, and it has {:?}", text.trim()))),
        None => Ok(()),
    }
}

/// Moves a process into the groups; what it forks is born there.
pub fn enter(traces: &Traces, pid: i32) -> Result<()> {
    for group in &traces.groups {
        let dir = open(&traces.mount, group)?;
        let tasks = path::openat(dir.as_fd(), Path::new("tasks"), libc::O_WRONLY, 0)?;
        fd::write_all(tasks.as_fd(), pid.to_string().as_bytes()).map_err(|e| e.context("/linux/intelRdt"))?;
    }
    Ok(())
}

/// Removes the container's own groups; what is gone already is no error.
pub fn remove(traces: &Traces) -> Result<()> {
    for group in &traces.own {
        let above = match open(&traces.mount, group.parent().unwrap_or(Path::new(""))) {
            Err(e) if e.errno() == libc::ENOENT => continue,
            other => other?,
        };
        let name = Path::new(group.file_name().unwrap_or_default());
        match path::unlinkat(above.as_fd(), name, libc::AT_REMOVEDIR) {
            Err(e) if e.errno() == libc::ENOENT => {}
            other => other.map_err(|e| e.context("removing the group of resctrl"))?,
        }
    }
    Ok(())
}
