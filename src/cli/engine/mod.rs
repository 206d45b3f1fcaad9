//! `jug`: the verbs people know from Docker and Podman. One file per verb: its flags, then one call into the library.

mod access;
mod bench;
mod changes;
mod commit;
mod completion;
mod each;
mod exec;
pub mod format;
mod format_words;
mod history;
mod image;
mod image_inspect;
mod images;
mod import;
mod inspect;
mod life;
mod load;
mod login;
mod logout;
mod logs;
mod ps;
mod pull;
mod push;
mod rmi;
mod room;
mod run;
mod save;
mod shown;
mod start;
mod system;
mod tag;
mod transfer;
mod tree;
mod volume;

use std::io::Write as _;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::error::{Error, Result};

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
#[allow(clippy::large_enum_variant, reason = "there is one value, made once")]
enum Verb {
    Attach(start::Attach),
    Bench(bench::Bench),
    Commit(commit::Commit),
    Completion(completion::Completion),
    Create(run::Create),
    Diff(tree::Diff),
    Exec(exec::Exec),
    Export(tree::Export),
    History(history::History),
    Image(image::Image),
    Images(images::Images),
    Import(import::Import),
    Inspect(inspect::Inspect),
    Kill(life::Kill),
    Load(load::Load),
    Login(login::Login),
    Logout(logout::Logout),
    Logs(logs::Logs),
    Pause(life::Pause),
    Ps(ps::Ps),
    Pull(pull::Pull),
    Push(push::Push),
    Rename(life::Rename),
    Restart(start::Restart),
    Rm(life::Rm),
    Rmi(rmi::Rmi),
    Run(run::Run),
    Save(save::Save),
    Start(start::Start),
    Stop(life::Stop),
    System(system::System),
    Tag(tag::Tag),
    Top(exec::Top),
    Unpause(life::Unpause),
    Volume(volume::Volume),
    Wait(life::Wait),
}

impl Verb {
    /// The exit code: 0, or that of the program in the container.
    fn perform(self, global: &Global) -> Result<u8> {
        match self {
            Verb::Attach(v) => v.perform(global),
            Verb::Bench(v) => v.perform(global),
            Verb::Commit(v) => v.perform(global),
            Verb::Completion(v) => v.perform(),
            Verb::Create(v) => v.perform(global),
            Verb::Diff(v) => v.perform(global),
            Verb::Exec(v) => v.perform(global),
            Verb::Export(v) => v.perform(global),
            Verb::History(v) => v.perform(global),
            Verb::Image(v) => v.perform(global),
            Verb::Images(v) => v.perform(global),
            Verb::Import(v) => v.perform(global),
            Verb::Inspect(v) => v.perform(global),
            Verb::Kill(v) => v.perform(global),
            Verb::Load(v) => v.perform(global),
            Verb::Login(v) => v.perform(global),
            Verb::Logout(v) => v.perform(global),
            Verb::Logs(v) => v.perform(global),
            Verb::Pause(v) => v.perform(global),
            Verb::Ps(v) => v.perform(global),
            Verb::Pull(v) => v.perform(global),
            Verb::Push(v) => v.perform(global),
            Verb::Rename(v) => v.perform(global),
            Verb::Restart(v) => v.perform(global),
            Verb::Rm(v) => v.perform(global),
            Verb::Rmi(v) => v.perform(global),
            Verb::Run(v) => v.perform(global),
            Verb::Save(v) => v.perform(global),
            Verb::Start(v) => v.perform(global),
            Verb::Stop(v) => v.perform(global),
            Verb::System(v) => v.perform(global),
            Verb::Tag(v) => v.perform(global),
            Verb::Top(v) => v.perform(global),
            Verb::Unpause(v) => v.perform(global),
            Verb::Volume(v) => v.perform(global),
            Verb::Wait(v) => v.perform(global),
        }
    }
}

/// The whole program.
pub fn main() -> std::process::ExitCode {
    if let Some(code) = under_another_name() {
        return code.into();
    }
    if crate::image::layer::worker::is_wanted() {
        return crate::image::layer::worker::main().into();
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(said) => {
            let _ = match unknown_flag(&said).or_else(|| unknown_verb(&said)) {
                Some(error) => writeln!(std::io::stderr(), "Error: {error}"),
                None => said.print(),
            };
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

/// A flag that nobody knows, in Docker's words.
fn unknown_flag(said: &clap::Error) -> Option<Error> {
    let of = |kind| said.get(kind).map(ToString::to_string);
    let flag = of(ContextKind::InvalidArg).filter(|_| said.kind() == ErrorKind::UnknownArgument)?;
    let near = of(ContextKind::SuggestedArg).map(|near| format!("did you mean {near}?"));
    let next = near.unwrap_or_else(|| "see --help".into());
    flag.starts_with('-').then(|| Error::new(format!("unknown flag: {flag}")).next(next))
}

/// A verb that nobody knows, or that of another engine.
fn unknown_verb(said: &clap::Error) -> Option<Error> {
    let verb = said.get(ContextKind::InvalidSubcommand)?.to_string();
    let near = said.get(ContextKind::SuggestedSubcommand).map(|near| format!("did you mean {near}?"));
    let next = match verb.as_str() {
        "info" => "`jug system info`".to_owned(),
        "version" => "`jug --version`".to_owned(),
        "container" => "verbs of containers stand alone: `jug ps`, `jug rm`".to_owned(),
        "stats" => "`jug-oci events --stats` has what one container uses".to_owned(),
        "cp" => "`jug exec CONTAINER cat PATH`, or a directory by --volume".to_owned(),
        "network" | "port" => "containers have no bridged network yet: see --network".to_owned(),
        "build" | "buildx" => "build with another tool, and `jug load` what it saves".to_owned(),
        _ => near.unwrap_or_else(|| "`jug --help` lists the verbs".to_owned()),
    };
    Some(Error::new(format!("unknown verb: {verb}")).next(next))
}

/// The command line; once more as Docker reads it, where it was not understood.
fn parse() -> std::result::Result<Cli, clap::Error> {
    Cli::try_parse().or_else(|said| {
        if matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Err(said);
        }
        let matches = lenient(Cli::command()).try_get_matches().map_err(|_| said)?;
        Cli::from_arg_matches(&matches)
    })
}

/// A flag may come twice, and then the last one counts; one without a value takes `=true` and `=false`. Neither stands
/// in the help, which is why this is not how the command is made.
fn lenient(command: Command) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.args_override_self(true).mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true"),
        _ => arg,
    });
    verbs.iter().fold(command, |command, verb| command.mut_subcommand(verb, lenient))
}

/// What this binary is when it is not called by people: the monitor of a container, or the init in one.
fn under_another_name() -> Option<u8> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let name = words.next()?;
    let rest = || words.collect::<Vec<_>>();
    match name.as_str() {
        crate::engine::monitor::NAME => Some(crate::engine::monitor::main(&rest())),
        crate::engine::init::PATH => Some(crate::engine::init::main(rest())),
        _ => None,
    }
}
