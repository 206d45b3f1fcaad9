//! The parts of a run: which there are, what they are called, and what each is expected to take. It must not measure.

use std::time::Duration;

use clap::ValueEnum as _;

use super::Options;
use super::clock::Expected;
use super::contender::{Contender, ON_DISK};
use super::image::{Payload, Variant};
use super::results::{Class, NATIVE, Results};
use super::starts::{self, Manner};

/// A part of a run: kept when it is done.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    Probes,
    /// In one block of the run.
    Starts(Manner, usize),
    /// Of the contender with that number.
    Growth(usize, Variant),
    /// In one block of the run.
    Overhead(usize),
}

/// How many times a full run comes back to starts and overhead: a machine has moods that last minutes, and the figures
/// of two runs differ by more than the samples of one moment do.
pub const BLOCKS: usize = 5;

pub fn blocks(quick: bool) -> usize {
    if quick { 1 } else { BLOCKS }
}

/// What is still to be measured, the short parts first.
pub fn parts(contenders: &[Contender], options: &Options, results: &Results) -> Vec<Part> {
    let mut parts = Vec::new();
    let lacks = |known: &dyn Fn(&str) -> bool| contenders.iter().any(|contender| !known(&contender.name));
    if !results.probes.contains_key(NATIVE) || lacks(&|name| results.probes.contains_key(name)) {
        parts.push(Part::Probes);
    }
    let mut grown = Vec::new();
    if options.density {
        for variant in variants(options) {
            let known = results.growth.get(&variant.name());
            let open = |contender: &Contender| {
                contender.can(variant).is_ok()
                    && wanted(variant, contender, options)
                    && known.and_then(|known| known.get(&contender.name)).is_none_or(|growth| growth.cut)
            };
            let open = contenders.iter().enumerate().filter(|(_, contender)| open(contender));
            grown.extend(open.map(|(at, _)| Part::Growth(at, variant)));
        }
    }
    // A block, and then what is grown between two of them.
    let count = blocks(options.quick);
    let between = grown.len().div_ceil(count.saturating_sub(1).max(1));
    let mut grown = grown.into_iter();
    for block in 0..count {
        let starts = Manner::ALL.into_iter().filter(|_| options.start);
        let all = starts.map(|manner| Part::Starts(manner, block));
        let all = all.chain(options.overhead.then_some(Part::Overhead(block)));
        parts.extend(all.filter(|part| !results.has(&name(*part, contenders))));
        parts.extend(grown.by_ref().take(between));
    }
    parts
}

/// What is given back is no question between containers: their kernel has it at once. A machine with its root on a
/// disk, beside the one without, is grown idle unless more is asked for.
fn wanted(variant: Variant, contender: &Contender, options: &Options) -> bool {
    let again = contender.name.ends_with(ON_DISK) && options.variants.is_empty();
    (variant.payload != Payload::Free || contender.class.has_own_kernel() || contender.name == "jug-oci")
        && (variant == Variant::of(Payload::Idle) || !again)
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
    /// The same 16 MiB, written to once and given back: jug-oci and machines
    Free,
    /// Virtual machines that report their free pages to the host: idle, and after 16 MiB were given back
    Reporting,
}

impl Grown {
    fn variants(self) -> Vec<Variant> {
        let idle = Variant::of(Payload::Idle);
        let one = match self {
            Self::Idle => idle,
            Self::NoNetwork => Variant { network: false, ..idle },
            Self::MemoryCgroup => Variant { memory: true, ..idle },
            Self::Ksm => Variant { folded: true, ..idle },
            Self::Light => Variant::of(Payload::Light),
            Self::Touch => Variant::of(Payload::Touch),
            Self::Free => Variant::of(Payload::Free),
            Self::Reporting => {
                let reporting = |payload| Variant { reporting: true, ..Variant::of(payload) };
                return vec![reporting(Payload::Idle), reporting(Payload::Free)];
            }
        };
        vec![one]
    }
}

/// A quick run has time for the first two.
fn variants(options: &Options) -> Vec<Variant> {
    let all = Grown::value_variants();
    let chosen = match (&options.variants[..], options.quick) {
        ([], true) => &all[..2],
        ([], false) => all,
        (chosen, _) => chosen,
    };
    chosen.iter().flat_map(|grown| grown.variants()).collect()
}

/// Passes of the payload that measures, in one block.
pub const OVERHEAD_ROUNDS: usize = 2;

/// What the growth of one contender counts for at most, in seconds.
const LONGEST: f64 = 60.0;

/// How long to wait at each step: a guest reports its free pages two seconds after they became free
/// (PAGE_REPORTING_DELAY of the kernel).
pub fn settle(variant: Variant, quick: bool) -> Duration {
    let milliseconds = match () {
        () if variant.payload == Payload::Free || variant.reporting => 4000,
        () if quick => 100,
        () => 400,
    };
    Duration::from_millis(milliseconds)
}

pub fn name(part: Part, contenders: &[Contender]) -> String {
    match part {
        Part::Probes => "what the payload sees and reaches".into(),
        Part::Starts(manner, block) => format!("starts, {}, block {}", manner.name(), block + 1),
        Part::Growth(at, variant) => format!("{}: density, {}", contenders[at].name, variant.name()),
        Part::Overhead(block) => format!("overhead, block {}", block + 1),
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
    let removal = |contender: &Contender| contender.removal.as_secs_f64();
    let turn = |contender: &Contender| contender.trial + removal(contender) + 0.01;
    let rounds = |contender: &Contender, manner| starts::rounds(contender, manner, options.quick, n) as f64;
    let seconds = match part {
        Part::Probes => 1.0 + all(&|contender| contender.trial + 1.0),
        Part::Starts(Manner::FourWide, _) => {
            all(&|contender| rounds(contender, Manner::FourWide) * turn(contender)) / 2.0
        }
        Part::Starts(manner, _) => {
            let rest = if manner == Manner::Spaced { 0.15 } else { 0.0 };
            all(&|contender| rounds(contender, manner) * (turn(contender) + rest))
        }
        Part::Growth(at, variant) => {
            let grown = size(&contenders[at], options, n) as f64;
            let pauses = grown.min(10.0) * settle(variant, options.quick).as_secs_f64();
            2.0 + pauses + grown * (turn(&contenders[at]) + 0.002)
        }
        Part::Overhead(_) => {
            let able = |contender: &Contender| contender.class != Class::Emulated;
            let one = all(&|contender| if able(contender) { 2.0 * contender.trial + 3.0 } else { 0.0 });
            OVERHEAD_ROUNDS as f64 * (one + 3.0)
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
    // A line to 300 instances says as much of one more as a line to 1,000: the slow ones leave time to the rest.
    let most = match part {
        Part::Growth(..) if !first => LONGEST,
        _ => f64::INFINITY,
    };
    Expected { seconds: seconds.min(most), first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::Kind;
    use crate::bench::results::{FOLDED, IDLE};

    /// A full run that is told nothing else has a virtual machine with KSM and one that serves; the one with its root
    /// on a disk it has beside it, idle.
    #[test]
    fn a_full_run_grows_machines_in_every_way() {
        let machine = |name: &str| Contender::new(name.into(), Kind::Qemu, vec!["/bin/true".into()]);
        let contenders = [machine("qemu-microvm"), machine("qemu-microvm-disk")];
        let full = Options { density: true, ..Options::default() };
        let grown = |options: &Options, machine: usize| -> Vec<String> {
            let parts = parts(&contenders, options, &Results::default()).into_iter();
            let variants = parts.filter_map(|part| match part {
                Part::Growth(at, variant) if at == machine => Some(variant.name()),
                _ => None,
            });
            variants.collect()
        };
        assert_eq!(grown(&full, 0), [IDLE, FOLDED, "light", "touch", "free"]);
        assert_eq!(grown(&full, 1), [IDLE]);
        let chosen = Options { variants: vec![Grown::Ksm], ..full };
        assert_eq!([grown(&chosen, 0), grown(&chosen, 1)], [[FOLDED], [FOLDED]]);
    }
}
