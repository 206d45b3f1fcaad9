//! Which namespaces are made, which are joined, and what stays the host's.

use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Error, Result};

/// A kind of namespace, in the order in which they are joined: the user namespace first, since it owns the others,
/// the mount namespace last, since paths change their meaning with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    User,
    Ipc,
    Uts,
    Network,
    Pid,
    Cgroup,
    Time,
    Mount,
}

impl Kind {
    pub const ALL: [Kind; 8] =
        [Kind::User, Kind::Ipc, Kind::Uts, Kind::Network, Kind::Pid, Kind::Cgroup, Kind::Time, Kind::Mount];

    /// CLONE_NEW*.
    pub fn flag(self) -> i32 {
        match self {
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => 0x80,
            Kind::Mount => libc::CLONE_NEWNS,
        }
    }

    /// The file name below /proc/PID/ns.
    pub fn file(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Network => "net",
            Kind::Pid => "pid",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
            Kind::Mount => "mnt",
        }
    }
}

/// The specification's name for the kind.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Network => "network",
            Kind::Mount => "mount",
            other => other.file(),
        })
    }
}

#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    pub new: Vec<Kind>,
    pub join: Vec<(Kind, PathBuf)>,
    /// Seconds and nanoseconds per clock name, as /proc/PID/timens_offsets takes them.
    pub time_offsets: Vec<(String, i64, u32)>,
}

impl Namespaces {
    pub fn new(linux: &Linux) -> Result<Self> {
        let mut all = Self::default();
        for (i, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let at = format!("/linux/namespaces/{i}");
            let kind = match namespace.typ() {
                LinuxNamespaceType::User => Kind::User,
                LinuxNamespaceType::Ipc => Kind::Ipc,
                LinuxNamespaceType::Uts => Kind::Uts,
                LinuxNamespaceType::Network => Kind::Network,
                LinuxNamespaceType::Pid => Kind::Pid,
                LinuxNamespaceType::Cgroup => Kind::Cgroup,
                LinuxNamespaceType::Time => Kind::Time,
                LinuxNamespaceType::Mount => Kind::Mount,
            };
            if all.has(kind) {
                return Err(Error::new(format!(
                    "{at}: duplicated ns {kind:?}: the {kind} namespace is listed twice"
                )));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(Error::new(format!("{at}/path: {} is not absolute", path.display())));
                    }
                    all.join.push((kind, path.clone()));
                }
                _ => all.new.push(kind),
            }
        }
        all.new.sort();
        all.join.sort();
        all.time_offsets = time_offsets(linux, &all)?;
        Ok(all)
    }

    /// The container has a namespace of this kind that is not the host's.
    pub fn has(&self, kind: Kind) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    pub fn makes(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    pub fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(k, _)| *k == kind)
    }

    /// The kinds that are not the host's, as flags for setns(2) with a pidfd.
    pub fn flags(&self) -> i32 {
        Kind::ALL.into_iter().filter(|kind| self.has(*kind)).map(Kind::flag).sum()
    }
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, i64, u32)>> {
    let mut offsets = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::new(format!(
                "/linux/timeOffsets/{clock}: the clocks are monotonic and boottime"
            )));
        }
        if !namespaces.makes(Kind::Time) {
            return Err(Error::new("/linux/timeOffsets: time offsets need a new time namespace")
                .next("add {\"type\": \"time\"} to /linux/namespaces"));
        }
        offsets.push((clock.clone(), offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    offsets.sort();
    Ok(offsets)
}
