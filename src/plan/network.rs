//! Network devices of the host that become the container's (config-linux.md#network-devices).

use std::path::PathBuf;

use oci_spec::runtime::Linux;

use super::namespaces::{Kind, Namespaces};
use crate::error::{Error, Result};
use crate::host::Host;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub host: String,
    /// Its name inside; `eth%d` lets the kernel choose the number.
    pub name: String,
}

impl NetDevice {
    /// For errors.
    pub fn at(&self) -> String {
        format!("/linux/netDevices/{}", self.host)
    }
}

pub fn devices(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<Vec<NetDevice>> {
    let mut list = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let inside = device.name().clone().filter(|n| !n.is_empty()).unwrap_or_else(|| name.clone());
        if !is_name(name) || name.contains('%') {
            return Err(Error::new(format!("/linux/netDevices: invalid network device name {name:?}")));
        }
        if !is_name(&inside) || inside.trim_end_matches("%d").contains('%') {
            return Err(Error::new(format!(
                "/linux/netDevices/{name}/name: invalid network device name {inside:?}"
            ))
            .next("a name has 1 to 15 bytes without blanks, '/' and ':'; %d at its end is a free number"));
        }
        list.push(NetDevice { host: name.clone(), name: inside });
    }
    if list.is_empty() {
        return Ok(list);
    }
    let own = |(kind, path): &(Kind, PathBuf)| *kind == Kind::Network && host.own_namespaces.contains(path);
    if !namespaces.has(Kind::Network) || namespaces.join.iter().any(own) {
        return Err(Error::new(
            "/linux/netDevices: unable to move network devices without a private NET namespace",
        )
        .next("add {\"type\": \"network\"} to /linux/namespaces"));
    }
    if host.rootless {
        return Err(Error::new(
            "/linux/netDevices: network devices are not supported in rootless containers",
        )
        .why("moving a device out of the host's network namespace needs CAP_NET_ADMIN over it"));
    }
    list.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(list)
}

/// What the kernel takes for a device's name (dev_valid_name in net/core/dev.c).
fn is_name(name: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !name.is_empty() && name.len() < libc::IFNAMSIZ && name != "." && name != ".." && !name.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a", "eth%d", "exactly15bytes_"] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "a\0", "exactly16bytes__"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
