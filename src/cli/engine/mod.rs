//! `jug`: the verbs people know from Docker and Podman. One file per verb: its flags, then one call into the library.

mod bench;

use std::io::Write as _;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::error::Result;

/// What Docker and Podman exit with when it is the engine that failed, and not the program in the container.
const ENGINE_FAILED: u8 = 125;

/// A daemonless container engine.
#[derive(Debug, Parser)]
#[command(name = "jug", version, arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// The flags before the verb.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of images and containers [default: /var/lib/jug, $XDG_DATA_HOME/jug when rootless]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory of what does not outlive a boot [default: /run/jug, $XDG_RUNTIME_DIR/jug when rootless]
    #[arg(long, value_name = "DIR")]
    pub runroot: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Bench(bench::Bench),
}

impl Verb {
    /// The exit code: 0, or that of the program in the container.
    fn perform(self, global: &Global) -> Result<u8> {
        match self {
            Self::Bench(verb) => verb.perform(global),
        }
    }
}

/// The whole program.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            let _ = said.print();
            let asked = matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { 0 } else { ENGINE_FAILED }.into();
        }
    };
    match cli.verb.perform(&cli.global) {
        Ok(code) => code.into(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error}");
            ENGINE_FAILED.into()
        }
    }
}
