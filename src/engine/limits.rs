//! Where the limits of an unprivileged user's container go: into a cgroup that is theirs, or into a scope of their own
//! systemd. Root has the whole tree, and nothing is decided here.

use std::path::Path;

use serde_json::Value;

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{cred, cwd, path};

/// Changes the config where a scope is needed, and says whether it is; refuses limits that nobody could set.
pub fn place(config: &mut Value, settings: &Settings, id: &str) -> Result<bool> {
    let asked = config["linux"]["resources"].as_object().is_some_and(|resources| !resources.is_empty());
    if !asked || !host::is_rootless() || is_delegated() {
        return Ok(false);
    }
    if !has_systemd() {
        return Err(Error::new("limits are not possible here for an unprivileged user")
            .why("the cgroup of this process is not yours, and there is no systemd of yours to give you one")
            .next("log in through systemd (loginctl enable-linger USER), or leave out the limits"));
    }
    let slice = settings.cgroup_parent.as_deref().unwrap_or("user.slice");
    config["linux"]["cgroupsPath"] = format!("{slice}:jug:{id}").into();
    Ok(true)
}

/// Whether the cgroup beside which a container's is made belongs to the caller.
fn is_delegated() -> bool {
    let (Some(mount), _) = host::find_cgroup2() else { return false };
    let text = host::read("/proc/self/cgroup").unwrap_or_default();
    let parent = mount.join(crate::plan::lexical(host::cgroup_of(&text)).parent().unwrap_or(Path::new("")));
    path::stat(cwd(), &parent).is_ok_and(|st| st.st_uid == cred::euid())
}

fn has_systemd() -> bool {
    let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") else { return false };
    let there = |name: &str| path::open(&Path::new(&dir).join(name), libc::O_PATH).is_ok();
    path::open(Path::new("/run/systemd/system"), libc::O_PATH).is_ok()
        && (there("bus") || there("systemd/private"))
}
