//! What the kernel announces about a cgroup: that it is empty or frozen, and that somebody in it was killed for want of
//! memory. Waits by poll(2) only; it must not sleep in between.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use super::{PATIENCE, Traces, descend, find, hierarchy, write};
use crate::error::{Error, Result};
use crate::sys;

/// Files that are watched hold a few lines.
const SMALL: usize = 64 << 10;

/// A file of a cgroup whose changes are announced with POLLPRI (cgroup-v2.rst, cgroup.events and memory.events).
struct Announced {
    file: OwnedFd,
}

impl Announced {
    /// `None`: there is no such file, or no such cgroup any more.
    fn open(dir: BorrowedFd<'_>, name: &str) -> Result<Option<Self>> {
        match sys::path::openat(dir, Path::new(name), libc::O_RDONLY, 0) {
            Ok(file) => Ok(Some(Self { file })),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What it says now, which takes the announcement back. `None`: the cgroup is gone.
    fn text(&self) -> Result<Option<String>> {
        match sys::fd::read_anew(self.file.as_fd(), SMALL) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn gone(e: &Error) -> bool {
    matches!(e.errno(), libc::ENODEV | libc::ENOENT)
}

/// The number behind `key` in a file of `key number` lines.
pub fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Waits until `key` is so in cgroup.events. A cgroup that is gone has neither processes nor frozen ones.
pub fn wait_event(dir: BorrowedFd<'_>, key: &str, want: bool) -> Result<()> {
    let Some(events) = Announced::open(dir, "cgroup.events")? else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.text()? {
            Some(text) if number(&text, key) != Some(u64::from(want)) => {}
            _ => return Ok(()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let line = format!("{key} {}", u8::from(want));
            return Err(Error::new(format!("cgroup.events does not say {line:?} after {PATIENCE:?}"))
                .why("a process in it hangs inside the kernel"));
        }
        sys::fd::poll(&[(events.file.as_fd(), libc::POLLPRI)], milliseconds(left.min(UNANNOUNCED)))?;
    }
}

/// The kernel holds an announcement back when another came just before (CGROUP_FILE_NOTIFY_MIN_INTV, 10 ms), and there
/// is none any more when somebody else removes the cgroup meanwhile: so it is looked at again after a while.
const UNANNOUNCED: std::time::Duration = std::time::Duration::from_millis(20);

/// Rounded up: a rest below a millisecond would be polled for without waiting.
fn milliseconds(time: std::time::Duration) -> i32 {
    time.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32
}

/// What a [`Watch`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing until the time given.
    Nothing,
    /// A process was killed for want of memory.
    OutOfMemory,
    /// The last process has ended.
    End,
}

/// A container that is watched.
pub struct Watch {
    /// The first process, for a container without a cgroup.
    init: OwnedFd,
    events: Option<Announced>,
    /// memory.events, with how often it had counted a kill when it was last read.
    memory: Option<(Announced, u64)>,
    /// v1: the counter that the kernel raises, and the file whose event it is.
    raised: Option<(OwnedFd, OwnedFd)>,
}

impl Watch {
    pub fn new(traces: &Traces, init: OwnedFd) -> Result<Self> {
        let mut watch = Self { init, events: None, memory: None, raised: None };
        let Some(dir) = find(traces)? else { return Ok(watch) };
        watch.events = Announced::open(dir.as_fd(), "cgroup.events")?;
        if let Some(file) = Announced::open(dir.as_fd(), "memory.events")? {
            let kills = file.text()?.and_then(|text| number(&text, "oom_kill")).unwrap_or(0);
            watch.memory = Some((file, kills));
        }
        for place in &traces.places[1..] {
            let dir = descend(hierarchy(&place.mount)?.as_fd(), &place.path)?;
            if let Some(control) = Announced::open(dir.as_fd(), "memory.oom_control")? {
                watch.raised = Some((register(dir.as_fd(), &control.file)?, control.file));
            }
        }
        Ok(watch)
    }

    /// Waits for the next thing to happen, at most until `until`.
    pub fn wait(&mut self, until: Instant) -> Result<Seen> {
        loop {
            // Who was killed last may have been the last one: that is said first.
            if self.out_of_memory()? {
                return Ok(Seen::OutOfMemory);
            }
            if self.is_over()? {
                return Ok(Seen::End);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Seen::Nothing);
            }
            self.poll(milliseconds(left))?;
        }
    }

    /// What announces that memory ran out, for somebody else's poll(2), and the events to ask for.
    pub fn memory_events(&self) -> impl Iterator<Item = (BorrowedFd<'_>, i16)> {
        let files = self.memory.iter().map(|(memory, _)| (memory.file.as_fd(), libc::POLLPRI));
        files.chain(self.raised.iter().map(|(counter, _)| (counter.as_fd(), libc::POLLIN)))
    }

    /// Whether a process was killed for want of memory since this was last asked.
    pub fn out_of_memory(&mut self) -> Result<bool> {
        if let Some((file, before)) = &mut self.memory {
            let kills = file.text()?.and_then(|text| number(&text, "oom_kill")).unwrap_or(*before);
            let more = kills > *before;
            *before = kills;
            if more {
                return Ok(true);
            }
        }
        let Some((counter, control)) = &self.raised else { return Ok(false) };
        match sys::fd::read(counter.as_fd(), &mut [0; 8]) {
            // It is raised once more when the cgroup is removed.
            Ok(_) => Ok(sys::fd::read_anew(control.as_fd(), SMALL).is_ok()),
            Err(e) if e.errno() == libc::EAGAIN => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn is_over(&self) -> Result<bool> {
        match &self.events {
            Some(events) => Ok(events.text()?.is_none_or(|text| number(&text, "populated") != Some(1))),
            None => Ok(sys::fd::poll(&[(self.init.as_fd(), libc::POLLIN)], 0)?[0]),
        }
    }

    fn poll(&self, timeout: i32) -> Result<()> {
        let mut set = Vec::new();
        match &self.events {
            Some(events) => set.push((events.file.as_fd(), libc::POLLPRI)),
            None => set.push((self.init.as_fd(), libc::POLLIN)),
        }
        set.extend(self.memory_events());
        sys::fd::poll(&set, timeout).map(drop)
    }
}

/// Asks a v1 memory cgroup to raise a counter when it is out of memory (cgroup-v1/memory.rst, 9 and 10).
fn register(dir: BorrowedFd<'_>, control: &OwnedFd) -> Result<OwnedFd> {
    let counter = sys::fd::eventfd()?;
    write(dir, "cgroup.event_control", &format!("{} {}", counter.as_raw_fd(), control.as_raw_fd()))?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_whole_word() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\n";
        assert_eq!((number(text, "oom"), number(text, "oom_kill")), (Some(1), Some(2)));
        assert_eq!(number(text, "populated"), None);
    }

    #[test]
    fn a_rest_of_time_is_waited_for() {
        let micros = std::time::Duration::from_micros;
        assert_eq!([0, 1, 999, 1000, 1001].map(|n| milliseconds(micros(n))), [0, 1, 1, 1, 2]);
    }
}
