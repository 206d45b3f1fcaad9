//! `jug-oci`: runc's command line. One file per verb: its flags, then one call into the library.

mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;

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

/// A daemonless OCI runtime: runs containers from OCI bundles, with runc's command line.
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
    Create(create::Create),
    Delete(delete::Delete),
    Exec(exec::Exec),
    Features(features::Features),
    Kill(kill::Kill),
    List(list::List),
    Pause(pause::Pause),
    Ps(ps::Ps),
    Resume(pause::Resume),
    Run(run::Run),
    Spec(spec::Spec),
    Start(start::Start),
    State(state::State),
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
        }
    }

    /// The bundle with what the environment adds, and the options; the descriptors to keep are there.
    fn prepare(&self, globals: &Globals) -> Result<(crate::bundle::Bundle, Options)> {
        let listen = listen_fds();
        let preserve_fds = self.preserve_fds + listen;
        container::check_preserved(preserve_fds)?;
        let mut bundle = crate::bundle::load(&self.bundle)?;
        if listen > 0
            && let Some(process) = bundle.spec.process_mut()
        {
            add_env(process, &[format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".to_owned()]);
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

fn add_env(process: &mut oci_spec::runtime::Process, entries: &[String]) {
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(entries.iter().cloned());
    process.set_env(Some(env));
}

/// The name this program was called by: with it `runc` is runc, and beside it nothing collides.
fn own_name() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().map_or_else(|| "jug-oci".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The default state root, and whether it lies in the user's runtime directory.
fn default_root(name: &str) -> (PathBuf, bool) {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty() && crate::host::is_rootless()) {
        Some(dir) => (Path::new(&dir).join(name), true),
        None => (Path::new("/run").join(name), false),
    }
}

/// The whole program: returns its exit code.
pub fn main() -> i32 {
    sys::signal::ignore_pipe();
    // Nothing that the caller left open reaches a hook or a program unasked: what is to be kept is told at the end.
    if let Err(e) = sys::fd::ensure_stdio().and_then(|()| sys::fd::cloexec_from(3)) {
        log::fatal(&e.to_string());
        return 1;
    }
    let name = own_name();
    let (args, verb) = go_arguments(std::env::args_os().collect());
    let before_verb = |a: &&OsString| verb.as_deref().is_none_or(|verb| *a != verb);
    if args.iter().skip(1).take_while(before_verb).any(|a| a == "--version" || a == "-v") {
        log::print(&version(&name));
        return 0;
    }
    let parsed = command(verb.as_deref())
        .name(name.clone())
        .bin_name(name.clone())
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let verb = cli.verb.name();
    let failure = cli.verb.failure_code();
    match perform(cli, &name) {
        Ok(code) => code,
        Err(e) => {
            log::fatal(&format!("{name} {verb} failed: {e}"));
            failure
        }
    }
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

fn perform(cli: Cli, name: &str) -> Result<i32> {
    let flags = cli.global;
    log::init(flags.log, &flags.log_format, flags.debug)?;
    if !["true", "false", "auto", "1", "0"].contains(&flags.rootless.as_str()) {
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
            Verb::Create(_) => "create",
            Verb::Delete(_) => "delete",
            Verb::Exec(_) => "exec",
            Verb::Features(_) => "features",
            Verb::Kill(_) => "kill",
            Verb::List(_) => "list",
            Verb::Pause(_) => "pause",
            Verb::Ps(_) => "ps",
            Verb::Resume(_) => "resume",
            Verb::Run(_) => "run",
            Verb::Spec(_) => "spec",
            Verb::Start(_) => "start",
            Verb::State(_) => "state",
        }
    }

    /// `exec` leaves the codes below to the program it runs.
    fn failure_code(&self) -> i32 {
        if matches!(self, Verb::Exec(_)) { 255 } else { 1 }
    }

    fn perform(self, globals: &Globals) -> Result<i32> {
        match self {
            Verb::Create(v) => v.perform(globals),
            Verb::Delete(v) => v.perform(globals),
            Verb::Exec(v) => v.perform(globals),
            Verb::Features(v) => v.perform(),
            Verb::Kill(v) => v.perform(globals),
            Verb::List(v) => v.perform(globals),
            Verb::Pause(v) => v.perform(globals),
            Verb::Ps(v) => v.perform(globals),
            Verb::Resume(v) => v.perform(globals),
            Verb::Run(v) => v.perform(globals),
            Verb::Spec(v) => v.perform(),
            Verb::Start(v) => v.perform(globals),
            Verb::State(v) => v.perform(globals),
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
        _ => {
            log::fatal(&format!(
                "Incorrect Usage: {}",
                error.to_string().trim_start_matches("error: ").trim_end()
            ));
            1
        }
    }
}

/// Flags without a value, which Go also takes as `--flag=true`.
const SWITCHES: [&str; 16] = [
    "--debug",
    "--systemd-cgroup",
    "--no-pivot",
    "--no-new-keyring",
    "--detach",
    "--no-subreaper",
    "--keep",
    "--force",
    "--all",
    "--tty",
    "--ignore-paused",
    "--no-new-privs",
    "--quiet",
    "--rootless",
    "--print-plan",
    "--version",
];

/// Verbs whose second positional argument begins a foreign command line.
const VERBS_WITH_COMMAND: [&str; 2] = ["exec", "ps"];

/// Global flags that take the next argument as their value.
const WITH_VALUE: [&str; 5] = ["--root", "--log", "--log-format", "--criu", "--rootless"];

/// Go's flag parser takes `-bundle` for `--bundle` and `--force=true` for `--force`: so do callers.
fn go_arguments(args: Vec<OsString>) -> (Vec<OsString>, Option<String>) {
    let mut verb: Option<String> = None;
    let mut foreign = false;
    let mut value_next = false;
    let mut out = Vec::with_capacity(args.len());
    for (i, arg) in args.into_iter().enumerate() {
        let Some(text) = arg.to_str().filter(|_| i > 0 && !foreign) else {
            out.push(arg);
            continue;
        };
        if std::mem::take(&mut value_next) {
            out.push(arg);
            continue;
        }
        if text == "--" {
            foreign = true;
        } else if !text.starts_with('-') {
            match &verb {
                None => verb = Some(text.to_owned()),
                Some(verb) => foreign = VERBS_WITH_COMMAND.contains(&verb.as_str()),
            }
        } else {
            let bytes = text.as_bytes();
            let long = bytes.len() > 2 && bytes[1].is_ascii_alphabetic() && bytes[2] != b'=';
            let text = if long { format!("-{text}") } else { text.to_owned() };
            match text.split_once('=') {
                Some((name, value)) if SWITCHES.contains(&name) && name != "--rootless" => {
                    if matches!(value, "true" | "1" | "t") {
                        out.push(name.into());
                    }
                }
                _ => {
                    value_next = verb.is_none() && WITH_VALUE.contains(&text.as_str());
                    out.push(text.into());
                }
            }
            continue;
        }
        out.push(arg);
    }
    (out, verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(args: &[&str]) -> Vec<String> {
        go_arguments(args.iter().map(OsString::from).collect())
            .0
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect()
    }

    #[test]
    fn single_dash_long_flags_are_long_flags() {
        assert_eq!(
            go(&["r", "-root", "/x", "create", "-b", "/y", "id"]),
            ["r", "--root", "/x", "create", "-b", "/y", "id"]
        );
        assert_eq!(go(&["r", "delete", "--force=true", "id"]), ["r", "delete", "--force", "id"]);
        assert_eq!(go(&["r", "delete", "-force=false", "id"]), ["r", "delete", "id"]);
    }

    #[test]
    fn the_command_of_exec_is_left_alone() {
        assert_eq!(go(&["r", "exec", "-tty", "id", "ls", "-la"]), ["r", "exec", "--tty", "id", "ls", "-la"]);
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        for verb in ["create", "delete", "exec", "kill", "run", "start", "state"] {
            command(Some(verb)).debug_assert();
            assert_eq!(command(Some(verb)).get_subcommands().count(), 1);
        }
    }

    #[test]
    fn a_value_of_a_global_flag_is_not_the_verb() {
        let args = ["r", "--root", "create", "state", "id"].map(OsString::from).to_vec();
        assert_eq!(go_arguments(args).1.as_deref(), Some("state"));
    }
}
