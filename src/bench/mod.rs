//! `jug bench`: what containers cost, against full virtual machines and every peer, on the machine it runs on.
//!
//! ```text
//! contenders found -> payload made -> parts measured, each kept in results.json -> summary and page
//! ```
//!
//! It drives programs from outside, as a user would, jug's own among them, and links nothing of the runtime but the
//! seccomp compiler, so that others get the same filter. It must leave nothing behind: see `place`.

pub mod bundle;
pub mod compare;
pub mod contender;
mod growth;
mod guest;
mod image;
mod instance;
pub mod machine;
pub mod measure;
mod overhead;
mod place;
pub mod report;
pub mod results;
mod starts;
pub mod stats;

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contender::Contender;
use image::{Image, Payload, Variant};
use instance::World;
use results::{FORMAT, LeftOut, NATIVE, Results};
use starts::Manner;
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
    pub payload: Option<PathBuf>,
    pub kernel: Option<PathBuf>,
    pub n: Option<usize>,
    pub quick: bool,
    pub out: PathBuf,
    /// Seconds for one start of a container.
    pub timeout: u64,
    /// Percent of memory.
    pub keep_free: f64,
    pub seed: Option<u64>,
}

/// Runs the benchmark: first outside, then, as another process, inside a place of its own.
pub fn perform(options: &Options) -> Result<u8> {
    match place::inside()? {
        None => place::enclose(),
        Some(dir) => measure_all(options, &dir).map(|()| 0),
    }
}

/// One line of news, past whatever the output is used for.
fn progress(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

/// A part of a run: kept when it is done.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Probes,
    Starts(Manner),
    Growth(usize, Variant),
    Overhead,
}

fn measure_all(options: &Options, dir: &Path) -> Result<()> {
    let file = options.out.join("results.json");
    std::fs::create_dir_all(&options.out)
        .map_err(|why| Error::new(format!("--out {}: {why}", options.out.display())))?;
    let mut results = resumed_or_new(&file, options)?;
    let payload = payload(options)?;
    let image =
        Image::make(dir, &payload).map_err(|why| Error::new(format!("the payload's image: {why}")))?;
    let world = World::new(image, place::prefix(dir), Duration::from_secs(options.timeout.max(1)));
    let contenders = gather(&world, options, &mut results)?;
    results.write(&file)?;

    let parts = parts(&contenders, options, &results);
    let mut dice = Dice::new(results.seed);
    let begun = Instant::now();
    for (at, part) in parts.iter().enumerate() {
        tell(at, &parts, &contenders, begun.elapsed());
        measure_part(*part, &world, &contenders, options, &mut results, &mut dice)?;
        results.order.push((
            part_name(*part, &contenders),
            machine::read("/proc/loadavg"),
            begun.elapsed().as_secs_f64(),
        ));
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
    let machine = machine::description();
    let n = options.n.unwrap_or(if options.quick { 100 } else { 1000 });
    if std::fs::metadata(file).is_ok() {
        let old = Results::read(file)?;
        let same = |name: &str| old.machine.get(name) == machine.get(name);
        if old.n == n && old.quick == options.quick && same("boot") && same("kernel") {
            progress(format_args!("{} holds {} parts, which are kept", file.display(), old.order.len()));
            return Ok(old);
        }
        return Err(Error::new(format!("{} is of another run", file.display()))
            .why("--n, --quick, the kernel or the boot differ, and figures of two kinds do not belong together")
            .next("name another directory with --out"));
    }
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now());
    Ok(Results { format: FORMAT, seed, n, quick: options.quick, machine, ..Results::default() })
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs())
}

/// The program that all run: named, or beside this one, or where packages put it.
fn payload(options: &Options) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("jug-payload")));
    let found = [options.payload.clone(), beside, Some("/usr/libexec/jug/jug-payload".into())];
    let there = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    found.into_iter().flatten().find(there).ok_or_else(|| {
        Error::new("jug-payload is missing")
            .why("it is the program that every contender runs, and lies beside jug or in /usr/libexec/jug")
            .next("build it (cargo build --release --features engine), or name it with --payload")
    })
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
            world.start(&contender, Variant::of(Payload::Idle)).map(drop)?;
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

/// What is still to be measured, the short parts first.
fn parts(contenders: &[Contender], options: &Options, results: &Results) -> Vec<Part> {
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
        for variant in variants(options.quick) {
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

/// What is grown: idle with everything, then with one thing less or more. A quick run has time for the first two.
fn variants(quick: bool) -> Vec<Variant> {
    let idle = Variant::of(Payload::Idle);
    let mut all = vec![idle, Variant { network: false, ..idle }];
    if !quick {
        all.push(Variant { memory: true, ..idle });
        all.extend([Payload::Light, Payload::Touch].map(Variant::of));
    }
    all
}

fn part_name(part: Part, contenders: &[Contender]) -> String {
    match part {
        Part::Probes => "what the payload sees and reaches".into(),
        Part::Starts(manner) => format!("starts, {}", manner.name()),
        Part::Growth(at, variant) => format!("{}: density, {}", contenders[at].name, variant.name()),
        Part::Overhead => "overhead".into(),
    }
}

fn tell(at: usize, parts: &[Part], contenders: &[Contender], since: Duration) {
    let left = match at {
        0 => String::new(),
        _ => format!(", about {:.0} s left", since.as_secs_f64() / at as f64 * (parts.len() - at) as f64),
    };
    progress(format_args!("{} of {}{left}: {}", at + 1, parts.len(), part_name(parts[at], contenders)));
}

fn measure_part(
    part: Part,
    world: &World,
    contenders: &[Contender],
    options: &Options,
    results: &mut Results,
    dice: &mut Dice,
) -> Result<()> {
    match part {
        Part::Probes => {
            for contender in contenders.iter().map(Some).chain([None]) {
                let name = contender.map_or(NATIVE, |contender| contender.name.as_str());
                match overhead::probe(world, contender) {
                    Ok(probe) => drop(results.probes.insert(name.to_owned(), probe)),
                    Err(error) => progress(format_args!("{name} does not answer: {}", error.what())),
                }
                place::check()?;
            }
        }
        Part::Starts(manner) => {
            let found = starts::measure(world, contenders, manner, results.n, options.quick, dice)?;
            results.starts.insert(manner.name().to_owned(), found);
        }
        Part::Growth(at, variant) => {
            let contender = &contenders[at];
            let rules = rules(contender, results.n, options);
            match growth::measure(world, contender, variant, &rules) {
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
        }
        Part::Overhead => {
            let rounds = if options.quick { 2 } else { 7 };
            results.overhead = overhead::measure(world, contenders, rounds, dice)?;
        }
    }
    Ok(())
}

fn rules(contender: &Contender, n: usize, options: &Options) -> growth::Rules {
    let (time, settle, baseline, machines) =
        if options.quick { (15, 100, 10, 4) } else { (300, 400, 60, 10) };
    let own_kernel = contender.class.has_own_kernel();
    growth::Rules {
        n: if own_kernel { n.min(machines) } else { n },
        keep_free: options.keep_free,
        time: Duration::from_secs(if own_kernel { 3 * time } else { time }),
        settle: Duration::from_millis(settle),
        baseline: Duration::from_secs(baseline),
    }
}
