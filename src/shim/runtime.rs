//! The runtime's command lines, and what it says when something fails. A process that serves clones no container: it
//! runs this.

use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use super::options::Options;
use crate::error::Result;
use crate::sys;

/// The runtime's log in a bundle, of which the last error is told.
const LOG: &str = "log.json";
/// Where the runtime writes the first process's number.
pub const PID: &str = "init.pid";

/// A command line in the making.
pub struct Command {
    program: PathBuf,
    args: Vec<Vec<u8>>,
}

impl Command {
    /// The runtime with its global flags.
    pub fn new(options: &Options, namespace: &str, bundle: &Path) -> Result<Self> {
        let program = options.program()?;
        let mut command = Self { args: vec![bytes(&program)], program };
        command.arg("--root").arg(options.state_root(namespace));
        command.arg("--log").arg(bundle.join(LOG)).arg("--log-format").arg("json");
        if options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        Ok(command)
    }

    pub fn arg(&mut self, arg: impl AsRef<Path>) -> &mut Self {
        self.args.push(bytes(arg.as_ref()));
        self
    }

    /// Runs it; the child is reaped with all the others. Its streams may be a container's: it must not write there.
    pub fn start(&self, files: &[(BorrowedFd<'_>, RawFd)]) -> Result<i32> {
        // The service manager's socket is containerd's (systemd starts it with Type=notify), and no container's.
        let more = [(crate::cli::log::LOG_ONLY, "1"), ("NOTIFY_SOCKET", "")];
        sys::spawn::spawn(&self.program, &self.args, &more, files)
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// The runtime's last error, from its log.
pub fn last_error(bundle: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        level: &'a str,
        #[serde(borrow)]
        msg: std::borrow::Cow<'a, str>,
    }
    let text = crate::host::read(bundle.join(LOG)).ok()?;
    let entries = text.lines().rev().filter_map(|line| serde_json::from_str::<Entry<'_>>(line).ok());
    entries.into_iter().find(|entry| entry.level == "error").map(|entry| entry.msg.trim().to_owned())
}

/// Forgets what the log said, so that an old error is not taken for a new one.
pub fn forget(bundle: &Path) {
    let _ = std::fs::remove_file(bundle.join(LOG));
}

/// The number in a pid file.
pub fn read_pid(file: &Path) -> Option<i32> {
    crate::host::read(file).ok()?.trim().parse().ok()
}
