//! The loop: one thread, one epoll(7), and everything that happens in the order in which the kernel says it. Nothing in
//! here waits for anybody but the kernel's own short calls.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::at_once::Start;
use super::event::Publisher;
use super::job::{Job, Launch};
use super::process::{Caller, Container};
use super::ttrpc::{Answer, Connection, Frame};
use crate::error::Result;
use crate::sys;
use crate::sys::epoll::Epoll;
use crate::sys::process::Exit;

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const PUBLISHER: u64 = 2;
/// The first word that is given out.
const FIRST: u64 = 16;
/// More clients than containerd ever is.
const CONNECTIONS: usize = 64;
/// After so long without an event a shim gives back what it does not need to wait.
const IDLE: Duration = Duration::from_secs(1);
/// A shim with neither containers nor clients ends after so many milliseconds: containerd died before it had made one.
const DESERTED: i32 = 20_000;
/// How long the last words may take when everything is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub struct Shim {
    pub epoll: Epoll,
    listener: OwnedFd,
    signals: OwnedFd,
    pub namespace: String,
    pub publisher: Publisher,
    connections: Vec<(u64, Connection)>,
    pub containers: Vec<Container>,
    /// Runs of the runtime that have not ended, and those that wait for a logging program.
    pub jobs: Vec<Job>,
    pub launches: Vec<Launch>,
    /// Starts that were begun here.
    pub starts: Vec<Start>,
    /// Children that ended before the runtime said who they are.
    pub early: Vec<(i32, super::process::End)>,
    words: u64,
    ending: Option<Instant>,
}

/// Serves on a listening socket until nothing is left to serve.
pub fn serve(
    listener: OwnedFd,
    namespace: &str,
    socket: Option<PathBuf>,
    program: (PathBuf, String),
) -> Result<()> {
    sys::process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    let signals = sys::signal::block_all()?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_fd(), libc::EPOLLIN, LISTENER)?;
    epoll.add(signals.as_fd(), libc::EPOLLIN, SIGNALS)?;
    let mut shim = Shim {
        epoll,
        listener,
        signals,
        namespace: namespace.to_owned(),
        publisher: Publisher::new(namespace, socket, program),
        connections: Vec::new(),
        containers: Vec::new(),
        jobs: Vec::new(),
        launches: Vec::new(),
        starts: Vec::new(),
        early: Vec::new(),
        words: FIRST,
        ending: None,
    };
    while !shim.is_over() {
        shim.turn()?;
    }
    Ok(())
}

impl Shim {
    /// `count` words in a row that nobody has.
    pub fn new_words(&mut self, count: u64) -> u64 {
        self.words += count;
        self.words - count
    }

    /// Nothing is served any more: the loop ends when all has been said.
    pub fn end(&mut self) {
        self.ending.get_or_insert_with(|| Instant::now() + LAST_WORDS);
    }

    fn is_over(&self) -> bool {
        let said = || self.publisher.is_empty() && !self.connections.iter().any(|(_, c)| c.is_full());
        self.ending.is_some_and(|until| said() || Instant::now() >= until)
    }

    fn turn(&mut self) -> Result<()> {
        let last = self.ending.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = [self.publisher.wait(), last, Some(IDLE)].into_iter().flatten().min().unwrap_or(IDLE);
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        let mut seen = [0; sys::epoll::BATCH];
        let mut count = self.epoll.wait(wait, &mut seen)?;
        if count == 0 && last.is_none() && self.publisher.is_empty() {
            sys::process::trim_heap();
            sys::idle::forget_code();
            let deserted = self.containers.is_empty() && self.jobs.is_empty() && self.connections.is_empty();
            // At once, so that little of it is taken up again.
            count = self.epoll.wait(if deserted { DESERTED } else { -1 }, &mut seen)?;
            if count == 0 && deserted {
                self.end();
            }
        }
        for word in seen.into_iter().take(count) {
            let done = match word {
                LISTENER => self.accept(),
                SIGNALS => self.reap(),
                PUBLISHER => {
                    self.publisher.hear();
                    Ok(())
                }
                _ => self.other(word),
            };
            // What fails for one client or terminal must not fail for the others.
            if done.is_err() {
                self.give_up(word);
            }
        }
        if let Some(new) = self.publisher.send() {
            // By its edges: what it did not take at once goes when it can.
            self.epoll.add(new, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET, PUBLISHER)?;
        }
        Ok(())
    }

    /// Serves one descriptor no more.
    fn give_up(&mut self, word: u64) {
        let _ = self.hang_up(word);
        for process in self.containers.iter_mut().flat_map(Container::processes_mut) {
            process.terminal.take_if(|terminal| terminal.has(word));
        }
    }

    fn other(&mut self, word: u64) -> Result<()> {
        if self.connections.iter().any(|(own, _)| *own == word) {
            return self.hear(word);
        }
        if let Some(at) = self.launches.iter().position(|launch| launch.word == word) {
            let launch = self.launches.swap_remove(at);
            self.launch(launch);
            return Ok(());
        }
        if let Some(at) = self.starts.iter().position(|start| start.word == word) {
            let start = self.starts.swap_remove(at);
            self.has_started(start);
            return Ok(());
        }
        let epoll = &self.epoll;
        for process in self.containers.iter_mut().flat_map(Container::processes_mut) {
            if let Some(terminal) = process.terminal.as_mut().filter(|terminal| terminal.has(word)) {
                return terminal.copy(epoll);
            }
        }
        self.look_at_memory();
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        while let Some(socket) = sys::socket::accept(self.listener.as_fd()).unwrap_or(None) {
            if self.connections.len() < CONNECTIONS {
                let word = self.new_words(1);
                self.epoll.add(socket.as_fd(), libc::EPOLLIN, word)?;
                self.connections.push((word, Connection::new(socket)));
            }
        }
        Ok(())
    }

    fn connection(&mut self, word: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|(own, _)| *own == word).map(|(_, connection)| connection)
    }

    /// Takes what a client says, one call after the other.
    fn hear(&mut self, word: u64) -> Result<()> {
        let open = self.connection(word).is_some_and(|connection| connection.fill().unwrap_or(false));
        while let Some(frame) = self.connection(word).and_then(Connection::take) {
            match frame {
                Frame::Request(request) => {
                    let caller = Caller { connection: word, stream: request.stream };
                    if let Some(answer) = self.call(caller, &request) {
                        self.answer(caller, &answer);
                    }
                }
                Frame::Refused { stream, status } => {
                    self.answer(Caller { connection: word, stream }, &Err(status));
                }
                Frame::Response { .. } | Frame::Ignored => {}
            }
        }
        if open { self.write(word) } else { self.hang_up(word) }
    }

    /// Answers a call, if the caller is still there.
    pub fn answer(&mut self, caller: Caller, answer: &Answer) {
        let Some(connection) = self.connection(caller.connection) else { return };
        connection.answer(caller.stream, answer);
        let _ = self.write(caller.connection);
    }

    fn write(&mut self, word: u64) -> Result<()> {
        let Some(connection) = self.connection(word) else { return Ok(()) };
        if !connection.flush() {
            return self.hang_up(word);
        }
        let events = if connection.is_full() { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        let at = self.connections.iter().position(|(own, _)| *own == word);
        at.map_or(Ok(()), |at| self.epoll.change(self.connections[at].1.socket.as_fd(), events, word))
    }

    fn hang_up(&mut self, word: u64) -> Result<()> {
        self.connections.retain(|(own, _)| *own != word);
        for process in self.containers.iter_mut().flat_map(Container::processes_mut) {
            process.waiters.retain(|waiter| waiter.connection != word);
        }
        Ok(())
    }

    /// Signals: of those that end a program, only a shim without containers takes notice. Children: processes of
    /// containers first, so that their ends are known when the runtime that started them is looked at.
    fn reap(&mut self) -> Result<()> {
        while let Some(signal) = sys::signal::next(self.signals.as_fd())? {
            if matches!(signal, libc::SIGTERM | libc::SIGINT)
                && self.containers.is_empty()
                && self.jobs.is_empty()
            {
                self.end();
            }
        }
        let dead: Vec<(i32, Exit)> = std::iter::from_fn(sys::process::reap_any).collect();
        let (jobs, others): (Vec<_>, Vec<_>) =
            dead.into_iter().partition(|(pid, _)| self.jobs.iter().any(|job| job.pid == *pid));
        for (pid, exit) in others {
            self.ended(pid, exit);
        }
        for (pid, exit) in jobs {
            if let Some(at) = self.jobs.iter().position(|job| job.pid == pid) {
                let job = self.jobs.swap_remove(at);
                self.finish(job, exit);
            }
        }
        if !self.jobs.iter().any(Job::makes_a_process) {
            self.early = Vec::new();
        }
        Ok(())
    }
}
