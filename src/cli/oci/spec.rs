//! `spec`: a config.json to begin with, the one that runc writes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::sys::{self, fd, path};

/// Write a config.json to begin with
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    bundle: PathBuf,
    /// One that an unprivileged user can run
    #[arg(long)]
    rootless: bool,
}

const SPEC: &str = include_str!("spec.json");
const SPEC_ROOTLESS: &str = include_str!("spec-rootless.json");

const MOUNT_NAMESPACE: &str = "{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}";
const CGROUP_NAMESPACE: &str = ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}";

impl Spec {
    pub fn perform(self) -> Result<i32> {
        let dir = path::open(&self.bundle, libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(|e| e.context("--bundle"))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = path::openat(dir.as_fd(), Path::new("config.json"), flags, 0o666).map_err(|e| match e
            .errno()
        {
            libc::EEXIST => Error::new("File config.json exists. Remove it first"),
            _ => e,
        })?;
        let mut text = if self.rootless { rootless() } else { SPEC.to_owned() };
        // On a host with cgroup v2 alone the container gets its own view of it, as with runc.
        if matches!(crate::host::find_cgroup2(), (Some(_), false)) {
            text = text.replacen(MOUNT_NAMESPACE, &format!("{MOUNT_NAMESPACE}{CGROUP_NAMESPACE}"), 1);
        }
        fd::write_all(file.as_fd(), text.as_bytes())?;
        Ok(0)
    }
}

/// The caller maps itself to root.
fn rootless() -> String {
    SPEC_ROOTLESS
        .replace("\"@UID@\"", &sys::cred::euid().to_string())
        .replace("\"@GID@\"", &sys::cred::egid().to_string())
}
