//! The runtime's verbs that make no process, done here: `start` is a byte, `delete` a few removals. Only for the
//! jug-oci that came with this program, and only what never waits; anything else is for `job`, which runs it. Must not
//! clone, nor run, anything.

use std::os::fd::AsFd as _;

use super::job::{Job, Kind};
use super::process::{Caller, Name, State};
use super::serve::Shim;
use crate::container::record::{Id, Root};
use crate::container::start::Begun;
use crate::container::undo;
use crate::error::Result;

/// A process that was told to become its program.
pub struct Start {
    /// What the loop says when it has, or has ended.
    pub word: u64,
    begun: Begun,
    job: Job,
}

impl Shim {
    /// Where the container's record lies and its name; `None`: it is another runtime's.
    fn record_of(&self, name: &Name) -> Option<(Root, Id)> {
        let container = self.container(&name.id).ok().filter(|container| container.options.is_own())?;
        let root = Root::open(&container.options.state_root(&self.namespace), false).ok()?;
        Some((root, Id::new(&name.id).ok()?))
    }

    /// Begins a start, which [`Shim::has_started`] ends. `false`: the runtime has to be run.
    pub fn start_at_once(&mut self, caller: Caller, name: &Name) -> Result<bool> {
        let Some((root, id)) = self.record_of(name) else { return Ok(false) };
        let Some(begun) = Begun::new(&root, &id)? else { return Ok(false) };
        let word = self.new_words(1);
        // Its hang-up is announced unasked (epoll_ctl(2)).
        self.epoll.add(begun.barrier.as_fd(), 0, word)?;
        let job = Job { pid: 0, kind: Kind::Start, name: name.clone(), caller };
        self.starts.push(Start { word, begun, job });
        Ok(true)
    }

    /// The barrier of a start has hung up.
    pub fn has_started(&mut self, start: Start) {
        let done = start.begun.end().map_err(|e| e.to_string());
        self.conclude(start.job, done);
    }

    /// Removes a container that has ended. `false`: the runtime has to be run, and will say why.
    pub fn delete_at_once(&self, name: &Name) -> bool {
        let ended = self.container(&name.id).is_ok_and(|container| container.init.state == State::Stopped);
        let record = self.record_of(name).filter(|_| ended);
        record.is_some_and(|(root, id)| undo::undo_at_once(&root, &id).unwrap_or(false))
    }
}
