//! Profiles in the format of Docker and containers/common: architectures with their siblings, and rules that depend on
//! capabilities, architecture and kernel. What comes out is the OCI profile of one container. `seccomp.json` beside
//! this file is our own default: what it does not name answers ENOSYS, what is known to be abused EPERM.
//!
//! Pure: bytes in, a value out. Compiling the result is jug-oci's.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::seccomp::{Arch, native};

/// Our own profile.
pub const DEFAULT: &str = include_str!("seccomp.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    arch_map: Vec<Siblings>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Siblings {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What the rules of a profile depend on.
pub struct Facts<'a> {
    /// Names of the bounding set, with `CAP_`.
    pub caps: &'a BTreeSet<String>,
    /// As uname(2) says it.
    pub kernel: &'a str,
}

/// The OCI profile that `profile` (JSON, either format) means for this container on this machine.
pub fn compile(profile: &[u8], facts: &Facts) -> Result<Value> {
    let profile: Profile = serde_json::from_slice(profile)
        .map_err(|e| Error::new(format!("the seccomp profile cannot be read: {e}")))?;
    let kernel = version(facts.kernel).unwrap_or((u32::MAX, 0));
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        if !rule.includes.all_hold(facts, kernel)? || rule.excludes.any_holds(facts, kernel)? {
            continue;
        }
        let names: Vec<&String> = rule.name.iter().chain(&rule.names).collect();
        let mut entry = json!({ "names": names, "action": rule.action });
        if let Some(errno) = rule.errno_ret {
            entry["errnoRet"] = errno.into();
        }
        if let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) {
            entry["args"] = args.clone().into();
        }
        rules.push(entry);
    }
    let mut out = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures(&profile),
        "syscalls": rules,
    });
    for (key, value) in [
        ("defaultErrnoRet", profile.default_errno_ret.map(Value::from)),
        ("flags", profile.flags.map(Value::from)),
        ("listenerPath", profile.listener_path.map(Value::from)),
        ("listenerMetadata", profile.listener_metadata.map(Value::from)),
    ] {
        if let Some(value) = value {
            out[key] = value;
        }
    }
    Ok(out)
}

fn architectures(profile: &Profile) -> Vec<String> {
    let own = native().name();
    match profile.arch_map.iter().find(|siblings| siblings.architecture == own) {
        Some(siblings) => [own.to_owned()].into_iter().chain(siblings.sub_architectures.clone()).collect(),
        None => profile.architectures.clone(),
    }
}

impl Condition {
    /// `includes`: every capability is there, the machine is one of those named, the kernel new enough.
    fn all_hold(&self, facts: &Facts, kernel: (u32, u32)) -> Result<bool> {
        Ok(self.caps.iter().all(|cap| facts.caps.contains(cap))
            && (self.arches.is_empty() || self.is_here())
            && self.kernel()?.is_none_or(|least| kernel >= least))
    }

    /// `excludes`: one of them is enough.
    fn any_holds(&self, facts: &Facts, kernel: (u32, u32)) -> Result<bool> {
        Ok(self.caps.iter().any(|cap| facts.caps.contains(cap))
            || self.is_here()
            || self.kernel()?.is_some_and(|least| kernel >= least))
    }

    /// Go's name of this machine.
    fn is_here(&self) -> bool {
        let here = if native() == Arch::Aarch64 { "arm64" } else { "amd64" };
        self.arches.iter().any(|arch| arch == here)
    }

    fn kernel(&self) -> Result<Option<(u32, u32)>> {
        self.min_kernel
            .as_deref()
            .map(|text| {
                version(text).ok_or_else(|| {
                    Error::new(format!("the seccomp profile: minKernel {text:?} is no version"))
                })
            })
            .transpose()
    }
}

/// Major and minor of a kernel's version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Value, action: &str) -> Vec<String> {
        let rules = profile["syscalls"].as_array().unwrap().iter().filter(|rule| rule["action"] == action);
        rules
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|n| n.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn capabilities_open_what_needs_them() {
        let none = BTreeSet::new();
        let some: BTreeSet<String> = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"].map(String::from).into();
        let facts = |caps| Facts { caps, kernel: "6.1.0-x" };
        let plain = compile(DEFAULT.as_bytes(), &facts(&none)).unwrap();
        let wide = compile(DEFAULT.as_bytes(), &facts(&some)).unwrap();
        let allow = "SCMP_ACT_ALLOW";
        for name in ["mount", "chroot", "unshare", "clone3", "bpf"] {
            assert!(!names(&plain, allow).contains(&name.to_owned()), "{name}");
            assert!(names(&wide, allow).contains(&name.to_owned()), "{name}");
            assert!(!names(&wide, "SCMP_ACT_ERRNO").contains(&name.to_owned()), "{name}");
        }
        assert!(names(&plain, allow).contains(&"ptrace".to_owned()));
        let old = compile(DEFAULT.as_bytes(), &Facts { caps: &none, kernel: "4.4" }).unwrap();
        assert!(!names(&old, allow).contains(&"ptrace".to_owned()));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let none = BTreeSet::new();
        let facts = Facts { caps: &none, kernel: "6.1" };
        assert!(compile(b"{}", &facts).is_err());
        assert!(compile(b"{\"defaultAction\":1}", &facts).is_err());
        let odd =
            br#"{"defaultAction":"x","syscalls":[{"name":"a","action":"y","includes":{"minKernel":"new"}}]}"#;
        assert!(compile(odd, &facts).is_err());
    }
}
