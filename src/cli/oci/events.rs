//! `events`: statistics and out-of-memory notices as JSON, one line each.

use std::time::Duration;

use clap::Args;

use super::Globals;
use crate::cli::log;
use crate::container::{self, record::Id};
use crate::error::{Error, Result};

/// Print what a container uses, and when it runs out of memory
#[derive(Debug, Args)]
pub struct Events {
    /// Time between two statistics, such as 500ms or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, allow_hyphen_values = true)]
    interval: Interval,
    /// Print the statistics of now, and stop
    #[arg(long)]
    stats: bool,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

impl Events {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let root = globals.root()?;
        let interval = match self.interval {
            Interval(time) if time.is_zero() => {
                // Said of a container that exists, as runc does.
                root.entry(&id)?;
                return Err(Error::new("duration interval must be greater than 0"));
            }
            Interval(time) => (!self.stats).then_some(time),
        };
        container::events::events(&root, &id, interval, log::print_to_reader)?;
        Ok(0)
    }
}

/// A time as Go's flag parser takes it; below zero it is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Interval(Duration);

/// Decimal numbers with a unit each: 300ms, 1.5h, 2h45m (time.ParseDuration of Go).
fn duration(text: &str) -> std::result::Result<Interval, String> {
    let bad = || format!("invalid duration {text:?}, such as 500ms or 1m30s");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Interval(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[letters..];
    }
    if negative {
        seconds = 0.0;
    }
    Duration::try_from_secs_f64(seconds).map(Interval).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("0s", 0),
            ("-3s", 0),
        ] {
            assert_eq!(duration(text), Ok(Interval(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "5", "s", "5 s", "1h 2m", "5x", ".s", "-", "1e3s", "9999999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
