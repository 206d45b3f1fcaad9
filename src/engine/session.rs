//! What `exec` runs. With `-it` at a terminal there is a process between the caller and the program, which holds the
//! program's terminal, so that the caller may detach and the program goes on. It is the monitor's loop without a log;
//! what the program says when nobody is attached is lost, as with Docker.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::attach::{self, Attached, Ended};
use super::container::Container;
use super::monitor::{self, Client, Streams, Watched};
use super::place::io;
use super::runtime;
use crate::error::{Error, Result};
use crate::sys::clone::{self, Side};
use crate::sys::{fd, path, process, socket};

/// How the caller of `exec` wants it.
pub struct How<'a> {
    pub detach: bool,
    pub interactive: bool,
    pub tty: bool,
    /// The keys that detach.
    pub keys: &'a [u8],
}

/// Runs `call`, an `exec` of the runtime's that lacks the container's name, to the end of its program or until the
/// caller detaches. Gives the exit code, of the program or of a runtime that failed and says why in its log.
pub fn run(mut call: Command, container: &Container, how: &How) -> Result<i32> {
    if how.detach {
        call.arg("--detach").arg(container.id()).stdout(Stdio::null()).stderr(Stdio::null());
        return runtime::foreground(call, false, false);
    }
    if how.tty && how.interactive && attach::callers_terminal().is_some() {
        let caller = Attached { tty: true, interactive: true, keys: how.keys, forward: true };
        return match attached(call, container, &caller)? {
            Ended::Exit(code) => Ok(code),
            Ended::Detached => Ok(0),
            Ended::Lost => Err(Error::new("the process that held the program's terminal was killed")),
        };
    }
    call.arg(container.id());
    let relayed = !how.tty && !container.record.selinux.process.is_empty();
    runtime::foreground(call, how.interactive, relayed)
}

fn attached(mut call: Command, container: &Container, caller: &Attached) -> Result<Ended> {
    let (ours, theirs) = socket::pair()?;
    if let Side::Child = clone::clone3(0, None)? {
        drop(ours);
        let code = hold(&mut call, container, theirs).unwrap_or_else(|_| runtime::FAILED.into());
        process::exit_now(code);
    }
    drop(theirs);
    caller.carry(&ours)
}

/// The process between them. How it ends nobody hears but the client.
fn hold(call: &mut Command, container: &Container, client: OwnedFd) -> Result<i32> {
    process::setsid()?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    process::set_name("jug-exec");
    path::chdir(&container.path)?;
    let null = path::open(Path::new("/dev/null"), libc::O_RDWR)?;
    (0..3).try_for_each(|number| fd::dup_onto(null.as_fd(), number))?;
    let own = |what: &str| PathBuf::from(format!(".exec-{}.{what}", process::pid()));
    let begun = begin(call, container.id(), &own("console"), &own("pid"));
    for name in ["console", "pid"] {
        let _ = std::fs::remove_file(own(name));
    }
    let mut client = Client::new(client);
    let code = match begun? {
        Err(code) => code,
        Ok((pid, streams)) => {
            let mut watched = Watched::new(pid, streams, true)?;
            watched.clients.push(client);
            let code = watched.watch();
            let Some(left) = watched.clients.pop() else { return Ok(0) };
            client = left;
            code
        }
    };
    monitor::say_goodbye(&client, code);
    Ok(0)
}

/// The number of the program and its terminal; or the exit code of a runtime that started none, and said why in its
/// log.
fn begin(
    call: &mut Command,
    id: &str,
    console: &Path,
    pid_file: &Path,
) -> Result<std::result::Result<(i32, Streams), i32>> {
    let mut streams = Streams::terminal(console)?;
    call.args(["--detach", "--tty", "--console-socket"]).arg(console).arg("--pid-file").arg(pid_file).arg(id);
    let status = call.status().map_err(io(format_args!("running {:?}", call.get_program())))?;
    if !status.success() {
        return Ok(Err(status.code().unwrap_or(runtime::FAILED.into())));
    }
    streams.receive_console()?;
    let pid = std::fs::read_to_string(pid_file).map_err(io("read the pid file"))?;
    let pid = pid.trim().parse().map_err(|_| Error::new(format!("the pid file says {pid:?}")))?;
    Ok(Ok((pid, streams)))
}
