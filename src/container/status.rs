//! Status is observed, never stored: the record names a process, the kernel says what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde::Serialize;

use super::record::{self, Entry, Id, Phase, Record, Root, START};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::sys::{fd, path, process};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    pub entry: Entry,
    pub record: Record,
}

impl Container {
    pub fn load(root: &Root, id: &Id) -> Result<Self> {
        let entry = root.entry(id)?;
        match entry.record()? {
            Some(record) => Ok(Self { entry, record }),
            None => {
                Err(Error::new("container does not exist")
                    .why("it is being created, or its creation was killed"))
            }
        }
    }

    /// The first process, if it lives: the same process in the same boot, and no zombie.
    pub fn process(&self) -> Result<Option<OwnedFd>> {
        if self.record.pid == 0 || self.record.boot_id != record::boot_id()? {
            return Ok(None);
        }
        let Some(pidfd) = process::pidfd_open(self.record.pid)? else { return Ok(None) };
        // Looked at through the descriptor: the number cannot have changed its owner in between unnoticed. A zombie is
        // readable, and as good as gone.
        let same = record::identity(self.record.pid, pidfd.as_fd())? == Some(self.record.identity);
        let ended = fd::poll(&[(pidfd.as_fd(), libc::POLLIN)], 0)?[0];
        Ok((same && !ended).then_some(pidfd))
    }

    pub fn status(&self) -> Result<Status> {
        if self.record.phase == Phase::Creating {
            // Whoever makes it holds the lock; nobody does any more after a SIGKILL.
            if self.entry.is_locked() {
                return Ok(Status::Stopped);
            }
            let shared = libc::LOCK_SH | libc::LOCK_NB;
            let file = path::openat(self.entry.dir(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            return Ok(if fd::flock(file.as_fd(), shared)? { Status::Stopped } else { Status::Creating });
        }
        if self.process()?.is_none() {
            return Ok(Status::Stopped);
        }
        if cgroup::is_frozen(&self.record.cgroup)? {
            return Ok(Status::Paused);
        }
        Ok(if self.waits_for_start()? { Status::Created } else { Status::Running })
    }

    /// The created process holds a lock on the barrier, which execve lets go.
    fn waits_for_start(&self) -> Result<bool> {
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        match path::openat(self.entry.dir(), Path::new(START), flags, 0) {
            Ok(fifo) => Ok(!fd::flock(fifo.as_fd(), libc::LOCK_SH | libc::LOCK_NB)?),
            // `run` needs no barrier.
            Err(e) if e.errno() == libc::ENOENT => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The kernel killed a process of it for want of memory; false where that cannot be known.
    pub fn was_out_of_memory(&self) -> bool {
        crate::cgroup::oom_kills(&self.record.cgroup) > 0
    }

    pub fn state(&self) -> Result<State<'_>> {
        let status = self.status()?;
        let alive = !matches!(status, Status::Stopped);
        Ok(state(&self.record, if alive { self.record.pid } else { 0 }, status))
    }
}

/// What `state` prints: the specification's object with runc's additions, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'a str, &'a str>,
    pub owner: String,
}

fn state(record: &Record, pid: i32, status: Status) -> State<'_> {
    State {
        oci_version: &record.oci_version,
        id: &record.id,
        pid,
        status: status.to_string(),
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: record.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        owner: owner_name(record.owner),
    }
}

/// The user's name on this host, or the number.
fn owner_name(uid: u32) -> String {
    let passwd = crate::host::read("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}

/// The specification's state (runtime.md#state), for hooks and agents.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpecState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: String,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(format!("writing the state: {e}")))
}

fn spec_state(record: &Record, pid: i32, status: Status) -> SpecState<'_> {
    SpecState {
        oci_version: &record.oci_version,
        id: &record.id,
        status: status.to_string(),
        pid,
        bundle: &record.bundle,
        annotations: record.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    }
}

/// The state as hooks of the runtime namespace get it on stdin.
pub fn state_json(record: &Record, pid: i32, status: Status) -> Result<Vec<u8>> {
    json(&spec_state(record, pid, status))
}

/// The state as hooks inside get it: the same, from the child, which has no record.
pub fn plan_state_json(plan: &Plan, pid: i32, status: Status) -> Result<Vec<u8>> {
    json(&SpecState {
        oci_version: &plan.oci_version,
        id: &plan.id,
        status: status.to_string(),
        pid,
        bundle: &plan.bundle,
        annotations: plan.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    })
}

/// What a seccomp agent gets beside the listener (config-linux.md#containerprocessstate).
pub fn agent_message(record: &Record, pid: i32, status: Status, metadata: &str) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ContainerProcessState<'a> {
        oci_version: &'a str,
        fds: [&'static str; 1],
        pid: i32,
        #[serde(skip_serializing_if = "str::is_empty")]
        metadata: &'a str,
        state: SpecState<'a>,
    }
    json(&ContainerProcessState {
        oci_version: &record.oci_version,
        fds: ["seccompFd"],
        pid,
        metadata,
        state: spec_state(record, record.pid, status),
    })
}
