//! `jug bench`: flags, then one call.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::bench::base::Base;
use crate::bench::{self, compare};
use crate::cli::engine::{Global, pull};
use crate::engine::settings::Settings;
use crate::engine::spec::FromImage;
use crate::error::{Error, Result};
use crate::image::progress::Silent;
use crate::image::source::Access;

/// What shall be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// How quick starts are: serial, spaced, four at a time
    Start,
    /// How many fit, what each costs in memory, and the way back to nothing
    Density,
    /// How close to native, and what the payload sees and reaches of the kernel
    Overhead,
    /// The way back to nothing: what is left of N instances, and when it is gone (grows as density does)
    Teardown,
    /// All of it
    All,
    /// Whether two results differ by more than chance: jug bench compare A.json B.json
    Compare,
}

/// Measure what containers cost on this machine, against virtual machines and other runtimes.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure, or `compare`
    subject: Subject,
    /// For `compare`: two results.json, or the directories that hold them
    #[arg(value_name = "RESULTS")]
    files: Vec<PathBuf>,
    /// Contenders, with commas between: NAME or NAME=PROGRAM [default: all that are installed]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    against: Vec<String>,
    /// An image that every contender runs: of the store, or oci:, docker-archive: and what else pull takes
    #[arg(long, value_name = "IMAGE")]
    payload: Option<String>,
    /// The kernel of virtual machines [default: Debian's cloud kernel, fetched once]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The most instances at a time [default: 1000, or 100 with --quick]
    #[arg(long)]
    n: Option<usize>,
    /// What density grows, with commas between [default: all; idle and no-network with --quick]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    variant: Vec<bench::parts::Grown>,
    /// A look: three minutes at most
    #[arg(long)]
    quick: bool,
    /// Minutes that the run may take; what is not done by then is cut short [default: 25, or 3 with --quick]
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Option<f64>,
    /// Where results.json and report.html go; an interrupted run goes on there
    #[arg(long, value_name = "DIR", default_value = "jug-bench")]
    out: PathBuf,
    /// Seconds for one start; a virtual machine gets four times that
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Percent of memory that stays available
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    keep_free: f64,
    /// The order of everything random
    #[arg(long)]
    seed: Option<u64>,
}

impl Bench {
    pub fn perform(self, global: &Global) -> Result<u8> {
        if self.subject == Subject::Compare {
            let [a, b] = self.files.as_slice() else {
                return Err(Error::new("compare wants two results").next("jug bench compare A.json B.json"));
            };
            return compare::perform(a, b);
        }
        if let Some(file) = self.files.first() {
            return Err(Error::new(format!("unexpected argument {:?}", file.display().to_string()))
                .next("only compare takes files"));
        }
        let base = match &self.payload {
            Some(name) if bench::measures() => Some(base(global, name)?),
            _ => None,
        };
        let wants = |subject| self.subject == subject || self.subject == Subject::All;
        bench::perform(&bench::Options {
            start: wants(Subject::Start),
            density: wants(Subject::Density) || wants(Subject::Teardown),
            overhead: wants(Subject::Overhead),
            against: self.against,
            base,
            kernel: self.kernel,
            n: self.n,
            quick: self.quick,
            minutes: self.minutes,
            variants: self.variant,
            out: self.out,
            timeout: self.timeout,
            keep_free: self.keep_free,
            seed: self.seed,
        })
    }
}

/// A time that there is: a day at most.
fn minutes(text: &str) -> std::result::Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=1440.0).contains(minutes));
    minutes.ok_or_else(|| "not a number between 0.1 and 1440".into())
}

/// The image that the payload lies over, brought into the store where it is not there.
fn base(global: &Global, name: &str) -> Result<Base> {
    let access = Access::default();
    let wanted = pull::Wanted {
        access: &access,
        platform: None,
        when: pull::When::Missing,
        layers: pull::Layers::default(),
    };
    let image = pull::image(&global.store()?, name, &wanted, &Silent)?;
    let says = FromImage::new(&image.config)?;
    let args = says.args(&Settings::default(), &[])?;
    Ok(Base {
        name: format!("{name} ({})", image.id),
        command: [args.entrypoint, args.cmd].concat(),
        layers: image.layers,
        env: says.env,
        directory: says.workdir.unwrap_or_default(),
    })
}
