//! Rules by name -> for each audit architecture, what happens to every number from 0 to 2^32 - 1.
//!
//! The whole meaning of a filter is settled here, as ranges of numbers; the next step only writes them down as
//! instructions. Precedence among rules for one call is libseccomp's, see [`outcome`].

use super::arch::{Arch, X32_BIT};
use super::rules::{Condition, ENOSYS, KILL_THREAD, Rules, Test};
use super::tables;
use std::cmp::{Ordering, Reverse};

/// What a filter does with calls of one audit architecture. Ranges start at 0, ascend and have no gaps.
pub struct Section {
    pub audit: u32,
    pub ranges: Vec<Range>,
}

/// From `first` to just before the next range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub first: u32,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    Return(u32),
    /// The arguments decide: an index into the checks.
    Check(u32),
}

/// The first clause whose conditions all hold decides; the default action when none does.
#[derive(PartialEq)]
pub struct Check {
    /// Arguments have 64 bits.
    pub wide: bool,
    pub clauses: Vec<Clause>,
}

#[derive(PartialEq)]
pub struct Clause {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// That a rule speaks of a number, maybe as one call among those a multiplexer makes: number, rule and the
/// multiplexer's
/// first argument (0 for a call of its own) in one word, which sorts faster than a struct.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mention(u64);

impl Mention {
    fn new(number: u32, rule: usize, multiplexed: u32) -> Self {
        // Multiplexed calls are below 256; a profile of 2^24 rules does not fit in memory.
        Mention(u64::from(number) << 32 | (rule as u64) << 8 | u64::from(multiplexed))
    }

    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn rule(self) -> usize {
        (self.0 as u32 >> 8) as usize
    }

    fn multiplexed(self) -> Option<u32> {
        let call = self.0 as u32 & 0xff;
        (call != 0).then_some(call)
    }
}

/// What the profile says of one architecture.
struct Mentions {
    arch: Arch,
    list: Vec<Mention>,
    /// The highest number the profile names, even where the rule changes nothing.
    newest: u32,
}

/// The sections for `archs`, the checks they refer to, and the names no architecture knows.
pub fn sections<'a>(rules: &Rules<'a>, archs: &[Arch]) -> (Vec<Section>, Vec<Check>, Vec<&'a str>) {
    let (mentions, unknown) = mentions(rules, archs);
    let mut checks = Vec::new();
    let mut sections: Vec<Section> = Vec::new();
    for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm] {
        let parts: Vec<&Mentions> =
            mentions.iter().filter(|part| part.arch.audit() == arch.audit()).collect();
        if !parts.is_empty() {
            let ranges = ranges(rules, &parts, &mut checks);
            sections.push(Section { audit: arch.audit(), ranges });
        }
    }
    (sections, checks, unknown)
}

fn mentions<'a>(rules: &Rules<'a>, archs: &[Arch]) -> (Vec<Mentions>, Vec<&'a str>) {
    let mut unknown = Vec::new();
    let mut known = Vec::with_capacity(512);
    for (at, rule) in rules.rules.iter().enumerate() {
        // runc drops a rule that does what happens anyway, conditions or not; its names still count as known.
        let kept = rule.action != rules.default_action;
        for name in rule.names {
            match tables::numbers(name) {
                Some(numbers) => known.push((numbers, at, kept)),
                None => unknown.push(name.as_str()),
            }
        }
    }
    // x86_64 before x32: the section they share wants ascending numbers.
    let archs = Arch::ALL.into_iter().filter(|arch| archs.contains(arch));
    (archs.map(|arch| mentions_of(arch, &known)).collect(), unknown)
}

/// What the rules say of the numbers of one architecture: (call, rule, whether the rule changes anything).
fn mentions_of(arch: Arch, known: &[(tables::Numbers, usize, bool)]) -> Mentions {
    let mut list = Vec::with_capacity(known.len() + 32);
    let mut newest = 0;
    for (numbers, rule, kept) in known {
        let multiplexed = if arch == Arch::X86 { numbers.multiplexed() } else { None };
        if let (Some(way), true) = (multiplexed, *kept) {
            list.push(Mention::new(way.number, *rule, way.call));
        }
        let Some(number) = numbers.on(arch) else { continue };
        // libseccomp resolves a multiplexed name to a pseudo number, so runc does not count it.
        if multiplexed.is_none() && number > newest {
            newest = number;
        }
        if *kept {
            list.push(Mention::new(number, *rule, 0));
        }
    }
    Mentions { arch, list: sorted(list, arch.number_bit()), newest }
}

/// Numbers are few and small: they are counted, which is a few instructions for each; only what is said of one number
/// twice has to be compared.
fn sorted(mut list: Vec<Mention>, bit: u32) -> Vec<Mention> {
    // The highest is 547, of x32.
    const SMALL: usize = 640;
    let small = |mention: &Mention| (mention.number() ^ bit) as usize;
    let mut ends = [0_u32; SMALL];
    for mention in &list {
        match ends.get_mut(small(mention)) {
            Some(count) => *count += 1,
            None => {
                list.sort_unstable();
                return list;
            }
        }
    }
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut sorted = list.clone();
    for mention in list.iter().rev() {
        let end = &mut ends[small(mention)];
        *end -= 1;
        sorted[*end as usize] = *mention;
    }
    for twice in sorted.chunk_by_mut(|a, b| a.number() == b.number()) {
        if twice.len() > 1 {
            twice.sort_unstable();
        }
    }
    sorted
}

fn ranges(rules: &Rules, parts: &[&Mentions], checks: &mut Vec<Check>) -> Vec<Range> {
    let default = Outcome::Return(rules.default_action);
    let mut ranges: Vec<Range> = Vec::with_capacity(128);
    let mut go_on = |first, outcome| {
        if ranges.last().is_none_or(|last| last.outcome != outcome) {
            ranges.push(Range { first, outcome });
        }
    };
    // The first number of which nothing is said yet; none after the last of all.
    let mut next = Some(0);
    for part in parts {
        for group in part.list.chunk_by(|a, b| a.number() == b.number()) {
            let number = group[0].number();
            if let Some(gap) = next.filter(|next| *next < number) {
                go_on(gap, default);
            }
            go_on(number, outcome(rules, group, part.arch, checks));
            next = number.checked_add(1);
        }
    }
    if let Some(rest) = next {
        go_on(rest, default);
    }
    let x32 = parts.iter().any(|part| part.arch == Arch::X32);
    if parts[0].arch == Arch::X86_64 && !x32 {
        // -1 is what a tracer writes to skip a call, and stays with the filter as in libseccomp.
        paint(&mut ranges, X32_BIT, u32::MAX - 1, Outcome::Return(KILL_THREAD));
    }
    if rules.enosys_past_newest {
        // runc puts this test before the filter, so it is painted over the guard.
        for part in parts {
            answer_enosys(&mut ranges, part);
        }
    }
    ranges
}

/// Numbers past the newest the profile names get ENOSYS, so that a C library falls back to an older call where EPERM
/// would have made it fail. As in runc, an architecture of which the profile names nothing is left alone.
fn answer_enosys(ranges: &mut Vec<Range>, part: &Mentions) {
    if part.newest == 0 {
        return;
    }
    let enosys = Outcome::Return(ENOSYS);
    match part.arch {
        // The two halves that have, or lack, the x32 bit: with bit 31 it occurs twice.
        Arch::X86_64 => {
            paint(ranges, part.newest + 1, X32_BIT - 1, enosys);
            paint(ranges, 1 << 31, (1 << 31 | X32_BIT) - 1, enosys);
        }
        Arch::X32 => {
            paint(ranges, part.newest + 1, (X32_BIT << 1) - 1, enosys);
            paint(ranges, 1 << 31 | X32_BIT, u32::MAX, enosys);
        }
        _ => paint(ranges, part.newest + 1, u32::MAX, enosys),
    }
}

/// Appends a range, or widens or replaces the last one.
fn mark(ranges: &mut Vec<Range>, range: Range) {
    if ranges.last().is_some_and(|last| last.first == range.first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.outcome != range.outcome) {
        ranges.push(range);
    }
}

/// Gives all numbers from `first` to `last` one outcome.
fn paint(ranges: &mut Vec<Range>, first: u32, last: u32, outcome: Outcome) {
    let from = ranges.partition_point(|range| range.first < first);
    let tail = ranges.split_off(from);
    let mut after = ranges.last().map(|range| range.outcome);
    mark(ranges, Range { first, outcome });
    let mut rest = tail.into_iter().peekable();
    while let Some(range) = rest.next_if(|range| last == u32::MAX || range.first <= last + 1) {
        after = Some(range.outcome);
    }
    if let (Some(after), Some(next)) = (after, last.checked_add(1)) {
        mark(ranges, Range { first: next, outcome: after });
    }
    for range in rest {
        mark(ranges, range);
    }
}

/// What becomes of one number.
///
/// libseccomp's precedence (`db_rule_add`, and the order of its argument trees): a rule without conditions beats every
/// rule with, whatever their order; of several without, the first. Among rules with conditions the order in the profile
/// does not matter either: see [`precedence`].
fn outcome(rules: &Rules, group: &[Mention], arch: Arch, checks: &mut Vec<Check>) -> Outcome {
    // Nearly always there is one rule, without conditions.
    let first = &rules.rules[group[0].rule()];
    if group[0].multiplexed().is_none() && first.alternatives.iter().all(Vec::is_empty) {
        return Outcome::Return(first.action);
    }
    let mut clauses: Vec<Clause> = Vec::new();
    for mention in group {
        let rule = &rules.rules[mention.rule()];
        for alternative in &rule.alternatives {
            let conditions = conditions(alternative, *mention, arch);
            if conditions.is_empty() {
                return Outcome::Return(rule.action);
            }
            if !clauses.iter().any(|clause| clause.conditions == conditions) {
                clauses.push(Clause { conditions, action: rule.action });
            }
        }
    }
    clauses.sort_by(|a, b| precedence(&a.conditions, &b.conditions));
    let check = Check { wide: arch.wide(), clauses };
    let at = checks.iter().position(|known| *known == check).unwrap_or_else(|| {
        checks.push(check);
        checks.len() - 1
    });
    // There are fewer checks than rules, and those fit in 24 bits.
    Outcome::Check(at as u32)
}

/// The conditions as `arch` can test them. A multiplexer's own first argument takes the place of the call's.
fn conditions(alternative: &[Condition], mention: Mention, arch: Arch) -> Vec<Condition> {
    let first = mention.multiplexed().map(|call| Condition::equal(0, call.into()));
    let others = alternative.iter().copied().filter(|condition| first.is_none() || condition.arg != 0);
    first.into_iter().chain(others).filter_map(|condition| condition.on(arch.wide())).collect()
}

/// Which of two lists of conditions libseccomp tests first: later arguments before earlier ones, equality before
/// less-than before greater-than, and of two bounds the tighter.
///
/// Of two identical lists the first in the profile decides, and a list that is the beginning of another goes first;
/// libseccomp refuses most such pairs when their actions differ (EEXIST), and runc then does not start.
fn precedence(a: &[Condition], b: &[Condition]) -> Ordering {
    let rank = |condition: &Condition| {
        let (class, value) = match (condition.test, condition.negated) {
            (Test::Masked { value, .. }, _) => (3, value),
            (Test::Greater(value) | Test::GreaterOrEqual(value), true) => (2, !value),
            (Test::Greater(value) | Test::GreaterOrEqual(value), false) => (1, value),
        };
        Reverse((condition.arg, class, value))
    };
    a.iter().map(rank).cmp(b.iter().map(rank))
}
