//! How quick starts are: one after the other, four at a time, and each after a rest. The contenders take turns in
//! random order, so that the machine's moods fall on all alike. A start counts from the spawn of the command to the
//! payload's word; CPU time is that of everything that was started until then, four at a time until the last one's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::image::{Payload, Variant};
use super::instance::{Instance, World};
use super::results::{Class, FOUR_WIDE, SERIAL, Starts};
use super::stats::Dice;
use super::{measure, parts};
use crate::error::Result;

/// A manner of starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Serial,
    /// What waits for an RCU grace period hides in a tight loop and shows after a rest.
    Spaced,
    FourWide,
}

impl Manner {
    pub const ALL: [Manner; 3] = [Self::Serial, Self::Spaced, Self::FourWide];

    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => SERIAL,
            Self::Spaced => "spaced 150 ms",
            Self::FourWide => FOUR_WIDE,
        }
    }
}

/// How often each contender starts in one block of the run.
pub fn rounds(contender: &Contender, manner: Manner, quick: bool, n: usize) -> usize {
    if contender.class == Class::Emulated {
        return 0;
    }
    let all = match (quick, contender.class.has_own_kernel()) {
        (true, false) => 20,
        (true, true) => 3,
        (false, false) => 100,
        (false, true) => 12,
    };
    let wide = if manner == Manner::FourWide { 2 } else { 1 };
    (all * wide).min(n.max(3)).div_ceil(parts::blocks(quick))
}

/// How many there shall be, unless the time is over before.
pub struct Rounds {
    pub n: usize,
    pub quick: bool,
    pub time: Duration,
}

/// Measures one manner for everybody.
pub fn measure(
    world: &World,
    all: &[Contender],
    manner: Manner,
    wanted: &Rounds,
    dice: &mut Dice,
) -> Result<BTreeMap<String, Starts>> {
    let (begun, rounds) =
        (Instant::now(), |contender: &Contender| rounds(contender, manner, wanted.quick, wanted.n));
    let mut found: BTreeMap<String, Starts> = BTreeMap::new();
    // Four at a time it is a few turns that do all, of four at least.
    let turns_of = |contender: &Contender| match (manner, rounds(contender)) {
        (Manner::FourWide, all) if all > 0 => (all / 4).clamp(1, 3),
        (_, all) => all,
    };
    // Each once, and then as many as there is time for.
    let mut turns: Vec<&Contender> = all.iter().filter(|contender| turns_of(contender) > 0).collect();
    let least = turns.len();
    let more = turns.iter().flat_map(|contender| std::iter::repeat_n(*contender, turns_of(contender) - 1));
    let mut more: Vec<&Contender> = more.collect();
    dice.shuffle(&mut turns);
    dice.shuffle(&mut more);
    for (at, contender) in turns.into_iter().chain(more).enumerate() {
        if (at >= least && begun.elapsed() > wanted.time) || world.is_over() {
            break;
        }
        let row = found.entry(contender.name.clone()).or_default();
        if manner == Manner::FourWide {
            four_wide(world, contender, rounds(contender).div_ceil(turns_of(contender)), row)?;
            continue;
        }
        if manner == Manner::Spaced {
            std::thread::sleep(Duration::from_millis(150));
        }
        let turn = Instant::now();
        match one(world, contender, Variant::of(Payload::Idle)) {
            Ok((instance, cpu)) => {
                row.wall_ms.push(instance.wall_ms);
                row.cpu_ms.push(cpu);
            }
            Err(error) => {
                super::place::check()?;
                super::progress(error);
                row.failures += 1;
            }
        }
        row.seconds += turn.elapsed().as_secs_f64();
    }
    Ok(found)
}

/// CPU time of what is started from here on, in milliseconds: of what has ended, and of the new processes that live.
struct Spent {
    before: Vec<u32>,
    ended: f64,
}

impl Spent {
    fn begin() -> Self {
        measure::reap();
        let ended = measure::cpu_of_children().unwrap_or(0.0);
        Self { before: measure::children(std::process::id()), ended }
    }

    /// Nobody may wait for a child meanwhile.
    fn now(&self) -> f64 {
        measure::reap();
        let children = measure::children(std::process::id()).into_iter();
        let new = children.filter(|pid| !self.before.contains(pid));
        let alive: f64 = new.flat_map(measure::tree).map(measure::cpu_of).sum();
        measure::cpu_of_children().unwrap_or(0.0) - self.ended + alive
    }
}

/// One start and its CPU time.
pub fn one<'w>(world: &'w World, contender: &'w Contender, variant: Variant) -> Result<(Instance<'w>, f64)> {
    let spent = Spent::begin();
    let instance = world.start(contender, variant)?;
    let cpu = spent.now();
    Ok((instance, cpu))
}

/// `starts` starts by four threads, and then their stops. The CPU time of a start is the mean of all, which live when
/// it is read: a stop is in nobody's, as it is in none of a serial start.
fn four_wide(world: &World, contender: &Contender, starts: usize, row: &mut Starts) -> Result<()> {
    let (spent, begun) = (Spent::begin(), Instant::now());
    let left = AtomicUsize::new(starts);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let worker = || {
        let mut started = Vec::new();
        while take() {
            started.push(world.start(contender, Variant::of(Payload::Idle)));
        }
        started
    };
    let started: Vec<Vec<Result<Instance>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_default()).collect()
    });
    let looked = Instant::now();
    let walls: Vec<f64> = started.iter().flatten().flatten().map(|instance| instance.wall_ms).collect();
    // What a start that failed has used is nobody's, and in the sum.
    row.cpu_ms.extend((walls.len() == starts).then(|| spent.now() / starts as f64));
    let looked = looked.elapsed();
    std::thread::scope(|scope| {
        started.into_iter().for_each(|own| drop(scope.spawn(move || drop(own))));
    });
    row.seconds += (begun.elapsed() - looked).as_secs_f64();
    measure::reap();
    super::place::check()?;
    row.failures += starts - walls.len();
    row.wall_ms.extend(walls);
    Ok(())
}
