//! Events on their way to containerd: over its ttrpc socket, one after the other, each until containerd has it. A
//! containerd that is away is asked again; where there is no such socket, the program that containerd named publishes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::message::{Any, Timestamp};
use super::ttrpc::{Connection, Frame};
use crate::error::Result;
use crate::protobuf::Message;
use crate::sys;

/// More than this wait for nobody: the oldest go, as with runc's shim.
const MOST: usize = 2048;
/// How often one event is sent at most, and how long to wait in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

pub struct Publisher {
    namespace: String,
    /// containerd's ttrpc socket.
    socket: Option<PathBuf>,
    /// `containerd` itself, and its address.
    program: (PathBuf, String),
    connection: Option<Connection>,
    queue: VecDeque<Event>,
    stream: u32,
    /// The stream on which the first of the queue was sent.
    sent: Option<u32>,
    retry: Option<Instant>,
}

struct Event {
    topic: &'static str,
    envelope: Message,
    event: Message,
    tries: u32,
}

/// Topic and message type of an event (containerd's core/runtime/events.go).
pub type Kind = (&'static str, &'static str);
pub const CREATE: Kind = ("/tasks/create", "containerd.events.TaskCreate");
pub const START: Kind = ("/tasks/start", "containerd.events.TaskStart");
pub const OOM: Kind = ("/tasks/oom", "containerd.events.TaskOOM");
pub const EXIT: Kind = ("/tasks/exit", "containerd.events.TaskExit");
pub const DELETE: Kind = ("/tasks/delete", "containerd.events.TaskDelete");
pub const EXEC_ADDED: Kind = ("/tasks/exec-added", "containerd.events.TaskExecAdded");
pub const EXEC_STARTED: Kind = ("/tasks/exec-started", "containerd.events.TaskExecStarted");
pub const PAUSED: Kind = ("/tasks/paused", "containerd.events.TaskPaused");
pub const RESUMED: Kind = ("/tasks/resumed", "containerd.events.TaskResumed");
pub const CHECKPOINTED: Kind = ("/tasks/checkpointed", "containerd.events.TaskCheckpointed");

impl Publisher {
    pub fn new(namespace: &str, socket: Option<PathBuf>, program: (PathBuf, String)) -> Self {
        Self {
            namespace: namespace.to_owned(),
            socket,
            program,
            connection: None,
            queue: VecDeque::new(),
            stream: 1,
            sent: None,
            retry: None,
        }
    }

    pub fn push(&mut self, kind: Kind, event: &Message) {
        let event = Any::write(kind.1, event);
        let mut envelope = Message::default();
        envelope
            .message(1, &Timestamp::now().message())
            .text(2, &self.namespace)
            .text(3, kind.0)
            .message(4, &event);
        if self.queue.len() >= MOST {
            self.queue.pop_front();
            self.sent = None;
        }
        self.queue.push_back(Event { topic: kind.0, envelope, event, tries: 0 });
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How long to sleep at most before the next try.
    pub fn wait(&self) -> Option<Duration> {
        self.retry.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Sends the next event, if none is on its way. Returns a connection that is new, to be watched.
    pub fn send(&mut self) -> Option<BorrowedFd<'_>> {
        if self.queue.is_empty() || self.sent.is_some() || self.retry.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.retry = None;
        let Some(socket) = self.socket.clone() else {
            self.run();
            return None;
        };
        let new = self.connection.is_none();
        if new {
            match connect(&socket) {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => {
                    self.again();
                    return None;
                }
            }
        }
        let (Some(connection), Some(event)) = (&mut self.connection, self.queue.front_mut()) else {
            return None;
        };
        let mut request = Message::default();
        request.message(1, &event.envelope);
        connection.call(self.stream, "containerd.services.events.ttrpc.v1.Events", "Forward", &request);
        self.sent = Some(self.stream);
        self.stream = self.stream.wrapping_add(2);
        if !connection.flush() {
            self.lost();
            return None;
        }
        self.connection.as_ref().filter(|_| new).map(|connection| connection.socket.as_fd())
    }

    /// Something came, or can go.
    pub fn hear(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let open = connection.fill().unwrap_or(false) && connection.flush();
        while let Some(frame) = self.connection.as_mut().and_then(Connection::take) {
            match frame {
                // One that containerd refuses it would refuse again.
                Frame::Response { stream, .. } if Some(stream) == self.sent => {
                    self.queue.pop_front();
                    self.sent = None;
                }
                _ => {}
            }
        }
        if !open {
            self.lost();
        }
    }

    /// containerd went away.
    fn lost(&mut self) {
        self.connection = None;
        if self.sent.take().is_some() {
            self.again();
        }
    }

    fn again(&mut self) {
        self.retry = Some(Instant::now() + PAUSE);
        if let Some(event) = self.queue.front_mut() {
            event.tries += 1;
            if event.tries > TRIES {
                self.queue.pop_front();
            }
        }
    }

    /// Without a socket: `containerd publish`, which reads the event from its standard input.
    fn run(&mut self) {
        let (program, address) = &self.program;
        for event in self.queue.drain(..).filter(|_| !program.as_os_str().is_empty()) {
            let Ok(input) = sys::fd::in_memory(event.event.bytes()) else { continue };
            let args = ["containerd", "-address", address, "publish", "-topic", event.topic, "-namespace"];
            let args: Vec<&str> = args.into_iter().chain([self.namespace.as_str()]).collect();
            // What it does not publish is lost, as with every shim.
            let _ = sys::spawn::spawn(program, &args, &[], &[(input.as_fd(), 0)]);
        }
    }
}

fn connect(socket: &Path) -> Result<Connection> {
    Ok(Connection::new(sys::socket::connect_stream_now(socket)?))
}
