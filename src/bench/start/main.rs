//! jug-bench-start: what does it cost to start a container? Started by `scripts/bench start`, which finds the
//! contenders and makes a mount namespace with a plain cgroup v2 view and a tmpfs for everything that is written.
//!
//! Each round runs every contender's every job once, in random order, so that the machine's moods fall on all alike.
//! It drives programs from outside, as an engine would; of jug's library it uses only the seccomp compiler, to give
//! the floor program the same filter.

mod contender;
mod report;

use clap::Parser;
use contender::{Contender, Job, Kind, Start};
use jug::bench::bundle::Bundles;
use jug::bench::measure::{self, Watchdog};
use jug::bench::stats::Dice;
use report::{Case, Results};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(about = "Measures container starts against the bare system calls and against other runtimes")]
struct Options {
    /// A contender; `floor` must be there
    #[arg(long = "contender", value_name = "NAME=PATH", required = true)]
    contenders: Vec<String>,
    /// A directory for bundles and state, best on a tmpfs
    #[arg(long)]
    dir: PathBuf,
    /// Rounds of the interleaved cases
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Starts in the burst
    #[arg(long, default_value_t = 1000)]
    burst: usize,
    /// A quick look: 10 rounds, 100 starts in the burst
    #[arg(long)]
    quick: bool,
    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is measured back-to-back.
const JOBS: [(Job, Case); 3] =
    [(Job::Plain, Case::Plain), (Job::Seccomp, Case::Seccomp), (Job::Exec, Case::Exec)];

/// Everything a case needs.
struct Bench {
    contenders: Vec<Contender>,
    bundles: Bundles,
    watchdog: Watchdog,
    dice: Dice,
    results: Results,
    starts: AtomicUsize,
}

fn main() -> std::process::ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.burst) = (10, 100);
    }
    match measure_all(&options) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn measure_all(options: &Options) -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    fs::create_dir_all(&options.dir)?;
    let contenders = options.contenders.iter().map(|argument| Contender::parse(argument, &options.dir));
    let mut bench = Bench {
        contenders: contenders.collect::<Result<_, _>>().map_err(io::Error::other)?,
        bundles: Bundles::write(&options.dir)?,
        watchdog: Watchdog::default(),
        dice: Dice::new(std::process::id().into()),
        results: Results::new(),
        starts: AtomicUsize::new(0),
    };
    bench.warm_up();
    let measured = bench.examine(options).and_then(|()| {
        bench.back_to_back(options.rounds)?;
        bench.spaced(options.rounds)
    });
    for contender in &bench.contenders {
        contender.end_pause();
    }
    measured?;
    bench.burst(options.burst)?;
    let report = report::Report::new(&bench.contenders, &bench.results);
    print!("{}", report.text());
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&report.json())?)?;
    }
    Ok(())
}

fn progress(what: impl Display) {
    eprintln!("bench: {what}");
}

impl Bench {
    fn new_id(&self) -> String {
        format!("jug-bench-{}", self.starts.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts everything a few times, which fills caches (crun's of compiled filters too), and leaves out who cannot or
    /// does not do the job: to exit at once with 0 would be very quick.
    fn warm_up(&mut self) {
        let mut able = Vec::new();
        for contender in std::mem::take(&mut self.contenders) {
            match self.try_out(&contender) {
                Ok(()) => able.push(contender),
                Err(error) => {
                    contender.end_pause();
                    progress(format_args!("{} is left out: {error}", contender.name));
                }
            }
        }
        self.contenders = able;
    }

    fn try_out(&self, contender: &Contender) -> io::Result<()> {
        contender.pause(&self.bundles, &self.watchdog)?;
        for (job, _) in JOBS.into_iter().filter(|(job, _)| contender.can(*job)) {
            let id = self.new_id();
            let start = Start { payload: "/answer", ..Start::of(job, &id) };
            let mut command = contender.start(&start, &self.bundles)?;
            measure::expect(&mut command, Contender::right_answer(job), &self.watchdog)?;
            for _ in 0..3 {
                let mut command = contender.start(&Start::of(job, &self.new_id()), &self.bundles)?;
                measure::wall(&mut command, &self.watchdog)?;
            }
        }
        Ok(())
    }

    /// Counts system calls and memory, once each: they hardly vary.
    fn examine(&mut self, options: &Options) -> io::Result<()> {
        let floor = self.contenders.iter().find(|contender| contender.kind == Kind::Floor);
        let floor = floor.ok_or_else(|| io::Error::other("the floor program is missing"))?.path.clone();
        let table = options.dir.join("strace");
        progress("counting system calls and memory");
        for contender in &self.contenders {
            for (job, case) in JOBS.into_iter().filter(|(job, _)| contender.can(*job)) {
                let row = self.results.row(case, &contender.name);
                let id = format!("jug-bench-strace-{}", case.name());
                let behind = ["strace", "-f", "-c", "-o"].map(Path::new).into_iter().chain([table.as_path()]);
                let start = Start { behind: &behind.collect::<Vec<_>>(), ..Start::of(job, &id) };
                measure::wall(&mut contender.start(&start, &self.bundles)?, &self.watchdog)?;
                row.system_calls = measure::system_calls(&fs::read_to_string(&table)?);
                let id = format!("jug-bench-memory-{}", case.name());
                let start = Start { behind: &[&floor, Path::new("rss")], ..Start::of(job, &id) };
                let mut command = contender.start(&start, &self.bundles)?;
                let output = measure::output(command.stdout(Stdio::piped()), &self.watchdog)?;
                row.peak_memory = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
            }
        }
        Ok(())
    }

    /// The cases 1 to 3: plain, seccomp and exec, one directly after the other.
    fn back_to_back(&mut self, rounds: usize) -> io::Result<()> {
        self.interleave(&JOBS, rounds, Duration::ZERO)
    }

    /// Case 4: plain starts, each after a rest, as on a machine that does something else. What waits for the kernel
    /// (an RCU grace period) hides in a tight loop and shows here.
    fn spaced(&mut self, rounds: usize) -> io::Result<()> {
        self.interleave(&[(Job::Plain, Case::Spaced)], rounds, Duration::from_millis(150))
    }

    fn interleave(&mut self, jobs: &[(Job, Case)], rounds: usize, rest: Duration) -> io::Result<()> {
        let mut turns = Vec::new();
        for (index, contender) in self.contenders.iter().enumerate() {
            turns.extend(jobs.iter().filter(|(job, _)| contender.can(*job)).map(|turn| (index, *turn)));
        }
        let mut told = Instant::now();
        for round in 1..=rounds {
            self.dice.shuffle(&mut turns);
            for (index, (job, case)) in &turns {
                std::thread::sleep(rest);
                self.one(*index, *job, *case)?;
            }
            if told.elapsed() > Duration::from_secs(10) || round == rounds {
                progress(format_args!("{}: round {round} of {rounds}", jobs[0].1.title()));
                told = Instant::now();
            }
        }
        Ok(())
    }

    fn one(&mut self, index: usize, job: Job, case: Case) -> io::Result<()> {
        let id = self.new_id();
        let contender = &self.contenders[index];
        let mut command = contender.start(&Start::of(job, &id), &self.bundles)?;
        let times = measure::once(&mut command, &self.watchdog);
        let row = self.results.row(case, &contender.name);
        match times {
            Ok(times) => {
                row.wall.push(times.wall);
                row.cpu.push(times.cpu);
            }
            Err(error) => {
                row.failures += 1;
                progress(format_args!("{} failed: {error}", contender.name));
                contender.remove(&id);
            }
        }
        Ok(())
    }

    /// Case 5: many starts, four at a time; in five parts, so that the contenders alternate here too.
    fn burst(&mut self, starts: usize) -> io::Result<()> {
        const PARTS: usize = 5;
        let mut order: Vec<usize> = (0..self.contenders.len()).collect();
        for part in 1..=PARTS {
            self.dice.shuffle(&mut order);
            for index in &order {
                self.burst_part(*index, starts / PARTS)?;
            }
            progress(format_args!("{}: part {part} of {PARTS}", Case::Burst.title()));
        }
        Ok(())
    }

    fn burst_part(&mut self, index: usize, starts: usize) -> io::Result<()> {
        const AT_A_TIME: usize = 4;
        let contender = &self.contenders[index];
        measure::reap();
        let (cpu, begun, left) = (measure::cpu_of_children()?, Instant::now(), AtomicUsize::new(starts));
        let walls = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..AT_A_TIME).map(|_| scope.spawn(|| self.burst_worker(contender, &left))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        let seconds = begun.elapsed().as_secs_f64();
        measure::reap();
        let cpu = (measure::cpu_of_children()? - cpu) / starts as f64;
        let row = self.results.row(Case::Burst, &contender.name);
        row.cpu.push(cpu);
        row.seconds += seconds;
        for wall in walls {
            match wall {
                Some(wall) => row.wall.push(wall),
                None => row.failures += 1,
            }
        }
        Ok(())
    }

    /// Starts containers as long as some are left to start.
    fn burst_worker(&self, contender: &Contender, left: &AtomicUsize) -> Vec<Option<f64>> {
        let mut walls = Vec::new();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let id = self.new_id();
            let command = contender.start(&Start::of(Job::Plain, &id), &self.bundles);
            let wall = command.and_then(|mut command| measure::wall(&mut command, &self.watchdog));
            if wall.is_err() {
                contender.remove(&id);
            }
            walls.push(wall.ok());
        }
        walls
    }
}
