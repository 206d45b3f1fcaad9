//! `jug-oci`: runc's command line. One file per verb: its flags, then one call into the library.

mod audit;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod go;
mod kill;
mod list;
mod pause;
mod ps;
mod quick;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::log;
use crate::container::record::Root;
use crate::container::{self, Handles};
use crate::error::{Error, Result};
use crate::plan::Options;
use crate::sys;

/// The version of the runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.3.0";

/// Open Container Initiative runtime: runs containers from bundles, with runc's command line and without a daemon.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    verb: Verb,
}

/// The flags before the verb.
#[derive(Debug, Args)]
struct GlobalFlags {
    /// Directory of the containers' records [default: /run/NAME, $XDG_RUNTIME_DIR/NAME when rootless]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Append the log to this file instead of stderr
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Log more
    #[arg(long)]
    debug: bool,
    /// Make cgroups through systemd
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for runc's sake: whether the caller is rootless is found out
    #[arg(long, value_name = "true|false|auto", default_value = "auto", hide = true)]
    rootless: String,
    /// Accepted for older runc's sake
    #[arg(long, value_name = "FILE", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    version: bool,
}

#[derive(Debug, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one value, made once: boxes would only be allocations"
)]
enum Verb {
    Audit(audit::Audit),
    Checkpoint(checkpoint::Checkpoint),
    Create(create::Create),
    Delete(delete::Delete),
    Events(events::Events),
    Exec(exec::Exec),
    Features(features::Features),
    Kill(kill::Kill),
    List(list::List),
    Pause(pause::Pause),
    Ps(ps::Ps),
    Restore(restore::Restore),
    Resume(pause::Resume),
    Run(run::Run),
    Spec(spec::Spec),
    Start(start::Start),
    State(state::State),
    Update(update::Update),
}

/// What a verb may know of the global flags.
pub struct Globals {
    root: PathBuf,
    /// The root is the default below XDG_RUNTIME_DIR.
    in_runtime_dir: bool,
    systemd_cgroup: bool,
}

impl Globals {
    /// The existing state root.
    fn root(&self) -> Result<Root> {
        Root::open(&self.root, false)
    }

    /// The state root, made if it is missing.
    fn make_root(&self) -> Result<Root> {
        let root = Root::open(&self.root, true)?;
        if self.in_runtime_dir {
            // Cleaners of XDG_RUNTIME_DIR leave what has the sticky bit (XDG base directory specification).
            root.make_sticky()?;
        }
        Ok(root)
    }
}

/// The flags that create and run share.
#[derive(Debug, Args)]
pub struct CreateFlags {
    /// Unique name of the container
    #[arg(value_name = "container-id")]
    id: String,
    /// Directory of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    bundle: PathBuf,
    /// Unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Use MS_MOVE and chroot instead of pivot_root, for a host that runs from an initramfs
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass N more descriptors, from 3 on, to the program
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,
    /// Print what would be done, and stop (jug's own)
    #[arg(long)]
    print_plan: bool,
}

impl CreateFlags {
    fn handles(&self) -> Handles {
        Handles {
            pid_file: self.pid_file.clone(),
            console_socket: self.console_socket.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            notify_socket: notify_socket(),
        }
    }

    /// The bundle with what the environment adds, and the options; the descriptors to keep are there.
    fn prepare(&self, globals: &Globals) -> Result<(crate::bundle::Bundle, Options)> {
        let listen = listen_fds();
        let preserve_fds = self.preserve_fds.saturating_add(listen);
        container::check_preserved(preserve_fds)?;
        let mut bundle = crate::bundle::load(&self.bundle)?;
        if listen > 0
            && let Some(process) = bundle.spec.process_mut()
        {
            add_env(process, &[format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".to_owned()]);
        }
        if notify_socket().is_some() {
            container::notify::extend(&mut bundle.spec, &globals.root, &self.id);
        }
        bundle.warnings.iter().for_each(|w| log::warn(w));
        bundle.warnings.clear();
        let options = Options {
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds,
            systemd_cgroup: globals.systemd_cgroup,
        };
        Ok((bundle, options))
    }

    /// `--print-plan`: the plan as text, and nothing done.
    fn print_plan(&self, globals: &Globals) -> Result<()> {
        let id = container::record::Id::new(&self.id)?;
        let (bundle, options) = self.prepare(globals)?;
        let host = crate::host::Host::look(&bundle.spec, &options)?;
        let plan = crate::plan::Plan::new(id.as_str(), &bundle, &options, &host)?;
        log::print(&crate::plan::show::show(&plan));
        Ok(())
    }
}

/// Sockets of systemd's socket activation (sd_listen_fds(3)): they follow the preserved descriptors.
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(n)) if pid == sys::process::pid().unsigned_abs() => n,
        // Meant for another process.
        _ => 0,
    }
}

/// Where a service manager listens for readiness (sd_notify(3)).
fn notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn add_env(process: &mut oci_spec::runtime::Process, entries: &[String]) {
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(entries.iter().cloned());
    process.set_env(Some(env));
}

/// The name this program was called by: with it `runc` is runc, and beside it nothing collides.
fn own_name(args: &[OsString]) -> String {
    let name = args.first().and_then(|name| Path::new(name).file_name());
    name.map_or_else(|| "jug-oci".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The default state root, and whether it lies in the user's runtime directory.
fn default_root(name: &str) -> (PathBuf, bool) {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && crate::host::is_rootless()) {
        Some(dir) => (Path::new(&dir).join(name), true),
        None => (Path::new("/run").join(name), false),
    }
}

/// The whole program. It leaves at once when it is done: to give back what the kernel takes anyway would cost a start.
pub fn main() -> ! {
    sys::signal::ignore_pipe();
    // Nothing that the caller left open reaches a hook or a program unasked: what is to be kept is told at the end.
    if let Err(e) = sys::fd::ensure_stdio().and_then(|()| sys::fd::cloexec_from(3)) {
        log::fatal(&e.to_string());
        sys::process::exit_now(1);
    }
    let args = sys::seal::args();
    let name = own_name(&args);
    let cli = quick::parse(&args).unwrap_or_else(|| match by_clap(args, &name) {
        Ok(cli) => cli,
        Err(code) => sys::process::exit_now(code),
    });
    let verb = cli.verb.name();
    let failure = cli.verb.failure_code();
    sys::process::exit_now(match perform(cli, &name) {
        Ok(code) => code,
        Err(e) => {
            log::fatal(&match verb {
                // As runc begins its messages, which engines hand on; the other verbs say what failed themselves.
                "create" | "run" | "restore" => format!("{name} {verb} failed: {e}"),
                "exec" => format!("exec failed: {e}"),
                _ => e.to_string(),
            });
            failure
        }
    })
}

/// Any command line; what is said instead of doing something has an exit code.
fn by_clap(args: Vec<OsString>, name: &str) -> std::result::Result<Cli, i32> {
    // The flags of the log stand before what is wrong, as a rule.
    let open_log = |line: &go::Line| {
        let format = line.log_format.as_ref().map_or("text".into(), |format| format.to_string_lossy());
        let _ = log::init(line.log.as_ref().map(PathBuf::from), &format, false);
    };
    let long_help = args.iter().any(|arg| arg == "--help" || arg == "-help");
    let mut line = go::read(&Cli::command(), args).map_err(|(fault, line)| {
        open_log(&line);
        incorrect(&fault)
    })?;
    if line.version {
        log::print(&version(name));
        return Err(0);
    }
    if line.verb.is_none() {
        line.args.push("--help".into());
    }
    let verb = line.verb.clone();
    with_runcs_head(command(verb.as_deref()), name)
        .name(name.to_owned())
        .bin_name(name.to_owned())
        .try_get_matches_from(&line.args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|e| {
            open_log(&line);
            needs_criu(&e, verb.as_deref().filter(|_| long_help)).unwrap_or_else(|| usage(&e))
        })
}

/// What a line means when it is read quickly, and by clap, where it is read at all.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_both_ways(args: Vec<OsString>) -> (Option<String>, Option<String>) {
    let quickly = quick::parse(&args).map(|cli| format!("{cli:?}"));
    let slowly = || {
        let line = go::read(&Cli::command(), args).ok()?;
        let matches = command(line.verb.as_deref()).try_get_matches_from(line.args).ok()?;
        Cli::from_arg_matches(&matches).ok().map(|cli| format!("{cli:?}"))
    };
    (quickly, slowly())
}

/// The definition for one command line. Building all verbs is a good part of a start: a known verb is built alone.
fn command(verb: Option<&str>) -> clap::Command {
    let alone = |define: fn(clap::Command) -> clap::Command, name: &'static str| {
        GlobalFlags::augment_args(clap::Command::new("jug-oci"))
            .subcommand_required(true)
            .disable_version_flag(true)
            .disable_help_subcommand(true)
            .subcommand(define(clap::Command::new(name)))
    };
    match verb {
        Some("create") => alone(create::Create::augment_args, "create"),
        Some("delete") => alone(delete::Delete::augment_args, "delete"),
        Some("exec") => alone(exec::Exec::augment_args, "exec"),
        Some("kill") => alone(kill::Kill::augment_args, "kill"),
        Some("run") => alone(run::Run::augment_args, "run"),
        Some("start") => alone(start::Start::augment_args, "start"),
        Some("state") => alone(state::State::augment_args, "state"),
        _ => Cli::command(),
    }
}

/// Help begins as runc's does: the word NAME, then the names called and what it is.
fn with_runcs_head(command: clap::Command, name: &str) -> clap::Command {
    const HELP: &str =
        "NAME:\n   {name} - {about-with-newline}\n{usage-heading} {usage}\n\n{all-args}{after-help}";
    command.help_template(HELP).mut_subcommands(|verb| {
        let called = format!("{name} {}", verb.get_name());
        verb.display_name(called).help_template(HELP)
    })
}

fn perform(cli: Cli, name: &str) -> Result<i32> {
    let flags = cli.global;
    log::init(flags.log, &flags.log_format, flags.debug)?;
    let makes = matches!(cli.verb, Verb::Create(_) | Verb::Run(_) | Verb::Restore(_));
    if makes && flags.rootless != "auto" && go::boolean(&flags.rootless).is_none() {
        return Err(Error::new(format!("--rootless: {:?} is none of true, false, auto", flags.rootless)));
    }
    let (root, in_runtime_dir) = match flags.root {
        Some(root) if root == Path::new("/") => {
            return Err(Error::new("--root: the root of the file system cannot hold the records"));
        }
        Some(root) => (root, false),
        None => default_root(name),
    };
    log::debug(&format!("{name} {}, records in {}", env!("CARGO_PKG_VERSION"), root.display()));
    let globals = Globals { root, in_runtime_dir, systemd_cgroup: flags.systemd_cgroup };
    cli.verb.perform(&globals)
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Verb::Audit(_) => "audit",
            Verb::Checkpoint(_) => "checkpoint",
            Verb::Create(_) => "create",
            Verb::Delete(_) => "delete",
            Verb::Events(_) => "events",
            Verb::Exec(_) => "exec",
            Verb::Features(_) => "features",
            Verb::Kill(_) => "kill",
            Verb::List(_) => "list",
            Verb::Pause(_) => "pause",
            Verb::Ps(_) => "ps",
            Verb::Restore(_) => "restore",
            Verb::Resume(_) => "resume",
            Verb::Run(_) => "run",
            Verb::Spec(_) => "spec",
            Verb::Start(_) => "start",
            Verb::State(_) => "state",
            Verb::Update(_) => "update",
        }
    }

    /// `exec` leaves the codes below to the program it runs.
    fn failure_code(&self) -> i32 {
        match self {
            Verb::Exec(_) => 255,
            // 1 says that there are differences.
            Verb::Audit(_) => 2,
            _ => 1,
        }
    }

    fn perform(self, globals: &Globals) -> Result<i32> {
        match self {
            Verb::Audit(v) => v.perform(globals),
            Verb::Checkpoint(v) => v.perform(globals),
            Verb::Create(v) => v.perform(globals),
            Verb::Delete(v) => v.perform(globals),
            Verb::Events(v) => v.perform(globals),
            Verb::Exec(v) => v.perform(globals),
            Verb::Features(v) => v.perform(),
            Verb::Kill(v) => v.perform(globals),
            Verb::List(v) => v.perform(globals),
            Verb::Pause(v) => v.perform(globals),
            Verb::Ps(v) => v.perform(globals),
            Verb::Restore(v) => v.perform(globals),
            Verb::Resume(v) => v.perform(globals),
            Verb::Run(v) => v.perform(globals),
            Verb::Spec(v) => v.perform(),
            Verb::Start(v) => v.perform(globals),
            Verb::State(v) => v.perform(globals),
            Verb::Update(v) => v.perform(globals),
        }
    }
}

/// The program's own lines only: dockerd takes the last one with the word for its answer.
fn version(name: &str) -> String {
    format!(
        "{name} version {}\ncommit: {}\nspec: {SPEC_VERSION}\n",
        env!("CARGO_PKG_VERSION"),
        env!("JUG_COMMIT")
    )
}

/// Callers ask for the long help of checkpoint to learn whether it works here (podman does): without criu it does not.
fn needs_criu(error: &clap::Error, verb: Option<&str>) -> Option<i32> {
    let asks =
        error.kind() == clap::error::ErrorKind::DisplayHelp && matches!(verb, Some("checkpoint" | "restore"));
    let missing = asks.then(|| crate::criu::find().err()).flatten()?;
    log::fatal(&missing.to_string());
    Some(1)
}

/// Help goes to stdout with 0. A wrong flag is 1 and an unknown verb 3, as with Go's urfave/cli.
fn usage(error: &clap::Error) -> i32 {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            log::print(&error.to_string());
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            log::print(&error.to_string());
            0
        }
        ErrorKind::InvalidSubcommand => {
            let verb = error.get(clap::error::ContextKind::InvalidSubcommand);
            log::fatal(&format!("No help topic for '{}'", verb.map(ToString::to_string).unwrap_or_default()));
            3
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            use clap::error::ContextKind;
            let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
            let (flag, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
            let flag = flag.trim_start_matches('-').split(' ').next().unwrap_or_default();
            incorrect(&format!("invalid value {value:?} for flag -{flag}: parse error"))
        }
        _ => incorrect(error.to_string().trim_start_matches("error: ").trim_end()),
    }
}

fn incorrect(fault: &str) -> i32 {
    log::fatal(&format!("Incorrect Usage: {fault}"));
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        for verb in ["create", "delete", "exec", "kill", "run", "start", "state"] {
            command(Some(verb)).debug_assert();
            assert_eq!(command(Some(verb)).get_subcommands().count(), 1);
        }
    }
}
