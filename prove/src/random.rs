//! Kills create, run, start, exec and delete at random instants, without looking inside: the same for every runtime.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit;
use crate::config::Which;
use crate::tally::Tally;
use crate::worker::Worker;

/// xorshift64* (Vigna, 2016): small, and the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}

const VERBS: [&str; 5] = ["create", "run", "start", "exec", "delete"];

/// A kill counts that found the verb running: at most so many are tried for each that is to count.
const PATIENCE: u64 = 4;

/// How many of the kills found the verb running.
pub const IN_TIME: &str = "were killed in time";

pub fn prove(worker: &mut Worker) -> io::Result<()> {
    worker.configure(Which::Peer)?;
    let number = u64::try_from(worker.number).unwrap_or(0);
    let mut random = Random::new(worker.options.seed.wrapping_add(number * 1000));
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut durations: BTreeMap<&str, Duration> = BTreeMap::new();
    for verb in VERBS {
        tallies.insert(verb, Tally::new(format!("random kills of {verb}")));
        // A first one, undisturbed, says how long it takes here.
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let took = undisturbed(worker, verb)?;
            shortest = shortest.min(took);
        }
        durations.insert(verb, shortest);
    }
    let quota = (number..worker.options.trials as u64).step_by(worker.options.workers).count() as u64;
    let mut struck = 0;
    for trial in 0..quota * PATIENCE {
        if struck == quota {
            break;
        }
        let verb = VERBS[random.below(VERBS.len() as u64) as usize];
        let Some(tally) = tallies.get_mut(verb) else { continue };
        // Beyond its usual end, since a busy machine is slower.
        let micros = durations.get(verb).map_or(0, |took| took.as_micros() as u64 * 3 / 2);
        let (instant, all) = (Duration::from_micros(random.below(micros)), random.below(2) == 0);
        prepare(worker, verb)?;
        let killed = strike(worker, verb, instant, all)?;
        let faults = worker.conclude(tally, false)?;
        struck += u64::from(killed);
        if killed && struck % 100 == 0 {
            eprintln!("prove: worker {number}: {struck} of {quota} kills");
        }
        tally.add(IN_TIME, u64::from(killed));
        tally.add("leaked a cgroup", u64::from(any(&faults, "cgroup ")));
        tally.add("leaked a mount", u64::from(any(&faults, "mount ")));
        tally.add("leaked a process", u64::from(any(&faults, "process ")));
        tally.add("leaked a file", u64::from(any(&faults, "file ")));
        tally.add("delete failed or late", u64::from(any(&faults, "delete --force")));
        let all = if all { "all" } else { "the runtime" };
        worker.judge(tally, &format!("trial {trial}: {all} after {instant:?}"), &faults);
    }
    tallies.values().for_each(|tally| println!("{}", tally.line()));
    Ok(())
}

fn any(faults: &[String], word: &str) -> bool {
    faults.iter().any(|fault| fault.starts_with(word))
}

fn prepare(worker: &mut Worker, verb: &str) -> io::Result<()> {
    let id = worker.place.id();
    match verb {
        "start" => worker.must(&["create", "--bundle", "bundle", &id]),
        "exec" | "delete" => worker.running(),
        _ => Ok(()),
    }
}

/// Of a delete the forced one: it does everything that the other does, and kills first.
fn words(worker: &Worker, verb: &str) -> Vec<String> {
    let id = worker.place.id();
    let line = match verb {
        "create" => format!("create --bundle bundle {id}"),
        "run" => format!("run --detach --bundle bundle {id}"),
        "exec" => format!("exec {id} /bin/busybox true"),
        "delete" => format!("delete --force {id}"),
        _ => format!("{verb} {id}"),
    };
    line.split(' ').map(str::to_owned).collect()
}

fn undisturbed(worker: &mut Worker, verb: &str) -> io::Result<Duration> {
    prepare(worker, verb)?;
    let begun = Instant::now();
    let words = words(worker, verb);
    worker.must(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    let took = begun.elapsed();
    let id = worker.place.id();
    let _ = worker.place.call(&mut worker.tracer, &["delete", "--force", &id])?;
    let left = worker.audit.leftovers();
    if left.is_empty() { Ok(took) } else { Err(io::Error::other(format!("undisturbed {verb}: {left:?}"))) }
}

/// Whether it was still running.
fn strike(worker: &mut Worker, verb: &str, instant: Duration, all: bool) -> io::Result<bool> {
    let words = words(worker, verb);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let pid = worker.place.command(&words)?.spawn()?.id().cast_signed();
    std::thread::sleep(instant.saturating_sub(begun.elapsed()));
    let mut victims = vec![pid];
    if all {
        victims.extend(audit::below(pid));
    }
    for victim in victims {
        let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
    }
    Ok(worker.place.wait(&mut worker.tracer, pid) == Some(128 + Signal::SIGKILL as i32))
}
