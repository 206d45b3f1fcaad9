//! The methods of the task service, one function each. What needs the runtime is answered by `job` when the runtime has
//! ended; everything else at once.

use std::path::{Path, PathBuf};

use super::event;
use super::message::{Any, CheckpointOptions, Create, Exec, Named, check_name};
use super::options::Options;
use super::process::{Caller, Container, Name, Process, State};
use super::runtime::Command;
use super::serve::Shim;
use super::ttrpc::{Answer, Code, Request, Status};
use super::{metrics, rootfs};
use crate::cgroup::Traces;
use crate::protobuf::Message;
use crate::sys;

/// `None`: the answer comes later.
pub type Now = std::result::Result<Option<Message>, Status>;

/// The service under its two names; their messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

fn refused<T>(code: Code, message: impl Into<String>) -> std::result::Result<T, Status> {
    Err(Status::new(code, message))
}

fn empty() -> Now {
    Ok(Some(Message::default()))
}

impl Shim {
    pub fn call(&mut self, caller: Caller, request: &Request) -> Option<Answer> {
        if !SERVICES.contains(&request.service.as_str()) {
            let what = format!("service {}", request.service);
            return Some(refused(Code::Unimplemented, what));
        }
        let payload = &request.payload;
        let named = || Named::read(payload);
        let now = match request.method.as_str() {
            "State" => self.state(&named()),
            "Create" => self.create(caller, Create::read(payload)),
            "Start" => self.start(caller, &named()),
            "Delete" => self.delete(caller, &named()),
            "Pids" => self.pids(&named()),
            "Pause" => self.pause(caller, &named(), true),
            "Resume" => self.pause(caller, &named(), false),
            "Checkpoint" => self.checkpoint(caller, &named()),
            "Kill" => self.kill(caller, &named()),
            "Exec" => self.exec(Exec::read(payload)),
            "ResizePty" => self.resize(&named()),
            "CloseIO" => self.close_io(&named()),
            "Update" => self.update(caller, &named()),
            "Wait" => self.wait(caller, &named()),
            "Stats" => self.stats(&named()),
            "Connect" => Ok(Some(self.connect(&named()))),
            "Shutdown" => self.shutdown(),
            other => refused(Code::Unimplemented, format!("method {other}")),
        };
        now.transpose()
    }

    pub fn container(&self, id: &str) -> Result<&Container, Status> {
        let found = self.containers.iter().find(|container| container.id == id);
        found.ok_or_else(|| Status::new(Code::NotFound, "container not created: not found"))
    }

    pub fn container_mut(&mut self, id: &str) -> Result<&mut Container, Status> {
        let found = self.containers.iter_mut().find(|container| container.id == id);
        found.ok_or_else(|| Status::new(Code::NotFound, "container not created: not found"))
    }

    fn state(&self, named: &Named) -> Now {
        let container = self.container(&named.id)?;
        Ok(Some(container.state_response(container.process(&named.exec_id())?)))
    }

    fn create(&mut self, caller: Caller, create: Create) -> Now {
        check_name(&create.id).or_else(|e| refused(Code::InvalidArgument, e.to_string()))?;
        if self.container(&create.id).is_ok() {
            return refused(Code::AlreadyExists, format!("container {}: already exists", create.id));
        }
        let bundle = PathBuf::from(&create.bundle);
        if !bundle.is_absolute() || sys::path::open(&bundle, libc::O_PATH | libc::O_DIRECTORY).is_err() {
            return refused(Code::NotFound, format!("bundle {:?}: not found", create.bundle));
        }
        let options =
            Options::read(&create.options).or_else(|e| refused(Code::InvalidArgument, e.to_string()))?;
        options.keep(&bundle)?;
        let container = Container {
            id: create.id.clone(),
            bundle,
            options,
            rootfs: create.rootfs,
            checkpoint: create.checkpoint,
            init: Process::new(String::new(), create.streams, Vec::new()),
            execs: Vec::new(),
            paused: false,
            deleting: false,
            traces: Traces::default(),
            watch: None,
            console: None,
        };
        rootfs::mount(&container.rootfs, &container.root())?;
        self.containers.push(container);
        let name = Name { id: create.id, exec: String::new() };
        self.prepare(caller, &name).inspect_err(|_| self.forget(&name.id))?;
        Ok(None)
    }

    /// Takes a container out that the runtime does not know.
    pub fn forget(&mut self, id: &str) {
        if let Some(at) = self.containers.iter().position(|container| container.id == id) {
            let container = self.containers.swap_remove(at);
            if !container.rootfs.is_empty() {
                // Who looks after a bundle that cannot be unmounted is containerd, which tries again.
                let _ = rootfs::unmount(&container.root());
            }
        }
    }

    fn start(&mut self, caller: Caller, named: &Named) -> Now {
        let name = Name { id: named.id.clone(), exec: named.exec_id() };
        let namespace = self.namespace.clone();
        let container = self.container_mut(&name.id)?;
        let init = container.init.state;
        let process = container.process_mut(&name.exec)?;
        let wanted = if name.exec.is_empty() { State::Created } else { State::New };
        if process.state != wanted {
            return refused(Code::FailedPrecondition, "cannot start a process that has been started");
        }
        if !name.exec.is_empty() {
            if init == State::Stopped {
                return refused(
                    Code::FailedPrecondition,
                    format!("container {} init process is not running", name.id),
                );
            }
            process.state = State::Starting;
            let prepared = self.prepare(caller, &name);
            if let (Err(_), Ok(process)) = (&prepared, self.container_mut(&name.id)?.process_mut(&name.exec))
            {
                process.state = State::New;
            }
            prepared?;
            return Ok(None);
        }
        // criu has let it run; containerd starts it all the same.
        if !container.checkpoint.is_empty() {
            return self.started(&name).map(Some);
        }
        let mut command = Command::new(&container.options, &namespace, &container.bundle)?;
        command.arg("start").arg(&name.id);
        self.run(caller, name.clone(), super::job::Kind::Start, &command)?;
        self.container_mut(&name.id)?.init.state = State::Starting;
        Ok(None)
    }

    fn delete(&mut self, caller: Caller, named: &Named) -> Now {
        let exec = named.exec_id();
        let namespace = self.namespace.clone();
        let container = self.container_mut(&named.id)?;
        if matches!(container.process(&exec)?.state, State::Running | State::Starting) {
            return refused(Code::FailedPrecondition, "cannot delete a running process: failed precondition");
        }
        if !exec.is_empty() {
            let at = container.execs.iter().position(|process| process.exec == exec).unwrap_or_default();
            let process = container.execs.swap_remove(at);
            super::job::end_logger(&process);
            return Ok(Some(process.delete_response()));
        }
        if container.deleting || container.init.state == State::New {
            return refused(Code::FailedPrecondition, "the container is being made or deleted");
        }
        let mut command = Command::new(&container.options, &namespace, &container.bundle)?;
        command.arg("delete").arg(&named.id);
        let name = Name { id: named.id.clone(), exec };
        self.run(caller, name, super::job::Kind::Delete, &command)?;
        self.container_mut(&named.id)?.deleting = true;
        Ok(None)
    }

    fn pids(&self, named: &Named) -> Now {
        let container = self.container(&named.id)?;
        let mut pids = crate::cgroup::pids(&container.traces)?;
        if pids.is_empty() && container.init.end.is_none() && container.init.pid != 0 {
            pids.push(container.init.pid);
        }
        let mut response = Message::default();
        for pid in pids {
            let mut info = super::message::number(1, pid.unsigned_abs().into());
            if let Some(process) = container.execs.iter().find(|process| process.pid == pid) {
                let mut details = Message::default();
                details.text(1, &process.exec);
                info.message(2, &Any::write("containerd.runc.v1.ProcessDetails", &details));
            }
            response.message(1, &info);
        }
        Ok(Some(response))
    }

    fn pause(&mut self, caller: Caller, named: &Named, pause: bool) -> Now {
        let verb = if pause { "pause" } else { "resume" };
        let (kind, state) = (super::job::Kind::Pause(pause), self.container(&named.id)?.init.state);
        if state != State::Running {
            let name = if state == State::Stopped { "stopped" } else { "created" };
            return refused(Code::Unknown, format!("cannot {verb} a {name} container"));
        }
        self.simply(caller, &named.id, kind, &[verb])
    }

    fn checkpoint(&mut self, caller: Caller, named: &Named) -> Now {
        let options = CheckpointOptions::read(&Any::read(&named.third_bytes).value);
        let container = self.container(&named.id)?;
        let path = String::from_utf8_lossy(&named.second).into_owned();
        let image = if options.image_path.is_empty() { path } else { options.image_path };
        if image.is_empty() {
            return refused(Code::InvalidArgument, "a checkpoint needs a path");
        }
        let work = match options.work_path.as_str() {
            "" => container.bundle.join("work").to_string_lossy().into_owned(),
            path => path.to_owned(),
        };
        let mut args = vec!["checkpoint", "--image-path", &image, "--work-path", &work];
        args.extend(&options.flags);
        if !options.exit {
            args.push("--leave-running");
        }
        self.simply(caller, &named.id, super::job::Kind::Checkpoint(image.clone()), &args)
    }

    fn kill(&mut self, caller: Caller, named: &Named) -> Now {
        let signal = i32::try_from(named.third).unwrap_or(-1);
        if !(0..=64).contains(&signal) {
            return refused(Code::InvalidArgument, format!("signal {} does not exist", named.third));
        }
        let exec = named.exec_id();
        let process = self.container(&named.id)?.process(&exec)?;
        if process.state == State::Stopped {
            return refused(Code::NotFound, "process already finished: not found");
        }
        if process.pid == 0 {
            return refused(Code::FailedPrecondition, "process not created: failed precondition");
        }
        if named.fourth != 0 && exec.is_empty() {
            let signal = signal.to_string();
            return self.simply(caller, &named.id, super::job::Kind::Kill, &["kill", "--all", "", &signal]);
        }
        // A child that was not reaped: the number can mean nobody else.
        match sys::process::kill(process.pid, signal) {
            Err(e) if e.errno() == libc::ESRCH => {
                refused(Code::NotFound, "process already finished: not found")
            }
            other => {
                other?;
                empty()
            }
        }
    }

    fn exec(&mut self, exec: Exec) -> Now {
        check_name(&exec.exec_id).or_else(|e| refused(Code::InvalidArgument, e.to_string()))?;
        let container = self.container_mut(&exec.id)?;
        if container.process(&exec.exec_id).is_ok() || exec.exec_id == "init" {
            return refused(Code::AlreadyExists, format!("id {}: already exists", exec.exec_id));
        }
        if container.paused {
            return refused(Code::Unknown, "cannot exec in a paused state");
        }
        match container.init.state {
            State::Stopped => return refused(Code::Unknown, "cannot exec in a stopped state"),
            State::New => return refused(Code::FailedPrecondition, "the container is being made"),
            _ => {}
        }
        container.execs.push(Process::new(exec.exec_id.clone(), exec.streams, exec.spec));
        let mut added = Message::default();
        added.text(1, &exec.id).text(2, &exec.exec_id);
        self.publisher.push(event::EXEC_ADDED, &added);
        empty()
    }

    fn resize(&mut self, named: &Named) -> Now {
        let exec = named.exec_id();
        let process = self.container_mut(&named.id)?.process_mut(&exec)?;
        if let Some(terminal) = &process.terminal {
            let size = |n: i64| u16::try_from(n).unwrap_or(u16::MAX);
            terminal.resize(size(named.third), size(named.fourth))?;
        }
        empty()
    }

    fn close_io(&mut self, named: &Named) -> Now {
        let exec = named.exec_id();
        self.container_mut(&named.id)?.process_mut(&exec)?.held.close_input();
        empty()
    }

    fn update(&mut self, caller: Caller, named: &Named) -> Now {
        let namespace = self.namespace.clone();
        let container = self.container(&named.id)?;
        let resources = sys::fd::in_memory(&Any::read(&named.second).value)?;
        let mut command = Command::new(&container.options, &namespace, &container.bundle)?;
        command.arg("update").arg("--resources").arg("-").arg(&named.id);
        let name = Name { id: named.id.clone(), exec: String::new() };
        self.run_with(caller, name, super::job::Kind::Update, &command, resources)?;
        Ok(None)
    }

    fn wait(&mut self, caller: Caller, named: &Named) -> Now {
        let exec = named.exec_id();
        let process = self.container_mut(&named.id)?.process_mut(&exec)?;
        let response = process.wait_response();
        if response.is_none() {
            process.waiters.push(caller);
        }
        Ok(response)
    }

    fn stats(&self, named: &Named) -> Now {
        let container = self.container(&named.id)?;
        if container.traces.places.is_empty() {
            return refused(Code::NotFound, "cgroup does not exist: not found");
        }
        let mut response = Message::default();
        response.message(1, &metrics::look(&container.traces)?);
        Ok(Some(response))
    }

    fn connect(&self, named: &Named) -> Message {
        let pid = self.container(&named.id).map_or(0, |container| container.init.pid);
        let mut response = Message::default();
        response
            .unsigned(1, sys::process::pid().unsigned_abs().into())
            .unsigned(2, pid.unsigned_abs().into());
        response
    }

    /// A shim that still has containers goes on.
    fn shutdown(&mut self) -> Now {
        if self.containers.is_empty() && self.jobs.is_empty() {
            self.end();
        }
        empty()
    }

    /// Runs the runtime for a container, whose id takes the place of an empty argument, or comes last.
    fn simply(&mut self, caller: Caller, id: &str, kind: super::job::Kind, args: &[&str]) -> Now {
        let container = self.container(id)?;
        let mut command = Command::new(&container.options, &self.namespace, &container.bundle)?;
        for arg in args {
            command.arg(Path::new(if arg.is_empty() { id } else { arg }));
        }
        if !args.contains(&"") {
            command.arg(id);
        }
        self.run(caller, Name { id: id.to_owned(), exec: String::new() }, kind, &command)?;
        Ok(None)
    }
}
