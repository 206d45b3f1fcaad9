//! `jug`: the verbs people know from Docker and Podman. One file per verb: its flags, then one call into the library.

mod access;
mod changes;
pub mod format;
mod format_words;
mod history;
mod image;
mod image_inspect;
mod images;
mod import;
mod load;
mod login;
mod logout;
mod pull;
mod push;
mod rmi;
mod save;
mod shown;
mod system;
mod tag;
mod transfer;

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
    History(history::History),
    Image(image::Image),
    Images(images::Images),
    Import(import::Import),
    Load(load::Load),
    Login(login::Login),
    Logout(logout::Logout),
    Pull(pull::Pull),
    Push(push::Push),
    Rmi(rmi::Rmi),
    Save(save::Save),
    System(system::System),
    Tag(tag::Tag),
}

impl Verb {
    /// The exit code: 0, or that of the program in the container.
    fn perform(self, global: &Global) -> Result<u8> {
        match self {
            Self::History(verb) => verb.perform(global),
            Self::Image(verb) => verb.perform(global),
            Self::Images(verb) => verb.perform(global),
            Self::Import(verb) => verb.perform(global),
            Self::Load(verb) => verb.perform(global),
            Self::Login(verb) => verb.perform(global),
            Self::Logout(verb) => verb.perform(global),
            Self::Pull(verb) => verb.perform(global),
            Self::Push(verb) => verb.perform(global),
            Self::Rmi(verb) => verb.perform(global),
            Self::Save(verb) => verb.perform(global),
            Self::System(verb) => verb.perform(global),
            Self::Tag(verb) => verb.perform(global),
        }
    }
}

/// The whole program.
pub fn main() -> std::process::ExitCode {
    if crate::image::layer::worker::is_wanted() {
        return crate::image::layer::worker::main().into();
    }
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
