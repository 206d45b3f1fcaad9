//! `features`: what this runtime can do, as engines read it (features.md). Nothing else is printed, to nobody else.

use clap::Args;
use serde_json::json;

use super::SPEC_VERSION;
use crate::cli::log;
use crate::error::{Error, Result};
use crate::plan::mounts;
use crate::{seccomp, sys};

/// Print what this runtime supports
#[derive(Debug, Args)]
pub struct Features {}

impl Features {
    pub fn perform(self) -> Result<i32> {
        let mut capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
        capabilities.sort();
        let supported: Vec<&str> =
            seccomp::KNOWN_FLAGS.iter().copied().filter(|flag| kernel_takes(flag)).collect();
        let features = json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": SPEC_VERSION,
            "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
            "mountOptions": mounts::known_options(),
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
                "capabilities": capabilities,
                "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
                "seccomp": {
                    "enabled": true,
                    "actions": seccomp::KNOWN_ACTIONS,
                    "operators": seccomp::KNOWN_OPERATORS,
                    "archs": seccomp::KNOWN_ARCHS,
                    "knownFlags": seccomp::KNOWN_FLAGS,
                    "supportedFlags": supported,
                },
                "apparmor": { "enabled": true },
                "selinux": { "enabled": true },
                "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
                "memoryPolicy": {
                    "modes": [
                        "MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL",
                        "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
                    ],
                    "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
                },
                "mountExtensions": { "idmap": { "enabled": true } },
                "netDevices": { "enabled": true },
            },
            "annotations": {
                "io.github.jug.version": env!("CARGO_PKG_VERSION"),
                "io.github.jug.commit": env!("JUG_COMMIT"),
                // The key is runc's, by which engines look.
                "org.opencontainers.runc.checkpoint.enabled": crate::criu::find().is_ok().to_string(),
            },
            "potentiallyUnsafeConfigAnnotations": [
                "bundle", "org.criu.config", "org.systemd.property.", "run.oci.keep_original_groups",
            ],
        });
        let text = serde_json::to_string_pretty(&features)
            .map_err(|e| Error::new(format!("writing the features: {e}")))?;
        log::print(&(text + "\n"));
        Ok(0)
    }
}

fn kernel_takes(flag: &str) -> bool {
    let bit = match flag {
        "SECCOMP_FILTER_FLAG_TSYNC" => 1,
        "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
        // Only valid together with a listener.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 1 << 5 | sys::seccomp::FLAG_NEW_LISTENER,
        _ => return false,
    };
    sys::seccomp::flag_supported(bit)
}
