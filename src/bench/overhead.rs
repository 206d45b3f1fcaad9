//! How close to native the payload runs, what it sees of the kernel, and what it can reach of it. The payload measures;
//! this asks it in every contender in turn, and on the host.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::contender::Contender;
use super::image::{Payload, Variant};
use super::instance::{World, answer_in};
use super::pair::Pair;
use super::results::{Class, LeftOut, NATIVE, Probe};
use super::stats::Dice;
use super::{measure, place, progress};
use crate::error::{Error, Result};

/// By contender, then figure.
pub type Figures = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// `rounds` passes through all contenders in random order, one at least, and no more when the time is over. Emulated
/// machines have no speed: they answer once, for their disk alone, so that it is known that it is there, and no report
/// makes a ratio of it. Beside the figures: who did not answer, and why.
pub fn measure(
    world: &World,
    all: &[Contender],
    rounds: usize,
    time: Duration,
    dice: &mut Dice,
) -> Result<(Figures, Vec<LeftOut>)> {
    let begun = Instant::now();
    let mut silent = Vec::new();
    let overlay =
        world.image.overlay().map_err(|why| Error::new(format!("a root file system to write to: {why}")))?;
    let mut figures = Figures::new();
    let pair = Pair::make(&world.image.payload());
    match &pair {
        Ok(pair) => world.image.near.store(pair.near(), Ordering::Relaxed),
        Err(why) => progress(why),
    }
    let mut turns: Vec<Option<&Contender>> = all.iter().map(Some).chain([None]).collect();
    for round in 0..rounds {
        if round > 0 {
            turns.retain(|turn| turn.is_none_or(|contender| contender.class != Class::Emulated));
        }
        dice.shuffle(&mut turns);
        // Who is slow comes last: where the time is over, the host and the containers have their figures.
        turns.sort_by_key(|turn| turn.is_some_and(|contender| contender.class.has_own_kernel()));
        for turn in &turns {
            if (round > 0 && begun.elapsed() > time) || world.is_over() {
                break;
            }
            let name = turn.map_or(NATIVE, |contender| contender.name.as_str());
            let emulated = turn.is_some_and(|contender| contender.class == Class::Emulated);
            for payload in [if emulated { Payload::Files } else { Payload::Work }, Payload::Veth] {
                let variant = Variant::of(payload);
                let cannot = turn.is_some_and(|contender| contender.can(variant).is_err());
                if payload == Payload::Veth && (cannot || pair.is_err()) {
                    continue;
                }
                let answer = match turn {
                    Some(contender) => world.ask(contender, variant),
                    None => native(world, payload),
                };
                measure::reap();
                place::check()?;
                match answer {
                    Ok(answer) => keep(figures.entry(name.to_owned()).or_default(), &answer),
                    Err(error) => {
                        let why = format!("{}: {}", variant.name(), error.what());
                        silent.push(LeftOut { name: name.to_owned(), why });
                        progress(error);
                    }
                }
            }
        }
    }
    drop((overlay, pair));
    Ok((figures, silent))
}

fn keep(row: &mut BTreeMap<String, Vec<f64>>, answer: &Value) {
    for (name, figure) in answer.as_object().into_iter().flatten() {
        row.entry(name.clone()).or_default().extend(figure.as_f64());
    }
}

/// What the payload sees and reaches in one contender, or on the host.
pub fn probe(world: &World, contender: Option<&Contender>) -> Result<Probe> {
    let answer = match contender {
        Some(contender) => world.ask(contender, Variant::of(Payload::Probe)),
        None => native(world, Payload::Probe),
    };
    measure::reap();
    serde_json::from_value(answer?).map_err(|why| Error::new(format!("the payload's answer: {why}")))
}

/// The payload on the host, in the run's own mount namespace.
fn native(world: &World, payload: Payload) -> Result<Value> {
    let failed = |why: std::io::Error| Error::new(format!("the payload on the host: {why}"));
    let mut before = world.image.before(Variant::of(payload));
    before.push(world.image.payload().into());
    let mut command = Command::new(&before[0]);
    command.args(&before[1..]).arg(payload.word());
    match payload {
        Payload::Work => command.arg(world.image.native_scratch()),
        _ => command.args(payload.words().get(2)),
    };
    let output = command.output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    answer_in(text.lines().find(|line| line.contains("jug-bench {")).unwrap_or_default())
}

/// How many system calls of the host's kernel the payload reached, of how many there are: those that answered it as
/// they answered it on the host. Of who has a kernel of its own, none of the host's answers the payload.
pub fn reachable(class: Class, probe: &Probe, native: &Probe) -> (usize, usize) {
    let there = native.calls.iter().filter(|errno| **errno != libc::ENOSYS).count();
    if class.has_own_kernel() {
        return (0, there);
    }
    let refused = |errno: i32| [libc::EPERM, libc::ENOSYS, libc::EACCES, -libc::SIGSYS].contains(&errno);
    let pairs = probe.calls.iter().zip(&native.calls);
    let reached =
        pairs.filter(|(here, native)| **native != libc::ENOSYS && (!refused(**here) || here == native));
    (reached.count(), there)
}

/// What of the host's remains with the payload. A boot id that differs is no kernel of one's own: some write another.
pub fn shared(class: Class, probe: &Probe, native: &Probe) -> Vec<&'static str> {
    let same = |a: &str, b: &str| !a.is_empty() && a == b;
    let mut shared = Vec::new();
    if !class.has_own_kernel() {
        shared.extend(["kernel", "page cache", "clock"]);
        shared.extend((!probe.loadavg.is_empty()).then_some("load average"));
        shared.extend(same(&probe.memory, &native.memory).then_some("size of memory"));
        shared.extend(same(&probe.boot_id, &native.boot_id).then_some("boot id"));
    }
    shared
}
