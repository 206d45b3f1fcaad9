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

/// The middle one, or what lies between the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
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

/// The line of something that grows, with an interval that another run keeps to: what one step leaves, the next ones
/// have too, so the errors of neighbours are alike, and least squares, which takes them for independent, promises too
/// much. The interval is at least that of the steps: each an independent look at what one more costs, and 1.2 times
/// their variance is that of a slope through a random walk (Durlauf and Phillips, Econometrica 56, 1988).
pub fn growth_line(points: &[(f64, f64)]) -> Option<Line> {
    let line = regression(points)?;
    let steps = points.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
    let steps: Vec<(f64, f64)> = steps.filter(|step| step.0 > 0.0).collect();
    let (across, up) = steps.iter().fold((0.0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
    if steps.len() < 2 {
        return Some(Line { low: f64::NEG_INFINITY, high: f64::INFINITY, ..line });
    }
    let errors = steps.iter().map(|step| (step.1 - step.0 * up / across).powi(2) / step.0);
    let variance = errors.sum::<f64>() / (steps.len() - 1) as f64 / across;
    let half = (student(steps.len() - 1) * (1.2 * variance).sqrt()).max(line.high - line.slope);
    Some(Line { low: line.slope - half, high: line.slope + half, ..line })
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

/// Samples in the order in which they were taken, in blocks that lie apart in time.
pub struct Blocks<'s>(Vec<&'s [f64]>);

impl<'s> Blocks<'s> {
    /// Blocks of these lengths; where the lengths do not fit, five that are as long as each other.
    pub fn new(mut samples: &'s [f64], lengths: &[usize]) -> Self {
        const COUNT: usize = 5;
        let known: Vec<usize> = lengths.iter().copied().filter(|length| *length > 0).collect();
        if known.len() < 2 || known.iter().sum::<usize>() != samples.len() {
            return Self(samples.chunks(samples.len().div_ceil(COUNT).max(1)).collect());
        }
        let cut = |length: usize| {
            let (block, rest) = samples.split_at(length);
            samples = rest;
            block
        };
        Self(known.into_iter().map(cut).collect())
    }

    fn all(&self) -> Vec<f64> {
        self.0.concat()
    }

    /// The median of blocks drawn from these, with samples drawn from each.
    fn draw(&self, dice: &mut Dice) -> f64 {
        let mut drawn = Vec::new();
        for _ in &self.0 {
            let block = self.0[dice.roll(self.0.len())];
            drawn.extend(block.iter().map(|_| block[dice.roll(block.len())]));
        }
        median(&drawn).unwrap_or(f64::NAN)
    }

    /// By how much an interval from so few blocks is too narrow: Student's t instead of the normal's, and the variance
    /// of a sample instead of that of all.
    fn too_narrow(&self) -> f64 {
        let count = self.0.len() as f64;
        student(self.0.len().saturating_sub(1)) / 1.96 * (count / (count - 1.0)).sqrt()
    }
}

/// How often is drawn.
const DRAWS: usize = 2000;

/// Efron's percentile bootstrap of the ratio of two medians, over blocks and the samples in them: a machine has moods,
/// and samples of one moment are too much alike to tell how much another run will differ. None without samples.
pub fn bootstrap(a: &Blocks, b: &Blocks, dice: &mut Dice) -> Option<Ratio> {
    let ratio = median(&b.all())? / median(&a.all())?;
    if a.0.len().min(b.0.len()) < 2 {
        return Some(Ratio { ratio, low: 0.0, high: f64::INFINITY });
    }
    let ratios: Vec<f64> = (0..DRAWS).map(|_| b.draw(dice) / a.draw(dice)).collect();
    let wider = a.too_narrow().max(b.too_narrow());
    let end = |percent| Some(ratio * (percentile(&ratios, percent)? / ratio).powf(wider));
    Some(Ratio { ratio, low: end(2.5)?, high: end(97.5)? })
}

/// The 95 % interval of a median, by the same means.
pub fn median_interval(samples: &Blocks, dice: &mut Dice) -> Option<(f64, f64)> {
    let middle = median(&samples.all())?;
    if samples.0.len() < 2 {
        return None;
    }
    let medians: Vec<f64> = (0..DRAWS).map(|_| samples.draw(dice)).collect();
    let wider = samples.too_narrow();
    let end = |percent| Some(middle * (percentile(&medians, percent)? / middle).powf(wider));
    Some((end(2.5)?, end(97.5)?))
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
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (Some(2.0), None));
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
        let compare =
            |a: &[f64], b: &[f64]| bootstrap(&Blocks::new(a, &[]), &Blocks::new(b, &[]), &mut Dice::new(1));
        let ratio = compare(&near(10.0), &near(20.0)).expect("samples");
        assert!(ratio.is_real() && ratio.low > 1.8 && ratio.high < 2.1, "{ratio:?}");
        let same = compare(&near(10.0), &near(10.0)).expect("samples");
        assert!(!same.is_real() && same.low <= 1.0 && same.high >= 1.0, "{same:?}");
        assert_eq!(compare(&[], &[1.0]), None);
        // One sample says nothing of another run.
        assert!(!compare(&[1.0], &[9.0]).expect("samples").is_real());
    }

    /// Runs of a machine that has a mood for each block: two of the same kind must not differ more often than one time
    /// in twenty, which the samples alone would have them do every other time.
    #[test]
    fn moods_are_no_difference() {
        let mut dice = Dice::new(7);
        let mut noise =
            |width: f64| (0..12).map(|_| dice.roll(1001) as f64 / 1000.0 - 0.5).sum::<f64>() * width;
        let mut run = || -> Vec<f64> {
            (0..5)
                .flat_map(|_| {
                    let mood = noise(0.5);
                    (0..20).map(|_| 10.0 + mood + noise(0.3)).collect::<Vec<_>>()
                })
                .collect()
        };
        const RUNS: usize = 20;
        let different = |lengths: &[usize], a: &[f64], b: &[f64]| {
            bootstrap(&Blocks::new(a, lengths), &Blocks::new(b, lengths), &mut Dice::new(1))
                .is_some_and(|ratio| ratio.is_real())
        };
        let pairs: Vec<_> = (0..RUNS).map(|_| (run(), run())).collect();
        let found = pairs.iter().filter(|(a, b)| different(&[20; 5], a, b)).count();
        let taken_for_independent = pairs.iter().filter(|(a, b)| different(&[1; 100], a, b)).count();
        assert!(found <= 3, "{found} of {RUNS} differ");
        assert!(taken_for_independent > 5, "{taken_for_independent} of {RUNS}: the test has no moods");
    }

    /// The same for slopes: memory that grows by 400 each, with steps that vary and stay.
    #[test]
    fn a_growth_covers_what_another_one_shows() {
        let mut dice = Dice::new(3);
        let mut noise = || (0..12).map(|_| dice.roll(1001) as f64 / 1000.0 - 0.5).sum::<f64>();
        let mut grown = || -> Vec<(f64, f64)> {
            let mut height = 0.0;
            let mut step = |at: usize| {
                height += 40_000.0 + 10_000.0 * noise();
                (100.0 * (at + 1) as f64, height)
            };
            (0..10).map(&mut step).collect()
        };
        const RUNS: usize = 200;
        let runs: Vec<_> = (0..RUNS).map(|_| grown()).collect();
        let covers = |line: Option<Line>| line.is_some_and(|line| line.low <= 400.0 && 400.0 <= line.high);
        let honest = runs.iter().filter(|points| covers(growth_line(points))).count();
        let blind = runs.iter().filter(|points| covers(regression(points))).count();
        assert!(honest >= 185, "{honest} of {RUNS} hold the truth");
        assert!(blind < 150, "{blind} of {RUNS}: least squares alone would do");
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
