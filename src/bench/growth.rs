//! How many fit, and what each costs at rest: instances are added by steps until a rule says stop, the machine's memory
//! is read at each step, and then all are removed and the way back is watched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::image::Variant;
use super::instance::{Instance, World};
use super::machine::{Memory, read};
use super::place::{self, Standing};
use super::results::{Growth, Point, Teardown};
use super::{measure, starts, stats};
use crate::error::{Error, Result};

/// When to stop adding.
pub struct Rules {
    pub n: usize,
    /// Percent of all memory that has to stay available.
    pub keep_free: f64,
    /// For growing and removing.
    pub time: Duration,
    /// How long to wait at each step for the kernel's own threads.
    pub settle: Duration,
    /// How long the way back to nothing may take.
    pub baseline: Duration,
}

/// Measured steps, besides none: enough for a line with an error, few enough to be worth their pauses.
const STEPS: usize = 10;

/// Where the time is what ends a growth, steps come by it: at the earliest after this.
const SHORTEST_STEP: Duration = Duration::from_millis(1500);

pub fn measure(world: &World, contender: &Contender, variant: Variant, rules: &Rules) -> Result<Growth> {
    measure::reap();
    let before = (Standing::now(&world.prefix), Memory::now());
    if before.1.available_percent() < rules.keep_free {
        return Err(Error::new(format!(
            "too little memory: {:.0} MiB are available, {:.1} % of all, and {} % have to stay free",
            before.1.kib("MemAvailable") / 1024.0,
            before.1.available_percent(),
            rules.keep_free
        ))
        .next("end what else runs here, or lower --keep-free"));
    }
    super::machine::shrink_slabs();
    let before = (before.0, Memory::now());
    let mut growth = Growth { points: vec![point(world, contender, 0, rules)], ..Growth::default() };
    let mut alive = Vec::new();
    let grown = grow(world, contender, variant, rules, &mut alive, &mut growth);
    let peak = growth.points.last().map_or(0.0, |point| point.used - before.1.used());
    growth.teardown = tear_down(world, alive, before, peak, rules.baseline);
    grown.map(|()| growth)
}

fn grow<'w>(
    world: &'w World,
    contender: &'w Contender,
    variant: Variant,
    rules: &Rules,
    alive: &mut Vec<Instance<'w>>,
    growth: &mut Growth,
) -> Result<()> {
    let begun = Instant::now();
    let (mut slow, mut measured) = (0, begun);
    let soon = SHORTEST_STEP.max(rules.time / STEPS as u32);
    for step in 1..=STEPS.min(rules.n) {
        let target = rules.n * step / STEPS.min(rules.n);
        let first = growth.starts.len();
        while alive.len() < target {
            place::check()?;
            let had = alive.len();
            match starts::one(world, contender, variant) {
                Ok((instance, _)) => {
                    growth.starts.push((had, instance.wall_ms));
                    alive.push(instance);
                }
                Err(error) if had == 0 => return Err(error),
                Err(error) => {
                    place::check()?;
                    growth.stopped = format!("start {} failed: {}", had + 1, error.what());
                    return Ok(());
                }
            }
            let available = Memory::now().available_percent();
            if available < rules.keep_free {
                growth.stopped = format!("MemAvailable fell to {available:.1} %");
            } else if begun.elapsed() + contender.removal * alive.len() as u32 > rules.time {
                growth.stopped = format!("its {} s were over", rules.time.as_secs());
                growth.cut = true;
            } else {
                if measured.elapsed() > soon && alive.len() < target {
                    growth.points.push(point(world, contender, alive.len(), rules));
                    measured = Instant::now();
                }
                continue;
            }
            growth.points.push(point(world, contender, alive.len(), rules));
            return Ok(());
        }
        growth.points.push(point(world, contender, alive.len(), rules));
        measured = Instant::now();
        slow = if slower(&growth.starts, first) { slow + 1 } else { 0 };
        // Once may be the machine's mood.
        if slow == 2 {
            growth.stopped = "the start's p99 more than doubled".into();
            return Ok(());
        }
    }
    growth.stopped = format!("{} were asked for", rules.n);
    Ok(())
}

/// Whether the p99 of the newest step is more than twice that of the first; for steps that have one.
fn slower(starts: &[(usize, f64)], newest: usize) -> bool {
    const ENOUGH: usize = 50;
    if newest < ENOUGH || starts.len() - newest < ENOUGH {
        return false;
    }
    let p99 = |part: &[(usize, f64)]| {
        stats::percentile(&part.iter().map(|start| start.1).collect::<Vec<_>>(), 99.0).unwrap_or(0.0)
    };
    p99(&starts[newest..]) > 2.0 * p99(&starts[..starts.len() - newest])
}

/// The machine as it is now; the median of three looks.
fn point(world: &World, contender: &Contender, n: usize, rules: &Rules) -> Point {
    std::thread::sleep(rules.settle);
    let looks: Vec<Memory> = (0..3)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(30));
            Memory::now()
        })
        .collect();
    let median =
        |of: &dyn Fn(&Memory) -> f64| stats::median(&looks.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0);
    let own_pid = std::process::id();
    let processes: Vec<u32> = measure::tree(own_pid).into_iter().filter(|pid| *pid != own_pid).collect();
    let processes = measure::with_own_memory(&world.image.payload(), processes);
    let shares: Vec<(bool, f64)> = processes
        .iter()
        .map(|pid| (read(&format!("/proc/{pid}/comm")) == "payload", measure::proportional_memory(*pid)))
        .collect();
    Point {
        n,
        used: median(&Memory::used),
        not_free: median(&|memory| memory.kib("MemTotal") - memory.kib("MemFree")),
        pss: shares.iter().map(|share| share.1).sum(),
        own: shares.iter().filter(|share| !share.0).map(|share| share.1).sum(),
        state: kib_below(&contender.state(&world.image)),
        slab: median(&|memory| memory.kib("Slab")),
        kernel_stack: median(&|memory| memory.kib("KernelStack")),
        page_tables: median(&|memory| memory.kib("PageTables")),
        percpu: median(&|memory| memory.kib("Percpu")),
        shmem: median(&|memory| memory.kib("Shmem")),
        folded: read("/sys/kernel/mm/ksm/pages_sharing").parse::<f64>().unwrap_or(0.0) * 4.0,
    }
}

/// What the files below a directory take, without following links.
fn kib_below(dir: &Path) -> f64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => kib_below(&entry.path()),
        Ok(meta) => meta.blocks() as f64 / 2.0,
        Err(_) => 0.0,
    });
    sizes.sum()
}

/// KiB that a machine at rest moves by.
const QUIET: f64 = 8192.0;

fn tear_down(
    world: &World,
    alive: Vec<Instance>,
    (standing, memory): (Standing, Memory),
    peak: f64,
    patience: Duration,
) -> Teardown {
    let n = alive.len();
    let begun = Instant::now();
    let cpu = measure::cpu_so_far();
    drop(alive);
    measure::reap();
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_ms = (measure::cpu_so_far() - cpu).max(0.0);
    let mut way = Teardown { n, seconds, cpu_ms, ..Teardown::default() };
    let deadline = begun + Duration::from_secs_f64(seconds) + patience;
    let mut shrunk = begun;
    loop {
        let left = Standing::now(&world.prefix).since(standing);
        // As before the growth: an empty slab is nobody's, and counts as used.
        if left.is_nothing() && shrunk.elapsed() > Duration::from_secs(1) {
            super::machine::shrink_slabs();
            shrunk = Instant::now();
        }
        let used = Memory::now().used() - memory.used();
        let now = begun.elapsed().as_secs_f64();
        let still = |nothing: bool, before: Option<f64>| before.or_else(|| nothing.then_some(now));
        way.baseline_seconds = still(left.is_nothing(), way.baseline_seconds);
        way.memory_seconds = still(used <= QUIET.max(peak / 50.0), way.memory_seconds);
        (way.processes, way.cgroups) = (left.processes, left.cgroups);
        (way.dying_cgroups, way.mounts, way.memory) = (left.dying_cgroups, left.mounts, used);
        let all = way.baseline_seconds.is_some() && way.memory_seconds.is_some();
        if all || Instant::now() > deadline || place::check().is_err() {
            return way;
        }
        std::thread::sleep(Duration::from_millis(50));
        measure::reap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_become_slow_are_seen() {
        let starts = |ms: &[f64]| -> Vec<(usize, f64)> {
            ms.iter()
                .enumerate()
                .flat_map(|(step, ms)| (0..50).map(move |i| (step * 50 + i, ms + (i % 5) as f64)))
                .collect()
        };
        assert!(!slower(&starts(&[10.0]), 0), "the first step is what others are held against");
        assert!(!slower(&starts(&[10.0, 20.0]), 50));
        assert!(slower(&starts(&[10.0, 30.0]), 50) && slower(&starts(&[10.0, 10.0, 30.0]), 100));
        assert!(!slower(&starts(&[10.0, 30.0])[..90], 50), "too few have no p99");
    }
}
