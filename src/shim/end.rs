//! How processes end: who hears of it, in which order, and what goes with them.

use super::event;
use super::message::number;
use super::process::{Container, End, Name, State};
use super::serve::Shim;
use crate::protobuf::Message;
use crate::sys::process::Exit;

impl Shim {
    /// A child ended that is none of the runtime's runs.
    pub fn ended(&mut self, pid: i32, exit: Exit) {
        let end = End::of(exit);
        let mut name = None;
        for container in &mut self.containers {
            let id = container.id.clone();
            for process in
                container.processes_mut().filter(|process| process.pid == pid && process.end.is_none())
            {
                process.end = Some(end);
                name = Some(Name { id: id.clone(), exec: process.exec.clone() });
            }
        }
        match name {
            Some(name) => self.announce(&name),
            // A logging program, an orphan of a container, or a process that the runtime is about to name.
            None if self.jobs.iter().any(super::job::Job::makes_a_process) => self.early.push((pid, end)),
            None => {}
        }
    }

    /// Tells everybody of an end, unless its beginning is still to be told.
    pub fn announce(&mut self, name: &Name) {
        let Ok(container) = self.container_mut(&name.id) else { return };
        let Ok(process) = container.process_mut(&name.exec) else { return };
        let Some(end) = process.end else { return };
        if matches!(process.state, State::Stopped | State::Starting | State::New) {
            return;
        }
        process.state = State::Stopped;
        process.held.release_outputs();
        let mut event = Message::default();
        event.text(1, &name.id).text(2, if name.exec.is_empty() { &name.id } else { &name.exec });
        event.unsigned(3, process.pid.unsigned_abs().into()).unsigned(4, end.status.into());
        event.message(5, &end.at.message());
        if name.exec.is_empty() {
            container.paused = false;
            end_the_rest(container);
            // Of its memory first: the end may have been for want of it.
            self.look_at_memory();
            if let Ok(container) = self.container_mut(&name.id) {
                container.watch = None;
            }
        }
        self.publisher.push(event::EXIT, &event);
        self.wake(name);
    }

    /// Answers those who wait for a process that has ended.
    pub fn wake(&mut self, name: &Name) {
        let Ok(process) =
            self.container_mut(&name.id).and_then(|container| container.process_mut(&name.exec))
        else {
            return;
        };
        let Some(response) = process.wait_response() else { return };
        let waiters = std::mem::take(&mut process.waiters);
        for caller in waiters {
            self.answer(caller, &Ok(response.clone()));
        }
    }

    /// Whether any container has run out of memory since it was last asked.
    pub fn look_at_memory(&mut self) {
        let mut out = Vec::new();
        for container in &mut self.containers {
            if let Some(watch) = &mut container.watch
                && watch.out_of_memory().unwrap_or(false)
            {
                out.push(container.id.clone());
            }
        }
        for id in out {
            let mut event = number(2, 0);
            event.text(1, &id);
            self.publisher.push(event::OOM, &event);
        }
    }
}

/// The container is over when its first process is. In a PID namespace of its own the kernel has seen to that.
fn end_the_rest(container: &Container) {
    let alive = crate::cgroup::pids(&container.traces).is_ok_and(|pids| !pids.is_empty());
    if alive {
        // What cannot be killed now goes with `delete`.
        let _ = crate::cgroup::kill(&container.traces);
    }
}
