//! The parts of a run: which there are, what they are called, and what each is expected to take. It must not measure.

use super::Options;
use super::clock::Expected;
use super::contender::Contender;
use super::image::{Payload, Variant};
use super::results::{Class, NATIVE, Results};
use super::starts::{self, Manner};

/// A part of a run: kept when it is done.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    Probes,
    Starts(Manner),
    /// Of the contender with that number.
    Growth(usize, Variant),
    Overhead,
}

/// What is still to be measured, the short parts first.
pub fn parts(contenders: &[Contender], options: &Options, results: &Results) -> Vec<Part> {
    let mut parts = Vec::new();
    let lacks = |known: &dyn Fn(&str) -> bool| contenders.iter().any(|contender| !known(&contender.name));
    if !results.probes.contains_key(NATIVE) || lacks(&|name| results.probes.contains_key(name)) {
        parts.push(Part::Probes);
    }
    if options.start {
        let done = |manner: &Manner| results.starts.contains_key(manner.name());
        parts.extend(Manner::ALL.into_iter().filter(|manner| !done(manner)).map(Part::Starts));
    }
    if options.density {
        for variant in variants(options) {
            let known = results.growth.get(&variant.name());
            let open = |contender: &Contender| {
                contender.can(variant).is_ok()
                    && !known.is_some_and(|known| known.contains_key(&contender.name))
            };
            let open = contenders.iter().enumerate().filter(|(_, contender)| open(contender));
            parts.extend(open.map(|(at, _)| Part::Growth(at, variant)));
        }
    }
    if options.overhead && !results.overhead.contains_key(NATIVE) {
        parts.push(Part::Overhead);
    }
    parts
}

/// What is grown, for who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Grown {
    /// Payloads that sleep
    Idle,
    /// The same without a network namespace
    NoNetwork,
    /// The same with a limit of memory, and so a memory cgroup
    MemoryCgroup,
    /// Virtual machines, with KSM on while they run
    Ksm,
    /// One request a second
    Light,
    /// 16 MiB, written to once a second
    Touch,
}

impl Grown {
    fn variant(self) -> Variant {
        let idle = Variant::of(Payload::Idle);
        match self {
            Self::Idle => idle,
            Self::NoNetwork => Variant { network: false, ..idle },
            Self::MemoryCgroup => Variant { memory: true, ..idle },
            Self::Ksm => Variant { folded: true, ..idle },
            Self::Light => Variant::of(Payload::Light),
            Self::Touch => Variant::of(Payload::Touch),
        }
    }
}

/// A quick run has time for the first two.
fn variants(options: &Options) -> Vec<Variant> {
    let all = [Grown::Idle, Grown::NoNetwork, Grown::MemoryCgroup, Grown::Ksm, Grown::Light, Grown::Touch];
    let chosen = match (&options.variants[..], options.quick) {
        ([], true) => &all[..2],
        ([], false) => &all,
        (chosen, _) => chosen,
    };
    chosen.iter().map(|grown| grown.variant()).collect()
}

pub fn name(part: Part, contenders: &[Contender]) -> String {
    match part {
        Part::Probes => "what the payload sees and reaches".into(),
        Part::Starts(manner) => format!("starts, {}", manner.name()),
        Part::Growth(at, variant) => format!("{}: density, {}", contenders[at].name, variant.name()),
        Part::Overhead => "overhead".into(),
    }
}

/// How many instances of a contender are grown: of machines few, their line is steep.
pub fn size(contender: &Contender, options: &Options, n: usize) -> usize {
    let machines = if options.quick { 4 } else { 10 };
    if contender.class.has_own_kernel() { n.min(machines) } else { n }
}

/// From what the trial starts took. The numbers beside it are those of a quiet machine of 2026: a growth that is told
/// to end does, and an estimate is one.
pub fn expected(part: Part, contenders: &[Contender], options: &Options, n: usize) -> Expected {
    let all = |of: &dyn Fn(&Contender) -> f64| contenders.iter().map(of).sum::<f64>();
    // A start, its stop, and what the harness does between them.
    let turn = |contender: &Contender| 1.5 * contender.trial + 0.01;
    let rounds = |contender: &Contender, manner| starts::rounds(contender, manner, options.quick, n) as f64;
    let seconds = match part {
        Part::Probes => 1.0 + all(&|contender| contender.trial + 1.0),
        Part::Starts(Manner::FourWide) => {
            all(&|contender| rounds(contender, Manner::FourWide) * turn(contender)) / 2.0
        }
        Part::Starts(manner) => {
            let rest = if manner == Manner::Spaced { 0.15 } else { 0.0 };
            all(&|contender| rounds(contender, manner) * (turn(contender) + rest))
        }
        Part::Growth(at, _) => {
            let grown = size(&contenders[at], options, n) as f64;
            2.0 + grown * (turn(&contenders[at]) + 0.002)
        }
        Part::Overhead => {
            let able = |contender: &Contender| contender.class != Class::Emulated;
            let one = all(&|contender| if able(contender) { contender.trial + 2.0 } else { 0.0 });
            (if options.quick { 2.0 } else { 7.0 }) * (one + 2.0)
        }
    };
    // What containers cost beside machines: the first contender and the machines, idle.
    let first = match part {
        Part::Probes => true,
        Part::Growth(at, variant) => {
            variant == Variant::of(Payload::Idle) && (at == 0 || contenders[at].class.has_own_kernel())
        }
        _ => false,
    };
    Expected { seconds, first }
}
