//! Numbers from samples, and the dice that shuffle the runs. No input, no output.

use serde_json::{Value, json};

/// Times of one kind, in milliseconds.
#[derive(Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, milliseconds: f64) {
        let place = self.0.partition_point(|sample| *sample < milliseconds);
        self.0.insert(place, milliseconds);
    }

    /// The smallest sample that `percent` of all samples do not exceed; None without samples.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }

    pub fn median(&self) -> Option<f64> {
        self.percentile(50.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn json(&self) -> Value {
        let at = |percent| self.percentile(percent).map(|ms| (ms * 1000.0).round() / 1000.0);
        json!({ "p10": at(10.0), "p50": at(50.0), "p99": at(99.0) })
    }
}

/// xorshift64*: good enough to shuffle, and the same seed gives the same order.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`, which is not 0.
    fn roll(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), None);
        for n in (1..=100).rev() {
            samples.push(f64::from(n));
        }
        assert_eq!(samples.percentile(10.0), Some(10.0));
        assert_eq!(samples.median(), Some(50.0));
        assert_eq!(samples.percentile(99.0), Some(99.0));
        assert_eq!(samples.percentile(0.0), Some(1.0));
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut items: Vec<_> = (0..50).collect();
        Dice::new(42).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
