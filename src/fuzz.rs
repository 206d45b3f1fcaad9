//! The parsers of bytes that are not our own, each with what must hold of its answer: a panic is a find. cargo-fuzz
//! calls them with bytes that it makes up (`fuzz/`), `tests/fuzz.rs` with those that were worth keeping. Nothing here
//! may touch the world.

#[cfg(feature = "engine")]
pub mod images;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use serde_json::json;

use crate::bundle::{self, Bundle};
use crate::cli::oci;
use crate::container::record;
use crate::error::Error;
use crate::host::{self, Host};
use crate::plan::{Options, Plan};
use crate::{audit, protobuf, seccomp};

/// A config, or the process of one: both ways of reading say the same, and a plan is made of it or refused.
pub fn config(raw: &[u8]) {
    bundle::read_both_ways::<Process>(raw);
    bundle::read_both_ways::<Spec>(raw);
    let _ = bundle::parse_resources(raw);
    if let Ok((spec, warnings)) = bundle::parse::<Spec>(raw) {
        let bundle = Bundle { dir: "/bundle".into(), spec, raw: raw.to_vec(), warnings };
        for options in [Options::default(), Options { systemd_cgroup: true, ..Options::default() }] {
            if let Ok(plan) = Plan::new("id", &bundle, &options, &any_host()) {
                assert!(!crate::plan::show::show(&plan).is_empty());
            }
        }
    }
}

/// A host on which nothing is missing.
fn any_host() -> Host {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    Host {
        cgroup2: Some("/sys/fs/cgroup".into()),
        cgroup2_controllers: words(&["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"]),
        own_cgroup: "/".into(),
        capabilities: u64::MAX,
        resctrl: Some("/sys/fs/resctrl".into()),
        apparmor: true,
        selinux: true,
        systemd: Some(host::Systemd::default()),
        ..Host::default()
    }
}

/// One field of several bits, cleared before it is set (mount_setattr(2), MOUNT_ATTR__ATIME).
const ACCESS_TIME: u64 = crate::sys::mount::MOUNT_ATTR_ATIME;

/// A mount: type, source, destination and options, a line each. What is set is not cleared as well.
pub fn mount(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let mount = json!({
        "type": next(), "source": next(), "destination": next(), "options": lines.collect::<Vec<_>>(),
    });
    let spec = json!({
        "ociVersion": "1.2.0", "root": { "path": "rootfs" }, "process": { "cwd": "/", "args": ["x"] },
        "linux": { "namespaces": [{ "type": "mount" }] }, "mounts": [mount],
    });
    let raw = spec.to_string().into_bytes();
    let Ok((spec, warnings)) = bundle::parse::<Spec>(&raw) else { return };
    let bundle = Bundle { dir: "/bundle".into(), spec, raw, warnings };
    let Ok(plan) = Plan::new("id", &bundle, &Options::default(), &any_host()) else { return };
    for mount in &plan.mounts {
        assert_eq!(mount.set & mount.clear & !ACCESS_TIME, 0, "{mount:?}");
        assert!(
            !mount.destination.has_root() && !mount.destination.iter().any(|part| part == ".."),
            "{mount:?}"
        );
    }
}

/// What the kernel says of mounts, with names that a container chose.
pub fn mountinfo(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    let points = host::mounts(&text).count();
    let found = audit::mounts::parse_all(&text).len();
    assert!(points <= text.lines().count() && found <= text.lines().count());
}

/// The record of a container: what is read is written so that it is read again.
pub fn record(raw: &[u8]) {
    let Ok(Some(first)) = record::last_line(raw) else { return };
    let line = record::line(&first).expect("a record is written");
    let second = record::last_line(&line).expect("and read").expect("and there");
    assert_eq!(record::line(&second).expect("and written"), line);
}

/// A command line, its words split at zero bytes: what is read quickly is what clap reads.
pub fn arguments(raw: &[u8]) {
    let words = raw.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let line: Vec<OsString> = std::iter::once("jug-oci".into()).chain(words).collect();
    let (quickly, slowly) = oci::read_both_ways(line);
    if let Some(quickly) = quickly {
        assert_eq!(Some(quickly), slowly);
    }
}

/// What comes over a socket: an error of the child's, a message of criu's, and the name of a container.
pub fn messages(raw: &[u8]) {
    let error = Error::decode(raw);
    assert!(!Error::decode(&error.encode()).what().is_empty() || error.what().is_empty());
    protobuf::fields(raw).for_each(drop);
    if let Ok(id) = record::Id::new(&String::from_utf8_lossy(raw)) {
        let path = PathBuf::from(id.as_str());
        assert_eq!(path.components().count(), 1);
        assert_eq!(path.file_name(), Some(id.as_str().as_ref()));
    }
}

/// A seccomp profile, if it is one: with the filter for each architecture that jug can be built for.
pub fn seccomp(raw: &[u8]) -> Vec<(oci_spec::runtime::LinuxSeccomp, seccomp::Arch, seccomp::Filter)> {
    let Ok(profile) = serde_json::from_slice::<oci_spec::runtime::LinuxSeccomp>(raw) else {
        return Vec::new();
    };
    // What cannot run on a machine is dropped there, with a warning: that is no difference to look for.
    let runs = |native: &seccomp::Arch| {
        let listed = profile.architectures().iter().flatten();
        listed.filter_map(|arch| seccomp::Arch::from_oci(*arch, *native)).all(|arch| arch.runs_on(*native))
    };
    let natives = [seccomp::Arch::X86_64, seccomp::Arch::Aarch64].into_iter();
    natives
        .filter(runs)
        .filter_map(|native| {
            let filter = seccomp::compile(&profile, native).ok()?;
            Some((profile.clone(), native, filter))
        })
        .collect()
}
