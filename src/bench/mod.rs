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
mod instance;
pub mod machine;
pub mod measure;
mod modules;
mod overhead;
mod pair;
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
use image::{Image, Variant};
use instance::World;
use parts::Part;
use results::{FORMAT, LeftOut, NATIVE, Named, Results};
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

/// The share of a run's time in which contenders are tried: one that hangs costs its patience.
const TRIALS: f64 = 1.0 / 3.0;

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
    let patience = Duration::from_secs(options.timeout.max(1));
    let world = World::new(image, place::prefix(dir), patience, clock.end());
    let contenders = gather(&world, options, &clock, &mut results)?;
    results.write(&file)?;

    let parts = parts::parts(&contenders, options, &results);
    let expected: Vec<Expected> =
        parts.iter().map(|part| parts::expected(*part, &contenders, options, results.n)).collect();
    let mut run = Run { world: &world, contenders: &contenders, options, dice: Dice::new(results.seed) };
    for (at, part) in parts.iter().enumerate() {
        if at > 0 && Instant::now() > clock.end() {
            let left: Vec<String> = parts[at..].iter().map(|part| parts::name(*part, &contenders)).collect();
            progress(format_args!("the time is over; not measured: {}", left.join("; ")));
            let why = format!("the time was over before {}", left.join("; "));
            results.left_out.push(LeftOut { name: "the rest of the run".into(), why });
            break;
        }
        tell(at, &parts, &contenders, clock.estimate(&expected[at..]));
        run.measure(*part, clock.share(&expected[at..]), expected[at].first, &mut results)?;
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
    machine.insert("command".into(), std::env::args().collect::<Vec<_>>().join(" ").into());
    machine.insert("begun, seconds since 1970".into(), now().into());
    if let Some(base) = &options.base {
        machine.insert("payload".into(), base.name.clone().into());
    }
    let n = options.n.unwrap_or(if options.quick { 100 } else { 1000 });
    if std::fs::metadata(file).is_ok() {
        let mut old = Results::read(file)?;
        let same = |name: &str| old.machine.get(name) == machine.get(name);
        if old.n == n && old.quick == options.quick && same("boot") && same("kernel") && same("payload") {
            progress(format_args!("{} holds {} parts, which are kept", file.display(), old.order.len()));
            if let Some(command) = machine.remove("command") {
                old.machine.insert("command that went on".into(), command);
            }
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

/// Starts the payload once and ends it, and keeps the seconds that each took. A program of an image's has to live on.
fn trial(world: &World, contender: &mut Contender) -> Result<()> {
    let instance = world.start_to_stay(contender, world.patience_with(contender))?;
    let (seconds, monitor) = (instance.wall_ms / 1e3, instance.monitor());
    let begun = Instant::now();
    drop(instance);
    (contender.trial, contender.removal, contender.monitor) = (seconds, begun.elapsed(), monitor);
    Ok(())
}

/// Who takes part: found, and able to start the payload once. Everybody else is left out with a reason.
fn gather(world: &World, options: &Options, clock: &Clock, results: &mut Results) -> Result<Vec<Contender>> {
    results.left_out.clear();
    let mut contenders = Vec::new();
    for (name, kind, program) in contender::named(&options.against) {
        let tried = program.map_err(Error::new).and_then(|program| {
            if !contenders.is_empty() && clock.elapsed() > clock.limit() * TRIALS {
                return Err(Error::new("the trials of those before it took its time"));
            }
            if name.ends_with(contender::ON_DISK) && options.quick && options.against.is_empty() {
                return Err(Error::new("a quick run has no time for it, unless --against names it"));
            }
            let mut contender = Contender::new(name.clone(), kind, program);
            if contender.class.has_own_kernel() {
                guest::prepare(&mut contender, world, options.kernel.as_deref(), options.quick)?;
            }
            trial(world, &mut contender)?;
            Ok(contender)
        });
        place::check()?;
        measure::reap();
        match tried {
            Ok(contender) => {
                let modules = contender.guest.as_ref().map(|guest| &guest.modules);
                if let Some(Err(why)) = modules.filter(|_| contender.kind != contender::Kind::UserModeLinux) {
                    let why = format!("disk and free-page reporting: {why}");
                    results.left_out.push(LeftOut { name: name.clone(), why });
                }
                contenders.push(contender);
            }
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
        let same = |before: &Named| before.version == described.version && before.kernel == described.kernel;
        if let Some(before) = results.named(&described.name).filter(|before| !same(before)) {
            let words = |named: &Named| {
                let kernel =
                    named.kernel.as_ref().map_or_else(String::new, |kernel| format!(" with {kernel}"));
                format!("{}{kernel}", named.version)
            };
            return Err(Error::new(format!(
                "{} is {} now, and was {}",
                described.name,
                words(&described),
                words(before)
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
    fn measure(&mut self, part: Part, time: Duration, first: bool, results: &mut Results) -> Result<()> {
        let (world, contenders, quick) = (self.world, self.contenders, self.options.quick);
        match part {
            Part::Probes => self.probe(results)?,
            Part::Starts(manner, _) => {
                let rounds = starts::Rounds { n: results.n, quick, time };
                let found = starts::measure(world, contenders, manner, &rounds, &mut self.dice)?;
                let rows = results.starts.entry(manner.name().to_owned()).or_default();
                found.into_iter().for_each(|(name, block)| rows.entry(name).or_default().extend(block));
            }
            Part::Growth(at, variant) => self.grow(&contenders[at], variant, (time, first), results)?,
            Part::Overhead(_) => {
                let rounds = parts::OVERHEAD_ROUNDS;
                let (found, silent) = overhead::measure(world, contenders, rounds, time, &mut self.dice)?;
                silent.into_iter().for_each(|left| results.leave_out(left));
                for (name, row) in found {
                    let known = results.overhead.entry(name).or_default();
                    row.into_iter().for_each(|(figure, all)| known.entry(figure).or_default().extend(all));
                }
            }
        }
        Ok(())
    }

    fn probe(&self, results: &mut Results) -> Result<()> {
        // The host first: without its answer the others' say nothing.
        for contender in [None].into_iter().chain(self.contenders.iter().map(Some)) {
            if self.world.is_over() {
                break;
            }
            let name = contender.map_or(NATIVE, |contender| contender.name.as_str());
            match overhead::probe(self.world, contender) {
                Ok(probe) => drop(results.probes.insert(name.to_owned(), probe)),
                Err(error) => {
                    let why = format!("what the payload sees and reaches: {}", error.what());
                    progress(format_args!("{name} does not answer: {}", error.what()));
                    results.leave_out(LeftOut { name: name.to_owned(), why });
                }
            }
            place::check()?;
        }
        Ok(())
    }

    fn grow(
        &self,
        contender: &Contender,
        variant: Variant,
        (time, first): (Duration, bool),
        results: &mut Results,
    ) -> Result<()> {
        let quick = self.options.quick;
        let whole = Duration::from_secs(if quick { 10 } else { 60 });
        let rules = growth::Rules {
            n: parts::size(contender, self.options, results.n),
            keep_free: self.options.keep_free,
            // The rest is for the way back to what memory was.
            time: time.mul_f64(0.9),
            settle: parts::settle(variant, quick),
            // Memory that somebody else took does not come back: only what the run is about waits for it.
            baseline: if first { whole } else { whole.min(time / 2) },
        };
        let folding = if variant.folded { Some(place::fold()?) } else { None };
        let grown = growth::measure(self.world, contender, variant, &rules);
        drop(folding);
        match grown {
            Ok(growth) => {
                let row = results.growth.entry(variant.name()).or_default();
                // Of one that is measured again, since its time was over, the longer one counts.
                let before = row.get(&contender.name).map_or(0, |before| before.points.len());
                if growth.points.len() >= before || !growth.cut {
                    row.insert(contender.name.clone(), growth);
                }
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
