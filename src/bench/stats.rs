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

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    pub fn roll(&mut self, limit: usize) -> usize {
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

/// The nearest-rank percentile of samples in any order.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(samples, 50.0)
}

/// A line of least squares, with the 95 % interval of its slope by Student's t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
    pub low: f64,
    pub high: f64,
    /// The share of the variance that the line explains.
    pub r2: f64,
}

/// None for fewer than three points, or all at one x: two points are a line without an error.
pub fn regression(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|dx, _| dx * dx), sum(&|dx, dy| dx * dy), sum(&|_, dy| dy * dy));
    if points.len() < 3 || xx == 0.0 {
        return None;
    }
    let slope = xy / xx;
    let residual = (yy - slope * xy).max(0.0);
    let half = student(points.len() - 2) * (residual / (n - 2.0) / xx).sqrt();
    let r2 = if yy == 0.0 { 1.0 } else { 1.0 - residual / yy };
    Some(Line { slope, intercept: y - slope * x, low: slope - half, high: slope + half, r2 })
}

/// The 97.5 % point of Student's distribution: a table to 10 degrees of freedom, then its expansion
/// around the normal's.
fn student(degrees: usize) -> f64 {
    const TABLE: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let (n, z) = (degrees as f64, 1.959_964_f64);
    let expansion =
        z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    TABLE.get(degrees.wrapping_sub(1)).copied().unwrap_or(expansion)
}

/// How `b` compares with `a`: the ratio of the medians, and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
}

impl Ratio {
    /// The interval does not hold 1: chance alone would do this in fewer than one of twenty cases.
    pub fn is_real(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

/// Efron's percentile bootstrap of the ratio of two medians. None without samples.
pub fn bootstrap(a: &[f64], b: &[f64], dice: &mut Dice) -> Option<Ratio> {
    const DRAWS: usize = 2000;
    let ratio = median(b)? / median(a)?;
    let mut draw = |samples: &[f64]| {
        let drawn: Vec<f64> = (0..samples.len()).map(|_| samples[dice.roll(samples.len())]).collect();
        median(&drawn).unwrap_or(f64::NAN)
    };
    let ratios: Vec<f64> = (0..DRAWS).map(|_| draw(b) / draw(a)).collect();
    Some(Ratio { ratio, low: percentile(&ratios, 2.5)?, high: percentile(&ratios, 97.5)? })
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
    fn a_line_is_found_again() {
        let exact: Vec<_> = (0..9).map(|x| (f64::from(x), 3.0 * f64::from(x) + 7.0)).collect();
        let line = regression(&exact).expect("a line");
        assert!(
            (line.slope - 3.0).abs() < 1e-12 && (line.intercept - 7.0).abs() < 1e-12 && line.r2 > 0.999_999
        );
        // Anscombe's first set: slope 0.5001, its standard error 0.1179, R^2 0.6665, t(9) = 2.262.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let line = regression(&x.into_iter().zip(y).collect::<Vec<_>>()).expect("a line");
        assert!((line.slope - 0.5001).abs() < 1e-4 && (line.r2 - 0.6665).abs() < 1e-4);
        assert!((line.high - line.slope - 2.262 * 0.1179).abs() < 1e-3);
        assert_eq!(regression(&exact[..2]), None);
        assert!((student(10) - 2.228).abs() < 1e-3 && (student(30) - 2.0423).abs() < 1e-3);
    }

    #[test]
    fn only_a_real_difference_is_one() {
        let near = |middle: f64| (0..60).map(|i| middle + f64::from(i % 7) / 10.0).collect::<Vec<_>>();
        let ratio = bootstrap(&near(10.0), &near(20.0), &mut Dice::new(1)).expect("samples");
        assert!(ratio.is_real() && ratio.low > 1.8 && ratio.high < 2.1, "{ratio:?}");
        let same = bootstrap(&near(10.0), &near(10.0), &mut Dice::new(1)).expect("samples");
        assert!(!same.is_real() && same.low <= 1.0 && same.high >= 1.0, "{same:?}");
        assert_eq!(bootstrap(&[], &[1.0], &mut Dice::new(1)), None);
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
