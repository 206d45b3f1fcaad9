//! The master, which starts workers and adds up what they count, and what every worker is made of.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::audit::Audit;
use crate::config::Which;
use crate::place::Place;
use crate::tally::Tally;
use crate::trace::Tracer;
use crate::{Job, Options, adversary, faults, kill, random, soak};

/// A worker's whole equipment.
pub struct Worker {
    pub options: Options,
    pub number: usize,
    pub place: Place,
    pub tracer: Tracer,
    pub audit: Audit,
    /// Of the containers of this series.
    pub which: Which,
}

/// `Ok(false)`: something failed.
pub fn run(job: Job) -> io::Result<bool> {
    let options = match &job {
        Job::Kill(o) | Job::Faults(o) | Job::Adversary(o) | Job::Random(o) | Job::Soak(o) => o.clone(),
        Job::Launch { .. } => return Ok(false),
    };
    let Some(number) = options.worker else { return master(options) };
    let mut worker = Worker::new(options, number)?;
    match job {
        Job::Kill(_) => kill::prove(&mut worker)?,
        Job::Faults(_) => faults::prove(&mut worker)?,
        Job::Adversary(_) => adversary::prove(&mut worker)?,
        Job::Random(_) => random::prove(&mut worker)?,
        Job::Soak(_) => soak::prove(&mut worker)?,
        Job::Launch { .. } => {}
    }
    Ok(true)
}

/// Starts the same command line once per worker, and prints the sums.
fn master(options: Options) -> io::Result<bool> {
    let begun = Instant::now();
    let mut workers = Vec::new();
    for number in 0..options.workers {
        let mut command = Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1)).args(["--worker", &number.to_string()]);
        workers.push(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    }
    let (sender, lines) = std::sync::mpsc::channel();
    for out in workers.iter_mut().filter_map(|worker| worker.stdout.take()) {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let mut sums: BTreeMap<String, Tally> = BTreeMap::new();
    for line in lines {
        match Tally::parse(&line) {
            Some(tally) => {
                let name = tally.series.clone();
                sums.entry(name.clone()).or_insert_with(|| Tally::new(name)).merge(&tally);
            }
            None => println!("{line}"),
        }
    }
    let mut whole = true;
    for mut worker in workers {
        whole &= worker.wait()?.success();
    }
    sums.values().for_each(|tally| println!("{tally}"));
    let failed: u64 = sums.values().map(|tally| tally.get("failed")).sum();
    let trials: u64 = sums.values().map(|tally| tally.get("trials")).sum();
    let in_time: u64 = sums.values().map(|tally| tally.get(random::IN_TIME)).sum();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{trials} trials{}, {failed} failed, {:.0} s, {} workers, load {}",
        if in_time > 0 { format!(", {in_time} {}", random::IN_TIME) } else { String::new() },
        begun.elapsed().as_secs_f64(),
        options.workers,
        load.split(' ').next().unwrap_or("?")
    );
    if !whole {
        println!("a worker did not come to its end");
    }
    Ok(whole && failed == 0 && trials > 0)
}

impl Worker {
    fn new(options: Options, number: usize) -> io::Result<Self> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        prctl::set_child_subreaper(true)?;
        let place = Place::enter(&options.runtime, &options.probe, number, options.plain_v2)?;
        let tracer = Tracer::new()?;
        let audit = Audit::new(&place.tag);
        Ok(Self { options, number, place, tracer, audit, which: Which::Plain })
    }

    /// Whether the trial of this number (from 1) is this worker's, and is made at all.
    pub fn is_mine(&self, trial: usize) -> bool {
        let every = self.options.every.max(1);
        let offset = usize::try_from(self.options.seed).unwrap_or(0) % every;
        trial % every == offset && trial / every % self.options.workers == self.number
    }

    pub fn configure(&mut self, which: Which) -> io::Result<()> {
        self.which = which;
        self.place.configure(which)
    }

    /// Calls the runtime, whose call must succeed.
    pub fn must(&mut self, words: &[&str]) -> io::Result<()> {
        let call = self.place.call(&mut self.tracer, words)?;
        match call.ok() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{words:?}: {call:?}: {}", self.place.said()))),
        }
    }

    /// Makes a container, and starts it.
    pub fn running(&mut self) -> io::Result<()> {
        let id = self.place.id();
        self.must(&["create", "--bundle", "bundle", &id])?;
        self.must(&["start", &id])
    }

    /// What every trial ends with: `delete --force` works in time and leaves nothing, and the id can be used again.
    /// Returns what is wrong.
    pub fn conclude(&mut self, tally: &mut Tally, again: bool) -> io::Result<Vec<String>> {
        let id = self.place.id();
        let mut faults = Vec::new();
        let call = self.place.call(&mut self.tracer, &["delete", "--force", &id])?;
        tally.slowest("delete --force", call.took);
        if !call.ok() {
            faults.push(format!("delete --force: {:?}: {}", call.code, self.place.said()));
        } else if call.took > self.place.delete_limit() {
            faults.push(format!("delete --force took {:?}", call.took));
        }
        self.place.take_back();
        faults.extend(self.audit.leftovers());
        if again && faults.is_empty() {
            let made = self.place.call(&mut self.tracer, &["create", "--bundle", "bundle", &id])?;
            if !made.ok() {
                faults.push(format!("create of the same id: {:?}: {}", made.code, self.place.said()));
            }
            let call = self.place.call(&mut self.tracer, &["delete", "--force", &id])?;
            if !call.ok() {
                faults.push(format!("delete of the second: {:?}: {}", call.code, self.place.said()));
            }
            self.place.take_back();
            faults.extend(self.audit.leftovers());
        }
        if !faults.is_empty() {
            self.sweep();
        }
        self.place.clear();
        Ok(faults)
    }

    fn sweep(&mut self) {
        self.tracer.release();
        self.audit.sweep();
        std::thread::sleep(Duration::from_millis(1));
    }

    /// Counts a trial, and says what was wrong with it.
    pub fn judge(&self, tally: &mut Tally, trial: &str, faults: &[String]) {
        tally.add("trials", 1);
        tally.add("failed", u64::from(!faults.is_empty()));
        for fault in faults {
            println!("FAILED {}, {trial}: {fault}", tally.series);
        }
    }
}

/// Whatever ends a worker, it takes its own with it.
impl Drop for Worker {
    fn drop(&mut self) {
        if !self.audit.leftovers().is_empty() {
            self.sweep();
        }
    }
}
