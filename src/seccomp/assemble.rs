//! Sections of number ranges -> one classic BPF program.
//!
//! Instructions are emitted backwards, from the last to the first: classic BPF only jumps forwards, so every target is
//! already in place when a jump to it is made, and its distance is known. Nothing here knows what a rule means.

use super::rules::{Condition, KILL_THREAD, Test};
use super::sections::{Check, Outcome, Range, Section};
use crate::error::{Error, Result};
use libc::sock_filter;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
};

/// `BPF_MAXINSNS`: what the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;
/// The reach of a conditional jump: its offsets have 8 bits.
const REACH: usize = 255;
/// So many lone numbers are compared one after the other before halving the range is cheaper.
const LONE_NUMBERS: usize = 3;

// Offsets in `struct seccomp_data` (seccomp(2)).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// To an instruction that returns this value; made, or made again nearby, when a jump needs it.
    Return(u32),
    /// To the instruction emitted at this index.
    At(usize),
}

/// The program under construction, last instruction first.
struct Backwards<'a> {
    code: Vec<sock_filter>,
    /// The newest return of each value.
    returns: Vec<(u32, usize)>,
    default_action: u32,
    checks: &'a [Check],
    /// Where each check begins, once emitted.
    begun: Vec<Option<Target>>,
}

pub fn assemble(sections: &[Section], checks: &[Check], default_action: u32) -> Result<Vec<sock_filter>> {
    let begun = vec![None; checks.len()];
    let mut program =
        Backwards { code: Vec::with_capacity(512), returns: Vec::new(), default_action, checks, begun };
    // libseccomp's answer to an architecture the profile does not list; runc keeps it.
    let mut other = Target::Return(KILL_THREAD);
    for section in sections.iter().rev() {
        let tree = program.tree(&section.ranges);
        let numbers = program.load(NR, tree);
        other = program.compare(BPF_JEQ, section.audit, numbers, other);
    }
    // Where every call of every architecture ends the same way there is nothing to load, and that way to write.
    let first = program.load(ARCH, other);
    program.follow(first);
    if program.code.len() > MAX_INSTRUCTIONS {
        return Err(Error::new(format!(
            "/linux/seccomp: the filter has {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            program.code.len()
        ))
        .why("the profile has very many argument conditions")
        .next("name fewer architectures or merge rules"));
    }
    program.code.reverse();
    Ok(program.code)
}

impl Backwards<'_> {
    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Target {
        // Every code is a sum of BPF_* constants below 256.
        self.code.push(sock_filter { code: code as u16, jt, jf, k });
        Target::At(self.code.len() - 1)
    }

    /// The index of an instruction that leads to `target` and is within reach of a conditional jump emitted after at
    /// most `spare` more instructions. libseccomp's long jumps do the same: another return, or a jump of 32 bits.
    fn reach(&mut self, target: Target, spare: usize) -> usize {
        let next = self.code.len();
        let near = |at: usize| next + spare - at - 1 <= REACH;
        match target {
            Target::At(at) if near(at) => return at,
            Target::At(at) => {
                self.push(BPF_JMP | BPF_JA, 0, 0, (next - at - 1) as u32);
            }
            Target::Return(value) => {
                let known = self.returns.iter_mut().find(|(known, _)| *known == value);
                match known {
                    Some((_, at)) if near(*at) => return *at,
                    Some((_, at)) => *at = next,
                    None => self.returns.push((value, next)),
                }
                self.push(BPF_RET | BPF_K, 0, 0, value);
            }
        }
        next
    }

    /// Compares the accumulator with `k`.
    fn compare(&mut self, test: u32, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let yes = self.reach(yes, 1);
        let no = self.reach(no, 0);
        let next = self.code.len();
        // `reach` promises both distances to be at most 255.
        self.push(BPF_JMP | test | BPF_K, (next - yes - 1) as u8, (next - no - 1) as u8, k)
    }

    /// Makes `target` the very next instruction.
    fn follow(&mut self, target: Target) {
        match target {
            Target::At(at) if at + 1 == self.code.len() => {}
            Target::At(at) => {
                let distance = (self.code.len() - at - 1) as u32;
                self.push(BPF_JMP | BPF_JA, 0, 0, distance);
            }
            Target::Return(value) => {
                self.push(BPF_RET | BPF_K, 0, 0, value);
            }
        }
    }

    /// Loads a word of `seccomp_data`, then goes on at `next`. A return needs nothing loaded.
    fn load(&mut self, offset: u32, next: Target) -> Target {
        if let Target::Return(_) = next {
            return next;
        }
        self.follow(next);
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
    }

    /// A balanced search over `ranges`, with the number in the accumulator.
    fn tree(&mut self, ranges: &[Range]) -> Target {
        if let Some(target) = self.lone_numbers(ranges) {
            return target;
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let above = self.tree(high);
        let below = self.tree(low);
        self.compare(BPF_JGE, high[0].first, above, below)
    }

    /// A few lone numbers in a background that is otherwise of one colour: cheaper to name than to bisect.
    fn lone_numbers(&mut self, ranges: &[Range]) -> Option<Target> {
        if ranges.len() > 2 * LONE_NUMBERS + 1 {
            return None;
        }
        let lone = |at: usize| ranges.get(at + 1).is_some_and(|next| next.first == ranges[at].first + 1);
        let background = (0..ranges.len()).find(|at| !lone(*at)).map(|at| ranges[at].outcome)?;
        let others = || (0..ranges.len()).filter(|at| ranges[*at].outcome != background);
        if others().count() > LONE_NUMBERS || others().any(|at| !lone(at)) {
            return None;
        }
        let mut next = self.outcome(background);
        for at in others() {
            let target = self.outcome(ranges[at].outcome);
            next = self.compare(BPF_JEQ, ranges[at].first, target, next);
        }
        Some(next)
    }

    fn outcome(&mut self, outcome: Outcome) -> Target {
        match outcome {
            Outcome::Return(value) => Target::Return(value),
            Outcome::Check(at) => {
                let at = at as usize;
                if let Some(target) = self.begun[at] {
                    return target;
                }
                let target = self.check(&self.checks[at]);
                self.begun[at] = Some(target);
                target
            }
        }
    }

    /// The clauses in their order; the default action when none holds.
    fn check(&mut self, check: &Check) -> Target {
        let mut next = Target::Return(self.default_action);
        for clause in check.clauses.iter().rev() {
            let mut holds = Target::Return(clause.action);
            for condition in clause.conditions.iter().rev() {
                holds = self.condition(condition, check.wide, holds, next);
            }
            next = holds;
        }
        next
    }

    fn condition(&mut self, condition: &Condition, wide: bool, yes: Target, no: Target) -> Target {
        let (yes, no) = if condition.negated { (no, yes) } else { (yes, no) };
        let low = ARGS + 8 * u32::from(condition.arg);
        // Both architectures are little-endian: the high word comes second.
        let high = low + 4;
        match condition.test {
            Test::Masked { mask, value } => {
                let rest = self.masked(low, mask as u32, value as u32, yes, no);
                if wide {
                    self.masked(high, (mask >> 32) as u32, (value >> 32) as u32, rest, no)
                } else {
                    rest
                }
            }
            Test::Greater(value) => self.greater(BPF_JGT, (low, high), value, wide, yes, no),
            Test::GreaterOrEqual(value) => self.greater(BPF_JGE, (low, high), value, wide, yes, no),
        }
    }

    /// `word & mask == value`.
    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
        if mask == 0 {
            return yes;
        }
        let mut next = self.compare(BPF_JEQ, value, yes, no);
        if mask != u32::MAX {
            self.follow(next);
            next = self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
        }
        self.load(offset, next)
    }

    /// The high words decide, unless they are equal.
    fn greater(
        &mut self,
        test: u32,
        (low, high): (u32, u32),
        value: u64,
        wide: bool,
        yes: Target,
        no: Target,
    ) -> Target {
        let words = self.compare(test, value as u32, yes, no);
        let low_word = self.load(low, words);
        if !wide {
            return low_word;
        }
        let equal = self.compare(BPF_JEQ, (value >> 32) as u32, low_word, no);
        let above = self.compare(BPF_JGT, (value >> 32) as u32, yes, equal);
        self.load(high, above)
    }
}
