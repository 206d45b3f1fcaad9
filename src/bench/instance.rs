//! One living instance: it is started, heard when it is ready, and it is gone when it is dropped. A contender that
//! hangs gets no more than its patience. It must not know what is measured.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::contender::Contender;
use super::image::{Image, Payload, Variant};
use super::{measure, place};
use crate::error::{Error, Result};

/// What all instances of a run share.
pub struct World {
    pub image: Image,
    /// What ids begin with.
    pub prefix: String,
    /// How long a start may take; four times that for a machine of one's own.
    pub patience: Duration,
    /// The end of the run: nobody is waited for past it.
    end: Instant,
    count: AtomicUsize,
}

pub struct Instance<'w> {
    world: &'w World,
    contender: &'w Contender,
    id: String,
    child: Option<Child>,
    /// From the spawn to the payload's word, in milliseconds.
    pub wall_ms: f64,
}

const READY: &str = "jug-bench ready";
const ANSWER: &str = "jug-bench {";

impl World {
    pub fn new(image: Image, prefix: String, patience: Duration, end: Instant) -> Self {
        Self { image, prefix, patience, end, count: AtomicUsize::new(0) }
    }

    /// Whether the run's time is over.
    pub fn is_over(&self) -> bool {
        Instant::now() > self.end
    }

    pub fn patience_with(&self, contender: &Contender) -> Duration {
        self.patience * if contender.class.has_own_kernel() { 4 } else { 1 }
    }

    /// Starts an instance, and returns when its payload is ready (and the command is through, if it detaches).
    pub fn start<'w>(&'w self, contender: &'w Contender, variant: Variant) -> Result<Instance<'w>> {
        self.hear(contender, variant, READY).map(|(instance, _)| instance)
    }

    /// Whether an idle instance is ready in that time.
    pub fn start_within<'w>(&'w self, contender: &'w Contender, patience: Duration) -> Result<Instance<'w>> {
        self.hear_within(contender, Variant::of(Payload::Idle), READY, patience).map(|(instance, _)| instance)
    }

    /// Starts an idle one whose program lives on: an image's has to be there a while after it was executed.
    pub fn start_to_stay<'w>(&'w self, contender: &'w Contender, patience: Duration) -> Result<Instance<'w>> {
        let count = || measure::tree(std::process::id()).len();
        measure::reap();
        let before = count();
        let instance = self.start_within(contender, patience)?;
        if !self.image.base.is_empty() {
            let own_kernel = contender.class.has_own_kernel();
            std::thread::sleep(Duration::from_millis(if own_kernel { 2000 } else { 500 }));
            measure::reap();
            if count() <= before {
                return Err(Error::new(format!("{}: the image's program ended at once", contender.name)));
            }
        }
        Ok(instance)
    }

    /// Starts a payload that answers with a line of JSON, hears it, and ends the instance.
    pub fn ask(&self, contender: &Contender, variant: Variant) -> Result<serde_json::Value> {
        let (_, line) = self.hear(contender, variant, ANSWER)?;
        answer_in(&line)
    }

    fn hear<'w>(
        &'w self,
        contender: &'w Contender,
        variant: Variant,
        mark: &str,
    ) -> Result<(Instance<'w>, String)> {
        self.hear_within(contender, variant, mark, self.patience_with(contender))
    }

    fn hear_within<'w>(
        &'w self,
        contender: &'w Contender,
        variant: Variant,
        mark: &str,
        patience: Duration,
    ) -> Result<(Instance<'w>, String)> {
        place::check()?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{}{number}", self.prefix, if variant.memory { "m" } else { "" });
        let failed = |why: &dyn std::fmt::Display| Error::new(format!("{}: {why}", contender.name));
        fs::create_dir_all(contender.state(&self.image)).map_err(|why| failed(&why))?;
        let fifo = Fifo::make(&self.image.dir, &id, contender.needs_fifo()).map_err(|why| failed(&why))?;
        let mut command =
            contender.start(&self.image, &id, variant, &fifo.path).map_err(|why| failed(&why))?;
        let mut instance = Instance { world: self, contender, id, child: None, wall_ms: 0.0 };
        let deadline = (Instant::now() + patience).min(self.end.max(Instant::now() + Duration::from_secs(1)));
        let heard = instance.begin(&mut command, fifo, mark, deadline);
        heard.map(|line| (instance, line)).map_err(|why| failed(&why))
    }
}

/// The JSON of an answering payload.
pub fn answer_in(line: &str) -> Result<serde_json::Value> {
    let json = line.split_once("jug-bench ").map_or("", |(_, json)| json);
    serde_json::from_str(json).map_err(|why| Error::new(format!("the payload's answer: {why}")))
}

impl Instance<'_> {
    fn begin(
        &mut self,
        command: &mut Command,
        mut fifo: Fifo,
        mark: &str,
        deadline: Instant,
    ) -> io::Result<String> {
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let begun = Instant::now();
        self.child = Some(command.spawn()?);
        // The command holds the writing ends, which would keep this side from seeing the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // The pipe stays open until the command is through: who prints an id would die of SIGPIPE.
        let mut reader = reader;
        let heard = match fifo.reader.take() {
            Some(mut file) => self.listen(&mut file, mark, deadline, Some(&mut reader)),
            None => self.listen(&mut reader, mark, deadline, None),
        };
        self.wall_ms = begun.elapsed().as_secs_f64() * 1000.0;
        if heard.is_ok() && self.contender.detaches() {
            self.await_command(deadline)?;
        }
        heard
    }

    /// Reads until the line with `mark` is whole. The error has the last of what was said instead.
    fn listen(
        &mut self,
        from: &mut (impl Read + AsFd),
        mark: &str,
        deadline: Instant,
        mut beside: Option<&mut io::PipeReader>,
    ) -> io::Result<String> {
        let (mut heard, mut buffer, begun) = (String::new(), [0; 16384], Instant::now());
        loop {
            if let Some(line) = line_with(&heard, mark) {
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match () {
                () if left.is_zero() => format!("not ready after {:.0} s", begun.elapsed().as_secs_f64()),
                () if place::check().is_err() => "interrupted".into(),
                () => {
                    let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
                    let wait = PollTimeout::from(left.as_millis().min(200) as u16);
                    let silent = poll(&mut ready, wait).unwrap_or(0) == 0;
                    // What it leaves behind may hold the other end for ever.
                    let bytes = if silent { None } else { Some(from.read(&mut buffer)?) };
                    match bytes {
                        None if self.has_failed() => "it failed".into(),
                        None => continue,
                        Some(0) => "it ended without the payload's word".into(),
                        Some(bytes) => {
                            heard.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
                            continue;
                        }
                    }
                }
            };
            if let Some(beside) = &mut beside {
                let mut ready = [PollFd::new(beside.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::ZERO).unwrap_or(0) > 0 {
                    let bytes = beside.read(&mut buffer).unwrap_or(0);
                    heard.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
                }
            }
            return Err(io::Error::other(format!("{why}{}", last_words(&heard))));
        }
    }

    /// What the process that is the machine may ask of the host: proc_pid_status(5).
    pub fn monitor(&self) -> Option<String> {
        let child = self.child.as_ref().filter(|_| self.contender.class.has_own_kernel())?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let user = field("Uid:")?;
        let capabilities = u64::from_str_radix(field("CapEff:")?, 16).ok()?.count_ones();
        let filter = if field("Seccomp:")? == "2" { "a" } else { "no" };
        Some(format!("user {user} with {capabilities} capabilities and {filter} seccomp filter"))
    }

    /// Whether the start command has ended badly.
    fn has_failed(&mut self) -> bool {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        status.is_some_and(|status| !status.success())
    }

    fn await_command(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) };
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the payload is ready, but the command does not end"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(child.id().cast_signed());
            // Not everything below it is of its group: systemd-nspawn's container and the processes of linux.uml.
            let tree = measure::tree(child.id());
            let _ = killpg(group, Signal::SIGKILL);
            for pid in tree {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
        if let Some(mut command) = self.contender.remove(&self.world.image, &self.id) {
            command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            if let Ok(child) = command.spawn() {
                wait_at_most(child, self.world.patience);
            }
        }
        let dir = &self.world.image.dir;
        for config in ["lxc", "json"] {
            let _ = fs::remove_file(dir.join(format!("{}.{config}", self.id)));
        }
        let _ = fs::remove_dir_all(dir.join("uml").join(&self.id));
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for a command that removes something; one that hangs is killed.
fn wait_at_most(mut child: Child, patience: Duration) {
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() > patience {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The whole line that holds `mark`.
fn line_with(heard: &str, mark: &str) -> Option<String> {
    let rest = &heard[heard.find(mark)?..];
    rest.find('\n').map(|end| rest[..end].trim_end().to_owned())
}

fn last_words(heard: &str) -> String {
    let lines: Vec<&str> = heard.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    if last.is_empty() { String::new() } else { format!("; it said: {}", last.join(" / ")) }
}

/// Where a payload speaks whose output its contender keeps; removed when dropped.
struct Fifo {
    path: PathBuf,
    reader: Option<fs::File>,
}

impl Fifo {
    fn make(dir: &Path, id: &str, needed: bool) -> io::Result<Self> {
        let path = dir.join(format!("{id}.fifo"));
        if !needed {
            return Ok(Self { path, reader: None });
        }
        mkfifo(&path, Mode::from_bits_truncate(0o600))?;
        // Both ends, so that there is never an end of file before the payload has opened it: fifo(7).
        let reader =
            fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        Ok(Self { path, reader: Some(reader) })
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
