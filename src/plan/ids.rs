//! User and group ids: the maps of a new user namespace.

use oci_spec::runtime::{Linux, LinuxIdMapping};

use super::namespaces::{Kind, Namespaces};
use crate::error::{Error, Result};
use crate::host::Host;

/// The maps, empty without a user namespace.
#[derive(Debug, Clone, Default)]
pub struct IdMaps {
    pub uid: Vec<Range>,
    pub gid: Vec<Range>,
    /// The caller has no right to write these maps itself: newuidmap(1) does, or a single id and no setgroups(2).
    pub unprivileged: bool,
}

/// `size` ids from `container` on are `size` ids from `host` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

impl IdMaps {
    pub fn new(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<Self> {
        let uid = ranges(linux.uid_mappings(), "/linux/uidMappings")?;
        let gid = ranges(linux.gid_mappings(), "/linux/gidMappings")?;
        if !namespaces.has(Kind::User) {
            if !uid.is_empty() || !gid.is_empty() {
                return Err(Error::new(
                    "user namespace mappings specified, but user namespace isn't enabled in the config",
                )
                .next(
                    "add {\"type\": \"user\"} to /linux/namespaces, or remove uidMappings and gidMappings",
                ));
            }
            if host.euid != 0 {
                return Err(Error::new("rootless container requires user namespaces").next(
                    "add {\"type\": \"user\"} with mappings to the config; `spec --rootless` prints one",
                ));
            }
            return Ok(Self::default());
        }
        if namespaces.makes(Kind::User) && (uid.is_empty() || gid.is_empty()) {
            return Err(Error::new(
                "/linux/uidMappings, /linux/gidMappings: a new user namespace needs both",
            )
            .why("without mappings no user exists inside")
            .next("see config-linux.md#user-namespace-mappings"));
        }
        let maps = Self { uid, gid, unprivileged: host.euid != 0 };
        if host.euid != 0 && namespaces.makes(Kind::User) {
            let own = |list: &[Range], id: u32| list.iter().any(|r| id >= r.host && id - r.host < r.size);
            if !own(&maps.uid, host.euid) && maps.uid.len() == 1 && maps.uid[0].size == 1 {
                return Err(Error::new(format!(
                    "/linux/uidMappings: your own id {} is not mapped",
                    host.euid
                )));
            }
        }
        Ok(maps)
    }

    /// The host's id for an id inside; without maps they are the same.
    pub fn host_uid(&self, id: u32) -> Option<u32> {
        translate(&self.uid, id)
    }

    pub fn host_gid(&self, id: u32) -> Option<u32> {
        translate(&self.gid, id)
    }

    /// A map of a single id that the unprivileged caller may write itself, once setgroups is denied.
    pub fn single(&self, host: (u32, u32)) -> bool {
        let is = |list: &[Range], id: u32| matches!(list, [r] if r.size == 1 && r.host == id);
        is(&self.uid, host.0) && is(&self.gid, host.1)
    }
}

fn translate(list: &[Range], id: u32) -> Option<u32> {
    if list.is_empty() {
        return Some(id);
    }
    list.iter().find(|r| id >= r.container && id - r.container < r.size).map(|r| r.host + (id - r.container))
}

/// The maps of an idmapped mount: checked like those of the container.
pub fn mount_ranges(list: &Option<Vec<LinuxIdMapping>>, at: &str) -> Result<Vec<Range>> {
    ranges(list, at)
}

fn ranges(list: &Option<Vec<LinuxIdMapping>>, at: &str) -> Result<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    for (i, map) in list.iter().flatten().enumerate() {
        let range = Range { container: map.container_id(), host: map.host_id(), size: map.size() };
        let end = |start: u32| start.checked_add(range.size.max(1) - 1).filter(|end| *end < u32::MAX);
        if range.size == 0 || end(range.container).is_none() || end(range.host).is_none() {
            return Err(Error::new(format!("{at}/{i}: {} ids do not fit there", range.size)));
        }
        let overlaps =
            |a: u32, an: u32, b: u32, bn: u32| a < b.saturating_add(bn) && b < a.saturating_add(an);
        if ranges.iter().any(|r| {
            overlaps(r.container, r.size, range.container, range.size)
                || overlaps(r.host, r.size, range.host, range.size)
        }) {
            return Err(Error::new(format!("{at}/{i}: overlaps with an earlier mapping")));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// The text that /proc/PID/uid_map takes (user_namespaces(7)).
pub fn map_text(list: &[Range]) -> String {
    list.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
}
