//! One page for the browser, whole in itself: style and plots are inside, and nothing is fetched. The isolation that is
//! not the same stands first.

use std::fmt::Write as _;

use super::figures::{self, short};
use super::plot::{Axis, Bar, Scale, Series, bars, chart, text};
use crate::bench::contender::ON_DISK;
use crate::bench::goals::{self, Goal, Verdict};
use crate::bench::overhead;
use crate::bench::results::{Class, Growth, IDLE, NATIVE, Named, Results, SERIAL};
use crate::bench::stats::{self, percentile};

const STYLE: &str = include_str!("page.css");

pub fn page(results: &Results) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>jug bench</title><style>{STYLE}</style><main>\
         <h1>What containers cost</h1><p class=\"sub\">{}</p><p class=\"isolation\">{}</p>",
        text(&subtitle(results)),
        text(&figures::headline(results))
    );
    html += &cards(results);
    html += &isolation(results);
    html += &density(results);
    html += &starts(results);
    html += &overheads(results);
    html += &teardowns(results);
    html += &reached(results);
    html += &methods(results);
    html + "</main></html>\n"
}

fn fact(results: &Results, name: &str) -> String {
    let value = results.machine.get(name);
    value.map_or_else(|| "?".into(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn subtitle(results: &Results) -> String {
    let kind = if results.quick { "a quick look" } else { "a full run" };
    let [kernel, cpu, load] = ["kernel", "CPU", "load before"].map(|name| fact(results, name));
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("jug bench, {kind}: Linux {kernel}, {cpu}, load {load} before it began")
}

/// A machine with a disk has the colour of the one without, and dashes.
fn colour(results: &Results, name: &str) -> String {
    fn base(name: &str) -> &str {
        name.strip_suffix(ON_DISK).unwrap_or(name)
    }
    let mut bases = Vec::new();
    for contender in &results.contenders {
        if !bases.contains(&base(&contender.name)) {
            bases.push(base(&contender.name));
        }
    }
    let at = bases.iter().position(|of| *of == base(name)).unwrap_or(0) % 13;
    format!("c{at}{}", if base(name) == name { "" } else { " disk" })
}

/// Contenders that have an answer, in the order of the report.
fn with<'r, T>(results: &'r Results, of: impl Fn(&'r Named) -> Option<T>) -> Vec<(&'r Named, T)> {
    results.contenders.iter().filter_map(|contender| Some((contender, of(contender)?))).collect()
}

fn cards(results: &Results) -> String {
    let mut cards = Vec::new();
    let first = results.contenders.iter().find(|contender| !contender.class.has_own_kernel());
    if let Some(first) = first {
        if let Some(line) = figures::idle(results, &first.name).and_then(figures::best_line) {
            let words = format!("idle instances of {} in a GiB ({})", first.name, line.1);
            cards.push((short(figures::per_gib(&line.0)), words));
            let machines = figures::machines(results);
            for (_, machine, other) in machines.iter().filter(|(name, machine, _)| *name == machine.name) {
                let words = format!("of them for one {} ({})", machine.name, machine.class.words());
                cards.push((format!("{} ×", short(other.slope / line.0.slope)), words));
            }
        }
        let serial = results.starts.get(SERIAL).and_then(|rows| rows.get(&first.name));
        if let Some(median) = serial.and_then(|row| percentile(&row.wall_ms, 50.0)) {
            cards.push((
                format!("{} ms", short(median)),
                format!("until the payload's word, {}, median", first.name),
            ));
        }
    }
    let one = |(figure, words): (String, String)| {
        format!("<div class=\"card\"><b>{}</b><span>{}</span></div>", text(&figure), text(&words))
    };
    format!("<div class=\"cards\">{}</div>", cards.into_iter().map(one).collect::<String>())
}

/// A table. Cells are escaped already; they and the names above them may have a class before a `|`.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table><tr>");
    for name in head {
        let (class, name) = name.split_once('|').unwrap_or(("", name));
        let _ = write!(html, "<th class=\"{class}\">{}</th>", text(name));
    }
    for row in rows {
        html += "</tr><tr>";
        for cell in row {
            let (class, cell) = cell.split_once('|').unwrap_or(("", cell));
            let _ = write!(html, "<td class=\"{class}\">{cell}</td>");
        }
    }
    html + "</tr></table></div>"
}

fn isolation(results: &Results) -> String {
    let Some(native) = results.probes.get(NATIVE) else { return String::new() };
    let rows: Vec<Vec<String>> = with(results, |contender| results.probes.get(&contender.name))
        .into_iter()
        .map(|(contender, probe)| {
            let (reached, all) = overhead::reachable(contender.class, probe, native);
            let seen = probe.features.values().filter(|seen| **seen).count();
            let shared = overhead::shared(contender.class, probe, native).join(", ");
            let shade = if reached == 0 { "good" } else { "fair" };
            vec![
                text(&contender.name),
                format!("left|{}", contender.class.words()),
                format!("{shade}|{reached} of {all}"),
                format!("{seen} of {}", probe.features.len()),
                format!(
                    "left wrap|{}",
                    if shared.is_empty() { "none of the host's".into() } else { text(&shared) }
                ),
            ]
        })
        .collect();
    let mut html = String::from("<h2>What stands between the payload and the host</h2>");
    html += &table(
        &["", "left|class", "host's system calls reached", "features seen", "left|shared with the host"],
        &rows,
    );
    html += "<p class=\"note-text\">The payload calls every number with arguments that make no sense, on the host and \
             inside. A call counts as reached when it is not refused inside (EPERM, EACCES, ENOSYS, SIGSYS) or is \
             refused alike on the host. Features are what a program may ask a kernel for; more of them is more like a \
             machine of one's own.</p>";
    let missing: Vec<String> = with(results, |contender| results.probes.get(&contender.name))
        .into_iter()
        .map(|(contender, probe)| {
            let not: Vec<&str> =
                probe.features.iter().filter(|(_, seen)| !**seen).map(|(name, _)| name.as_str()).collect();
            format!(
                "<p class=\"note-text\"><b>{}</b> does not give: {}</p>",
                text(&contender.name),
                text(&not.join(", "))
            )
        })
        .collect();
    html + "<details><summary>features that are not given</summary>"
        + &missing.concat()
        + "</details>"
        + &entries(results)
}

/// Ways into the kernel that are no system calls.
fn entries(results: &Results) -> String {
    let columns = figures::with_entries(results);
    if columns.is_empty() {
        return String::new();
    }
    let head = columns.iter().map(|(name, own, _)| match own {
        true => format!("{name} (its own kernel's)"),
        false => (*name).to_owned(),
    });
    let head: Vec<String> = [String::new()].into_iter().chain(head).collect();
    let row = |(key, words): &(&str, &str)| {
        let counts = columns.iter().map(|(.., entries)| entries.get(*key).map_or("-".into(), u64::to_string));
        [text(words)].into_iter().chain(counts).collect()
    };
    let rows: Vec<Vec<String>> = figures::ENTRIES.iter().map(row).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let monitors = figures::monitors(results);
    let own =
        if monitors.is_empty() { String::new() } else { format!("{}: {monitors}.", figures::OWN_KERNEL) };
    format!(
        "<h3>Other ways into the kernel that the payload has</h3>{}<p class=\"note-text\">What exists and can be \
         opened or made from inside. Devices are not opened, but asked whether they may be; files of processes \
         are left out. {}</p>",
        table(&head, &rows),
        text(&own)
    )
}

fn density(results: &Results) -> String {
    let mut html = String::new();
    for (variant, rows) in figures::first(&results.growth, IDLE) {
        let found = with(results, |contender| rows.get(&contender.name));
        if found.is_empty() {
            continue;
        }
        let _ = write!(html, "<h2>How many fit: {}</h2>", text(variant));
        if variant == IDLE {
            html += &density_bars(results, &found);
        }
        let (machines, containers): (Vec<_>, Vec<_>) =
            found.iter().partition(|(contender, _)| contender.class.has_own_kernel());
        html += "<div class=\"two\">";
        for group in [containers, machines].iter().filter(|group| !group.is_empty()) {
            html += &lines(results, group);
        }
        html += "</div>";
        html += &density_table(&found);
        if variant == IDLE {
            html += &ratios(results, &found);
        }
    }
    html
}

fn density_bars(results: &Results, found: &[(&Named, &Growth)]) -> String {
    let bar = |(contender, growth): &(&Named, &Growth)| {
        let (line, by) = figures::best_line(growth)?;
        let memory = contender.memory_mib.map_or_else(String::new, |mib| format!("{mib} MiB machine, "));
        Some(Bar {
            name: contender.name.clone(),
            note: format!("{memory}{} KiB each, {by}", short(line.slope)),
            value: figures::per_gib(&line),
            colour: colour(results, &contender.name),
        })
    };
    let mut all: Vec<Bar> = found.iter().filter_map(bar).collect();
    all.sort_by(|a, b| b.value.total_cmp(&a.value));
    format!("<h3>Idle instances in a GiB of memory (logarithmic)</h3><figure>{}</figure>", bars(&all))
}

/// Points of memory over N with their line.
fn lines(results: &Results, group: &[&(&Named, &Growth)]) -> String {
    let series: Vec<Series> = group
        .iter()
        .map(|(contender, growth)| {
            let base = growth.points.first().map_or(0.0, |point| point.used);
            let grown = growth.points.iter().map(|p| (p.n as f64, (p.used - base) / 1024.0));
            let last = growth.points.last().map_or(0.0, |point| point.n as f64);
            let fit = figures::memory_line(growth).map(|line| {
                let at = |n: f64| (n, (line.intercept + line.slope * n - base) / 1024.0);
                vec![at(1.0), at(last)]
            });
            Series {
                name: contender.name.clone(),
                colour: colour(results, &contender.name),
                line: fit.unwrap_or_default(),
                points: grown.collect(),
            }
        })
        .collect();
    let x = Axis { label: "instances alive", scale: Scale::Linear };
    let y = Axis { label: "memory used more, MiB", scale: Scale::Linear };
    format!("<figure>{}</figure>", chart(&x, &y, &series))
}

/// How many of each container there are for one of each machine.
fn ratios(results: &Results, found: &[(&Named, &Growth)]) -> String {
    let machines = figures::machines(results);
    let containers = found.iter().filter(|(contender, _)| !contender.class.has_own_kernel());
    let rows: Vec<Vec<String>> = containers
        .filter_map(|(contender, growth)| {
            let (own, by) = figures::best_line(growth)?;
            let ratio = |line: &stats::Line| short(line.slope / own.slope);
            let first = [text(&contender.name), format!("left|{by}")].into_iter();
            Some(first.chain(machines.iter().map(|(.., line)| ratio(line))).collect())
        })
        .collect();
    if machines.is_empty() || rows.is_empty() {
        return String::new();
    }
    let name = |(name, machine, _): &(String, &Named, stats::Line)| {
        let memory = machine.memory_mib.map_or_else(String::new, |mib| format!(", {mib} MiB"));
        format!("for one {name}{memory} ({})", machine.class.words())
    };
    let head: Vec<String> = machines.iter().map(name).collect();
    let head: Vec<&str> = ["", "left|"].into_iter().chain(head.iter().map(String::as_str)).collect();
    format!("<h3>Idle containers for one machine</h3>{}", table(&head, &rows))
}

fn density_table(found: &[(&Named, &Growth)]) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(contender, growth)| {
            let line = figures::memory_line(growth);
            let of = |line: Option<stats::Line>| line.map_or("-".into(), |line| short(line.slope));
            let fit = line.map_or("", |line| if line.r2 > 0.99 { "good" } else { "fair" });
            vec![
                text(&contender.name),
                growth.points.last().map_or(0, |point| point.n).to_string(),
                line.map_or("too few points".into(), |line| short(line.slope)),
                line.map_or("-".into(), |line| format!("{} to {}", short(line.low), short(line.high))),
                line.map_or("-".into(), |line| format!("{fit}|{:.4}", line.r2)),
                of(figures::accounted_line(growth)),
                of(figures::kernel_line(growth)),
                of(figures::own_line(growth)),
                format!("left wrap|{}", text(&growth.stopped)),
            ]
        })
        .collect();
    let head = [
        "",
        "N",
        "KiB each",
        "95 % interval",
        "R²",
        "accounted",
        "kernel's part",
        "own processes, files",
        "left|stopped because",
    ];
    let note = "<p class=\"note-text\">KiB each is the slope of MemTotal − MemAvailable over N. Accounted is the \
                slope of Slab + KernelStack + PageTables + Percpu + the sum of Pss + files of state: what \
                somebody owns up to. An R² below 0.99 says that the machine did other things meanwhile: then read the \
                accounted column.</p>";
    table(&head, &rows) + note
}

fn starts(results: &Results) -> String {
    let mut html = String::new();
    if !results.starts.is_empty() {
        html += "<h2>How quick a start is</h2><div class=\"two\">";
    }
    for (manner, rows) in figures::first(&results.starts, SERIAL) {
        let series: Vec<Series> =
            with(results, |contender| rows.get(&contender.name).filter(|row| !row.wall_ms.is_empty()))
                .into_iter()
                .map(|(contender, row)| Series {
                    name: contender.name.clone(),
                    colour: colour(results, &contender.name),
                    line: cumulative(&row.wall_ms),
                    points: Vec::new(),
                })
                .collect();
        let x = Axis { label: "ms until the payload's word (logarithmic)", scale: Scale::Log };
        let y = Axis { label: "share of starts, %", scale: Scale::Linear };
        let _ = write!(html, "<figure><h3>{}</h3>{}</figure>", text(manner), chart(&x, &y, &series));
    }
    let crowd = starts_over_n(results);
    if !crowd.is_empty() && !results.starts.is_empty() {
        let _ = write!(html, "<figure><h3>with N running already</h3>{crowd}</figure>");
    }
    if !results.starts.is_empty() {
        html += "</div>";
        html += &starts_table(results);
    }
    html
}

/// Steps up from 0 to 100 %.
fn cumulative(samples: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |rank: usize| 100.0 * rank as f64 / sorted.len() as f64;
    sorted.iter().enumerate().flat_map(|(at, ms)| [(*ms, share(at)), (*ms, share(at + 1))]).collect()
}

/// The median start of every tenth of the way.
fn starts_over_n(results: &Results) -> String {
    let Some(rows) = results.growth.get(IDLE) else { return String::new() };
    let has_speed = |contender: &Named| contender.class != Class::Emulated;
    let series: Vec<Series> =
        with(results, |contender| rows.get(&contender.name).filter(|_| has_speed(contender)))
            .into_iter()
            .map(|(contender, growth)| {
                let part = growth.starts.len().div_ceil(10).max(1);
                let points = growth.starts.chunks(part).filter_map(|part| {
                    let walls: Vec<f64> = part.iter().map(|start| start.1).collect();
                    Some((part[part.len() / 2].0 as f64, stats::median(&walls)?))
                });
                let line: Vec<_> = points.collect();
                let colour = colour(results, &contender.name);
                Series { name: contender.name.clone(), colour, points: line.clone(), line }
            })
            .collect();
    let x = Axis { label: "instances alive", scale: Scale::Linear };
    chart(&x, &Axis { label: "median start, ms (logarithmic)", scale: Scale::Log }, &series)
}

fn starts_table(results: &Results) -> String {
    let mut rows = Vec::new();
    for (manner, all) in figures::first(&results.starts, SERIAL) {
        for (contender, row) in with(results, |contender| all.get(&contender.name)) {
            let at = |samples: &[f64], percent| percentile(samples, percent).map_or("-".into(), short);
            rows.push(vec![
                text(&contender.name),
                format!("left|{}", text(manner)),
                row.wall_ms.len().to_string(),
                at(&row.wall_ms, 50.0),
                figures::median_start(row),
                at(&row.wall_ms, 90.0),
                at(&row.wall_ms, 99.0),
                at(&row.cpu_ms, 50.0),
                figures::rate(manner, row).map_or("-".into(), short),
                row.failures.to_string(),
            ]);
        }
    }
    let head = [
        "",
        "left|manner",
        "starts",
        "p50, ms",
        "95 % interval",
        "p90",
        "p99",
        "CPU p50, ms",
        "start and stop, per s",
        "failures",
    ];
    table(&head, &rows)
}

fn overheads(results: &Results) -> String {
    if results.overhead.is_empty() {
        return String::new();
    }
    let has_speed = |contender: &Named| contender.class != Class::Emulated;
    let columns =
        with(results, |contender| results.overhead.get(&contender.name).filter(|_| has_speed(contender)));
    let mut head = vec!["", "native"];
    head.extend(columns.iter().map(|(contender, _)| contender.name.as_str()));
    let rows: Vec<Vec<String>> = figures::OVERHEAD
        .iter()
        .map(|figure| {
            let (words, unit) = figures::overhead_words(figure);
            let native = results.overhead.get(NATIVE);
            let native = native.and_then(|row| stats::median(row.get(figures::native_of(figure))?));
            let mut row =
                vec![text(words), native.map_or("-".into(), |native| format!("{} {unit}", short(native)))];
            row.extend(columns.iter().map(|(contender, _)| {
                figures::overhead_ratio(results, &contender.name, figure).map_or("-".into(), |ratio| {
                    let shade = if ratio < 1.1 {
                        "good"
                    } else if ratio < 1.5 {
                        "fair"
                    } else {
                        "bad"
                    };
                    format!("{shade}|{ratio:.2}")
                })
            }));
            row
        })
        .collect();
    let mut notes = String::new();
    for (contender, disk) in figures::emulated(results) {
        let _ = write!(
            notes,
            "<p class=\"note-text\"><b>{}</b> is emulated (TCG): what follows is no speed, and no ratio is made of it. \
             Its disk: {}.</p>",
            text(&contender.name),
            text(&disk)
        );
    }
    if let Some(ratio) = figures::native_veth(results) {
        let _ = write!(notes, "<p class=\"note-text\">Over the veth pair without a container: {ratio}.</p>");
    }
    format!(
        "<h2>How close to native</h2><p>Times the native cost: 1.00 is native, more is worse. Files: containers on an \
         overlay, machines on a virtual disk with ext4.</p>{}{notes}",
        table(&head, &rows)
    )
}

fn teardowns(results: &Results) -> String {
    let mut rows = Vec::new();
    for (variant, all) in figures::first(&results.growth, IDLE) {
        for (contender, growth) in with(results, |contender| all.get(&contender.name)) {
            let way = &growth.teardown;
            let left = |count: i64| if count > 0 { format!("bad|{count}") } else { "0".into() };
            rows.push(vec![
                text(&contender.name),
                format!("left|{}", text(variant)),
                way.n.to_string(),
                format!("{:.2}", way.seconds),
                short(way.cpu_ms / way.n.max(1) as f64),
                way.baseline_seconds.map_or("bad|not in time".into(), |seconds| format!("{seconds:.2}")),
                way.memory_seconds.map_or("fair|not in time".into(), |seconds| format!("{seconds:.2}")),
                left(way.processes),
                left(way.cgroups),
                left(way.dying_cgroups),
                left(way.mounts),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = [
        "",
        "left|variant",
        "N",
        "stopped after, s",
        "CPU each, ms",
        "nothing left after, s",
        "memory back, s",
        "processes",
        "cgroups",
        "dying",
        "mounts",
    ];
    format!("<h2>The way back to nothing</h2>{}", table(&head, &rows))
}

fn reached(results: &Results) -> String {
    let goals = goals::goals(results);
    if goals.is_empty() {
        return String::new();
    }
    let row = |goal: &Goal| {
        let shade = match goal.verdict {
            Verdict::Pass => "good",
            Verdict::Miss => "bad",
            Verdict::Open => "fair",
        };
        let [what, found] = [&goal.what, &goal.found].map(|words| format!("left wrap|{}", text(words)));
        vec![format!("{shade}|{}", goal.verdict.word()), what, found]
    };
    let rows: Vec<Vec<String>> = goals.iter().map(row).collect();
    format!("<h2>What jug set out to reach</h2>{}", table(&["", "left|goal", "left|found"], &rows))
}

fn methods(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .contenders
        .iter()
        .map(|contender| {
            let memory = contender
                .memory_mib
                .map_or_else(String::new, |mib| format!("; {mib} MiB, the least it comes up in"));
            vec![
                text(&contender.name),
                format!("left|{}", text(&contender.version)),
                format!("left wrap|{}{memory}", text(&contender.how)),
            ]
        })
        .collect();
    let mut html = format!("<h2>How it was measured</h2>{}", table(&["", "left|version", "left|how"], &rows));
    for left in &results.left_out {
        let _ = write!(
            html,
            "<p class=\"note-text\"><b>{}</b> is left out: {}</p>",
            text(&left.name),
            text(&left.why)
        );
    }
    let facts: Vec<Vec<String>> = results
        .machine
        .keys()
        .map(|name| vec![text(name), format!("left wrap|{}", text(&fact(results, name)))])
        .collect();
    html += "<details><summary>the machine</summary>";
    html += &table(&["", ""], &facts);
    html += "</details><details><summary>the order, with the load after each part</summary>";
    let order: Vec<Vec<String>> = results
        .order
        .iter()
        .map(|(part, load, seconds)| {
            vec![text(part), format!("left|{}", text(load)), format!("{seconds:.0} s")]
        })
        .collect();
    html += &table(&["part", "load", "since the beginning"], &order);
    let _ = write!(
        html,
        "</details><p class=\"note-text\">Seed {}, N up to {}. Raw samples: results.json.</p>",
        results.seed, results.n
    );
    html
}
