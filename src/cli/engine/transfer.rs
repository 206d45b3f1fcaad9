//! How a pull or a push shows how far it is: a line for each blob, redrawn on a terminal, and said once elsewhere. All
//! of it goes to stderr; stdout is for the one line that scripts read.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::image::Digest;

use super::shown::size;
use crate::image::progress::{Progress, Silent, Step};

/// How often a terminal is redrawn at most.
const PAUSE: Duration = Duration::from_millis(100);
/// How many characters of a bar are filled when a blob is there.
const BAR: u64 = 30;

/// What stderr shows.
pub struct Shown {
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    blobs: Vec<(String, Step)>,
    /// Lines on the terminal that are ours to draw again.
    drawn: usize,
    last: Option<Instant>,
}

impl Shown {
    pub fn new() -> Self {
        let state = State { blobs: Vec::new(), drawn: 0, last: None };
        // A terminal that cannot move its cursor gets plain lines.
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { terminal: std::io::stderr().is_terminal() && !dumb, state: Mutex::new(state) }
    }
}

/// What shows a transfer, or nothing.
pub fn shown_or(quiet: bool) -> Box<dyn Progress> {
    if quiet { Box::new(Silent) } else { Box::new(Shown::new()) }
}

impl Default for Shown {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Shown {
    fn step(&self, about: &Digest, step: Step) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let id = about.digest().get(..12).unwrap_or_default().to_owned();
        let before = match state.blobs.iter_mut().find(|(its, _)| *its == id) {
            Some((_, its)) => Some(std::mem::replace(its, step)),
            None => {
                state.blobs.push((id.clone(), step));
                None
            }
        };
        let moves = matches!(step, Step::Downloading(..) | Step::Uploading(..));
        if self.terminal {
            if !moves || state.last.is_none_or(|last| last.elapsed() >= PAUSE) {
                state.draw();
            }
        } else if before != Some(step) && matches!(step, Step::Done | Step::Exists | Step::Waiting) {
            say(&format!("{id}: {}\n", words(step)));
        }
    }

    fn say(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal {
            say(&state.up());
            state.drawn = 0;
        }
        say(&format!("{line}\n"));
        if self.terminal {
            state.draw();
        }
    }
}

impl State {
    /// Moves to the first of our lines and clears from there on.
    fn up(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.drawn) }
    }

    fn draw(&mut self) {
        let lines: String =
            self.blobs.iter().map(|(id, step)| format!("{id}: {}\x1b[K\n", words(*step))).collect();
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        say(&format!("{up}{lines}"));
        self.drawn = self.blobs.len();
        self.last = Some(Instant::now());
    }
}

fn words(step: Step) -> String {
    match step {
        Step::Queued => "Waiting".to_owned(),
        Step::Waiting => "Waiting for another pull of the same layer".to_owned(),
        Step::Downloading(there, all) => format!("Downloading {}", bar(there, all)),
        Step::Uploading(there, all) => format!("Pushing {}", bar(there, all)),
        Step::Unpacking => "Extracting".to_owned(),
        Step::Exists => "Already exists".to_owned(),
        Step::Done => "Done".to_owned(),
    }
}

/// `[=====>     ] 12.3MB/40MB`.
fn bar(there: u64, all: u64) -> String {
    let filled = if all == 0 { BAR } else { (u128::from(there) * u128::from(BAR) / u128::from(all)) as u64 };
    let filled = filled.min(BAR) as usize;
    let rest = BAR as usize - filled;
    format!("[{}>{}] {}/{}", "=".repeat(filled), " ".repeat(rest), size(there), size(all))
}

/// A reader that went away is no reason to stop.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_what_is_there() {
        let shown = |there, all| words(Step::Downloading(there, all));
        let bar = |filled: usize, text: &str| {
            format!("Downloading [{}>{}] {text}", "=".repeat(filled), " ".repeat(30 - filled))
        };
        assert_eq!(shown(0, 40_000_000), bar(0, "0B/40MB"));
        assert_eq!(shown(20_000_000, 40_000_000), bar(15, "20MB/40MB"));
        assert_eq!(shown(40_000_000, 40_000_000), bar(30, "40MB/40MB"));
        assert_eq!((shown(0, 0), shown(5, 0)), (bar(30, "0B/0B"), bar(30, "5B/0B")));
        assert_eq!(shown(9, 3), bar(30, "9B/3B"), "a source that sends too much draws no longer bar");
    }
}
