//! Proves a container runtime: kills it at every system call, makes each call fail, swaps directories under it, and
//! kills it at random instants, and runs it a thousand times; after each trial an audit says whether anything is left.
//!
//! `scripts/prove` calls this. Every worker is a process of its own, in a box of its own (`place`).
#![forbid(unsafe_code)]

mod adversary;
mod audit;
mod config;
mod faults;
mod kill;
mod names;
mod place;
mod random;
mod soak;
mod tally;
mod trace;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Kills, starves and attacks a container runtime at every system call",
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand, Clone)]
pub enum Job {
    /// Kills create, run, start, exec and delete at every system call
    Kill(Options),
    /// Makes every system call of create, run and exec fail
    Faults(Options),
    /// Swaps directories of the root file system at every system call that takes a path
    Adversary(Options),
    /// Kills at random instants
    Random(Options),
    /// Creates, starts, kills and deletes; then many at once
    Soak(Options),
    #[command(hide = true)]
    Launch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

// scripts/prove says its own first: what comes later wins.
#[derive(Args, Clone)]
#[command(args_override_self = true)]
pub struct Options {
    /// The runtime
    #[arg(long)]
    pub runtime: PathBuf,
    /// The probe of rootfs-builder, which reads its confinement back
    #[arg(long)]
    pub probe: PathBuf,
    /// How many work side by side
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Only every N-th trial, where trials are counted
    #[arg(long, default_value_t = 1)]
    pub every: usize,
    /// How many trials, where they are random; how many loops of the soak
    #[arg(long, default_value_t = 2000)]
    pub trials: usize,
    /// How many containers run at once at the end of the soak
    #[arg(long, default_value_t = 500)]
    pub containers: usize,
    /// What the random numbers begin with, and where trials begin that are not all made
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// In a view of cgroup2 alone, without v1, which crun needs
    #[arg(long)]
    pub plain_v2: bool,
    /// Only series whose name holds this
    #[arg(long)]
    pub only: Option<String>,
    #[arg(long, hide = true)]
    pub worker: Option<usize>,
}

impl Options {
    pub fn wants(&self, series: &str) -> bool {
        self.only.as_ref().is_none_or(|only| series.contains(only.as_str()))
    }
}

fn main() -> ExitCode {
    if let Job::Launch { words } = Cli::parse().job {
        eprintln!("prove: {}", trace::launch(&words));
        return ExitCode::from(127);
    }
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("prove: the registers of this architecture are not known here yet");
        return ExitCode::from(2);
    }
    match worker::run(Cli::parse().job) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("prove: {why}");
            ExitCode::from(2)
        }
    }
}
