//! What the project set out to reach, held against a result. It only reads results, and knows nothing of reports.

use super::report::figures::{self, short};
use super::results::{Growth, IDLE, Named, Results};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Miss,
    /// The run was too small for it, or somebody was not there.
    Open,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Miss => "MISS",
            Self::Open => "open",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Goal {
    pub what: String,
    pub found: String,
    pub verdict: Verdict,
}

/// Instances that have to live at the same time.
const MANY: usize = 1000;
/// As many idle instances in a GiB as of the machine.
const TIMES: f64 = 100.0;
/// What the runtime's own part may be of the kernel's.
const OWN: f64 = 0.5;
/// How long the way back may take, in seconds.
const WAY_BACK: f64 = 60.0;
/// The machine with its root in memory, and on a disk.
const MACHINES: [&str; 2] = ["qemu-microvm", "qemu-microvm-disk"];

/// The goals for everything of jug's that was grown idle.
pub fn goals(results: &Results) -> Vec<Goal> {
    let jugs =
        results.contenders.iter().filter(|contender| ["jug-oci", "jug"].contains(&contender.name.as_str()));
    let grown = jugs.filter_map(|jug| Some((jug, figures::idle(results, &jug.name)?)));
    let mut all: Vec<Goal> = Vec::new();
    for (at, (jug, growth)) in grown.enumerate() {
        // The engine's monitor is held against the kernel's part; the rest is the runtime's affair.
        if at == 0 {
            all.extend([
                straight(jug, growth),
                many(jug, growth),
                back(jug, growth),
                denser(results, jug, growth),
            ]);
        }
        all.push(own(jug, growth));
    }
    all
}

fn goal(jug: &Named, what: &str, reached: Option<bool>, found: String) -> Goal {
    let verdict = match reached {
        Some(true) => Verdict::Pass,
        Some(false) => Verdict::Miss,
        None => Verdict::Open,
    };
    Goal { what: format!("{}: {what}", jug.name), found, verdict }
}

fn alive(growth: &Growth) -> usize {
    growth.points.last().map_or(0, |point| point.n)
}

/// None where fewer were asked for than the goal is about, or the run's time was over before.
fn of_many(growth: &Growth, reached: bool) -> Option<bool> {
    let short = ["were asked for", "were over"].iter().any(|end| growth.stopped.ends_with(end));
    let cut = short && alive(growth) < MANY;
    (!cut).then_some(reached && alive(growth) >= MANY)
}

fn straight(jug: &Named, growth: &Growth) -> Goal {
    let r2 = figures::memory_line(growth).map_or(0.0, |line| line.r2);
    let what = format!("R² > 0.99 to N ≥ {MANY}");
    goal(jug, &what, of_many(growth, r2 > 0.99), format!("{r2:.4} to {}", alive(growth)))
}

fn many(jug: &Named, growth: &Growth) -> Goal {
    let what = format!("{MANY} started, alive together and removed");
    let way = &growth.teardown;
    let gone = way.n >= MANY && way.processes <= 0;
    let found = format!("{} alive, {} processes left", alive(growth), way.processes.max(0));
    goal(jug, &what, of_many(growth, gone), found)
}

fn back(jug: &Named, growth: &Growth) -> Goal {
    let way = &growth.teardown;
    let what = format!("MemAvailable, cgroups (dying too) and mounts back within {WAY_BACK:.0} s of {MANY}");
    let seconds = |of: Option<f64>| of.map_or("not in time".into(), |seconds| format!("{seconds:.1} s"));
    let found = format!(
        "memory {}, the rest {} (removing took {:.1} s)",
        seconds(way.memory_seconds),
        seconds(way.baseline_seconds),
        way.seconds
    );
    let soon = |of: Option<f64>| of.is_some_and(|seconds| seconds - way.seconds <= WAY_BACK);
    goal(jug, &what, of_many(growth, soon(way.memory_seconds) && soon(way.baseline_seconds)), found)
}

fn denser(results: &Results, jug: &Named, growth: &Growth) -> Goal {
    let what = format!("≥ {TIMES:.0} × as many idle in a GiB as {}, KSM off", MACHINES[0]);
    let line = |name: &'static str| Some((name, figures::best_line(figures::idle(results, name)?)?.0));
    // At its best: the one that takes less.
    let machine = MACHINES.into_iter().filter_map(line).min_by(|a, b| a.1.slope.total_cmp(&b.1.slope));
    let (Some((own, by)), Some((name, machine))) = (figures::best_line(growth), machine) else {
        return goal(jug, &what, None, format!("no line of both, {IDLE}"));
    };
    let memory = results.named(name).and_then(|machine| machine.memory_mib).unwrap_or(0);
    let folding = results.machine.get("KSM").and_then(|ksm| ksm.as_str()) == Some("1");
    let times = machine.slope / own.slope;
    let found = format!(
        "{} × ({} KiB in {memory} MiB machines, {} KiB, {by}){}",
        short(times),
        short(machine.slope),
        short(own.slope),
        if folding { "; KSM was on" } else { "" }
    );
    goal(jug, &what, (!folding).then_some(own.slope > 0.0 && times >= TIMES), found)
}

fn own(jug: &Named, growth: &Growth) -> Goal {
    let what = format!("its own memory ≤ {OWN} × the kernel's for each");
    let (Some(own), Some(kernel)) = (figures::own_line(growth), figures::kernel_line(growth)) else {
        return goal(jug, &what, None, "too few points".into());
    };
    let found = format!("{} KiB of {} KiB", short(own.slope), short(kernel.slope));
    goal(jug, &what, Some(kernel.slope > 0.0 && own.slope <= OWN * kernel.slope), found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Class, Point, Teardown};

    /// A result of `n` containers of 300 KiB, `own` of them jug's, and of machines of 40 MiB.
    fn with(n: usize, own: f64, seconds: Option<f64>) -> Results {
        let mut results = Results::default();
        let grown = |name: &str, n: usize, each: f64, own: f64| {
            let point = |n: usize| Point {
                n,
                used: 1e6 + each * n as f64,
                own: own * n as f64,
                slab: (each - own) * n as f64,
                ..serde_json::from_value(blank()).expect("a point")
            };
            let way = Teardown {
                n,
                seconds: 5.0,
                baseline_seconds: seconds,
                memory_seconds: seconds,
                ..Teardown::default()
            };
            let points = (0..=10).map(|step| point(n * step / 10)).collect();
            let stopped = format!("{n} were asked for");
            (name.to_owned(), Growth { points, stopped, teardown: way, ..Growth::default() })
        };
        for (name, class) in [("jug-oci", Class::OsLevel), (MACHINES[0], Class::Hardware)] {
            results.contenders.push(Named::new(name, class));
        }
        let rows = results.growth.entry(IDLE.into()).or_default();
        rows.extend([grown("jug-oci", n, 300.0, own), grown(MACHINES[0], 10, 40_000.0, 0.0)]);
        results
    }

    fn blank() -> serde_json::Value {
        let names =
            ["used", "not_free", "pss", "own", "state", "slab", "kernel_stack", "page_tables", "percpu"];
        let mut point: serde_json::Map<_, _> =
            names.into_iter().chain(["shmem", "folded"]).map(|name| (name.to_owned(), 0.0.into())).collect();
        point.insert("n".into(), 0.into());
        point.into()
    }

    fn verdicts(results: &Results) -> Vec<&'static str> {
        goals(results).iter().map(|goal| goal.verdict.word()).collect()
    }

    #[test]
    fn a_goal_is_passed_missed_or_open() {
        assert_eq!(verdicts(&with(1000, 20.0, Some(6.0))), ["PASS"; 5]);
        // Machines that are not 100 times as large, a runtime that is as large as the kernel's part, and no way back.
        let missed = verdicts(&with(1000, 150.0, None));
        assert_eq!(missed, ["PASS", "PASS", "MISS", "PASS", "MISS"]);
        assert_eq!(verdicts(&with(1000, 0.0, Some(66.0)))[2], "MISS", "a minute and more");
        // A small run says nothing about a thousand, and says so.
        assert_eq!(verdicts(&with(100, 20.0, Some(6.0))), ["open", "open", "open", "PASS", "PASS"]);
        // The same machine that takes less with its root on a disk is the one to be held against.
        let mut leaner = with(1000, 20.0, Some(6.0));
        let rows = leaner.growth.get_mut(IDLE).expect("rows");
        let mut disk = rows[MACHINES[0]].clone();
        disk.points.iter_mut().for_each(|point| point.used = 1e6 + 20_000.0 * point.n as f64);
        rows.insert(MACHINES[1].into(), disk);
        assert_eq!(verdicts(&leaner)[3], "MISS");
        let mut died = with(1000, 20.0, Some(6.0));
        let growth = died.growth.get_mut(IDLE).and_then(|rows| rows.get_mut("jug-oci")).expect("a row");
        growth.points.truncate(8);
        growth.stopped = "start 701 failed: it ended".into();
        assert_eq!(verdicts(&died)[..2], ["MISS", "MISS"]);
        let growth = died.growth.get_mut(IDLE).and_then(|rows| rows.get_mut("jug-oci")).expect("a row");
        growth.stopped = "its 9 s were over".into();
        assert_eq!(verdicts(&died)[..2], ["open", "open"]);
        died.growth.clear();
        assert!(goals(&died).is_empty());
    }
}
