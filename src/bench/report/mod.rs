//! What was measured, for people: a summary for the terminal and one page for the browser. It only reads results; the
//! difference in isolation stands above both.

pub mod figures;
mod page;
mod plot;

use std::fmt::Write as _;

pub use page::page;

use super::goals;
use super::overhead;
use super::results::{IDLE, NATIVE, Results, SERIAL};
use super::stats::percentile;
use figures::short;

/// The terminal's report.
pub fn summary(results: &Results) -> String {
    let mut text = format!("{}\n\n", figures::headline(results));
    let fact = |name: &str| {
        results
            .machine
            .get(name)
            .map_or("?".into(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let _ = writeln!(
        text,
        "{}, {}, {} MiB, load before {}",
        fact("kernel"),
        fact("CPU"),
        fact("memory, MiB"),
        fact("load before")
    );
    density(&mut text, results);
    starts(&mut text, results);
    overheads(&mut text, results);
    teardowns(&mut text, results);
    let goals = goals::goals(results);
    if !goals.is_empty() {
        let _ = writeln!(text, "What jug set out to reach");
        for goal in goals {
            let _ = writeln!(text, "{}  {}: {}", goal.verdict.word(), goal.what, goal.found);
        }
        text.push('\n');
    }
    for left in &results.left_out {
        let _ = writeln!(text, "left out: {}: {}", left.name, left.why);
    }
    text
}

fn density(text: &mut String, results: &Results) {
    for (variant, rows) in figures::first(&results.growth, IDLE) {
        let _ = writeln!(text, "\nMemory of one more instance: {variant}");
        let _ = writeln!(
            text,
            "{:<22} {:>6} {:>12} {:>23} {:>8} {:>12} {:>10}",
            "", "N", "KiB each", "95 % interval", "R²", "accounted", "per GiB"
        );
        for contender in &results.contenders {
            let Some(growth) = rows.get(&contender.name) else { continue };
            let n = growth.points.last().map_or(0, |point| point.n);
            let Some(line) = figures::memory_line(growth) else {
                let _ = writeln!(
                    text,
                    "{:<22} {n:>6} too few points for a line; {}",
                    contender.name, growth.stopped
                );
                continue;
            };
            let accounted = figures::accounted_line(growth).map_or(f64::NAN, |line| line.slope);
            let interval = format!("{} to {}", short(line.low), short(line.high));
            let _ = writeln!(
                text,
                "{:<22} {n:>6} {:>12} {interval:>23} {:>8.4} {:>12} {:>10}",
                contender.name,
                short(line.slope),
                line.r2,
                short(accounted),
                figures::best_line(growth).map_or("-".into(), |(line, _)| short(figures::per_gib(&line))),
            );
        }
    }
    for (name, machine, line) in figures::machines(results) {
        let others = results.contenders.iter().filter(|contender| !contender.class.has_own_kernel());
        let ratios = others.filter_map(|contender| {
            let (own, by) = figures::best_line(figures::idle(results, &contender.name)?)?;
            Some(format!("{} {} ({by})", contender.name, short(line.slope / own.slope)))
        });
        let ratios: Vec<String> = ratios.collect();
        if !ratios.is_empty() {
            let memory = machine.memory_mib.map_or_else(String::new, |mib| format!(" in {mib} MiB"));
            let _ = writeln!(
                text,
                "Idle instances for one {name}{memory} ({}): {}",
                machine.class.words(),
                ratios.join(", ")
            );
        }
    }
}

fn starts(text: &mut String, results: &Results) {
    for (manner, rows) in figures::first(&results.starts, SERIAL) {
        let _ = writeln!(text, "\nStart until the payload's word, ms: {manner}");
        let _ = writeln!(
            text,
            "{:<22} {:>6} {:>9} {:>17} {:>9} {:>9} {:>9} {:>10} {:>8}",
            "", "starts", "p50", "95 % interval", "p90", "p99", "CPU p50", "per s", "failures"
        );
        for contender in &results.contenders {
            let Some(row) = rows.get(&contender.name) else { continue };
            let wall = |percent| percentile(&row.wall_ms, percent).map_or("-".into(), short);
            let _ = writeln!(
                text,
                "{:<22} {:>6} {:>9} {:>17} {:>9} {:>9} {:>9} {:>10} {:>8}",
                contender.name,
                row.wall_ms.len(),
                wall(50.0),
                figures::median_start(row),
                wall(90.0),
                wall(99.0),
                percentile(&row.cpu_ms, 50.0).map_or("-".into(), short),
                figures::rate(manner, row).map_or("-".into(), short),
                row.failures
            );
        }
    }
}

fn overheads(text: &mut String, results: &Results) {
    if !results.overhead.is_empty() {
        let _ = writeln!(text, "\nTimes the native cost (1 is native, more is worse)");
        for figure in figures::OVERHEAD {
            let (words, unit) = figures::overhead_words(figure);
            let native = results.overhead.get(NATIVE);
            let native = native.and_then(|row| percentile(row.get(figures::native_of(figure))?, 50.0));
            let _ = write!(text, "{words:<30} native {:>9} {unit:<5}", native.map_or("-".into(), short));
            for contender in &results.contenders {
                if let Some(ratio) = figures::overhead_ratio(results, &contender.name, figure) {
                    let _ = write!(text, "  {} {ratio:.2}", contender.name);
                }
            }
            text.push('\n');
        }
        if let Some(ratio) = figures::native_veth(results) {
            let _ = writeln!(text, "The same way natively, without a container: {ratio}");
        }
        for (contender, disk) in figures::emulated(results) {
            let _ = writeln!(
                text,
                "{} is emulated (TCG), no speed and no ratio: its disk, {disk}",
                contender.name
            );
        }
    }
    let Some(native) = results.probes.get(NATIVE) else { return };
    let _ = writeln!(text, "\nWhat the payload reaches and sees");
    for contender in &results.contenders {
        let Some(probe) = results.probes.get(&contender.name) else { continue };
        let (reached, all) = overhead::reachable(contender.class, probe, native);
        let seen = probe.features.values().filter(|seen| **seen).count();
        let shared = overhead::shared(contender.class, probe, native);
        let _ = writeln!(
            text,
            "{:<22} {reached:>3} of {all} system calls of the host, {seen:>2} of {} features, shared: {}",
            contender.name,
            probe.features.len(),
            if shared.is_empty() { "none of the host's".into() } else { shared.join(", ") }
        );
    }
    entries(text, results);
}

/// Ways into the kernel that are no system calls: one line for each kind.
fn entries(text: &mut String, results: &Results) {
    let columns = figures::with_entries(results);
    if columns.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nOther ways into the kernel that the payload has");
    for (key, words) in figures::ENTRIES {
        let _ = write!(text, "{words:<46}");
        for (name, own, entries) in &columns {
            let count = entries.get(key).map_or("-".into(), u64::to_string);
            let _ = write!(text, "  {name} {count}{}", if *own { "*" } else { "" });
        }
        text.push('\n');
    }
    let monitors = figures::monitors(results);
    if !monitors.is_empty() {
        let _ = writeln!(text, "* {}: {monitors}.", figures::OWN_KERNEL);
    }
}

fn teardowns(text: &mut String, results: &Results) {
    for (variant, rows) in figures::first(&results.growth, IDLE) {
        let _ = writeln!(text, "\nThe way back to nothing: {variant}");
        for contender in &results.contenders {
            let Some(way) = rows.get(&contender.name).map(|growth| &growth.teardown) else { continue };
            let baseline = way.baseline_seconds.map_or_else(
                || {
                    format!(
                        "left: {} processes, {} cgroups, {} dying cgroups, {} mounts",
                        way.processes, way.cgroups, way.dying_cgroups, way.mounts
                    )
                },
                |seconds| format!("nothing left after {seconds:.1} s"),
            );
            let _ = writeln!(
                text,
                "{:<22} {:>5} removed in {:>6.2} s, {:>8} ms CPU; {baseline}",
                contender.name,
                way.n,
                way.seconds,
                short(way.cpu_ms)
            );
        }
    }
    text.push('\n');
}
