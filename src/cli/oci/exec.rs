//! `exec`: one more process in a running container.

use std::path::PathBuf;

use caps::Capability;
use clap::Args;
use oci_spec::runtime::{Process, User};

use super::create::console_rules;
use super::quick::{Word, Words};
use super::{Globals, add_env, listen_fds};
use crate::cli::log;
use crate::container::exec::{ExecOptions, exec};
use crate::container::foreground::Foreground;
use crate::container::{self, Handles, record::Id};
use crate::error::{Error, Result};
use crate::sys::seal;

/// Run another process in a container
#[derive(Debug, Args)]
pub struct Exec {
    /// Unix socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory inside
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Add or replace an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group, as numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Further groups, as numbers
    #[arg(short = 'g', long, value_name = "GID", value_parser = whole_number)]
    additional_gids: Vec<String>,
    /// A process.json instead of a command
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return as soon as the process runs
    #[arg(short, long)]
    detach: bool,
    /// File that receives the process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Forbid the process to gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Pass N more descriptors, from 3 on, to the program
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,
    /// Sub-cgroup of the container to run in
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Do not refuse a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
    /// Program and arguments
    #[arg(value_name = "command", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub fn quick(words: &mut Words<'_>) -> Option<Self> {
        let mut exec = Self {
            console_socket: None,
            pidfd_socket: None,
            cwd: None,
            env: Vec::new(),
            tty: false,
            user: None,
            additional_gids: Vec::new(),
            process: None,
            detach: false,
            pid_file: None,
            process_label: None,
            apparmor: None,
            no_new_privs: false,
            cap: Vec::new(),
            preserve_fds: 0,
            cgroup: Vec::new(),
            ignore_paused: false,
            id: String::new(),
            command: Vec::new(),
        };
        loop {
            let name = match words.next()? {
                Word::Flag(name) => name,
                Word::Plain(id) => {
                    exec.id = id.to_owned();
                    break;
                }
                Word::End => return None,
            };
            match name {
                "console-socket" => exec.console_socket = Some(words.path()?),
                "pidfd-socket" => exec.pidfd_socket = Some(words.path()?),
                "cwd" => exec.cwd = Some(words.text()?),
                "e" | "env" => exec.env.push(words.text()?),
                "t" | "tty" => exec.tty = words.switch()?,
                "u" | "user" => exec.user = Some(words.text()?),
                "g" | "additional-gids" => exec.additional_gids.push(whole_number(words.value()?).ok()?),
                "p" | "process" => exec.process = Some(words.path()?),
                "d" | "detach" => exec.detach = words.switch()?,
                "pid-file" => exec.pid_file = Some(words.path()?),
                "process-label" => exec.process_label = Some(words.text()?),
                "apparmor" => exec.apparmor = Some(words.text()?),
                "no-new-privs" => exec.no_new_privs = words.switch()?,
                "c" | "cap" => exec.cap.push(words.text()?),
                "preserve-fds" => exec.preserve_fds = words.value()?.parse().ok()?,
                "cgroup" => exec.cgroup.push(words.text()?),
                "ignore-paused" => exec.ignore_paused = words.switch()?,
                _ => return None,
            }
        }
        exec.command = words.remaining()?;
        Some(exec)
    }

    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let root = globals.root()?;
        seal::ensure()?;
        let preserve_fds = self.preserve_fds.saturating_add(listen_fds());
        container::check_preserved(preserve_fds)?;
        let handles = Handles {
            pid_file: self.pid_file.clone(),
            console_socket: self.console_socket.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            notify_socket: None,
        };
        let cgroup = self.sub_cgroup()?;
        let options = ExecOptions { preserve_fds, ignore_paused: self.ignore_paused, cgroup };
        let foreground = if self.detach { None } else { Some(Foreground::new(false)?) };
        let (child, console) =
            exec(&root, &id, |own| self.make_process(own), &options, &handles).map_err(|e| {
                if e.what().starts_with("cannot exec") || e.what() == "container does not exist" {
                    e
                } else {
                    e.context("unable to start container process")
                }
            })?;
        match foreground {
            None => Ok(0),
            Some(foreground) => Ok(foreground.wait(&child, console.as_ref(), None)?.code()),
        }
    }

    /// `--cgroup PATH` or `CONTROLLERS:PATH`; on cgroup v2 there is one hierarchy, and so one path.
    fn sub_cgroup(&self) -> Result<Option<PathBuf>> {
        match self.cgroup.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(PathBuf::from(one.split_once(':').map_or(one.as_str(), |(_, path)| path)))),
            _ => Err(Error::new("--cgroup: only one path is possible on cgroup v2")),
        }
    }

    fn make_process(&self, own: &Process) -> Result<Process> {
        let mut process = match &self.process {
            Some(file) => {
                let (process, warnings) = crate::bundle::load_process(file)?;
                warnings.iter().for_each(|w| log::warn(w));
                process
            }
            None if self.command.is_empty() => {
                return Err(Error::new("process args cannot be empty").next("name the program to run"));
            }
            None => self.change(own)?,
        };
        if listen_fds() > 0 {
            add_env(&mut process, &[format!("LISTEN_FDS={}", listen_fds()), "LISTEN_PID=1".to_owned()]);
        }
        let terminal = process.terminal().unwrap_or(false);
        console_rules(terminal, self.console_socket.is_some(), self.detach)?;
        Ok(process)
    }

    /// The container's own process with what the flags change.
    fn change(&self, own: &Process) -> Result<Process> {
        let mut process = own.clone();
        process.set_args(Some(self.command.clone())).set_terminal(Some(self.tty)).set_console_size(None);
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.into());
        }
        add_env(&mut process, &self.env);
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(user) = &self.user {
            set_user(process.user_mut(), user)?;
        }
        if !self.additional_gids.is_empty() {
            let user = process.user_mut();
            let mut gids = user.additional_gids().clone().unwrap_or_default();
            for gid in &self.additional_gids {
                gids.push(id_number(gid, "--additional-gids")?);
            }
            user.set_additional_gids(Some(gids));
        }
        self.add_capabilities(&mut process)?;
        Ok(process)
    }

    /// As runc: to bounding, effective and permitted, and to ambient where the config lets any be inherited.
    fn add_capabilities(&self, process: &mut Process) -> Result<()> {
        if self.cap.is_empty() {
            return Ok(());
        }
        let mut sets = process.capabilities().clone().unwrap_or_else(empty_capabilities);
        for name in &self.cap {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if full.parse::<Capability>().is_err() {
                log::warn(&format!("ignoring unknown capability {name:?}"));
                continue;
            }
            let cap: oci_spec::runtime::Capability = serde_json::from_value(serde_json::Value::String(full))
                .map_err(|e| Error::new(format!("--cap: {e}")))?;
            let with = |set: &Option<oci_spec::runtime::Capabilities>| {
                let mut set = set.clone().unwrap_or_default();
                set.insert(cap);
                Some(set)
            };
            let (b, e, p) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
            sets.set_bounding(b).set_effective(e).set_permitted(p);
            if sets.inheritable().is_some() {
                let a = with(sets.ambient());
                sets.set_ambient(a);
            }
        }
        process.set_capabilities(Some(sets));
        Ok(())
    }
}

/// What Go reads as a number; whether it is one of a group is seen later.
pub fn whole_number(text: &str) -> std::result::Result<String, std::num::ParseIntError> {
    text.parse::<i64>().map(|_| text.to_owned())
}

/// oci-spec's own default grants three.
fn empty_capabilities() -> oci_spec::runtime::LinuxCapabilities {
    let mut sets = oci_spec::runtime::LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    sets
}

/// `UID[:GID]`, decimal and nothing else; the group stays the config's where none is given (CVE-2026-30892).
fn set_user(user: &mut User, text: &str) -> Result<()> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    user.set_uid(id_number(uid, "--user")?);
    if let Some(gid) = gid {
        user.set_gid(id_number(gid, "--user")?);
    }
    Ok(())
}

fn id_number(text: &str, flag: &str) -> Result<u32> {
    let decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u32>()
        .ok()
        .filter(|id| decimal && *id < u32::MAX)
        .ok_or_else(|| Error::new(format!("{flag}: {text:?} is not a number from 0 to 4294967294")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_decimal_or_refused() {
        for bad in ["", "-1", " 1", "0x1", "4294967295", "4294967296", "name", "1 ", "+1", "١"] {
            assert!(id_number(bad, "--user").is_err(), "{bad:?}");
        }
        assert_eq!(id_number("2147483648", "--user").unwrap(), 2_147_483_648);
    }
}
