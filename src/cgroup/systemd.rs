//! The systemd cgroup driver: units made, changed and stopped over D-Bus. What a unit is to be stands in its plan.
//!
//! The unit is written into the record before systemd is asked for it, and its processes are killed through its cgroup
//! before systemd is asked to stop it: so whoever is killed in between leaves something that `delete -f` ends.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::dbus::{Call, Connection, Message, Refusal};
use crate::error::{Error, Result};
use crate::host::{self, Systemd};
use crate::plan::gvariant::Value;
use crate::plan::unit::UnitPlan;
use crate::sys;

/// How long systemd may take to make or stop a unit.
const PATIENCE: Duration = Duration::from_secs(30);
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// What must be remembered of a unit to end it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub user: bool,
}

/// Why a unit could not be made.
pub enum Failure {
    /// A unit of that name is somebody else's: it must not be undone.
    Taken(Error),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

/// A connection to a service manager.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
    /// There is a bus between us and systemd.
    bus: bool,
}

/// The systemd that is to make the cgroups of this caller, or runc's words if there is none.
pub fn find() -> Result<Systemd> {
    let running = Path::new("/run/systemd/system");
    let Ok(dir) = sys::path::open(running, libc::O_PATH | libc::O_DIRECTORY) else {
        return Err(Error::new("systemd not running on this host, cannot use systemd cgroups manager")
            .next("leave --systemd-cgroup out; engines call it the cgroup driver or manager: cgroupfs"));
    };
    if let (_, true) | (None, _) = host::find_cgroup2() {
        return Err(Error::new("--systemd-cgroup: this host has cgroup v1 hierarchies")
            .why("the systemd driver works on cgroup v2 alone")
            .next("leave the flag out, or boot with systemd.unified_cgroup_hierarchy=1"));
    }
    // Root of a user namespace is a user outside of it, unless systemd itself runs inside.
    let owner = sys::path::stat(dir.as_fd(), Path::new(""))?.st_uid;
    let user = host::is_rootless() && owner != sys::cred::euid();
    let cgroup = Manager::connect(user)?.cgroup()?;
    Ok(Systemd { user, cgroup })
}

impl Manager {
    pub fn connect(user: bool) -> Result<Self> {
        let mut tried = None;
        for (path, bus) in addresses(user) {
            match Self::open(&path, bus) {
                Ok(manager) => return Ok(manager),
                Err(e) => tried = tried.or(Some(e)),
            }
        }
        let whose = if user { "the user's systemd" } else { "systemd" };
        let e = tried
            .unwrap_or_else(|| Error::new("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"));
        let e = e.context(format_args!("connecting to {whose}"));
        Err(if user {
            e.next("log in through systemd (loginctl enable-linger USER), or leave --systemd-cgroup out")
        } else {
            e.next("is dbus running? systemctl status dbus")
        })
    }

    fn open(path: &Path, bus: bool) -> Result<Self> {
        let mut manager = Self { connection: Connection::open(path)?, bus };
        if bus {
            manager.ask_bus("Hello", &[])?;
        }
        Ok(manager)
    }

    fn ask_bus(&mut self, member: &str, arguments: &[Value]) -> Result<Message> {
        let destination = "org.freedesktop.DBus";
        let call = Call { destination, path: "/org/freedesktop/DBus", interface: destination, member };
        self.connection.call(&call, arguments)?.map_err(|refusal| refused(member, "", refusal))
    }

    /// Calls a method of systemd's manager object.
    fn ask(
        &mut self,
        interface: &str,
        member: &str,
        arguments: &[Value],
    ) -> Result<std::result::Result<Message, Refusal>> {
        let destination = if self.bus { "org.freedesktop.systemd1" } else { "" };
        let call = Call { destination, path: "/org/freedesktop/systemd1", interface, member };
        self.connection.call(&call, arguments)
    }

    /// The manager's own cgroup: empty for the first of a machine.
    fn cgroup(&mut self) -> Result<PathBuf> {
        let arguments = [Value::text(MANAGER), Value::text("ControlGroup")];
        let answer = self
            .ask("org.freedesktop.DBus.Properties", "Get", &arguments)?
            .map_err(|refusal| refused("Get", "ControlGroup", refusal))?;
        let mut reader = answer.reader();
        let cgroup = reader.signature().filter(|signature| signature == "s").and_then(|_| reader.text());
        cgroup.map(PathBuf::from).ok_or_else(|| Error::new("systemd does not say where its cgroup is"))
    }

    fn listen_for_jobs(&mut self) -> Result<()> {
        if self.bus {
            let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
            self.ask_bus("AddMatch", &[Value::Text(rule)])?;
        }
        Ok(())
    }

    /// Makes the unit with a process in it, and waits until it is so.
    pub fn start(&mut self, unit: &UnitPlan, pid: i32) -> std::result::Result<(), Failure> {
        self.listen_for_jobs()?;
        let pids = Value::Array("u".to_owned(), vec![Value::U32(pid.unsigned_abs())]);
        let mut properties = unit.properties.clone();
        properties.push(("PIDs".to_owned(), pids));
        let none = Value::Array("(sa(sv))".to_owned(), Vec::new());
        let arguments = [Value::text(&unit.name), Value::text("fail"), sent(&properties), none];
        let mut answer = self.ask(MANAGER, "StartTransientUnit", &arguments)?;
        if matches!(&answer, Err(refusal) if refusal.name == UNIT_EXISTS) {
            // One that failed, of an earlier container with this name, stays until somebody says that it may go.
            let _ = self.ask(MANAGER, "ResetFailedUnit", &arguments[..1])?;
            answer = self.ask(MANAGER, "StartTransientUnit", &arguments)?;
        }
        match answer {
            Ok(job) => Ok(self.wait_for(&job, &unit.name, "making")?),
            Err(refusal) if refusal.name == UNIT_EXISTS => Err(Failure::Taken(
                refused("StartTransientUnit", &unit.name, refusal)
                    .next("give the container another cgroupsPath, or stop that unit"),
            )),
            Err(refusal) => Err(Failure::Other(refused("StartTransientUnit", &unit.name, refusal))),
        }
    }

    /// Waits until systemd has done a job, whose path is the answer to a call.
    fn wait_for(&mut self, job: &Message, unit: &str, doing: &str) -> Result<()> {
        let job = job.reader().text().ok_or_else(|| Error::new("systemd's answer names no job"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let signal = self
                .connection
                .signal(deadline)
                .map_err(|e| e.context(format_args!("waiting for systemd {doing} unit {unit}")))?;
            if signal.member != "JobRemoved" {
                continue;
            }
            // JobRemoved(u id, o job, s unit, s result)
            let mut reader = signal.reader();
            let (Some(_), Some(path), Some(_), Some(result)) =
                (reader.number(), reader.text(), reader.text(), reader.text())
            else {
                continue;
            };
            if path == job {
                return match result.as_str() {
                    "done" | "skipped" => Ok(()),
                    result => Err(Error::new(format!("{doing} unit {unit}: systemd says {result:?}"))
                        .next(format!("journalctl -u {unit}"))),
                };
            }
        }
    }

    /// Stops a unit whose processes are gone, and makes systemd forget it. One that is gone already is no error.
    fn stop(&mut self, unit: &str) -> Result<()> {
        self.listen_for_jobs()?;
        match self.ask(MANAGER, "StopUnit", &[Value::text(unit), Value::text("replace")])? {
            Ok(job) => self.wait_for(&job, unit, "stopping")?,
            Err(refusal) if refusal.name == NO_SUCH_UNIT => return Ok(()),
            Err(refusal) => return Err(refused("StopUnit", unit, refusal)),
        }
        match self.ask(MANAGER, "ResetFailedUnit", &[Value::text(unit)])? {
            Err(refusal) if refusal.name != NO_SUCH_UNIT => Err(refused("ResetFailedUnit", unit, refusal)),
            _ => Ok(()),
        }
    }
}

/// The sockets at which a manager is to be found, and whether a bus stands before it. systemd's own comes last: not
/// every caller may use it, but it is there without a bus, too.
fn addresses(user: bool) -> Vec<(PathBuf, bool)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (address, directory) = if user {
        (variable("DBUS_SESSION_BUS_ADDRESS"), variable("XDG_RUNTIME_DIR"))
    } else {
        (variable("DBUS_SYSTEM_BUS_ADDRESS"), Some("/run".to_owned()))
    };
    let mut list: Vec<(PathBuf, bool)> = address
        .iter()
        .flat_map(|list| list.split(';'))
        .filter_map(unix_path)
        .map(|path| (path, true))
        .collect();
    if let Some(directory) = directory.map(PathBuf::from) {
        if list.is_empty() {
            list.push((directory.join(if user { "bus" } else { "dbus/system_bus_socket" }), true));
        }
        list.push((directory.join("systemd/private"), false));
    }
    list
}

/// The path in `unix:path=/run/user/1000/bus,guid=...`; `%xx` stands for a byte (D-Bus specification, addresses).
fn unix_path(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix:")?.split(',').find_map(|part| part.strip_prefix("path="))?;
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// Properties as systemd takes them: an array of names with variants.
fn sent(properties: &[(String, Value)]) -> Value {
    let pair = |(name, value): &(String, Value)| {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value.clone()))])
    };
    Value::Array("(sv)".to_owned(), properties.iter().map(pair).collect())
}

fn refused(member: &str, unit: &str, refusal: Refusal) -> Error {
    let error = Error::new(format!("systemd refused {member}({unit}): {}", refusal.text));
    if refusal.text.is_empty() { error.why(refusal.name) } else { error }
}

/// Stops the unit of a container.
pub fn stop(unit: &Unit) -> Result<()> {
    Manager::connect(unit.user)?.stop(&unit.name)
}

/// Changes the properties of a unit that runs, until it ends.
pub fn set(unit: &Unit, properties: &[(String, Value)]) -> Result<()> {
    let arguments = [Value::text(&unit.name), Value::Bool(true), sent(properties)];
    match Manager::connect(unit.user)?.ask(MANAGER, "SetUnitProperties", &arguments)? {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refused("SetUnitProperties", &unit.name, refusal)),
    }
}

/// Moves a process into the unit's cgroup, for a caller who may not: systemd may.
pub fn attach(unit: &Unit, below: &Path, pid: i32) -> Result<()> {
    let below = match below.to_string_lossy() {
        path if path.is_empty() => String::new(),
        path => format!("/{path}"),
    };
    let pids = Value::Array("u".to_owned(), vec![Value::U32(pid.unsigned_abs())]);
    let arguments = [Value::text(&unit.name), Value::Text(below), pids];
    match Manager::connect(unit.user)?.ask(MANAGER, "AttachProcessesToUnit", &arguments)? {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refused("AttachProcessesToUnit", &unit.name, refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_sockets() {
        let path = |address| unix_path(address).map(|path| path.display().to_string());
        assert_eq!(path("unix:path=/run/user/1/bus,guid=0").as_deref(), Some("/run/user/1/bus"));
        assert_eq!(path("unix:guid=0,path=/a%20b").as_deref(), Some("/a b"));
        assert_eq!(path("tcp:host=x"), None);
        assert_eq!(path("unix:path=/a%2"), None);
    }
}
