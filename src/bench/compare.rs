//! `jug bench compare A B`: does B differ from A by more than chance? Medians by the bootstrap, slopes by their
//! intervals.
//! It reads two results and prints; it measures nothing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::report::figures;
use super::results::{Class, Results};
use super::stats::{Blocks, Dice, Line, Ratio, bootstrap, median};
use crate::error::{Error, Result};

pub fn perform(a: &Path, b: &Path) -> Result<u8> {
    let [a, b] = [a, b].map(|path| Results::read(&file(path)));
    let text = compared(&a?, &b?)?;
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// A directory of --out stands for the file in it.
fn file(path: &Path) -> PathBuf {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => path.join("results.json"),
        _ => path.to_owned(),
    }
}

/// One figure that both have.
struct Row {
    what: String,
    a: f64,
    b: f64,
    unit: &'static str,
    ratio: Ratio,
}

/// The table, and a sentence about it.
pub fn compared(a: &Results, b: &Results) -> Result<String> {
    let mut dice = Dice::new(1);
    let mut rows = samples(a, b, &mut dice);
    rows.extend(slopes(a, b));
    if rows.is_empty() {
        return Err(Error::new("the two results have no figure in common")
            .why("they measured different subjects or different contenders"));
    }
    let mut text = String::new();
    for name in ["kernel", "CPU", "memory, MiB"] {
        let of = |results: &Results| results.machine.get(name).map_or_else(String::new, ToString::to_string);
        if of(a) != of(b) {
            let _ = writeln!(text, "{name} differs: {} and {}", of(a), of(b));
        }
    }
    let _ =
        writeln!(text, "{:<58} {:>10} {:>10}  {:>6}  {:<15} real?", "what", "A", "B", "B/A", "95 % interval");
    for row in &rows {
        let interval = format!("{:.3} to {:.3}", row.ratio.low, row.ratio.high);
        let real = if row.ratio.is_real() { "yes" } else { "no" };
        let what = format!("{}, {}", row.what, row.unit);
        let _ = writeln!(
            text,
            "{what:<58} {:>10.2} {:>10.2}  {:>6.3}  {interval:<15} {real}",
            row.a, row.b, row.ratio.ratio
        );
    }
    let real = rows.iter().filter(|row| row.ratio.is_real()).count();
    let _ = writeln!(
        text,
        "{real} of {} figures differ. Of figures that are the same one in twenty looks different by chance.",
        rows.len()
    );
    Ok(text)
}

/// A figure, its unit, the samples of both and the lengths of their blocks.
type Pair<'a> = (String, &'static str, [&'a [f64]; 2], [&'a [usize]; 2]);

fn samples(a: &Results, b: &Results, dice: &mut Dice) -> Vec<Row> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for (manner, here) in &a.starts {
        for (name, here) in here {
            let Some(there) = b.starts.get(manner).and_then(|there| there.get(name)) else { continue };
            let blocks = [&here.blocks[..], &there.blocks];
            let what = format!("{name}: start, {manner}");
            pairs.push((format!("{what}, wall"), "ms", [&here.wall_ms, &there.wall_ms], blocks));
            pairs.push((format!("{what}, CPU"), "ms", [&here.cpu_ms, &there.cpu_ms], blocks));
        }
    }
    let emulated = |name: &str| {
        [a, b].iter().any(|of| of.named(name).is_some_and(|named| named.class == Class::Emulated))
    };
    for (name, here) in a.overhead.iter().filter(|(name, _)| !emulated(name)) {
        for (figure, here) in here {
            let Some(there) = b.overhead.get(name).and_then(|there| there.get(figure)) else { continue };
            let (words, unit) = figures::overhead_words(figure);
            pairs.push((format!("{name}: {words}"), unit, [here, there], [&[], &[]]));
        }
    }
    let mut rows = Vec::new();
    for (what, unit, [here, there], blocks) in pairs {
        let ratio = bootstrap(&Blocks::new(here, blocks[0]), &Blocks::new(there, blocks[1]), dice);
        if let (Some(ratio), Some(a), Some(b)) = (ratio, median(here), median(there)) {
            rows.push(Row { what, unit, a, b, ratio });
        }
    }
    rows
}

fn slopes(a: &Results, b: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for (variant, here) in &a.growth {
        for (name, here) in here {
            let there = b.growth.get(variant).and_then(|there| there.get(name));
            let lines = figures::memory_line(here).zip(there.and_then(figures::memory_line));
            let Some((here, there)) = lines else { continue };
            let ratio = ratio_of(here, there);
            let what = format!("{name}: memory of one more, {variant}");
            rows.push(Row { what, unit: "KiB", a: here.slope, b: there.slope, ratio });
        }
    }
    rows
}

/// The ratio of two slopes; relative errors add as squares.
fn ratio_of(a: Line, b: Line) -> Ratio {
    let relative = |line: Line| (line.high - line.low) / 2.0 / line.slope;
    let (ratio, error) = (b.slope / a.slope, relative(a).hypot(relative(b)));
    Ratio { ratio, low: ratio * (1.0 - error), high: ratio * (1.0 + error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Named, SERIAL, Starts};

    fn with(wall: impl Fn(usize) -> f64) -> Results {
        let starts = Starts { wall_ms: (0..40).map(wall).collect(), ..Starts::default() };
        let mut results = Results::default();
        results.starts.entry(SERIAL.into()).or_default().insert("jug-oci".into(), starts);
        results
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        let base = with(|i| 10.0 + (i % 5) as f64 / 10.0);
        let same = compared(&base, &with(|i| 10.0 + ((i + 2) % 5) as f64 / 10.0)).expect("a table");
        assert!(same.contains("0 of 1 figures differ"), "{same}");
        let slower = compared(&base, &with(|i| 12.0 + (i % 5) as f64 / 10.0)).expect("a table");
        assert!(
            slower.contains("1 of 1 figures differ") && slower.contains("jug-oci: start, serial, wall"),
            "{slower}"
        );
        assert!(compared(&base, &Results::default()).is_err());
    }

    /// One that was emulated in either run has no speed to compare.
    #[test]
    fn an_emulated_machine_has_no_speed() {
        let ran = |class| {
            let name = "qemu-microvm";
            let mut results = with(|_| 10.0);
            results.contenders.push(Named::new(name, class));
            results.overhead.entry(name.into()).or_default().insert("create_ns".into(), vec![1.0; 5]);
            results
        };
        let (fast, slow) = (ran(Class::Hardware), ran(Class::Emulated));
        let rows = |a, b| compared(a, b).expect("a table").matches("qemu-microvm").count();
        assert_eq!((rows(&fast, &fast), rows(&fast, &slow), rows(&slow, &fast)), (1, 0, 0));
    }
}
