//! `jug bench`: what containers cost, against full virtual machines and every peer, on the machine it runs on.
//!
//! ```text
//! contenders found -> payload made -> parts measured, each kept in results.json -> summary and page
//! ```
//!
//! It drives programs from outside, as a user would, jug's own among them, and links nothing of the runtime but the
//! seccomp compiler, so that others get the same filter. It must leave nothing behind: see `place`.

pub mod base;
mod boot;
pub mod bundle;
mod clock;
pub mod compare;
pub mod contender;
pub mod goals;
mod growth;
mod guest;
mod image;
mod initramfs;
mod instance;
pub mod machine;
pub mod measure;
mod overhead;
pub mod parts;
mod place;
pub mod report;
pub mod results;
mod starts;
pub mod stats;

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clock::{Clock, Expected};
use contender::Contender;
use image::{Image, Payload, Variant};
use instance::World;
use parts::Part;
use results::{FORMAT, LeftOut, NATIVE, Results};
use stats::Dice;

use crate::error::{Error, Result};

/// What shall be measured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub start: bool,
    /// Growth by steps; its other end is the teardown.
    pub density: bool,
    pub overhead: bool,
    /// NAME or NAME=PATH; empty for all that are installed.
    pub against: Vec<String>,
    /// An image, in the place of a payload that sleeps.
    pub base: Option<base::Base>,
    pub kernel: Option<PathBuf>,
    pub n: Option<usize>,
    pub quick: bool,
    /// What is grown; empty for what the kind of run has time for.
    pub variants: Vec<parts::Grown>,
    /// What the run may take; None for what its kind takes.
    pub minutes: Option<f64>,
    pub out: PathBuf,
    /// Seconds for one start of a container.
    pub timeout: u64,
    /// Percent of memory.
    pub keep_free: f64,
    pub seed: Option<u64>,
}

/// Minutes that a run takes at most, unless it is told otherwise.
const QUICK: f64 = 3.0;
const FULL: f64 = 25.0;

/// Whether this is the process that measures: the others need no payload.
pub fn measures() -> bool {
    place::is_inside()
}

/// Runs the benchmark: first outside, then, as another process, inside a place of its own.
pub fn perform(options: &Options) -> Result<u8> {
    if place::guard() {
        return Ok(0);
    }
    match place::inside()? {
        None => place::enclose(),
        Some(dir) => measure_all(options, &dir).map(|()| 0),
    }
}

/// One line of news, past whatever the output is used for.
fn progress(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

fn measure_all(options: &Options, dir: &Path) -> Result<()> {
    let minutes = options.minutes.unwrap_or(if options.quick { QUICK } else { FULL });
    let clock = Clock::new(Duration::from_secs_f64(minutes.max(0.1) * 60.0));
    let file = options.out.join("results.json");
    std::fs::create_dir_all(&options.out)
        .map_err(|why| Error::new(format!("--out {}: {why}", options.out.display())))?;
    let mut results = resumed_or_new(&file, options)?;
    let image = Image::make(dir, &payload()?, options.base.as_ref())
        .map_err(|why| Error::new(format!("the payload's image: {why}")))?;
    let world = World::new(image, place::prefix(dir), Duration::from_secs(options.timeout.max(1)));
    let contenders = gather(&world, options, &mut results)?;
    results.write(&file)?;

    let parts = parts::parts(&contenders, options, &results);
    let expected: Vec<Expected> =
        parts.iter().map(|part| parts::expected(*part, &contenders, options, results.n)).collect();
    let mut run = Run { world: &world, contenders: &contenders, options, dice: Dice::new(results.seed) };
    for (at, part) in parts.iter().enumerate() {
        tell(at, &parts, &contenders, clock.estimate(&expected[at..]));
        run.measure(*part, clock.share(&expected[at..]), &mut results)?;
        let name = parts::name(*part, &contenders);
        results.order.push((name, machine::read("/proc/loadavg"), clock.elapsed()));
        results.write(&file)?;
    }
    let page = options.out.join("report.html");
    let said = |why: std::io::Error| Error::new(format!("{}: {why}", page.display()));
    std::fs::write(&page, report::page(&results)).map_err(said)?;
    let _ = write!(std::io::stdout(), "{}", report::summary(&results));
    progress(format_args!("{} and {} are written", file.display(), page.display()));
    Ok(())
}

/// The parts of an earlier run of the same kind on the same boot and machine are kept.
fn resumed_or_new(file: &Path, options: &Options) -> Result<Results> {
    let mut machine = machine::description();
    if let Some(base) = &options.base {
        machine.insert("payload".into(), base.name.clone().into());
    }
    let n = options.n.unwrap_or(if options.quick { 100 } else { 1000 });
    if std::fs::metadata(file).is_ok() {
        let old = Results::read(file)?;
        let same = |name: &str| old.machine.get(name) == machine.get(name);
        if old.n == n && old.quick == options.quick && same("boot") && same("kernel") && same("payload") {
            progress(format_args!("{} holds {} parts, which are kept", file.display(), old.order.len()));
            return Ok(old);
        }
        return Err(Error::new(format!("{} is of another run", file.display()))
            .why(
                "--n, --quick, --payload, the kernel or the boot differ, and two kinds of figures do not mix",
            )
            .next("name another directory with --out"));
    }
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now());
    Ok(Results { format: FORMAT, seed, n, quick: options.quick, machine, ..Results::default() })
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs())
}

/// The program that all run: beside this one, or where packages put it.
fn payload() -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("jug-payload")));
    let found = [beside, Some("/usr/libexec/jug/jug-payload".into())];
    let there = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    found.into_iter().flatten().find(there).ok_or_else(|| {
        Error::new("jug-payload is missing")
            .why("it is the program that every contender runs, and lies beside jug or in /usr/libexec/jug")
            .next("build it: cargo build --release --features engine")
    })
}

/// Starts the payload once, and gives the seconds that took. A program of an image's has to live on.
fn trial(world: &World, contender: &Contender, of_image: bool) -> Result<f64> {
    let count = || measure::tree(std::process::id()).len();
    measure::reap();
    let (begun, before) = (Instant::now(), count());
    let instance = world.start(contender, Variant::of(Payload::Idle))?;
    let seconds = begun.elapsed().as_secs_f64();
    if of_image && !contender.class.has_own_kernel() {
        std::thread::sleep(Duration::from_millis(500));
        measure::reap();
        if count() <= before {
            return Err(Error::new(format!("{}: the image's program ended at once", contender.name)));
        }
    }
    drop(instance);
    Ok(seconds)
}

/// Who takes part: found, and able to start the payload once. Everybody else is left out with a reason.
fn gather(world: &World, options: &Options, results: &mut Results) -> Result<Vec<Contender>> {
    results.left_out.clear();
    let mut contenders = Vec::new();
    for (name, kind, program) in contender::named(&options.against) {
        let tried = program.map_err(Error::new).and_then(|program| {
            let mut contender = Contender::new(name.clone(), kind, program);
            if contender.class.has_own_kernel() {
                guest::prepare(&mut contender, world, options.kernel.as_deref(), options.quick)?;
            }
            contender.trial = trial(world, &contender, options.base.is_some())?;
            Ok(contender)
        });
        place::check()?;
        measure::reap();
        match tried {
            Ok(contender) => contenders.push(contender),
            Err(error) => {
                progress(format_args!("{name} is left out: {}", error.what()));
                results.left_out.push(LeftOut { name, why: error.what().to_owned() });
            }
        }
    }
    if contenders.is_empty() {
        return Err(Error::new("no contender can start the payload here").why(
            results
                .left_out
                .iter()
                .map(|left| format!("{}: {}", left.name, left.why))
                .collect::<Vec<_>>()
                .join("; "),
        ));
    }
    for contender in &contenders {
        let described = contender.described();
        if let Some(before) =
            results.named(&described.name).filter(|before| before.version != described.version)
        {
            return Err(Error::new(format!(
                "{} is {} now, and was {}",
                described.name, described.version, before.version
            ))
            .next("name another directory with --out"));
        }
        results.contenders.retain(|known| known.name != described.name);
        results.contenders.push(described);
    }
    Ok(contenders)
}

/// News before a part: which of how many, and how long it will go on.
fn tell(at: usize, parts: &[Part], contenders: &[Contender], left: f64) {
    let name = parts::name(parts[at], contenders);
    progress(format_args!("{} of {}, about {left:.0} s left: {name}", at + 1, parts.len()));
}

/// What all parts are measured with.
struct Run<'r> {
    world: &'r World,
    contenders: &'r [Contender],
    options: &'r Options,
    dice: Dice,
}

impl Run<'_> {
    fn measure(&mut self, part: Part, time: Duration, results: &mut Results) -> Result<()> {
        let (world, contenders, quick) = (self.world, self.contenders, self.options.quick);
        match part {
            Part::Probes => self.probe(results)?,
            Part::Starts(manner) => {
                let rounds = starts::Rounds { n: results.n, quick, time };
                let found = starts::measure(world, contenders, manner, &rounds, &mut self.dice)?;
                results.starts.insert(manner.name().to_owned(), found);
            }
            Part::Growth(at, variant) => self.grow(&contenders[at], variant, time, results)?,
            Part::Overhead => {
                let rounds = if quick { 2 } else { 7 };
                results.overhead = overhead::measure(world, contenders, rounds, time, &mut self.dice)?;
            }
        }
        Ok(())
    }

    fn probe(&self, results: &mut Results) -> Result<()> {
        for contender in self.contenders.iter().map(Some).chain([None]) {
            let name = contender.map_or(NATIVE, |contender| contender.name.as_str());
            match overhead::probe(self.world, contender) {
                Ok(probe) => drop(results.probes.insert(name.to_owned(), probe)),
                Err(error) => progress(format_args!("{name} does not answer: {}", error.what())),
            }
            place::check()?;
        }
        Ok(())
    }

    fn grow(
        &self,
        contender: &Contender,
        variant: Variant,
        time: Duration,
        results: &mut Results,
    ) -> Result<()> {
        let (settle, baseline) = if self.options.quick { (100, 10) } else { (400, 60) };
        let rules = growth::Rules {
            n: parts::size(contender, self.options, results.n),
            keep_free: self.options.keep_free,
            // The rest is for the way back.
            time: time.mul_f64(0.7),
            settle: Duration::from_millis(settle),
            baseline: Duration::from_secs(baseline),
        };
        let folding = if variant.folded { Some(place::fold()?) } else { None };
        let grown = growth::measure(self.world, contender, variant, &rules);
        drop(folding);
        match grown {
            Ok(growth) => {
                let row = results.growth.entry(variant.name()).or_default();
                row.insert(contender.name.clone(), growth);
            }
            Err(error) if error.what().starts_with("too little memory") => return Err(error),
            Err(error) => {
                place::check()?;
                let why = format!("{}: {}", variant.name(), error.what());
                progress(format_args!("{} is left out of {why}", contender.name));
                results.left_out.push(LeftOut { name: contender.name.clone(), why });
            }
        }
        Ok(())
    }
}
