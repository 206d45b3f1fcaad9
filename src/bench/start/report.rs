//! What was measured, as a table for people and as JSON for programs, and which of jug's goals it meets.

use crate::contender::Contender;
use jug::bench::machine;
use jug::bench::stats::Samples;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    Plain,
    Seccomp,
    Exec,
    Spaced,
    Burst,
}

impl Case {
    const ALL: [Case; 5] = [Case::Plain, Case::Seccomp, Case::Exec, Case::Spaced, Case::Burst];

    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        ["run", "run-seccomp", "exec", "run-spaced", "burst"][self as usize]
    }

    pub fn title(self) -> &'static str {
        [
            "run, runc's default spec",
            "run, with a seccomp profile of Docker's kind",
            "exec into a running container",
            "run, 150 ms apart",
            "run, in a burst, 4 at a time (CPU: mean per start)",
        ][self as usize]
    }
}

/// What one contender did in one case.
#[derive(Default)]
pub struct Row {
    pub wall: Samples,
    pub cpu: Samples,
    pub failures: usize,
    /// Duration of the burst.
    pub seconds: f64,
    pub system_calls: Option<u64>,
    /// KiB.
    pub peak_memory: Option<u64>,
}

pub struct Results {
    rows: BTreeMap<Case, BTreeMap<String, Row>>,
    /// /proc/loadavg before anything was started.
    load_before: String,
}

impl Results {
    pub fn new() -> Self {
        Self { rows: BTreeMap::new(), load_before: machine::read("/proc/loadavg") }
    }

    pub fn row(&mut self, case: Case, contender: &str) -> &mut Row {
        self.rows.entry(case).or_default().entry(contender.to_owned()).or_default()
    }

    /// More than a quarter of a CPU was in use in the last minute.
    fn machine_was_busy(&self) -> bool {
        let load = self.load_before.split(' ').next().and_then(|load| load.parse().ok());
        load.is_some_and(|load: f64| load > 0.25)
    }

    fn get(&self, case: Case, contender: &str) -> Option<&Row> {
        self.rows.get(&case)?.get(contender)
    }

    /// Medians of wall and CPU time.
    fn medians(&self, case: Case, contender: &str) -> Option<[f64; 2]> {
        let row = self.get(case, contender)?;
        Some([row.wall.median()?, row.cpu.median()?])
    }
}

pub struct Report<'a> {
    contenders: &'a [Contender],
    results: &'a Results,
}

/// One of jug's goals: what, the figure, the limit, and whether more is better.
struct Goal {
    what: String,
    figure: f64,
    limit: f64,
    at_least: bool,
}

impl Goal {
    fn met(&self) -> bool {
        if self.at_least { self.figure >= self.limit } else { self.figure <= self.limit }
    }
}

const JUG: &str = "jug-oci";
const FLOOR: &str = "floor";
const CRUN: &str = "crun";

impl<'a> Report<'a> {
    pub fn new(contenders: &'a [Contender], results: &'a Results) -> Self {
        Self { contenders, results }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in machine::facts(&self.results.load_before) {
            let _ = writeln!(
                text,
                "{name:<12} {}",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            );
        }
        for contender in self.contenders {
            let _ = writeln!(
                text,
                "{:<12} {}, {:.2} MB",
                contender.name,
                contender.version(),
                megabytes(contender)
            );
        }
        if self.results.machine_was_busy() {
            text.push_str(
                "\nThe machine was busy: read the ratios and the CPU times, not wall times, p99 or rests.\n",
            );
        }
        for case in Case::ALL {
            self.table(case, &mut text);
        }
        let goals = self.goals();
        if !goals.is_empty() {
            let _ = writeln!(text, "\njug's goals");
        }
        for goal in goals {
            let verdict = if goal.met() { "PASS" } else { "MISS" };
            let bound = if goal.at_least { "at least" } else { "at most" };
            let _ =
                writeln!(text, "{verdict}  {:<58} {:>8.2}, {bound} {}", goal.what, goal.figure, goal.limit);
        }
        text
    }

    fn table(&self, case: Case, text: &mut String) {
        let _ = writeln!(text, "\n{}", case.title());
        let _ = writeln!(
            text,
            "{:<12} {:>5} {:>26} {:>26} {:>13} {:>13} {:>6} {:>6}",
            "",
            "n",
            "wall ms p10/p50/p99",
            "CPU ms p10/p50/p99",
            "of floor w/c",
            "of crun w/c",
            "calls",
            "MB"
        );
        for contender in self.contenders {
            let Some(row) = self.results.get(case, &contender.name) else { continue };
            let three = |samples: &Samples| {
                let at = |percent| samples.percentile(percent).unwrap_or(f64::NAN);
                format!("{:>8.2} {:>8.2} {:>8.2}", at(10.0), at(50.0), at(99.0))
            };
            let ratio = |to| match self.ratio(case, &contender.name, to) {
                Some([wall, cpu]) => format!("{wall:>6.2} {cpu:>6.2}"),
                None => String::new(),
            };
            let number = |number: Option<String>| number.unwrap_or_else(|| "-".into());
            let _ = write!(
                text,
                "{:<12} {:>5} {:>26} {:>26} {:>13} {:>13} {:>6} {:>6}",
                contender.name,
                row.wall.len(),
                three(&row.wall),
                three(&row.cpu),
                ratio(FLOOR),
                ratio(CRUN),
                number(row.system_calls.map(|calls| calls.to_string())),
                number(row.peak_memory.map(|kib| format!("{:.2}", kib as f64 / 1024.0))),
            );
            let plain = self.results.medians(Case::Plain, &contender.name);
            if let (Case::Spaced, Some([plain, _]), Some(spaced)) = (case, plain, row.wall.median()) {
                let _ = write!(text, "  {:.2} times back-to-back", spaced / plain);
            }
            if row.seconds > 0.0 {
                let _ = write!(text, "  {:.0}/s", row.wall.len() as f64 / row.seconds);
            }
            if row.failures > 0 {
                let _ = write!(text, "  {} FAILED", row.failures);
            }
            text.push('\n');
        }
    }

    /// Medians of `who` over those of `to`: wall and CPU.
    fn ratio(&self, case: Case, who: &str, to: &str) -> Option<[f64; 2]> {
        let ([wall, cpu], [to_wall, to_cpu]) =
            (self.results.medians(case, who)?, self.results.medians(case, to)?);
        Some([wall / to_wall, cpu / to_cpu])
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let mut goal = |what: String, figure: Option<f64>, limit: f64, at_least: bool| {
            goals.extend(figure.map(|figure| Goal { what, figure, limit, at_least }));
        };
        for case in Case::ALL {
            let of_floor = self.ratio(case, JUG, FLOOR);
            let of_crun = self.ratio(case, CRUN, JUG);
            for (index, kind) in ["wall", "CPU"].into_iter().enumerate() {
                let name = case.name();
                // The other cases are shown against their floor, and are held to crun.
                if matches!(case, Case::Plain) {
                    goal(
                        format!("{name}: {kind}, times the floor"),
                        of_floor.map(|ratio| ratio[index]),
                        1.5,
                        false,
                    );
                }
                goal(
                    format!("{name}: times less {kind} than crun"),
                    of_crun.map(|ratio| ratio[index]),
                    2.0,
                    true,
                );
            }
        }
        let spaced_over_plain = |percent| {
            let wall = |case| self.results.get(case, JUG)?.wall.percentile(percent);
            Some(wall(Case::Spaced)? / wall(Case::Plain)?)
        };
        goal("150 ms apart: p50, times back-to-back".into(), spaced_over_plain(50.0), 1.2, false);
        goal("150 ms apart: p99, times back-to-back".into(), spaced_over_plain(99.0), 2.0, false);
        let wall = |case| self.results.medians(case, JUG).map(|medians| medians[0]);
        let added = wall(Case::Seccomp).zip(wall(Case::Plain)).map(|(with, without)| with - without);
        goal("seccomp adds, ms".into(), added, 0.3, false);
        let memory = self.results.get(Case::Seccomp, JUG).and_then(|row| row.peak_memory);
        goal("peak memory, MB".into(), memory.map(|kib| kib as f64 / 1024.0), 3.0, false);
        let size = self.contenders.iter().find(|contender| contender.name == JUG).map(megabytes);
        goal("release binary, MB".into(), size, 4.0, false);
        goals
    }

    pub fn json(&self) -> Value {
        let mut cases = Map::new();
        for case in Case::ALL {
            let rows = self.contenders.iter().filter_map(|contender| {
                let row = self.results.get(case, &contender.name)?;
                Some((contender.name.clone(), self.row_json(case, &contender.name, row)))
            });
            cases.insert(
                case.name().into(),
                json!({ "title": case.title(), "contenders": rows.collect::<Map<_, _>>() }),
            );
        }
        let contenders = self.contenders.iter().map(|contender| {
            (contender.name.clone(), json!({ "version": contender.version(), "bytes": contender.size() }))
        });
        let goals = self.goals().into_iter().map(|goal| {
            json!({ "goal": goal.what, "figure": goal.figure, "limit": goal.limit, "at_least": goal.at_least,
                    "met": goal.met() })
        });
        let facts = machine::facts(&self.results.load_before)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        json!({
            "machine": facts.collect::<Map<_, _>>(),
            "contenders": contenders.collect::<Map<_, _>>(),
            "cases": cases,
            "goals": goals.collect::<Vec<_>>(),
        })
    }

    fn row_json(&self, case: Case, name: &str, row: &Row) -> Value {
        let ratio = |to| self.ratio(case, name, to).map(|[wall, cpu]| json!({ "wall": wall, "cpu": cpu }));
        json!({
            "starts": row.wall.len(),
            "failures": row.failures,
            "wall_ms": row.wall.json(),
            "cpu_ms": row.cpu.json(),
            "of_floor": ratio(FLOOR),
            "of_crun": ratio(CRUN),
            "system_calls": row.system_calls,
            "peak_memory_kib": row.peak_memory,
            "starts_per_second": (row.seconds > 0.0).then(|| row.wall.len() as f64 / row.seconds),
        })
    }
}

fn megabytes(contender: &Contender) -> f64 {
    contender.size() as f64 / 1e6
}
