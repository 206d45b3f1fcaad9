//! What `exec` runs. With `-it` at a terminal there is a process between the caller and the program, which holds the
//! program's terminal, so that the caller may detach and the program goes on. It is the monitor's loop without a log;
//! what the program says when nobody is attached is lost, as with Docker.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use super::attach::{self, Attached, Ended};
use super::container::Container;
use super::monitor::{Client, Streams, Watched};
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
    let relayed = !how.tty && container.record.selinux.confine();
    runtime::foreground(call, how.interactive, relayed)
}

fn attached(call: Command, container: &Container, caller: &Attached) -> Result<Ended> {
    let (ours, theirs) = socket::pair()?;
    if let Side::Child = clone::clone3(0, None)? {
        drop(ours);
        hold(call, container, theirs);
    }
    drop(theirs);
    caller.carry(&ours)
}

/// The process between them. How it ends nobody hears but the client, nor why nothing ran.
fn hold(call: Command, container: &Container, client: OwnedFd) -> ! {
    let mut clients = vec![Client::new(client)];
    let code = match begin(call, container) {
        Ok(mut watched) => {
            watched.clients.append(&mut clients);
            let code = watched.watch();
            clients = watched.clients;
            code
        }
        Err((code, why)) => {
            // The caller's terminal is raw now.
            clients.iter().for_each(|client| client.say(b'e', why.replace('\n', "\r\n").as_bytes()));
            code
        }
    };
    clients.iter().for_each(|client| client.say(b'x', &code.to_le_bytes()));
    process::exit_now(0)
}

/// Starts the program on a terminal of its own; an error has the exit code, and what people are told.
fn begin(mut call: Command, container: &Container) -> std::result::Result<Watched, (i32, String)> {
    let ours = |e: Error| (runtime::FAILED.into(), format!("Error: {e}\n"));
    apart(&container.path).map_err(ours)?;
    let [console, pid_file] = ["console", "pid"].map(|what| format!(".exec-{}.{what}", process::pid()));
    call.args(["--detach", "--tty", "--console-socket", &console, "--pid-file", &pid_file])
        .arg(container.id());
    call.stdin(Stdio::null()).stdout(Stdio::null());
    let streams = Streams::terminal(Path::new(&console)).map_err(ours);
    let begun = streams.and_then(|mut streams| {
        let ended =
            call.output().map_err(io(format_args!("running {:?}", call.get_program()))).map_err(ours)?;
        if !ended.status.success() {
            let code = ended.status.code().unwrap_or(runtime::FAILED.into());
            return Err((code, String::from_utf8_lossy(&ended.stderr).into_owned()));
        }
        streams.receive_console().map_err(ours)?;
        let pid = std::fs::read_to_string(&pid_file).map_err(io("read the pid file")).map_err(ours)?;
        let pid = pid.trim().parse().map_err(|_| ours(Error::new(format!("the pid file says {pid:?}"))))?;
        Watched::new(pid, streams, true).map_err(ours)
    });
    for name in [console, pid_file] {
        let _ = std::fs::remove_file(name);
    }
    begun
}

/// Away from the caller: a session, orphans and streams of its own, in the container's directory.
fn apart(dir: &Path) -> Result<()> {
    process::setsid()?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    process::set_name("jug-exec");
    path::chdir(dir)?;
    let null = path::open(Path::new("/dev/null"), libc::O_RDWR)?;
    (0..3).try_for_each(|number| fd::dup_onto(null.as_fd(), number))
}
