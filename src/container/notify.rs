//! `NOTIFY_SOCKET`: the container's program tells the service manager of the host that it is ready (sd_notify(3)).
//!
//! The program gets a socket of its own at /run/notify; from there one message, READY=1, is carried to the host's, and
//! MAINPID behind it. Nothing else that a container says reaches the service manager. The socket lies in the directory
//! of the record, so that whoever deletes the container removes it, whatever became of the runtime.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::record::Entry;
use crate::error::Result;
use crate::sys::{fd, path, socket};

const DIRECTORY: &str = "notify";
const NAME: &str = "notify.sock";
/// Where the program finds it.
pub const INSIDE: &str = "/run/notify";
/// The longest message, as runc reads it.
const LIMIT: usize = 4096;
/// How long the service manager may take to read the messages.
const BARRIER_PATIENCE_MS: i32 = 30_000;

/// Adds to the config what the program needs to find the socket. The directory is made by [`prepare`], later.
pub fn extend(spec: &mut Spec, root: &Path, id: &str) {
    // The source of a mount is relative to the bundle, the root to the caller's directory.
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mut mount = Mount::default();
    mount
        .set_destination(INSIDE.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(root.join(id).join(DIRECTORY)))
        .set_options(Some(options));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        process.set_env(Some(env));
    }
}

/// Makes the directory that the container will see; with `start` the socket too, which else `start` binds.
pub fn prepare(entry: &Entry, host: &Path, start: bool) -> Result<Option<Relay>> {
    path::mkdirat(entry.dir(), Path::new(DIRECTORY), 0o700)?;
    // Whoever the program runs as may pass; the umask of the caller has no say.
    path::fchmod(directory(entry)?.as_fd(), 0o755)?;
    if start { Relay::bind(entry, host).map(Some) } else { Ok(None) }
}

/// Whether the container was given a socket.
pub fn is_prepared(entry: &Entry) -> bool {
    directory(entry).is_ok()
}

fn directory(entry: &Entry) -> Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    path::openat(entry.dir(), Path::new(DIRECTORY), flags, 0)
}

/// Carries the program's readiness to the host.
#[derive(Debug)]
pub struct Relay {
    socket: OwnedFd,
    host: PathBuf,
    carried: Cell<bool>,
}

impl Relay {
    /// Listens where the container's program will write to.
    pub fn bind(entry: &Entry, host: &Path) -> Result<Self> {
        let dir = directory(entry).map_err(|e| {
            e.context("NOTIFY_SOCKET")
                .next("set the variable for create too: it is create that makes the socket's place")
        })?;
        // A start that was killed may have left one.
        match path::unlinkat(dir.as_fd(), Path::new(NAME), 0) {
            Err(e) if e.errno() != libc::ENOENT => return Err(e),
            _ => {}
        }
        let socket = socket::bind_datagram(dir.as_fd(), NAME)?;
        Ok(Self { socket, host: host.to_owned(), carried: Cell::new(false) })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads one message, if there is one, and carries the first that says READY. Returns the reader's answer to it: an
    /// end of file when everything was read.
    pub fn carry(&self, main_pid: i32) -> Result<Option<OwnedFd>> {
        let Some(message) = socket::receive_datagram(self.fd(), LIMIT)? else { return Ok(None) };
        let ready = message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready.filter(|_| !self.carried.get()) else { return Ok(None) };
        self.carried.set(true);
        let host = socket::connect_datagram(&self.host)?;
        socket::send(host.as_fd(), &[ready, b"\n"].concat(), None)?;
        socket::send(host.as_fd(), format!("MAINPID={main_pid}\n").as_bytes(), None)?;
        let (answer, question) = fd::pipe()?;
        socket::send(host.as_fd(), b"BARRIER=1", Some(question.as_fd()))?;
        Ok(Some(answer))
    }

    /// Waits until the program is ready and the service manager knows, or until the process has ended.
    pub fn wait(&self, process: BorrowedFd<'_>, main_pid: i32) -> Result<()> {
        loop {
            let ready = fd::poll(&[(self.fd(), libc::POLLIN), (process, libc::POLLIN)], -1)?;
            if ready[0]
                && let Some(answer) = self.carry(main_pid)?
            {
                if !fd::poll(&[(answer.as_fd(), libc::POLLIN)], BARRIER_PATIENCE_MS)?[0] {
                    crate::cli::log::warn("Timeout after waiting 30s for barrier. Ignored.");
                }
                return Ok(());
            }
            if ready[1] && !ready[0] {
                return Ok(());
            }
        }
    }
}
