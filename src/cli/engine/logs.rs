//! `logs`: what a container said.

use std::time::Duration;

use clap::Args;

use super::Global;
use super::each::find;
use crate::engine::launch;
use crate::engine::log::{Entry, Reader, Wanted};
use crate::engine::quantity;
use crate::error::{Error, Result};
use crate::sys::fd;

/// Show what a container said
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end; all for all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Not what is older: a time, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not what is newer
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show when each line was said
    #[arg(short, long)]
    timestamps: bool,
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl Logs {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let container = find(global, &self.name)?;
        let tail = match self.tail.as_str() {
            "all" | "-1" => None,
            n => Some(n.parse().map_err(|_| Error::new(format!("--tail: {n:?} is no number of lines")))?),
        };
        let moment = |text: &Option<String>| text.as_deref().map(quantity::moment).transpose();
        let wanted = Wanted { tail, since: moment(&self.since)?, until: moment(&self.until)? };
        let (entries, mut reader) =
            Reader::open(&container.path, launch::max_files(&container.record.settings)?, &wanted)?;
        let mut begun = [true, true];
        for entry in &entries {
            if !self.show(entry, &mut begun) {
                return Ok(0);
            }
        }
        // Asked before the log is read: what is said before the end is shown.
        let mut is_up = self.follow;
        while is_up {
            is_up = container.status()?.is_up();
            for _ in 0..2 {
                while let Some(entry) = reader.next_entry()? {
                    if wanted.takes(&entry) && !self.show(&entry, &mut begun) {
                        return Ok(0);
                    }
                }
                reader.follow()?;
            }
            if is_up {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(0)
    }

    /// `begun`: whether the next entry of stdout, and of stderr, begins a line. `false`: the reader went away.
    fn show(&self, entry: &Entry, begun: &mut [bool; 2]) -> bool {
        let stream = usize::from(entry.is_stderr);
        let mut text = Vec::new();
        if self.timestamps && begun[stream] {
            text.extend_from_slice(format!("{} ", entry.time).as_bytes());
        }
        begun[stream] = entry.text.ends_with(b"\n");
        text.extend_from_slice(&entry.text);
        fd::inherited(1 + stream as i32).is_some_and(|out| fd::write_all(out, &text).is_ok())
    }
}
