//! The monitor of a container: a small process of its own that is the parent of the container's program, keeps its
//! streams or its terminal, writes the log, lets people attach, and writes down how it ended.
//!
//! It is this binary under another name, started afresh by `launch`: no command line is parsed, and next to nothing
//! allocated, so that many containers cost little. It holds the lock of the container's directory while it lives.
//! What it cannot do for others it must not fail for: a full disk, or a reader that went away, ends no container.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::attach::LONGEST;
use super::container::Container;
use super::log::Writer;
use super::place::{Place, io};
use super::runtime::{self, Runtime};
use crate::error::{Error, Result};
use crate::sys::{fd, idle, mount, path, process, signal, socket, tty};

/// The name by which the binary knows that it is the monitor.
pub const NAME: &str = "jug-monitor";

/// The file below the container's directory on which people attach.
pub const ATTACH: &str = "attach";

/// What `launch` says, one word each.
pub struct Orders {
    pub id: String,
    pub place: Place,
    pub runtime: PathBuf,
    pub tty: bool,
    pub interactive: bool,
    pub rm: bool,
    pub mounted: bool,
    pub scope: bool,
    pub max_size: u64,
    pub max_files: u32,
    /// Descriptors by number: who waits for the start, who is attached from the start (or -1), the locked directory.
    pub report: i32,
    pub client: i32,
    pub dir: i32,
}

impl Orders {
    pub fn words(&self) -> Vec<String> {
        let flag = |on: bool, letter: &str| if on { letter.to_owned() } else { String::new() };
        let flags = [
            (self.tty, "t"),
            (self.interactive, "i"),
            (self.rm, "r"),
            (self.mounted, "m"),
            (self.scope, "s"),
        ];
        vec![
            NAME.to_owned(),
            self.id.clone(),
            self.place.root.to_string_lossy().into_owned(),
            self.place.runroot.to_string_lossy().into_owned(),
            self.runtime.to_string_lossy().into_owned(),
            format!("-{}", flags.map(|(on, letter)| flag(on, letter)).concat()),
            self.max_size.to_string(),
            self.max_files.to_string(),
            self.report.to_string(),
            self.client.to_string(),
            self.dir.to_string(),
        ]
    }

    fn read(words: &[String]) -> Option<Self> {
        let [id, root, runroot, runtime, flags, max_size, max_files, report, client, dir] = words else {
            return None;
        };
        Some(Self {
            id: id.clone(),
            place: Place { root: root.into(), runroot: runroot.into() },
            runtime: runtime.into(),
            tty: flags.contains('t'),
            interactive: flags.contains('i'),
            rm: flags.contains('r'),
            mounted: flags.contains('m'),
            scope: flags.contains('s'),
            max_size: max_size.parse().ok()?,
            max_files: max_files.parse().ok()?,
            report: report.parse().ok()?,
            client: client.parse().ok()?,
            dir: dir.parse().ok()?,
        })
    }
}

/// The whole program; `words` are those behind its name. The current directory is the container's.
pub fn main(words: &[String]) -> u8 {
    let Some(orders) = Orders::read(words) else { return runtime::FAILED };
    let (Some(report), Some(dir)) = (fd::take(orders.report), fd::take(orders.dir)) else {
        return runtime::FAILED;
    };
    let client = fd::take(orders.client);
    match begin(&orders, &dir) {
        Ok(mut watched) => {
            watched.clients.extend(client.map(Client::new));
            let _ = socket::send(report.as_fd(), b"S", None);
            drop(report);
            let code = watched.watch();
            finish(&orders, &dir, watched.clients, code);
            0
        }
        Err((code, message)) => {
            failed(&orders, &dir, code, &message);
            let text: Vec<u8> = [b'E', code].into_iter().chain(message.bytes()).collect();
            let _ = socket::send(report.as_fd(), &text[..text.len().min(LONGEST)], None);
            runtime::FAILED
        }
    }
}

/// What is held of a running program: a container's, or one that `exec` runs.
pub(super) struct Watched {
    pid: i32,
    pidfd: OwnedFd,
    signals: OwnedFd,
    listener: Option<OwnedFd>,
    /// Descriptors to read from, with the letter of their stream.
    outputs: Vec<(OwnedFd, u8)>,
    input: Option<OwnedFd>,
    /// Input that the program has not taken yet.
    typed: Vec<u8>,
    tty: bool,
    log: Option<Writer>,
    pub(super) clients: Vec<Client>,
}

pub(super) struct Client {
    socket: OwnedFd,
    /// A message for which there was no room: until it is out, nothing more is read from the container.
    waiting: Vec<u8>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: Vec::new() }
    }

    /// A message of `super::attach`, cut at its longest. One who went away misses it.
    pub(super) fn say(&self, kind: u8, bytes: &[u8]) {
        let message: Vec<u8> = [kind].iter().chain(bytes).copied().take(LONGEST).collect();
        let _ = socket::send(self.socket.as_fd(), &message, None);
    }
}

/// Starts the container; an error has the exit code that people know.
fn begin(orders: &Orders, dir: &OwnedFd) -> std::result::Result<Watched, (u8, String)> {
    let ours = |e: Error| (runtime::FAILED, e.to_string());
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(ours)?;
    process::set_name(NAME);
    for name in ["console", ATTACH, "pid", "runtime.log"] {
        path::remove_if_there(dir.as_fd(), Path::new(name), 0).map_err(ours)?;
    }
    let mut streams = Streams::new(orders).map_err(ours)?;
    let runtime = Runtime { path: orders.runtime.clone(), state: orders.place.oci() };
    let mut command = runtime.logged(Path::new("runtime.log"));
    command.args(orders.scope.then_some(runtime::SCOPE));
    command.args(["run", "--detach", "--bundle", ".", "--pid-file", "pid"]);
    if streams.console.is_some() {
        command.args(["--console-socket", "console"]);
    }
    command.arg(&orders.id);
    streams.hand_to(&mut command);
    let mut child = command.spawn().map_err(io("running the runtime")).map_err(ours)?;
    // The ends that are the container's now.
    drop(command);
    let status = child.wait().map_err(io("waiting for the runtime")).map_err(ours)?;
    if !status.success() {
        let silent = || (runtime::FAILED, format!("the runtime ended with {status}, and said nothing"));
        return Err(runtime::failure(Path::new("runtime.log")).unwrap_or_else(silent));
    }
    streams.receive_console().map_err(ours)?;
    let pid = fs::read_to_string("pid").map_err(io("read the pid file")).map_err(ours)?;
    let pid: i32 = pid.trim().parse().map_err(|_| (runtime::FAILED, format!("the pid file says {pid:?}")))?;
    for name in ["console", "pid", "runtime.log"] {
        path::remove_if_there(dir.as_fd(), Path::new(name), 0).map_err(ours)?;
    }
    let mut watched = Watched::new(pid, streams, orders.tty).map_err(ours)?;
    // Nobody can attach without it, and all else works.
    watched.listener = socket::listen_packets(dir.as_fd(), ATTACH).ok();
    watched.log = Some(Writer::open(Path::new("."), orders.max_size, orders.max_files));
    Ok(watched)
}

/// The program's streams: pipes, or a terminal.
#[derive(Default)]
pub(super) struct Streams {
    console: Option<UnixListener>,
    theirs: Vec<Stdio>,
    outputs: Vec<(OwnedFd, u8)>,
    input: Option<OwnedFd>,
}

impl Streams {
    fn new(orders: &Orders) -> Result<Self> {
        if orders.tty {
            return Self::terminal(Path::new("console"));
        }
        let mut streams = Self::default();
        streams.theirs.push(if orders.interactive {
            let (read, write) = fd::pipe()?;
            fd::set_nonblocking(write.as_fd())?;
            streams.input = Some(write);
            read.into()
        } else {
            Stdio::null()
        });
        for letter in [b'o', b'e'] {
            let (read, write) = fd::pipe()?;
            streams.outputs.push((read, letter));
            streams.theirs.push(write.into());
        }
        Ok(streams)
    }

    /// A terminal, which the runtime will send to a socket of this name.
    pub(super) fn terminal(socket: &Path) -> Result<Self> {
        let console = Some(UnixListener::bind(socket).map_err(io("bind(console)"))?);
        Ok(Self { console, ..Self::default() })
    }

    fn hand_to(&mut self, command: &mut std::process::Command) {
        let mut theirs = std::mem::take(&mut self.theirs).into_iter();
        let mut next = || theirs.next().unwrap_or_else(Stdio::null);
        command.stdin(next()).stdout(next()).stderr(next());
    }

    /// The master of the terminal, which the runtime has sent by now.
    pub(super) fn receive_console(&mut self) -> Result<()> {
        let Some(listener) = self.console.take() else { return Ok(()) };
        let (stream, _) = listener.accept().map_err(io("accept(console)"))?;
        let (_, master) = socket::receive_up_to(stream.as_fd(), 64)?;
        let master = master.ok_or_else(|| Error::new("the runtime sent no terminal"))?;
        let input = master.try_clone().map_err(io("dup"))?;
        fd::set_nonblocking(input.as_fd())?;
        self.input = Some(input);
        self.outputs = vec![(master, b'o')];
        Ok(())
    }
}

/// After so long without anything to do, what is not needed for waiting goes back to the kernel.
const IDLE_MS: i32 = 1000;

impl Watched {
    /// A child of this process, without log, and with nobody attached.
    pub(super) fn new(pid: i32, streams: Streams, tty: bool) -> Result<Self> {
        let pidfd = process::pidfd_open(pid)?.ok_or_else(|| Error::new("the program's process is gone"))?;
        Ok(Self {
            pid,
            pidfd,
            signals: signal::block_all()?,
            listener: None,
            outputs: streams.outputs,
            input: streams.input,
            typed: Vec::new(),
            tty,
            log: None,
            clients: Vec::new(),
        })
    }

    /// Until the program has ended and everything it said is written down. Gives its exit code.
    pub(super) fn watch(&mut self) -> i32 {
        let mut idle_ms = IDLE_MS;
        loop {
            let begun = Instant::now();
            if self.turn(idle_ms).is_err() {
                // poll(2) itself failed, for want of memory: the next turn may have some.
                std::thread::sleep(Duration::from_millis(100));
            }
            idle_ms =
                if idle_ms > 0 && begun.elapsed().as_millis() >= IDLE_MS as u128 { -1 } else { IDLE_MS };
            if let Ok(Some(exit)) = process::wait(self.pidfd.as_fd(), false) {
                self.drain();
                return exit.code();
            }
        }
    }

    fn is_held_back(&self) -> bool {
        self.clients.iter().any(|client| !client.waiting.is_empty())
    }

    /// Waits for something to happen, and does it. `Ok(false)`: nothing did.
    fn turn(&mut self, timeout_ms: i32) -> Result<bool> {
        const IN: i16 = libc::POLLIN;
        let mut list = vec![(self.pidfd.as_fd(), IN), (self.signals.as_fd(), IN)];
        let listener = self.listener.as_ref().map(|listener| (listener.as_fd(), IN));
        list.extend(listener);
        let from_clients = list.len();
        for client in &self.clients {
            let takes = if self.typed.is_empty() { IN } else { 0 };
            let gives = if client.waiting.is_empty() { 0 } else { libc::POLLOUT };
            list.push((client.socket.as_fd(), takes | gives));
        }
        let from_outputs = list.len();
        if !self.is_held_back() {
            list.extend(self.outputs.iter().map(|(output, _)| (output.as_fd(), IN)));
        }
        let from_input = list.len();
        if let Some(input) = self.input.as_ref().filter(|_| !self.typed.is_empty()) {
            list.push((input.as_fd(), libc::POLLOUT));
        }
        let ready = if timeout_ms < 0 {
            process::trim_heap();
            idle::poll_without_code(&list)?
        } else {
            fd::poll(&list, timeout_ms)?
        };
        if ready[1] {
            while let Ok(Some(_)) = signal::next(self.signals.as_fd()) {}
            process::reap_orphans(self.pid);
        }
        if listener.is_some() && ready[2] {
            self.accept();
        }
        if ready[from_input..].contains(&true) {
            self.type_on();
        }
        self.read_outputs(&ready[from_outputs..from_input]);
        self.serve(&ready[from_clients..from_outputs]);
        Ok(ready[from_outputs..from_input].contains(&true))
    }

    fn accept(&mut self) {
        const MOST: usize = 16;
        let client = self.listener.as_ref().and_then(|listener| socket::accept_packets(listener.as_fd()));
        if self.clients.len() < MOST {
            self.clients.extend(client.map(Client::new));
        }
    }

    fn read_outputs(&mut self, ready: &[bool]) {
        // What was said on both at once is taken in the order in which most programs say it: stdout first.
        let mut closed = 0;
        for at in (0..ready.len()).filter(|at| ready[*at]) {
            let mut message = [0; LONGEST];
            let at = at - closed;
            let (output, letter) = &self.outputs[at];
            message[0] = *letter;
            match fd::read(output.as_fd(), &mut message[1..]) {
                Ok(n) if n > 0 => {
                    if let Some(log) = &mut self.log {
                        log.write(if *letter == b'e' { "stderr" } else { "stdout" }, &message[1..=n]);
                    }
                    self.tell(&message[..=n]);
                }
                // The other end is closed: EOF of a pipe, EIO of a terminal.
                _ => {
                    self.outputs.remove(at);
                    closed += 1;
                }
            }
        }
    }

    fn tell(&mut self, message: &[u8]) {
        self.clients.retain_mut(|client| match socket::try_send(client.socket.as_fd(), message) {
            Ok(true) => true,
            Ok(false) => {
                client.waiting = message.to_vec();
                true
            }
            Err(_) => false,
        });
    }

    /// What clients say, and what waits for them.
    fn serve(&mut self, ready: &[bool]) {
        let mut gone = Vec::new();
        for at in (0..ready.len().min(self.clients.len())).filter(|at| ready[*at]) {
            let client = &mut self.clients[at];
            if !client.waiting.is_empty() {
                match socket::try_send(client.socket.as_fd(), &client.waiting) {
                    Ok(true) => client.waiting = Vec::new(),
                    Ok(false) => {}
                    Err(_) => gone.push(at),
                }
                continue;
            }
            match socket::receive(client.socket.as_fd(), LONGEST) {
                Ok((message, _)) if !message.is_empty() => self.obey(&message),
                Err(e) if e.errno() == libc::EAGAIN => {}
                _ => gone.push(at),
            }
        }
        for at in gone.into_iter().rev() {
            self.clients.remove(at);
        }
    }

    fn obey(&mut self, message: &[u8]) {
        match (message[0], &message[1..]) {
            (b'i', bytes) => {
                self.typed.extend_from_slice(bytes);
                self.type_on();
            }
            // The end of a terminal's input is a key.
            (b'c', _) if self.tty => {
                self.typed.push(4);
                self.type_on();
            }
            (b'c', _) => self.input = None,
            (b'w', &[a, b, c, d]) => {
                if let Some((master, _)) = self.outputs.first().filter(|_| self.tty) {
                    let _ =
                        tty::set_size(master.as_fd(), u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                }
            }
            (b's', &[number]) => drop(process::pidfd_kill(self.pidfd.as_fd(), number.into())),
            _ => {}
        }
    }

    fn type_on(&mut self) {
        let Some(input) = &self.input else { return self.typed.clear() };
        match fd::write_some(input.as_fd(), &self.typed) {
            Ok(Some(n)) if n == self.typed.len() => self.typed = Vec::new(),
            Ok(Some(n)) => drop(self.typed.drain(..n)),
            Ok(None) => {}
            Err(_) => {
                self.typed.clear();
                self.input = None;
            }
        }
    }

    /// What was written before the end is still carried; a client that takes nothing is waited for so long.
    fn drain(&mut self) {
        const PATIENCE_MS: i32 = 5000;
        let _ = fd::set_nonblocking(self.signals.as_fd());
        for _ in 0..10_000 {
            let held = self.is_held_back();
            let list: Vec<_> = match held {
                true => self.clients.iter().map(|client| (client.socket.as_fd(), libc::POLLOUT)).collect(),
                false => self.outputs.iter().map(|(output, _)| (output.as_fd(), libc::POLLIN)).collect(),
            };
            let Ok(ready) = fd::poll(&list, if held { PATIENCE_MS } else { 0 }) else { return };
            if !ready.contains(&true) {
                return;
            }
            if held { self.serve(&ready) } else { self.read_outputs(&ready) }
        }
    }
}

/// Writes the end down, takes away what the runtime still has, and says goodbye.
fn finish(orders: &Orders, dir: &OwnedFd, clients: Vec<Client>, code: i32) {
    let container = Container::open(&orders.place, &orders.id);
    if let (Ok(Some(container)), false) = (&container, orders.rm) {
        let _ = container.write_exited(code, None);
    }
    let _ = path::remove_if_there(dir.as_fd(), Path::new(ATTACH), 0);
    undo(orders, container.ok().flatten().as_ref());
    let _ = fd::flock(dir.as_fd(), libc::LOCK_UN);
    clients.iter().for_each(|client| client.say(b'x', &code.to_le_bytes()));
}

/// Nothing ran.
fn failed(orders: &Orders, dir: &OwnedFd, code: u8, message: &str) {
    let container = Container::open(&orders.place, &orders.id).ok().flatten();
    if let (Some(container), false) = (&container, orders.rm) {
        let _ = container.write_exited(code.into(), Some(message.to_owned()));
    }
    undo(orders, container.as_ref());
    let _ = fd::flock(dir.as_fd(), libc::LOCK_UN);
}

fn undo(orders: &Orders, container: Option<&Container>) {
    if orders.mounted {
        // Ours alone, in this mount namespace.
        let _ = path::chdir(Path::new("rootfs")).and_then(|()| mount::detach_here());
    }
    let _ = path::chdir(Path::new("/"));
    let Some(container) = container else { return };
    let root = container.place.records().ok().flatten();
    let deleted = container.oci_id().and_then(|id| crate::container::delete(root.as_ref(), &id, true));
    if orders.rm && deleted.is_ok() {
        let _ = container.erase(true);
    }
}

/// The lock of a container's directory, for whoever watches it next.
pub fn keep_open(dir: &File) -> Result<i32> {
    use std::os::fd::AsRawFd as _;
    fd::set_cloexec(dir.as_fd(), false)?;
    Ok(dir.as_raw_fd())
}
