//! The systemd unit of a container: its name, its place, and its properties, as runc sets them on cgroup v2.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Spec};

use super::cgroup::{CgroupPlan, Write};
use super::devices;
use super::gvariant::Value;
use crate::error::{Error, Result};
use crate::host::{Host, Systemd};

/// A scope that systemd is asked to make.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitPlan {
    pub name: String,
    pub slice: String,
    /// The caller's own systemd makes it, not the system's.
    pub user: bool,
    /// In the order in which they are sent: of two with one name systemd takes the last.
    pub properties: Vec<(String, Value)>,
}

const AT: &str = "/linux/cgroupsPath";

/// `slice:prefix:name` taken apart, with runc's defaults.
struct Parts {
    slice: String,
    prefix: String,
    name: String,
}

impl Parts {
    fn new(id: &str, linux: &Linux, user: bool) -> Result<Self> {
        let asked = linux.cgroups_path().as_deref().map(Path::to_string_lossy).unwrap_or_default();
        let mut parts = Self { slice: String::new(), prefix: "runc".to_owned(), name: id.to_owned() };
        if !asked.is_empty() {
            let [slice, prefix, name] = asked.split(':').collect::<Vec<_>>()[..] else {
                return Err(Error::new(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {asked:?} \
                     instead"
                ))
                .next("change /linux/cgroupsPath, or leave --systemd-cgroup out"));
            };
            parts = Self { slice: slice.to_owned(), prefix: prefix.to_owned(), name: name.to_owned() };
        }
        if parts.slice.is_empty() {
            parts.slice = if user { "user.slice" } else { "system.slice" }.to_owned();
        }
        Ok(parts)
    }

    fn unit(&self) -> Result<String> {
        if self.name.ends_with(".slice") {
            return Err(Error::new(format!(
                "{AT}: {:?} is a slice, which holds no process itself",
                self.name
            ))
            .next("name a scope: slice:prefix:name"));
        }
        let name = format!("{}-{}.scope", self.prefix, self.name);
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if self.name.is_empty() || name.len() > 255 || !name.chars().all(allowed) {
            return Err(Error::new(format!("{AT}: {name:?} is no name of a systemd unit"))
                .why("it has at most 255 characters, each of A-Z a-z 0-9 : - _ . \\ @"));
        }
        Ok(name)
    }
}

/// The path of a slice below its manager's cgroup: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf> {
    let bad = || Error::new(format!("{AT}: invalid slice name: {slice}"));
    let stem = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@".contains(c);
    if slice.len() > 255 || stem.split('-').any(|part| part.is_empty() || !part.chars().all(allowed)) {
        return Err(bad());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

/// Where the container's cgroup will be, relative to the mount.
pub fn path(id: &str, linux: &Linux, systemd: &Systemd) -> Result<PathBuf> {
    let parts = Parts::new(id, linux, systemd.user)?;
    Ok(super::lexical(&systemd.cgroup.join(expand_slice(&parts.slice)?).join(parts.unit()?)))
}

impl UnitPlan {
    /// The unit for a planned cgroup, whose limits become properties where systemd has a word for them.
    pub fn new(
        id: &str,
        spec: &Spec,
        linux: &Linux,
        host: &Host,
        cgroup: &CgroupPlan,
    ) -> Result<Option<Self>> {
        let Some(systemd) = &host.systemd else { return Ok(None) };
        let parts = Parts::new(id, linux, systemd.user)?;
        let mut properties = vec![
            ("Description".to_owned(), Value::Text(format!("libcontainer container {}", parts.name))),
            ("Slice".to_owned(), Value::text(&parts.slice)),
        ];
        let yes = ["Delegate", "MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"];
        properties.extend(yes.map(|name| (name.to_owned(), Value::Bool(true))));
        properties.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
        for (key, value) in spec.annotations().iter().flatten() {
            if let Some(name) = key.strip_prefix("org.systemd.property.") {
                properties.push(annotation(key, name, value)?);
            }
        }
        // Annotations come from a map without an order.
        properties[8..].sort_by(|a, b| a.0.cmp(&b.0));
        properties.extend(properties_of(&cgroup.writes));
        properties.extend(device_properties(&cgroup.devices));
        Ok(Some(Self { name: parts.unit()?, slice: parts.slice, user: systemd.user, properties }))
    }
}

/// A property by annotation: its name in letters, its value as text of GVariant; what ends in Sec becomes USec.
fn annotation(key: &str, name: &str, text: &str) -> Result<(String, Value)> {
    let at = format!("/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(Error::new(format!("{at}: annotation {key} name incorrect"))
            .why("a property has at least three characters, and letters only"));
    }
    let value = Value::parse(text).map_err(|why| {
        Error::new(format!("{at}: annotation {key}={text} value parse error: {why}"))
            .next("write it as GVariant text: 'word', true, uint64 5, ['a', 'b']")
    })?;
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match stem {
        None => Ok((name.to_owned(), value)),
        Some(stem) => match value.seconds_to_microseconds() {
            Some(value) => Ok((format!("{stem}USec"), value)),
            None => {
                Err(Error::new(format!("{at}: annotation {key}={text} value is not a number of seconds")))
            }
        },
    }
}

/// The properties for what is written to files of cgroup2. What systemd has no word for, or not for this value, is left
/// to the file alone.
pub fn properties_of(writes: &[Write]) -> Vec<(String, Value)> {
    let mut list = Vec::new();
    for write in writes {
        let (file, value) = match &write.otherwise {
            Some((file, value)) if file == "io.weight" => (file, value),
            _ => (&write.file, &write.value),
        };
        let number = |name: &'static str, value: &str| limit(value).map(|n| (name, Value::U64(n)));
        let found = match file.as_str() {
            "memory.max" => number("MemoryMax", value),
            "memory.high" => number("MemoryHigh", value),
            "memory.low" => number("MemoryLow", value),
            "memory.min" => number("MemoryMin", value),
            "memory.swap.max" => number("MemorySwapMax", value),
            "pids.max" => number("TasksMax", value),
            "cpu.weight" => number("CPUWeight", value),
            "io.weight" => number("IOWeight", value.strip_prefix("default ").unwrap_or(value)),
            "cpuset.cpus" => bits(value).map(|bits| ("AllowedCPUs", bits)),
            "cpuset.mems" => bits(value).map(|bits| ("AllowedMemoryNodes", bits)),
            "cpu.max" => {
                list.extend(quota(value));
                None
            }
            _ => None,
        };
        list.extend(found.map(|(name, value)| (name.to_owned(), value)));
    }
    list
}

fn limit(value: &str) -> Option<u64> {
    if value == "max" { Some(u64::MAX) } else { value.parse().ok() }
}

/// `QUOTA PERIOD` of cpu.max. systemd keeps whole percents of a CPU, so the quota is rounded up here, and
/// in the file when systemd next writes it.
fn quota(value: &str) -> Vec<(String, Value)> {
    let mut words = value.split_whitespace();
    let quota = words.next().and_then(limit);
    let period = words.next().map_or(Some(100_000), |period| period.parse::<u64>().ok());
    let (Some(quota), Some(period)) = (quota, period) else { return Vec::new() };
    let per_second = match quota.checked_mul(1_000_000) {
        Some(micro) if period > 0 => (micro / period).next_multiple_of(10_000),
        _ => u64::MAX,
    };
    vec![
        ("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)),
        ("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second)),
    ]
}

/// `0-3,8` as a mask of bytes, lowest first.
fn bits(list: &str) -> Option<Value> {
    /// More CPUs than Linux can have.
    const MOST: usize = 1 << 16;
    let mut mask: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(Value::Array("y".to_owned(), mask.into_iter().map(Value::Byte).collect()))
}

/// systemd's own device filter stands beside ours, and both have to allow. It can only allow, and no minor number of
/// every major: where it cannot say a rule it allows more, and ours decides.
fn device_properties(rules: &[devices::Rule]) -> Vec<(String, Value)> {
    let entry = |path: String, access: &str| Value::Struct(vec![Value::Text(path), Value::text(access)]);
    let everything = devices::allows_everything(rules);
    let mut list = Vec::new();
    if !everything {
        list.extend(devices::allow_list(rules).into_iter().map(|(path, access)| entry(path, &access)));
    }
    let policy = if everything { "auto" } else { "strict" };
    vec![
        ("DevicePolicy".to_owned(), Value::text(policy)),
        ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), list)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_slices() {
        let path = |slice| expand_slice(slice).map(|path| path.display().to_string());
        assert_eq!(path("system.slice").unwrap(), "system.slice");
        assert_eq!(path("a-b-c.slice").unwrap(), "a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(path("-.slice").unwrap(), "");
        for bad in ["a", ".slice", "a--b.slice", "-a.slice", "a/b.slice", "../a.slice"] {
            assert!(path(bad).unwrap_err().what().contains("invalid slice name"), "{bad}");
        }
    }

    #[test]
    fn cpu_lists_become_masks() {
        let mask = |list| match bits(list) {
            Some(Value::Array(_, bytes)) => bytes,
            _ => Vec::new(),
        };
        assert_eq!(mask("0-3,8"), [Value::Byte(15), Value::Byte(1)]);
        assert_eq!(mask("9"), [Value::Byte(0), Value::Byte(2)]);
        assert_eq!(bits("3-1"), None);
        assert_eq!(bits("0-4000000000"), None);
    }

    #[test]
    fn quotas_are_rounded_up_to_percents() {
        let seconds = |value| quota(value).get(1).map(|(_, value)| value.clone());
        assert_eq!(seconds("50000 100000"), Some(Value::U64(500_000)));
        assert_eq!(seconds("33333 100000"), Some(Value::U64(340_000)));
        assert_eq!(seconds("max 5000"), Some(Value::U64(u64::MAX)));
        assert_eq!(seconds("x"), None);
    }

    #[test]
    fn seconds_are_renamed() {
        let key = "org.systemd.property.TimeoutStopSec";
        let got = annotation(key, "TimeoutStopSec", "1.5").unwrap();
        assert_eq!(got, ("TimeoutStopUSec".to_owned(), Value::U64(1_500_000)));
        assert!(annotation(key, "TimeoutStopSec", "'x'").is_err());
        assert!(annotation(key, "Timeout-Stop", "1").is_err());
    }
}
