//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, made as Docker and Podman make them. They lie in the
//! container's directory and are bound into it.

use std::fs;
use std::path::Path;

use super::place::io;
use super::settings::Settings;
use super::spec::Maps;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{cwd, path};

/// The names of the files, here and in the container.
pub const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// Writes the three files. `shares_host`: the container has the host's network.
pub fn write(dir: &Path, hostname: &str, settings: &Settings, shares_host: bool) -> Result<()> {
    let put =
        |name: &str, text: &str| fs::write(dir.join(name), text).map_err(io(format_args!("write {name}")));
    put("hosts", &hosts(hostname, settings, shares_host)?)?;
    put("hostname", &format!("{hostname}\n"))?;
    let theirs = host::read("/run/systemd/resolve/resolv.conf")
        .or_else(|_| host::read("/etc/resolv.conf"))
        .unwrap_or_default();
    let own = host::read("/etc/resolv.conf").unwrap_or_default();
    put("resolv.conf", &resolv(if shares_host { &own } else { &theirs }, settings, shares_host)?)
}

/// They are root's of the container, whose ids are others than the host's.
pub fn belong_to(dir: &Path, maps: &Maps) -> Result<()> {
    let (Some(uid), Some(gid)) = (maps.uid.first(), maps.gid.first()) else { return Ok(()) };
    for (name, _) in FILES {
        match path::chownat(cwd(), &dir.join(name), uid.1, gid.1) {
            // Those of another container, whose network it has.
            Err(e) if e.errno() == libc::ENOENT => {}
            other => other?,
        }
    }
    Ok(())
}

fn hosts(hostname: &str, settings: &Settings, shares_host: bool) -> Result<String> {
    let mut text = match shares_host.then(|| host::read("/etc/hosts").ok()).flatten() {
        Some(theirs) => format!("{}\n", theirs.trim_end()),
        None => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned(),
    };
    for entry in &settings.add_host {
        // Addresses of IPv6 have colons themselves.
        let (name, address) = entry
            .split_once([':', '='])
            .ok_or_else(|| Error::new(format!("--add-host: {entry:?} is not NAME:ADDRESS")))?;
        let address = match address {
            "host-gateway" if shares_host => "127.0.0.1",
            "host-gateway" => {
                return Err(Error::new(format!(
                    "--add-host: {entry:?}: no way leads from this network to the host"
                ))
                .next("use --network host"));
            }
            other => other.trim_start_matches('[').trim_end_matches(']'),
        };
        if address.parse::<std::net::IpAddr>().is_err()
            || name.is_empty()
            || name.contains(char::is_whitespace)
        {
            return Err(Error::new(format!("--add-host: {entry:?} is not NAME:ADDRESS")));
        }
        text.push_str(&format!("{address}\t{name}\n"));
    }
    if !shares_host {
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    Ok(text)
}

/// The host's, without name servers on its loopback, which nobody hears from inside another network namespace.
fn resolv(theirs: &str, settings: &Settings, shares_host: bool) -> Result<String> {
    for address in &settings.dns {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::new(format!("--dns: {address:?} is no address")));
        }
    }
    let word = |line: &str| line.split_whitespace().next().unwrap_or("").to_owned();
    let reachable = |line: &str| {
        let address = line.split_whitespace().nth(1).unwrap_or("");
        shares_host || !(address.starts_with("127.") || address == "::1")
    };
    let given = |said: &[String], key: &str| -> Option<Vec<String>> {
        (!said.is_empty()).then(|| said.iter().map(|value| format!("{key} {value}")).collect())
    };
    let from_host = |keys: &[&str]| -> Vec<String> {
        let lines = theirs.lines().filter(|line| keys.contains(&word(line).as_str()));
        lines.filter(|line| word(line) != "nameserver" || reachable(line)).map(str::to_owned).collect()
    };
    let search =
        (!settings.dns_search.is_empty()).then(|| vec![format!("search {}", settings.dns_search.join(" "))]);
    let mut lines = search.unwrap_or_else(|| from_host(&["search", "domain"]));
    lines.extend(given(&settings.dns, "nameserver").unwrap_or_else(|| from_host(&["nameserver"])));
    lines.extend(given(&settings.dns_option, "options").unwrap_or_else(|| from_host(&["options"])));
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_stay_with_the_host() {
        let theirs = "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a b\noptions edns0\n";
        let plain = resolv(theirs, &Settings::default(), false).unwrap();
        assert_eq!(plain, "search a b\nnameserver 192.0.2.1\noptions edns0\n");
        let own = Settings { dns: vec!["198.51.100.7".into()], ..Settings::default() };
        assert_eq!(
            resolv(theirs, &own, false).unwrap(),
            "search a b\nnameserver 198.51.100.7\noptions edns0\n"
        );
        assert!(resolv(theirs, &Settings { dns: vec!["x y".into()], ..Settings::default() }, false).is_err());
    }

    #[test]
    fn hosts_are_added() {
        let said = |entry: &str| Settings { add_host: vec![entry.into()], ..Settings::default() };
        assert!(hosts("h", &said("db:[2001:db8::1]"), false).unwrap().contains("2001:db8::1\tdb\n"));
        assert!(hosts("h", &said("db:x\n1.2.3.4"), false).is_err());
        assert!(hosts("h", &said("up:host-gateway"), true).unwrap().contains("127.0.0.1\tup\n"));
        assert!(hosts("h", &said("up:host-gateway"), false).is_err());
    }
}
