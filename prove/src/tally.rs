//! What a worker counted, on its way to the one that adds it up: a line of words and numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The counts of one series of trials. A name that begins with `slowest` is a maximum of milliseconds, others add up.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub series: String,
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub fn new(series: impl Into<String>) -> Self {
        Self { series: series.into(), counts: BTreeMap::new() }
    }

    pub fn add(&mut self, name: &str, count: u64) {
        *self.counts.entry(name.to_owned()).or_default() += count;
    }

    pub fn slowest(&mut self, name: &str, took: Duration) {
        let count = self.counts.entry(format!("slowest {name}, ms")).or_default();
        *count = (*count).max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    pub fn get(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// For the pipe between worker and master.
    pub fn line(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
        format!("TALLY\t{}\t{}", self.series, counts.join("\t"))
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix("TALLY\t")?.split('\t');
        let mut tally = Self::new(parts.next()?);
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, count) = part.split_once('=')?;
            tally.counts.insert(name.to_owned(), count.parse().ok()?);
        }
        Some(tally)
    }

    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            let own = self.counts.entry(name.clone()).or_default();
            *own = if name.starts_with("slowest") { (*own).max(*count) } else { *own + count };
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        write!(f, "{:<34} {}", self.series, counts.join(", "))
    }
}
