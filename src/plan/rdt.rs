//! Intel Resource Director Technology: the group of resctrl that the container is in (config-linux.md#intelrdt).

use std::path::PathBuf;

use oci_spec::runtime::Linux;

use crate::error::{Error, Result};
use crate::host::Host;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdtPlan {
    /// Where resctrl is mounted.
    pub mount: PathBuf,
    /// Directory of the class of service; empty for the default class, the root.
    pub group: String,
    /// The class is the container's own: made for it, and removed with it.
    pub own: bool,
    /// Lines for `schemata`, in the order in which they are written.
    pub schemata: Vec<String>,
    /// A monitoring group of the container's name.
    pub monitoring: Option<String>,
}

/// Directories of resctrl itself (Documentation/filesystems/resctrl.rst).
const RESERVED: [&str; 5] = ["info", "mon_groups", "mon_data", ".", ".."];

pub fn plan(id: &str, linux: &Linux, host: &Host) -> Result<Option<RdtPlan>> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
    let Some(mount) = host.resctrl.clone() else {
        return Err(Error::new(
            "/linux/intelRdt: intelRdt is specified in config, but Intel RDT is not supported or enabled",
        )
        .why("no resctrl file system is mounted on this host")
        .next("mount -t resctrl resctrl /sys/fs/resctrl, where the CPU has it; or remove /linux/intelRdt"));
    };
    let asked = rdt.clos_id().clone().filter(|id| !id.is_empty());
    let own = asked.is_none();
    let group = match asked.as_deref() {
        Some("/") => String::new(),
        Some(name) if name.contains('/') || RESERVED.contains(&name) => {
            return Err(Error::new(format!("/linux/intelRdt/closID: invalid intelRdt.ClosID {name:?}"))
                .next("use a file name, or / for the default class"));
        }
        Some(name) => name.to_owned(),
        None => id.to_owned(),
    };
    let mut schemata = Vec::new();
    for (value, name, begins) in
        [(rdt.l3_cache_schema(), "l3CacheSchema", "L3"), (rdt.mem_bw_schema(), "memBwSchema", "MB:")]
    {
        if let Some(line) = value.as_ref().filter(|line| !line.is_empty()) {
            if !line.starts_with(begins) || line.contains('\n') {
                return Err(Error::new(format!(
                    "/linux/intelRdt/{name}: {line:?} is not one line that begins with {begins}"
                )));
            }
            schemata.push(line.clone());
        }
    }
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') || !line.contains(':') {
            return Err(Error::new(format!(
                "/linux/intelRdt/schemata/{i}: {line:?} is not one line of schemata"
            )));
        }
        schemata.push(line.clone());
    }
    let monitoring = (rdt.enable_monitoring() == &Some(true)).then(|| id.to_owned());
    Ok(Some(RdtPlan { mount, group, own, schemata, monitoring }))
}

/// Whether each domain of `line` (`L3:0=ff;1=3`) has its value in the text of a `schemata` file.
pub fn agrees(line: &str, file: &str) -> bool {
    fn parts(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
        let (resource, domains) = line.split_once(':')?;
        // The kernel pads and strips masks as it likes.
        let domains = domains
            .split(';')
            .filter_map(|d| d.split_once('='))
            .map(|(id, v)| (id.trim(), v.trim().trim_start_matches('0')))
            .collect();
        Some((resource.trim(), domains))
    }
    let Some((resource, wanted)) = parts(line) else { return false };
    file.lines()
        .filter_map(parts)
        .any(|(name, has)| name == resource && wanted.iter().all(|d| has.contains(d)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        let mut linux = Linux::default();
        linux.set_intel_rdt(Some(serde_json::from_str(json).unwrap()));
        linux
    }

    fn host() -> Host {
        Host { resctrl: Some("/sys/fs/resctrl".into()), ..Host::default() }
    }

    fn planned(json: &str) -> Result<RdtPlan> {
        plan("lamb", &linux(json), &host()).map(Option::unwrap)
    }

    #[test]
    fn a_host_without_resctrl_is_an_error_that_names_it() {
        let e = plan("lamb", &linux("{}"), &Host::default()).unwrap_err();
        assert!(e.what().contains("Intel RDT is not supported") && e.to_string().contains("resctrl"), "{e}");
    }

    #[test]
    fn a_class_without_a_name_is_the_containers_own() {
        let own =
            planned(r#"{"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","schemata":["L2:0=3"]}"#).unwrap();
        assert!(own.own && own.group == "lamb" && own.monitoring.is_none());
        assert_eq!(own.schemata, ["L3:0=f", "MB:0=20", "L2:0=3"]);
        let named = planned(r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
        assert!(!named.own && named.group == "gold" && named.monitoring.as_deref() == Some("lamb"));
        assert_eq!(planned(r#"{"closID":"/"}"#).unwrap().group, "");
    }

    #[test]
    fn names_and_lines_that_lead_elsewhere_are_refused() {
        for bad in [
            r#"{"closID":".."}"#,
            r#"{"closID":"a/b"}"#,
            r#"{"closID":"info"}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
            r#"{"l3CacheSchema":"L3:0=f\nMB:0=1"}"#,
            r#"{"schemata":["L3:0=f\nL2:0=1"]}"#,
        ] {
            assert!(planned(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn masks_agree_whatever_their_padding() {
        let file = "    MB:0=100;1=100\n    L3:0=07f;1=fff\n";
        assert!(agrees("L3:0=7f", file) && agrees("L3:1=fff;0=07f", file) && agrees("MB:1=100", file));
        assert!(!agrees("L3:0=7e", file) && !agrees("L2:0=7f", file) && !agrees("L3", file));
    }
}
