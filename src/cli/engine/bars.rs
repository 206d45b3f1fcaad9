//! How a pull or a push is shown: a line for each layer that moves, on a terminal; plain lines anywhere else. Always on
//! the standard error, since the standard output is for programs.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::image::Digest;

use super::shown::{id, size};
use crate::image::progress::{Progress, Step};

/// How often a terminal is drawn anew, at most.
const FRAME: Duration = Duration::from_millis(100);

/// The parts of a bar.
const WIDTH: u64 = 30;

pub struct Bars {
    quiet: bool,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layers: Vec<(Digest, Step)>,
    drawn: Option<Instant>,
    /// Lines on the terminal that the next frame goes over.
    lines: usize,
}

impl Bars {
    /// `quiet`: nothing at all.
    pub fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { quiet, terminal: std::io::stderr().is_terminal() && !dumb, state: Mutex::default() }
    }

    fn words(step: Step) -> Option<String> {
        Some(match step {
            Step::Queued | Step::Downloading(..) | Step::Uploading(..) => return None,
            Step::Waiting => "Waiting for another pull".to_owned(),
            Step::Unpacking => "Download complete".to_owned(),
            Step::Exists => "Already exists".to_owned(),
            Step::Done => "Complete".to_owned(),
        })
    }
}

/// `[===>      ]  12MB/40MB`
fn bar(done: u64, total: u64) -> String {
    let full = (done.min(total) * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
    let mut bar = "=".repeat(full);
    if full < WIDTH as usize {
        bar.push('>');
    }
    format!("[{bar:<0$}]  {1}/{2}", WIDTH as usize, size(done), size(total))
}

fn line(digest: &Digest, step: Step) -> String {
    let words = match step {
        Step::Queued => "Waiting".to_owned(),
        Step::Downloading(done, total) => format!("Downloading  {}", bar(done, total)),
        Step::Uploading(done, total) => format!("Uploading  {}", bar(done, total)),
        Step::Unpacking => "Unpacking".to_owned(),
        other => Bars::words(other).unwrap_or_default(),
    };
    format!("{}: {words}", id(digest.as_ref(), false))
}

impl State {
    fn draw(&mut self, now: bool) {
        if !now && self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        let mut frame = String::new();
        if self.lines > 0 {
            let _ = write!(frame, "\x1b[{}A", self.lines);
        }
        for (digest, step) in &self.layers {
            let _ = writeln!(frame, "\x1b[2K{}", line(digest, *step));
        }
        self.lines = self.layers.len();
        self.drawn = Some(Instant::now());
        let _ = std::io::stderr().write_all(frame.as_bytes());
    }
}

impl Progress for Bars {
    fn step(&self, about: &Digest, step: Step) {
        if self.quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.layers.iter().position(|(digest, _)| digest == about);
        let before = at.map(|at| std::mem::replace(&mut state.layers[at].1, step));
        if at.is_none() {
            state.layers.push((about.clone(), step));
        }
        let moves = matches!(step, Step::Downloading(..) | Step::Uploading(..));
        if self.terminal {
            state.draw(!moves && before != Some(step));
        } else if let Some(words) = Self::words(step).filter(|_| before != Some(step)) {
            super::shown::tell(&format!("{}: {words}", id(about.as_ref(), false)));
        }
    }

    fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal && state.lines > 0 {
            // Above the bars, which move down by a line.
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[2K{line}\n\x1b[J", state.lines);
            state.lines = 0;
            state.draw(true);
        } else {
            super::shown::tell(line);
        }
    }
}
