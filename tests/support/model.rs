//! What a profile says of one call, read off the profile with nothing clever in between.
//!
//! The arbiter between jug and libseccomp: 2.5.4 compiles some profiles wrongly. When the nested conditions of one rule
//! fail, its program goes on to the next rule for the call without loading the argument again, and compares whichever
//! word was loaded last (`rule a0 != 5 && a2 & 5 == 5` before `rule a0 < 255`, for one). Where libseccomp and jug
//! differ, the model says who is right. It knows no ranges, no trees and no instructions; numbers come from the
//! tables, which are compared with libseccomp's on their own.

use crate::bpf::Call;
use jug::seccomp::{Arch, tables};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
};

/// Every action the profile can be read to ask for; more than one when the order of conditional rules decides.
pub fn actions(profile: &LinuxSeccomp, listed: &[Arch], call: &Call) -> Vec<u32> {
    let default = profile.default_action().as_u32(Some(profile.default_errno_ret().unwrap_or(1)));
    if past_newest(profile, listed, call) {
        return vec![0x0005_0026];
    }
    let x32 = listed.contains(&Arch::X32);
    let guarded = call.arch == Arch::X32.audit() && !x32 && (0x4000_0000..u32::MAX).contains(&call.number);
    if guarded || !listed.iter().any(|arch| arch.audit() == call.arch) {
        return vec![0];
    }
    let found = matching(profile, listed, call, default);
    if found.is_empty() { vec![default] } else { found }
}

/// runc's rule: past the newest number the profile names for the architecture, when the default action denies.
fn past_newest(profile: &LinuxSeccomp, listed: &[Arch], call: &Call) -> bool {
    let denies =
        !matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    let here = |arch: &&Arch| match arch {
        Arch::X86_64 => call.number & 0x4000_0000 == 0,
        Arch::X32 => call.number & 0x4000_0000 != 0,
        _ => true,
    };
    let names = || profile.syscalls().iter().flatten().flat_map(|entry| entry.names());
    let newest = |arch: Arch| {
        names()
            .filter(|name| {
                arch != Arch::X86 || tables::numbers(name).is_none_or(|row| row.multiplexed().is_none())
            })
            .filter_map(|name| tables::numbers(name).and_then(|row| row.on(arch)))
            .max()
            .unwrap_or(0)
    };
    let arch = listed.iter().filter(|arch| arch.audit() == call.arch).find(here);
    denies && arch.is_some_and(|arch| newest(*arch) > 0 && call.number > newest(*arch))
}

/// The actions of the rules that match. Unconditional rules silence conditional ones, and the first the others.
fn matching(profile: &LinuxSeccomp, listed: &[Arch], call: &Call, default: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = entry.action().as_u32(Some(entry.errno_ret().unwrap_or(1)));
        if action == default {
            continue;
        }
        let args = entry.args().as_deref().unwrap_or_default();
        let repeated = args.iter().any(|a| args.iter().filter(|b| a.index() == b.index()).count() > 1);
        let alternatives: Vec<&[LinuxSeccompArg]> =
            if repeated { args.chunks(1).collect() } else { vec![args] };
        for name in entry.names() {
            for arch in listed.iter().filter(|arch| arch.audit() == call.arch) {
                for conditions in &alternatives {
                    match matches(name, conditions, *arch, call) {
                        Match::Always => {
                            if !found.iter().any(|(_, always)| *always) {
                                found = vec![(action, true)];
                            }
                        }
                        Match::Here if !found.iter().any(|(_, always)| *always) => {
                            found.push((action, false))
                        }
                        Match::Here | Match::No => {}
                    }
                }
            }
        }
    }
    let mut actions: Vec<u32> = found.into_iter().map(|(action, _)| action).collect();
    actions.sort_unstable();
    actions.dedup();
    actions
}

enum Match {
    Always,
    Here,
    No,
}

fn matches(name: &str, conditions: &[LinuxSeccompArg], arch: Arch, call: &Call) -> Match {
    let tests = |arg: &LinuxSeccompArg| {
        let low = |value: u64| if arch.wide() { value } else { value & 0xffff_ffff };
        let (value, second) = (low(arg.value()), low(arg.value_two().unwrap_or(0)));
        // A mask without bits is no condition; narrow architectures see only the low half of one.
        (!(arg.op() == Op::ScmpCmpMaskedEq && value == 0))
            .then(|| holds(arg.op(), low(call.args[arg.index()]), value, second))
    };
    if tables::numbers(name).and_then(|row| row.on(arch)) == Some(call.number) {
        let results: Vec<bool> = conditions.iter().filter_map(tests).collect();
        return match results.is_empty() {
            true => Match::Always,
            false if results.iter().all(|holds| *holds) => Match::Here,
            false => Match::No,
        };
    }
    let multiplexed = tables::numbers(name).and_then(|row| row.multiplexed());
    let multiplexed = multiplexed.filter(|way| arch == Arch::X86 && way.number == call.number);
    let Some(way) = multiplexed else { return Match::No };
    let mut others = conditions.iter().filter(|arg| arg.index() != 0).filter_map(tests);
    let first = call.args[0] as u32 == way.call;
    if first && others.all(|holds| holds) { Match::Here } else { Match::No }
}

fn holds(op: Op, argument: u64, value: u64, second: u64) -> bool {
    match op {
        Op::ScmpCmpNe => argument != value,
        Op::ScmpCmpLt => argument < value,
        Op::ScmpCmpLe => argument <= value,
        Op::ScmpCmpEq => argument == value,
        Op::ScmpCmpGe => argument >= value,
        Op::ScmpCmpGt => argument > value,
        Op::ScmpCmpMaskedEq => argument & value == second & value,
    }
}
