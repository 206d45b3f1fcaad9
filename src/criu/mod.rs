//! criu(8), the program that stops a process tree to disk and makes it run again: found, started as `criu swrk`, talked
//! to. What a container has to tell it is decided in `container/`.

pub mod options;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use self::options::Options;
use self::options::Places;
use crate::cgroup::Cgroup;
use crate::container::sync::{Heard, Sync, Word};
use crate::error::{Error, Result};
use crate::protobuf::{Message, fields};
use crate::sys::clone::{Child, Side, clone3};
use crate::sys::process::{self, Exit};
use crate::sys::{fd, path, signal, socket};

/// criu's descriptors: the socket to this process, the directories, and from then on what a request names.
const SOCKET: i32 = 3;
const IMAGES: i32 = 4;
const WORK: i32 = 5;
pub const FIRST_INHERITED: i32 = 6;

/// Above everything that criu is given.
const ABOVE: i32 = 64;

/// Longest answer.
const LIMIT: usize = 128 * 1024;

/// What is asked (criu_req_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

impl Kind {
    fn name(number: i64) -> &'static str {
        match number {
            1 => "DUMP",
            2 => "RESTORE",
            4 => "PRE_DUMP",
            6 => "NOTIFY",
            9 => "FEATURE_CHECK",
            _ => "EMPTY",
        }
    }
}

/// A question of criu's on its way (criu_notify).
#[derive(Debug)]
pub struct Notice {
    pub script: String,
    pub pid: i32,
    /// The master of a terminal, for `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// criu where it is installed.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("criu"))
        .find(|file| path::executable(file).is_ok())
        .ok_or_else(|| {
            Error::new("exec: \"criu\": executable file not found in $PATH")
                .why("checkpoint and restore are done by the program criu, which is not installed")
                .next("install the package criu")
        })
}

/// A `criu swrk`, waiting for its one request.
#[derive(Debug)]
pub struct Service {
    socket: OwnedFd,
    child: Child,
    ended: bool,
}

impl Service {
    /// Starts criu in `cgroup`. `inherited` become its descriptors from [`FIRST_INHERITED`] on; `prepare` runs in its
    /// process first.
    pub fn start(
        cgroup: Option<&Cgroup>,
        places: Option<&Places>,
        inherited: &[BorrowedFd<'_>],
        prepare: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let program =
            CString::new(find()?.as_os_str().as_bytes()).map_err(|_| Error::new("a NUL byte in PATH"))?;
        let (hears, says) = Sync::pair()?;
        match clone3(0, cgroup.map(|cgroup| cgroup.dir.as_fd()))? {
            Side::Parent(child) => {
                drop(says);
                let socket = match hears.hear()? {
                    Heard::Word(Word::Ready, _, Some(socket)) => socket,
                    other => return Err(Error::new(format!("unexpected {other:?} before criu"))),
                };
                let service = Self { socket, child, ended: false };
                // Its silence is that of execve, which closes its end.
                match hears.hear()? {
                    Heard::Silence => Ok(service),
                    Heard::Word(word, ..) => Err(Error::new(format!("unexpected word {word:?} before criu"))),
                }
            }
            Side::Child => {
                drop(hears);
                let says = says.raise(ABOVE).unwrap_or_else(|_| process::exit_now(1));
                let tasks = cgroup.map(|cgroup| cgroup.v1_tasks.as_slice()).unwrap_or_default();
                let ready = || -> Result<()> {
                    tasks.iter().try_for_each(|tasks| fd::write_all(tasks.as_fd(), b"0"))?;
                    prepare()?;
                    take_descriptors(&says, places, inherited)
                };
                let error = match ready() {
                    Ok(()) => become_criu(&program),
                    Err(e) => e,
                };
                says.fail(&error);
                process::exit_now(1)
            }
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Sends the request and answers criu's notices until it is done. Returns the fields of the last answer that
    /// matter: what it can do, for [`Kind::FeatureCheck`].
    pub fn perform(
        &self,
        kind: Kind,
        request: &mut Message,
        mut notice: impl FnMut(Notice) -> Result<()>,
    ) -> Result<Features> {
        request.number(1, kind as i64);
        socket::send(self.socket.as_fd(), request.bytes(), None)?;
        let mut refused = None;
        loop {
            let (bytes, fd) = socket::receive(self.socket.as_fd(), LIMIT)?;
            if bytes.is_empty() {
                return Err(refused.unwrap_or_else(|| Error::new("criu ended without an answer")));
            }
            let answer = Answer::read(&bytes);
            if !answer.success {
                return Err(refused.unwrap_or_else(|| answer.error()));
            }
            match answer.kind {
                n if n == Kind::Notify as i64 => {
                    let mut word = Message::default();
                    word.number(1, Kind::Notify as i64);
                    // criu hears of a failure and takes back what it did: to kill it would leave processes stopped.
                    match notice(Notice { script: answer.script, pid: answer.pid, fd }) {
                        Ok(()) => drop(word.flag(3, true)),
                        Err(error) => refused = Some(error),
                    }
                    socket::send(self.socket.as_fd(), word.bytes(), None)?;
                }
                n if n == kind as i64 => return refused.map_or(Ok(answer.features), Err),
                n => return Err(Error::new(format!("criu answers something else: type {}", Kind::name(n)))),
            }
        }
    }

    /// Lets criu end. `must_succeed`: a criu that fails now has failed; after a pre-dump it waits for a dump that never
    /// comes, and complains.
    pub fn end(mut self, must_succeed: bool) -> Result<()> {
        fd_shutdown(&self.socket);
        self.ended = true;
        match process::wait(self.child.pidfd.as_fd(), true)? {
            Some(Exit::Code(0)) | None => Ok(()),
            _ if !must_succeed => Ok(()),
            Some(Exit::Code(code)) => Err(Error::new(format!("criu failed: exit status {code}"))),
            Some(Exit::Signal(signal)) => Err(Error::new(format!("criu failed: killed by signal {signal}"))),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.ended {
            let _ = process::pidfd_kill(self.child.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(self.child.pidfd.as_fd(), true);
        }
    }
}

fn fd_shutdown(socket: &OwnedFd) {
    let _ = socket::shut_down_writing(socket.as_fd());
}

/// In criu's process: puts every descriptor where criu looks for it. The socket is made here, because criu looks for
/// the descriptors of a request in the process that made the socket.
fn take_descriptors(says: &Sync, places: Option<&Places>, inherited: &[BorrowedFd<'_>]) -> Result<()> {
    let (ours, theirs) = socket::pair()?;
    says.hand(Word::Ready, ours.as_fd())?;
    let mut wanted = vec![theirs];
    if let Some(places) = places {
        wanted.extend(places.reopen()?);
    }
    let wanted = wanted.iter().map(AsFd::as_fd).chain(inherited.iter().copied());
    // Out of the way first: any of them may stand where another has to go. Never closed by their owner: this process
    // leaves by exec or _exit.
    let above = |fd: BorrowedFd<'_>| fd::duplicate_above(fd, ABOVE).map(std::mem::ManuallyDrop::new);
    let copies = wanted.map(above).collect::<Result<Vec<_>>>()?;
    fd::cloexec_from(SOCKET)?;
    for (copy, number) in copies.iter().zip(SOCKET..) {
        fd::dup_onto(copy.as_fd(), number)?;
    }
    Ok(())
}

/// Returns only why it did not become criu.
fn become_criu(program: &CString) -> Error {
    if let Err(e) = signal::reset() {
        return e;
    }
    let words = [c"criu", c"swrk", c"3"].map(CString::from);
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    };
    let env: Vec<CString> = std::env::vars_os().filter_map(variable).collect();
    process::execve(program, &words, &env)
}

/// What criu and the kernel can do together (criu_features).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    pub mem_track: bool,
    pub lazy_pages: bool,
}

/// An answer of criu's (criu_resp).
#[derive(Debug, Default)]
struct Answer {
    kind: i64,
    success: bool,
    errno: i64,
    message: String,
    script: String,
    pid: i32,
    features: Features,
}

impl Answer {
    fn error(self) -> Error {
        let what = format!("criu failed: type {} errno {}", Kind::name(self.kind), self.errno);
        match self.message {
            text if text.is_empty() => Error::new(what),
            text => Error::new(what).why(text),
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let mut answer = Self::default();
        for (field, value) in fields(bytes) {
            match field {
                1 => answer.kind = value.number(),
                2 => answer.success = value.number() != 0,
                5 => {
                    for (field, value) in fields(value.bytes()) {
                        match field {
                            1 => answer.script = value.text(),
                            2 => answer.pid = value.number() as i32,
                            _ => {}
                        }
                    }
                }
                7 => answer.errno = value.number(),
                8 => {
                    let on = |wanted| fields(value.bytes()).any(|(f, v)| f == wanted && v.number() != 0);
                    answer.features = Features { mem_track: on(1), lazy_pages: on(2) };
                }
                9 => answer.message = value.text(),
                _ => {}
            }
        }
        answer
    }
}

/// What criu can do, asked of a criu of its own.
pub fn features() -> Result<Features> {
    let mut wanted = Message::default();
    wanted.flag(1, true).flag(2, true);
    let mut request = Message::default();
    request.message(5, &wanted);
    let service = Service::start(None, None, &[], || Ok(()))?;
    service
        .perform(Kind::FeatureCheck, &mut request, |_| Ok(()))
        .map_err(|e| e.context("CRIU feature check failed"))
}

/// The first complaint in criu's log, which says more than its answer does.
fn complaint(log: &Path) -> Option<String> {
    const LONGEST_LOG: usize = 64 << 20;
    /// What criu only tries, and does without.
    const HARMLESS: [&str; 2] = ["RLIMIT_NOFILE", "tun: Unable to create tun"];
    let log = path::open(log, libc::O_RDONLY).ok()?;
    let bytes = fd::read_to_end(log.as_fd(), LONGEST_LOG).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let serious = |line: &&str| line.contains("Error") && !HARMLESS.iter().any(|words| line.contains(words));
    text.lines().find(serious).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let mut notify = Message::default();
        notify.text(1, "post-restore").number(2, 4711);
        let mut answer = Message::default();
        answer.number(1, 6).flag(2, true).message(5, &notify).number(7, 52).text(9, "why");
        let answer = Answer::read(answer.bytes());
        assert_eq!((answer.kind, answer.success, answer.pid, answer.errno), (6, true, 4711, 52));
        assert_eq!((answer.script.as_str(), answer.message.as_str()), ("post-restore", "why"));
    }
}
