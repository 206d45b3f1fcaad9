//! What the shim knows of containers and the processes it started in them. Facts and questions about them only: what
//! is done with them stands in `task` and `job`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::message::{Mount, Streams, Timestamp};
use super::options::Options;
use super::stdio::Held;
use super::terminal::Terminal;
use super::ttrpc::{Code, Status};
use crate::cgroup::Traces;
use crate::cgroup::watch::Watch;
use crate::protobuf::Message;
use crate::sys::process::Exit;

/// Whom an answer goes to: a connection, and the stream of the request on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub connection: u64,
    pub stream: u32,
}

/// A process: `exec` is empty for the container's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub id: String,
    pub exec: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The runtime makes it, or (of an exec) it has not been asked to.
    New,
    Created,
    /// The runtime starts it: an end that comes meanwhile is announced afterwards.
    Starting,
    Running,
    Stopped,
}

/// How and when it ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub status: u32,
    pub at: Timestamp,
}

impl End {
    pub fn now(status: u32) -> Self {
        Self { status, at: Timestamp::now() }
    }

    pub fn of(exit: Exit) -> Self {
        Self::now(exit.code() as u32)
    }
}

pub struct Process {
    pub exec: String,
    /// 0 until the runtime has made it. A child of this process: the number is its own until it is reaped.
    pub pid: i32,
    pub state: State,
    pub end: Option<End>,
    pub streams: Streams,
    pub held: Held,
    pub terminal: Option<Box<Terminal>>,
    /// Who waits for its end.
    pub waiters: Vec<Caller>,
    /// Of an exec, until it is started: the process as JSON.
    pub spec: Vec<u8>,
}

impl Process {
    pub fn new(exec: String, streams: Streams, spec: Vec<u8>) -> Self {
        Self {
            exec,
            pid: 0,
            state: State::New,
            end: None,
            streams,
            held: Held::default(),
            terminal: None,
            waiters: Vec::new(),
            spec,
        }
    }

    /// WaitResponse, once it has ended.
    pub fn wait_response(&self) -> Option<Message> {
        let end = self.end?;
        let mut message = Message::default();
        message.unsigned(1, end.status.into()).message(2, &end.at.message());
        Some(message)
    }

    /// DeleteResponse.
    pub fn delete_response(&self) -> Message {
        let mut message = Message::default();
        message.unsigned(1, self.pid.unsigned_abs().into());
        if let Some(end) = self.end {
            message.unsigned(2, end.status.into()).message(3, &end.at.message());
        }
        message
    }
}

pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub options: Options,
    pub rootfs: Vec<Mount>,
    /// The image of a checkpoint that it is restored from.
    pub checkpoint: String,
    pub init: Process,
    pub execs: Vec<Process>,
    pub paused: bool,
    pub deleting: bool,
    pub traces: Traces,
    pub watch: Option<Box<Watch>>,
    /// The socket on which the runtime hands over a terminal, while it makes one.
    pub console: Option<(String, OwnedFd)>,
}

impl Container {
    pub fn process(&self, exec: &str) -> Result<&Process, Status> {
        match exec {
            "" => Ok(&self.init),
            _ => self.execs.iter().find(|process| process.exec == exec).ok_or_else(|| unknown(exec)),
        }
    }

    pub fn process_mut(&mut self, exec: &str) -> Result<&mut Process, Status> {
        match exec {
            "" => Ok(&mut self.init),
            _ => self.execs.iter_mut().find(|process| process.exec == exec).ok_or_else(|| unknown(exec)),
        }
    }

    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.execs.iter_mut().chain(std::iter::once(&mut self.init))
    }

    pub fn root(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// A file of this shim's in the bundle, for one process of the container.
    pub fn file(&self, exec: &str, kind: &str) -> PathBuf {
        let name = if exec.is_empty() { "init" } else { exec };
        self.bundle.join(Path::new(&format!("{name}.{kind}")))
    }

    /// StateResponse of one of its processes.
    pub fn state_response(&self, process: &Process) -> Message {
        let name = if process.exec.is_empty() { &self.id } else { &process.exec };
        let status = match process.state {
            State::New if process.exec.is_empty() => 0,
            State::New | State::Created | State::Starting => 1,
            State::Stopped => 3,
            State::Running if self.paused => 4,
            State::Running => 2,
        };
        let streams = &process.streams;
        let mut message = Message::default();
        message.text(1, name).text(2, self.bundle.as_os_str().as_encoded_bytes());
        message.unsigned(3, process.pid.unsigned_abs().into()).unsigned(4, status);
        message.some_text(5, &streams.stdin).some_text(6, &streams.stdout).some_text(7, &streams.stderr);
        message.flag(8, streams.terminal);
        if let Some(end) = process.end {
            message.unsigned(9, end.status.into()).message(10, &end.at.message());
        }
        message.some_text(11, &process.exec);
        message
    }
}

fn unknown(exec: &str) -> Status {
    Status::new(Code::NotFound, format!("process {exec} does not exist: not found"))
}
