//! `delete`: what a shim that was killed has left. containerd runs it with the bundle; it says how the task ended.

use std::path::{Path, PathBuf};

use super::flags::Flags;
use super::message::Timestamp;
use super::options::Options;
use super::{layers, rootfs, runtime};
use crate::error::{Error, Result};
use crate::protobuf::Message;
use crate::sys;

pub fn delete(flags: &Flags) -> Result<()> {
    let bundle = if flags.bundle.is_empty() { PathBuf::from(".") } else { PathBuf::from(&flags.bundle) };
    let bundle = std::path::absolute(&bundle).unwrap_or(bundle);
    // containerd runs it in the bundle, or beside it.
    let bundle = match bundle.file_name() {
        Some(name) if name.as_encoded_bytes() == flags.id.as_bytes() => bundle,
        _ => bundle.parent().unwrap_or(&bundle).join(&flags.id),
    };
    let options = Options::kept(&bundle);
    let pid = runtime::read_pid(&bundle.join(runtime::PID)).unwrap_or(0);
    let mut command = std::process::Command::new(options.program()?);
    command.arg("--root").arg(options.state_root(&flags.namespace));
    if options.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    let deleted = command.args(["delete", "--force", &flags.id]).output();
    // Whatever the runtime says, the rest is done first.
    let unmounted = rootfs::unmount(&bundle.join("rootfs")).and(layers::clear(&bundle));
    remove_dead_socket(&bundle);
    let deleted = deleted.map_err(|e| Error::new(format!("running the runtime: {e}")))?;
    if !deleted.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&deleted.stderr).trim()));
    }
    unmounted?;
    let mut response = Message::default();
    response.unsigned(1, pid.unsigned_abs().into()).number(2, 128 + i64::from(libc::SIGKILL));
    response.message(3, &Timestamp::now().message());
    let stdout = sys::fd::inherited(1).ok_or_else(|| Error::new("stdout is closed"))?;
    sys::fd::write_all(stdout, response.bytes())
}

/// The socket, unless a shim listens on it: the one of the pod, say.
fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = crate::host::read(bundle.join("address")) else { return };
    let Some(path) = address.strip_prefix("unix://").map(Path::new) else { return };
    if sys::socket::connect_stream(path).is_err_and(|e| e.errno() == libc::ECONNREFUSED) {
        let _ = std::fs::remove_file(path);
    }
}
