//! Devices of the host that a container may use: nodes to make and rules for the device program.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::sys::path;

/// What becomes of the devices that were asked for.
#[derive(Default)]
pub struct Devices {
    /// Nodes to make.
    pub nodes: Vec<Value>,
    /// For the device program: everything is denied but the default devices (jug-oci's) and these.
    pub rules: Vec<Value>,
    /// Nodes of the host that have another name inside, where none can be made: in a user namespace.
    pub mounts: Vec<Value>,
}

pub fn of(settings: &Settings, in_user_namespace: bool) -> Result<Devices> {
    if settings.privileged {
        let rules = vec![json!({ "allow": true, "access": "rwm" })];
        return Ok(Devices { nodes: all_of(Path::new("/dev"), 0), rules, mounts: Vec::new() });
    }
    let mut found = Devices { rules: vec![json!({ "allow": false, "access": "rwm" })], ..Devices::default() };
    for text in &settings.device {
        let (host, inside, access) = parts(text)?;
        let node = node(Path::new(host), inside)
            .map_err(|e| e.context("--device"))?
            .ok_or_else(|| Error::new(format!("--device: {host} is no device")))?;
        found.rules.push(json!({
            "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access,
        }));
        if in_user_namespace && host != inside {
            let options = ["bind", "nosuid", "noexec"];
            found
                .mounts
                .push(json!({ "destination": inside, "type": "bind", "source": host, "options": options }));
        } else {
            found.nodes.push(node);
        }
    }
    Ok(found)
}

/// What a `--device` says: the path on the host, the one in the container, and the access of `rwm`.
pub fn parts(text: &str) -> Result<(&str, &str, &str)> {
    let is_access = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
    match text.split(':').collect::<Vec<_>>()[..] {
        [host] => Ok((host, host, "rwm")),
        [host, access] if is_access(access) => Ok((host, host, access)),
        [host, inside] => Ok((host, inside, "rwm")),
        [host, inside, access] if is_access(access) => Ok((host, inside, access)),
        _ => Err(Error::new(format!("--device: {text:?} is not HOST[:PATH][:rwm]"))),
    }
}

fn node(host: &Path, inside: &str) -> Result<Option<Value>> {
    let file = path::open(host, libc::O_PATH)?;
    let st = path::stat(file.as_fd(), Path::new(""))?;
    let kind = match st.st_mode & libc::S_IFMT {
        libc::S_IFCHR => "c",
        libc::S_IFBLK => "b",
        _ => return Ok(None),
    };
    Ok(Some(json!({
        "path": inside, "type": kind, "major": libc::major(st.st_rdev), "minor": libc::minor(st.st_rdev),
        "fileMode": st.st_mode & 0o777, "uid": st.st_uid, "gid": st.st_gid,
    })))
}

/// The host's nodes, but for those that every container has of its own.
fn all_of(dir: &Path, depth: u32) -> Vec<Value> {
    const OWN: [&str; 11] =
        ["console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty"];
    const ALSO_OWN: [&str; 2] = ["urandom", "zero"];
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut nodes = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if depth == 0 && (OWN.contains(&name.as_str()) || ALSO_OWN.contains(&name.as_str())) {
            continue;
        }
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        match meta.mode() & libc::S_IFMT {
            libc::S_IFDIR if depth < 4 => nodes.extend(all_of(&path, depth + 1)),
            libc::S_IFCHR | libc::S_IFBLK => {
                nodes.extend(node(&path, &path.to_string_lossy()).ok().flatten())
            }
            _ => {}
        }
    }
    nodes
}
