//! Writes below /proc, through a procfs of our own that nothing can be mounted over (CVE-2025-52881).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::Result;
use crate::sys::{fd, mount, path};

/// A private procfs of the current PID namespace, attached nowhere; made only when something is written.
pub struct Proc(OwnedFd);

impl Proc {
    pub fn open() -> Result<Self> {
        mount::fsopen("proc")?.mount(0).map(Self).map_err(|e| {
            e.why("a user namespace may mount proc only where the outer /proc is not partly covered")
        })
    }

    /// Writes one value to a file below this procfs; no link and no other mount on the way.
    pub fn write(&self, file: &Path, value: &str) -> Result<()> {
        const NO_WAY_OUT: u64 = path::RESOLVE_BENEATH | path::RESOLVE_NO_XDEV | path::RESOLVE_NO_MAGICLINKS;
        let file_fd = path::openat2(self.0.as_fd(), file, libc::O_WRONLY, 0, NO_WAY_OUT)?;
        fd::write_all(file_fd.as_fd(), value.as_bytes())
            .map_err(|e| e.context(format_args!("/proc/{}", file.display())))
    }
}

pub fn set(list: &[(String, String)]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let proc = Proc::open()?;
    for (name, value) in list {
        proc.write(&Path::new("sys").join(name), value)
            .map_err(|e| e.context(format_args!("sysctl {}", name.replace('/', "."))))?;
    }
    Ok(())
}
