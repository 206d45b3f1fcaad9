//! How long a run may take, and how its parts share that: what a contender's trial start took tells what its parts will
//! take, and each gets its share of what is left. It must not measure.

use std::time::{Duration, Instant};

/// Kept back for the reports.
const RESERVE: f64 = 4.0;

/// How much more than expected a part that the run is about may take.
const SLACK: f64 = 6.0;

pub struct Clock {
    begun: Instant,
    limit: Duration,
}

/// What a part is expected to take, in seconds, and whether the run is about it: then others are cut first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    pub seconds: f64,
    pub first: bool,
}

impl Clock {
    pub fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit }
    }

    /// Seconds of the whole run.
    pub fn limit(&self) -> f64 {
        self.limit.as_secs_f64()
    }

    /// When everything but the reports is over.
    pub fn end(&self) -> Instant {
        self.begun + self.limit.saturating_sub(Duration::from_secs_f64(RESERVE))
    }

    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// What the first of these parts may take.
    pub fn share(&self, parts: &[Expected]) -> Duration {
        share(self.limit.as_secs_f64() - self.elapsed() - RESERVE, parts)
    }

    /// What these parts will take together, in seconds: not more than there is, but each has its least.
    pub fn estimate(&self, parts: &[Expected]) -> f64 {
        let left = (self.limit.as_secs_f64() - self.elapsed()).max(2.0 * parts.len() as f64);
        parts.iter().map(|part| part.seconds).sum::<f64>().min(left)
    }
}

fn share(left: f64, parts: &[Expected]) -> Duration {
    let sum = |of: &[&Expected]| of.iter().map(|part| part.seconds).sum::<f64>();
    let (first, others): (Vec<&Expected>, Vec<&Expected>) = parts.iter().partition(|part| part.first);
    let Some(part) = parts.first() else { return Duration::ZERO };
    let seconds = if part.first {
        (part.seconds * SLACK).min(left * part.seconds / sum(&first))
    } else {
        (left - sum(&first)) * part.seconds / sum(&others)
    };
    // One second lets every part have its least.
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(1.0, 86_400.0) } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_run_is_about_is_cut_last() {
        let part = |seconds, first| Expected { seconds, first };
        let seconds = |left, parts: &[Expected]| share(left, parts).as_secs_f64();
        // Half the time for twice the work: the others get what is left over.
        assert!(
            (seconds(60.0, &[part(40.0, false), part(20.0, true), part(60.0, false)]) - 16.0).abs() < 1e-9
        );
        assert!((seconds(60.0, &[part(20.0, true), part(100.0, false)]) - 60.0).abs() < 1e-9);
        assert!((seconds(30.0, &[part(20.0, true), part(20.0, true)]) - 15.0).abs() < 1e-9);
        assert!((seconds(-5.0, &[part(20.0, false)]) - 1.0).abs() < 1e-9);
        assert_eq!(share(5.0, &[]), Duration::ZERO);
    }
}
