//! events: what a container uses, and when it runs out of memory, as they happen.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::record::{Id, Root};
use super::status::{Container, Status};
use crate::cgroup::stats::Stats;
use crate::cgroup::usage;
use crate::cgroup::watch::{Seen, Watch};
use crate::error::{Error, Result};

/// One line of `events`, in runc's shape (types/events.go).
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// Hands each event to `tell` as a line until the container ends, or until `tell` says that nobody listens. Without an
/// interval there is one, the statistics of now.
pub fn events(
    root: &Root,
    id: &Id,
    interval: Option<Duration>,
    mut tell: impl FnMut(&str) -> bool,
) -> Result<()> {
    let container = Container::load(root, id)?;
    let id = id.as_str();
    let not_running = || Error::new(format!("container with id {id} is not running"));
    if matches!(container.status()?, Status::Stopped | Status::Creating) {
        return Err(not_running());
    }
    let traces = &container.record.cgroup;
    let Some(interval) = interval else {
        tell(&line(&Event { r#type: "stats", id, data: Some(usage::look(traces)?) })?);
        return Ok(());
    };
    let init = container.process()?.ok_or_else(not_running)?;
    let mut watch = Watch::new(traces, init)?;
    let mut next = Instant::now() + interval;
    loop {
        let event = match watch.wait(next)? {
            Seen::End => return Ok(()),
            Seen::OutOfMemory => Event { r#type: "oom", id, data: None },
            Seen::Nothing => {
                // Whoever was stopped for a while does not catch up.
                next = (next + interval).max(Instant::now());
                match usage::look(traces) {
                    Ok(stats) => Event { r#type: "stats", id, data: Some(stats) },
                    // The cgroup has just gone: the watch says so.
                    Err(e) => {
                        crate::cli::log::debug(&e.to_string());
                        continue;
                    }
                }
            }
        };
        if !tell(&line(&event)?) {
            return Ok(());
        }
    }
}

fn line(event: &Event<'_>) -> Result<String> {
    serde_json::to_string(event)
        .map(|text| text + "\n")
        .map_err(|e| Error::new(format!("writing an event: {e}")))
}
