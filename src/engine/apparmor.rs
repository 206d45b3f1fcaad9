//! The AppArmor profile of a container: the one that was asked for; else that of the container tools which the host
//! has loaded; else jug's own, which is loaded when it is first wanted, as Docker and Podman load theirs. Only root can
//! load one, and only a host with apparmor_parser(8).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::place::io;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::path;

/// Who comes first; one that ends in `-` is followed by a version.
const KNOWN: [&str; 3] = [OWN, "containers-default-", "docker-default"];
const OWN: &str = "jug-default";
const PROFILE: &str = include_str!("apparmor.profile");

pub fn profile(settings: &Settings) -> Result<Option<String>> {
    let loaded = host::read("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    match settings.security("apparmor") {
        Some("unconfined") => Ok((!loaded.is_empty()).then(|| "unconfined".to_owned())),
        Some(profile) => match named(&loaded, profile) {
            Some(_) => Ok(Some(profile.to_owned())),
            None => Err(Error::new(format!(
                "--security-opt apparmor: the host has no profile {profile:?} loaded"
            ))),
        },
        None if settings.privileged => Ok(None),
        None => match KNOWN.iter().find_map(|name| named(&loaded, name)) {
            Some(profile) => Ok(Some(profile.to_owned())),
            None => load(),
        },
    }
}

/// A line of the kernel's list is `NAME (MODE)`.
fn named<'a>(loaded: &'a str, wanted: &str) -> Option<&'a str> {
    let mut names = loaded.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name);
    names.find(|name| *name == wanted || (wanted.ends_with('-') && name.starts_with(wanted)))
}

/// `None`: there is no AppArmor here, or nobody who could load a profile.
fn load() -> Result<Option<String>> {
    let enabled =
        host::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let parsers = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
    let parser = parsers.into_iter().find(|parser| path::executable(Path::new(parser)).is_ok());
    let Some(parser) = parser.filter(|_| enabled && !host::is_rootless()) else { return Ok(None) };
    let doing = || io("running apparmor_parser");
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache", "--quiet"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().map_err(doing())?;
    // Dropped at once: the parser reads to the end.
    let told = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(PROFILE.as_bytes()));
    let ended = child.wait_with_output().map_err(doing())?;
    if told.is_ok() && ended.status.success() {
        return Ok(Some(OWN.to_owned()));
    }
    Err(Error::new(format!("apparmor_parser does not load the profile {OWN}"))
        .why(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
        .next("--security-opt apparmor=unconfined goes without"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name_or_with_their_version() {
        let loaded = "docker-default (enforce)\ncontainers-default-0.62.2 (enforce)\n/usr/bin/x (complain)\n";
        assert_eq!(named(loaded, "docker-default"), Some("docker-default"));
        assert_eq!(named(loaded, "containers-default-"), Some("containers-default-0.62.2"));
        assert_eq!(named(loaded, "docker"), None);
        assert_eq!(named("", "docker-default"), None);
    }
}
