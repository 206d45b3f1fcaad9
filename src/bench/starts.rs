//! How quick starts are: one after the other, four at a time, and each after a rest. The contenders take turns in
//! random order, so that the machine's moods fall on all alike. A start counts from the spawn of the command to the
//! payload's word; CPU time is that of everything that was started until then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::image::{Payload, Variant};
use super::instance::{Instance, World};
use super::results::{Class, SERIAL, Starts};
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
            Self::FourWide => "four at a time",
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
    // Four at a time it is one turn in three that does a third of them.
    let turns_of = |contender: &Contender| match manner {
        Manner::FourWide => rounds(contender).min(3),
        _ => rounds(contender),
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
            four_wide(world, contender, rounds(contender) / 3, row)?;
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

/// One start and the CPU time of it in milliseconds: of what has ended, and of the new processes that live.
pub fn one<'w>(world: &'w World, contender: &'w Contender, variant: Variant) -> Result<(Instance<'w>, f64)> {
    measure::reap();
    let own = std::process::id();
    let (before, ended) = (measure::children(own), measure::cpu_of_children().unwrap_or(0.0));
    let instance = world.start(contender, variant)?;
    measure::reap();
    let new = measure::children(own).into_iter().filter(|pid| !before.contains(pid));
    let alive: f64 = new.flat_map(measure::tree).map(measure::cpu_of).sum();
    let cpu = measure::cpu_of_children().unwrap_or(0.0) - ended + alive;
    Ok((instance, cpu))
}

/// `starts` starts and stops by four threads.
fn four_wide(world: &World, contender: &Contender, starts: usize, row: &mut Starts) -> Result<()> {
    measure::reap();
    let (begun, left) = (Instant::now(), AtomicUsize::new(starts));
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let worker = || {
        let mut walls = Vec::new();
        while take() {
            walls.push(world.start(contender, Variant::of(Payload::Idle)).map(|instance| instance.wall_ms));
        }
        walls
    };
    let walls: Vec<Result<f64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    row.seconds += begun.elapsed().as_secs_f64();
    measure::reap();
    super::place::check()?;
    row.failures += walls.iter().filter(|wall| wall.is_err()).count();
    row.wall_ms.extend(walls.into_iter().flatten());
    Ok(())
}
