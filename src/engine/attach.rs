//! The caller's side of an attached container: its terminal or streams on one end, the monitor on the other.
//!
//! Messages keep their boundaries (SOCK_SEQPACKET), and begin with a letter. From the monitor: `o` and `e` output and
//! errors, `x` and four bytes the exit code. To it: `i` input, `c` the input is closed, `w` the window's rows and
//! columns (two bytes each, little-endian), `s` a signal's number.

use std::os::fd::{AsFd, OwnedFd};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::sys::{fd, signal, socket, tty};

/// The longest message, in bytes.
pub const LONGEST: usize = 8193;

/// Why the caller's side ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Detached,
    /// The monitor was killed.
    Lost,
}

pub struct Attached<'a> {
    pub tty: bool,
    pub interactive: bool,
    pub keys: &'a [u8],
    /// Signals of this process go to the program.
    pub forward: bool,
}

impl Attached<'_> {
    /// Carries everything until the program ends, or the caller has enough.
    pub fn carry(&self, monitor: &OwnedFd) -> Result<Ended> {
        let signals = signal::block_all()?;
        let own = |number| fd::inherited(number);
        let raw = own(0)
            .filter(|_| self.tty && self.interactive)
            .and_then(|stdin| stdin.try_clone_to_owned().ok())
            .and_then(tty::RawMode::enter);
        let mut input = own(0).filter(|_| self.interactive);
        let mut keys = Keys { sequence: self.keys, matched: 0, enabled: raw.is_some() };
        self.resize(monitor);
        loop {
            let mut watched = vec![(monitor.as_fd(), libc::POLLIN), (signals.as_fd(), libc::POLLIN)];
            watched.extend(input.map(|stdin| (stdin, libc::POLLIN)));
            let ready = fd::poll(&watched, -1)?;
            if ready[0]
                && let Some(ended) = show(monitor)?
            {
                return Ok(ended);
            }
            if ready[1] {
                self.forward_signals(&signals, monitor)?;
            }
            if let (Some(stdin), Some(true)) = (input, ready.get(2)) {
                let mut buffer = [0; LONGEST - 1];
                let n = fd::read(stdin, &mut buffer).unwrap_or(0);
                let (out, detached) = keys.pass(&buffer[..n]);
                if !out.is_empty() && tell(monitor, b'i', &out).is_err() {
                    input = None;
                }
                if detached {
                    return Ok(Ended::Detached);
                }
                if n == 0 {
                    input = None;
                    let _ = tell(monitor, b'c', &[]);
                }
            }
        }
    }

    fn forward_signals(&self, signals: &OwnedFd, monitor: &OwnedFd) -> Result<()> {
        while let Some(number) = signal::next(signals.as_fd())? {
            match number {
                libc::SIGWINCH => self.resize(monitor),
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU => {}
                number if self.forward => drop(tell(monitor, b's', &[number as u8])),
                _ => return Err(Error::new("interrupted")),
            }
        }
        Ok(())
    }

    fn resize(&self, monitor: &OwnedFd) {
        if let Some((rows, columns)) = callers_terminal().filter(|_| self.tty) {
            let [a, b] = rows.to_le_bytes();
            let [c, d] = columns.to_le_bytes();
            let _ = tell(monitor, b'w', &[a, b, c, d]);
        }
    }
}

/// Rows and columns of the terminal that is this process' standard input.
pub fn callers_terminal() -> Option<(u16, u16)> {
    fd::inherited(0).and_then(|stdin| tty::size(stdin).ok())
}

/// `process.consoleSize` of a program that gets a terminal: the caller's, so that it never sees another size; null
/// where the caller has none.
pub fn console_size() -> Value {
    callers_terminal().map(|(rows, columns)| json!({ "height": rows, "width": columns })).into()
}

fn tell(monitor: &OwnedFd, kind: u8, bytes: &[u8]) -> Result<()> {
    for piece in bytes.chunks(LONGEST - 1).chain(bytes.is_empty().then_some(bytes)) {
        let message: Vec<u8> = [kind].iter().chain(piece).copied().collect();
        socket::send(monitor.as_fd(), &message, None)?;
    }
    Ok(())
}

/// Shows one message of the monitor's.
fn show(monitor: &OwnedFd) -> Result<Option<Ended>> {
    let (message, _) = socket::receive(monitor.as_fd(), LONGEST)?;
    let to = |number: i32, bytes: &[u8]| {
        if let Some(stream) = fd::inherited(number) {
            // A reader that went away does not end the container.
            let _ = fd::write_all(stream, bytes);
        }
    };
    match message.split_first() {
        Some((b'o', bytes)) => to(1, bytes),
        Some((b'e', bytes)) => to(2, bytes),
        Some((b'x', code)) => {
            let code = code.try_into().map_or(255, i32::from_le_bytes);
            return Ok(Some(Ended::Exit(code)));
        }
        Some(_) => {}
        None => return Ok(Some(Ended::Lost)),
    }
    Ok(None)
}

/// The keys that detach, as they come in.
struct Keys<'a> {
    sequence: &'a [u8],
    matched: usize,
    enabled: bool,
}

impl Keys<'_> {
    /// What goes on to the program, and whether the sequence is complete.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if !self.enabled || self.sequence.is_empty() {
            return (bytes.to_vec(), false);
        }
        let mut out = Vec::new();
        for byte in bytes {
            if *byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return (out, true);
                }
                continue;
            }
            // It was the beginning of something else.
            out.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = usize::from(*byte == self.sequence[0]);
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q`, or plain characters. Where nobody says any they are those of Docker and Podman.
pub fn keys(said: Option<&str>) -> Result<Vec<u8>> {
    let text = said.unwrap_or("ctrl-p,ctrl-q");
    let key = |word: &str| match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
        (Some([c @ b'a'..=b'z']), _) => Some(c - b'a' + 1),
        (Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Some(c & 0x1f),
        (None, [c]) => Some(*c),
        _ => None,
    };
    let words = text.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            key(word).ok_or_else(|| {
                Error::new(format!("--detach-keys: {word:?} is no key")).next("write ctrl-p,ctrl-q")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_detach_and_others_pass() {
        let sequence = keys(None).unwrap();
        assert_eq!(sequence, [16, 17]);
        let mut state = Keys { sequence: &sequence, matched: 0, enabled: true };
        assert_eq!(state.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(state.pass(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(state.pass(b"\x11z"), (Vec::new(), true));
        assert!(keys(Some("ctrl-1")).is_err());
    }
}
