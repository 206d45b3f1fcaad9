//! Runs of the runtime: how each begins, and what its end means for the container and for the caller who waits.

use std::os::fd::{AsFd, OwnedFd};

use super::event;
use super::message::number;
use super::process::{Caller, Container, End, Name, Process, State};
use super::runtime::{self, Command};
use super::serve::Shim;
use super::stdio::{self, Held, Opened};
use super::terminal::{Terminal, WORDS};
use super::ttrpc::{Code, Status};
use super::{metrics, rootfs};
use crate::cgroup::watch::Watch;
use crate::error::{Error, Result};
use crate::protobuf::Message;
use crate::sys;
use crate::sys::process::Exit;

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `create` or `restore`, and for an exec `exec`.
    Make,
    Start,
    Delete,
    /// `delete --force` of what could not be made whole.
    Discard,
    /// Or resume.
    Pause(bool),
    Kill,
    Update,
    Checkpoint(String),
}

/// The runtime at work.
pub struct Job {
    pub pid: i32,
    pub kind: Kind,
    pub name: Name,
    pub caller: Caller,
}

impl Job {
    pub fn makes_a_process(&self) -> bool {
        self.kind == Kind::Make
    }
}

/// A process that is made as soon as its logging program is ready.
pub struct Launch {
    /// What the loop says when it is.
    pub word: u64,
    name: Name,
    caller: Caller,
    files: [OwnedFd; 3],
    _ready: Option<OwnedFd>,
}

/// A logging program is told that its container is gone; it has read the end of its streams already.
pub fn end_logger(process: &Process) {
    if let Some(pid) = process.held.logger {
        let _ = sys::process::kill(pid, libc::SIGTERM);
    }
}

impl Shim {
    /// Runs the runtime with nothing to read and nothing to say but its log.
    pub fn run(&mut self, caller: Caller, name: Name, kind: Kind, command: &Command) -> Result<()> {
        self.run_with(caller, name, kind, command, stdio::null()?)
    }

    /// The same with an input.
    pub fn run_with(
        &mut self,
        caller: Caller,
        name: Name,
        kind: Kind,
        command: &Command,
        input: OwnedFd,
    ) -> Result<()> {
        if let Ok(container) = self.container(&name.id) {
            runtime::forget(&container.bundle);
        }
        let null = stdio::null()?;
        let pid = command.start(&[(input.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2)])?;
        self.jobs.push(Job { pid, kind, name, caller });
        Ok(())
    }

    /// Opens the streams of a process that is to be made, and makes it, now or when its logging program is ready.
    pub fn prepare(&mut self, caller: Caller, name: &Name) -> std::result::Result<(), Status> {
        let (namespace, word) = (self.namespace.clone(), self.new_words(1));
        let container = self.container_mut(&name.id)?;
        let options = container.options.clone();
        let streams = container.process(&name.exec)?.streams.clone();
        let opened = if streams.terminal {
            // The other end of these is the terminal's; it is opened when there is one.
            Opened {
                files: [stdio::null()?, stdio::null()?, stdio::null()?],
                held: Held::default(),
                ready: None,
            }
        } else {
            stdio::open(&streams, &options, &namespace, &name.id)?
        };
        let Opened { files, held, ready } = opened;
        if streams.terminal {
            let path = container.file(&name.exec, "pty");
            let _ = std::fs::remove_file(&path);
            let socket = sys::socket::listen_stream(&path)?;
            container.console = Some((name.exec.clone(), socket));
        }
        container.process_mut(&name.exec)?.held = held;
        let waits = ready.is_some();
        let launch = Launch { word, name: name.clone(), caller, files, _ready: ready };
        if waits {
            if let Some(ready) = &launch._ready {
                self.epoll.add(ready.as_fd(), libc::EPOLLIN, word)?;
            }
            self.launches.push(launch);
            return Ok(());
        }
        self.make(launch)
    }

    /// Its logging program is ready.
    pub fn launch(&mut self, launch: Launch) {
        let (caller, name) = (launch.caller, launch.name.clone());
        if let Err(status) = self.make(launch) {
            self.not_made(&name);
            self.answer(caller, &Err(status));
        }
    }

    fn make(&mut self, launch: Launch) -> std::result::Result<(), Status> {
        let name = launch.name;
        let container = self.container(&name.id)?;
        let process = container.process(&name.exec)?;
        let mut command = Command::new(&container.options, &self.namespace, &container.bundle)?;
        if name.exec.is_empty() {
            create_command(&mut command, container);
        } else {
            let spec = container.file(&name.exec, "json");
            std::fs::write(&spec, &process.spec)
                .map_err(|e| Error::call(format_args!("write({spec:?})"), e.raw_os_error().unwrap_or(0)))?;
            command.arg("exec").arg("--process").arg(spec).arg("--detach");
            command.arg("--pid-file").arg(container.file(&name.exec, "pid"));
        }
        if process.streams.terminal {
            command.arg("--console-socket").arg(container.file(&name.exec, "pty"));
        }
        command.arg(&name.id);
        runtime::forget(&container.bundle);
        let [stdin, stdout, stderr] = &launch.files;
        let pid = command.start(&[(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)])?;
        self.jobs.push(Job { pid, kind: Kind::Make, name, caller: launch.caller });
        Ok(())
    }

    /// A process is not there: a container is forgotten, an exec has failed.
    fn not_made(&mut self, name: &Name) {
        if name.exec.is_empty() {
            return self.forget(&name.id);
        }
        let Ok(process) =
            self.container_mut(&name.id).and_then(|container| container.process_mut(&name.exec))
        else {
            return;
        };
        process.state = State::Stopped;
        process.end = Some(End::now(255));
        process.held = Held::default();
        self.wake(name);
    }

    /// The runtime made a process with which something is wrong.
    fn discard(&mut self, name: &Name) {
        let namespace = self.namespace.clone();
        let Ok(container) = self.container_mut(&name.id) else { return };
        if !name.exec.is_empty() {
            if let Ok(process) = container.process(&name.exec)
                && process.pid != 0
                && process.end.is_none()
            {
                let _ = sys::process::kill(process.pid, libc::SIGKILL);
            }
            return self.not_made(name);
        }
        container.deleting = true;
        let command = Command::new(&container.options, &namespace, &container.bundle).map(|mut command| {
            command.arg("delete").arg("--force").arg(&name.id);
            command
        });
        let nobody = Caller { connection: 0, stream: 0 };
        if command.and_then(|command| self.run(nobody, name.clone(), Kind::Discard, &command)).is_err() {
            self.forget(&name.id);
        }
    }

    /// The runtime has ended.
    pub fn finish(&mut self, job: Job, exit: Exit) {
        let said = || {
            let container = self.container(&job.name.id).ok();
            container.and_then(|container| runtime::last_error(&container.bundle))
        };
        let done = match exit {
            Exit::Code(0) => Ok(()),
            _ => Err(said().unwrap_or_else(|| format!("the runtime ended with {exit:?} and said nothing"))),
        };
        self.conclude(job, done);
    }

    /// It is done, or what went wrong in the runtime's words.
    pub fn conclude(&mut self, job: Job, done: std::result::Result<(), String>) {
        let caller = job.caller;
        let answer = match done {
            Ok(()) => self.succeeded(&job),
            Err(text) => self.failed(&job, &text),
        };
        if job.kind == Kind::Make && answer.is_err() {
            self.discard(&job.name);
        }
        self.answer(caller, &answer);
        if matches!(job.kind, Kind::Start | Kind::Make) {
            self.announce(&job.name);
        }
    }

    fn succeeded(&mut self, job: &Job) -> std::result::Result<Message, Status> {
        let name = &job.name;
        match &job.kind {
            Kind::Make if name.exec.is_empty() => self.created(name),
            Kind::Make => self.exec_started(name),
            Kind::Start => self.started(name),
            Kind::Delete => self.deleted(name),
            Kind::Discard => {
                self.forget(&name.id);
                Ok(Message::default())
            }
            Kind::Pause(pause) => {
                self.container_mut(&name.id)?.paused = *pause;
                self.tell(if *pause { event::PAUSED } else { event::RESUMED }, name, &Message::default());
                Ok(Message::default())
            }
            Kind::Checkpoint(path) => {
                let mut more = Message::default();
                more.text(2, path);
                self.tell(event::CHECKPOINTED, name, &more);
                Ok(Message::default())
            }
            Kind::Kill | Kind::Update => Ok(Message::default()),
        }
    }

    /// What the runtime says, in the words that callers look for.
    fn failed(&mut self, job: &Job, text: &str) -> std::result::Result<Message, Status> {
        let name = &job.name;
        let gone = |text: &str| {
            let words = ["os: process already finished", "container not running", "no such process"];
            words.iter().any(|word| text.to_lowercase().contains(word))
        };
        match job.kind {
            Kind::Make if name.exec.is_empty() => {
                self.not_made(name);
                Err(Status::new(Code::Unknown, format!("OCI runtime create failed: {text}")))
            }
            Kind::Make => {
                self.not_made(name);
                Err(Status::new(Code::Unknown, format!("OCI runtime exec failed: {text}")))
            }
            Kind::Start => {
                let init = &mut self.container_mut(&name.id)?.init;
                // One that has ended meanwhile is announced next.
                init.state = if init.end.is_some() { State::Running } else { State::Created };
                Err(Status::new(Code::Unknown, format!("OCI runtime start failed: {text}")))
            }
            Kind::Delete if text.contains("does not exist") => self.deleted(name),
            Kind::Discard => {
                self.forget(&name.id);
                Ok(Message::default())
            }
            Kind::Delete => {
                self.container_mut(&name.id)?.deleting = false;
                Err(Status::new(Code::Unknown, format!("failed to delete: {text}")))
            }
            Kind::Kill if gone(text) => {
                Err(Status::new(Code::NotFound, "process already finished: not found"))
            }
            Kind::Kill if text.contains("does not exist") => {
                Err(Status::new(Code::NotFound, "no such container: not found"))
            }
            Kind::Pause(true) => Err(Status::new(Code::Unknown, format!("OCI runtime pause failed: {text}"))),
            Kind::Pause(false) => {
                Err(Status::new(Code::Unknown, format!("OCI runtime resume failed: {text}")))
            }
            Kind::Checkpoint(_) => {
                Err(Status::new(Code::Unknown, format!("OCI runtime checkpoint failed: {text}")))
            }
            Kind::Kill | Kind::Update => Err(Status::new(Code::Unknown, text)),
        }
    }

    /// The process is there: its number, and its terminal if it has one.
    fn made(&mut self, name: &Name) -> std::result::Result<i32, Status> {
        let word = self.new_words(WORDS);
        let (namespace, early) = (self.namespace.clone(), &self.early);
        let found = self.containers.iter_mut().find(|container| container.id == name.id);
        let Some(container) = found else { return Err(Status::new(Code::NotFound, "container not created")) };
        let file = match name.exec.as_str() {
            "" => container.bundle.join(runtime::PID),
            exec => container.file(exec, "pid"),
        };
        let pid =
            runtime::read_pid(&file).ok_or_else(|| Error::new("the runtime wrote no process number"))?;
        let end = early.iter().find(|(early, _)| *early == pid).map(|(_, end)| *end);
        if !name.exec.is_empty() {
            let _ = std::fs::remove_file(file);
            let _ = std::fs::remove_file(container.file(&name.exec, "json"));
        }
        let console = container.console.take_if(|(exec, _)| *exec == name.exec);
        let path = container.file(&name.exec, "pty");
        let (id, options) = (container.id.clone(), container.options.clone());
        let process = container.process_mut(&name.exec)?;
        (process.pid, process.end, process.spec) = (pid, end, Vec::new());
        if let Some((_, socket)) = console {
            let _ = std::fs::remove_file(path);
            let terminal = take_terminal(process, &socket, word, &options, (&namespace, &id))?;
            process.terminal = Some(Box::new(terminal));
            if let Some(terminal) = &mut process.terminal {
                terminal.copy(&self.epoll)?;
            }
        }
        Ok(pid)
    }

    fn created(&mut self, name: &Name) -> std::result::Result<Message, Status> {
        let pid = self.made(name)?;
        let container = self.container_mut(&name.id)?;
        container.init.state = State::Created;
        // One that ended already has no cgroup to be found.
        container.traces = metrics::cgroups_of(pid).unwrap_or_default();
        let streams = &container.init.streams;
        let mut io = Message::default();
        io.some_text(1, &streams.stdin).some_text(2, &streams.stdout).some_text(3, &streams.stderr);
        io.flag(4, streams.terminal);
        let mut event = Message::default();
        event.text(1, &container.id).text(2, container.bundle.as_os_str().as_encoded_bytes());
        for mount in &container.rootfs {
            event.message(3, &mount.message());
        }
        event.message(4, &io).some_text(5, &container.checkpoint).unsigned(6, pid.unsigned_abs().into());
        self.publisher.push(event::CREATE, &event);
        Ok(number(1, pid.unsigned_abs().into()))
    }

    pub fn started(&mut self, name: &Name) -> std::result::Result<Message, Status> {
        let word = self.new_words(1);
        let epoll = &self.epoll;
        let found = self.containers.iter_mut().find(|container| container.id == name.id);
        let Some(container) = found else { return Err(Status::new(Code::NotFound, "container not created")) };
        container.init.state = State::Running;
        let pid = container.init.pid;
        // Without a watch nobody hears of memory; the container runs all the same.
        if let Ok(Some(pidfd)) = sys::process::pidfd_open(pid) {
            container.watch = Watch::new(&container.traces, pidfd).ok().map(Box::new);
            for (fd, events) in container.watch.iter().flat_map(|watch| watch.memory_events()) {
                epoll.add(fd, events.into(), word)?;
            }
        }
        self.tell(event::START, name, &number(2, pid.unsigned_abs().into()));
        Ok(number(1, pid.unsigned_abs().into()))
    }

    fn exec_started(&mut self, name: &Name) -> std::result::Result<Message, Status> {
        let pid = self.made(name)?;
        self.container_mut(&name.id)?.process_mut(&name.exec)?.state = State::Running;
        let mut more = number(3, pid.unsigned_abs().into());
        more.text(2, &name.exec);
        self.tell(event::EXEC_STARTED, name, &more);
        Ok(number(1, pid.unsigned_abs().into()))
    }

    pub fn deleted(&mut self, name: &Name) -> std::result::Result<Message, Status> {
        let Some(at) = self.containers.iter().position(|container| container.id == name.id) else {
            return Err(Status::new(Code::NotFound, "container not created: not found"));
        };
        // A container that was never started ends by being deleted, which the caller may hear of before us.
        self.containers[at].init.end.get_or_insert_with(|| End::now(128 + libc::SIGKILL as u32));
        self.announce(name);
        let container = self.containers.swap_remove(at);
        for process in container.execs.iter().chain([&container.init]) {
            end_logger(process);
        }
        if !container.rootfs.is_empty() {
            rootfs::unmount(&container.root())?;
        }
        let response = container.init.delete_response();
        let mut event = Message::default();
        event.text(1, &container.id).unsigned(2, container.init.pid.unsigned_abs().into());
        if let Some(end) = container.init.end {
            event.unsigned(3, end.status.into()).message(4, &end.at.message());
        }
        self.publisher.push(event::DELETE, &event);
        Ok(response)
    }

    /// An event whose first field is the container.
    fn tell(&mut self, kind: event::Kind, name: &Name, more: &Message) {
        let mut event = Message::default();
        event.text(1, &name.id);
        event.append(more);
        self.publisher.push(kind, &event);
    }
}

fn create_command(command: &mut Command, container: &Container) {
    let options = &container.options;
    if container.checkpoint.is_empty() {
        command.arg("create");
    } else {
        let work = match options.criu_work_path.as_str() {
            "" => container.bundle.join("work"),
            path => path.into(),
        };
        command.arg("restore").arg("--detach").arg("--image-path").arg(&container.checkpoint);
        command.arg("--work-path").arg(work);
    }
    command.arg("--bundle").arg(&container.bundle).arg("--pid-file").arg(container.bundle.join(runtime::PID));
    if options.no_pivot_root {
        command.arg("--no-pivot");
    }
    if options.no_new_keyring && container.checkpoint.is_empty() {
        command.arg("--no-new-keyring");
    }
}

/// The terminal that the runtime has sent, with the streams of the client.
fn take_terminal(
    process: &mut Process,
    socket: &OwnedFd,
    word: u64,
    options: &super::options::Options,
    (namespace, id): (&str, &str),
) -> Result<Terminal> {
    let missing = || Error::new("the runtime sent no terminal");
    let connection = sys::socket::accept(socket.as_fd())?.ok_or_else(missing)?;
    let (_, master) = sys::socket::receive_up_to(connection.as_fd(), 4096)?;
    let streams = &process.streams;
    let (input, hold) = match streams.stdin.as_str() {
        "" => (None, None),
        path => {
            let (input, hold) = stdio::input(path)?;
            (Some(input), hold)
        }
    };
    let (output, logger) = stdio::terminal_output(&streams.stdout, options, namespace, id)?;
    process.held = Held::of_terminal(hold, logger);
    Terminal::new(master.ok_or_else(missing)?, input, output, word)
}
