//! jug-oci as a program: where it is, how it is called, and what its failures mean to people.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::place::{Place, io};
use super::relay;
use crate::error::{Error, Result};
use crate::sys::{fd, path, process, signal};

/// Exit codes of the engine, as Docker's: it failed itself; the program cannot be executed; there is none.
pub const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The flag by which a scope of systemd's is the container's cgroup.
pub const SCOPE: &str = "--systemd-cgroup";

#[derive(Debug, Clone)]
pub struct Runtime {
    pub path: PathBuf,
    /// Its state root.
    pub state: PathBuf,
}

impl Runtime {
    /// What was asked for, or the one beside this binary, or the one on PATH.
    pub fn find(place: &Place, asked: Option<&Path>) -> Result<Self> {
        let beside = crate::host::program().and_then(|exe| Some(exe.parent()?.join("jug-oci")));
        let search = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&search).map(|dir| dir.join("jug-oci")).collect::<Vec<_>>();
        let found = match asked {
            Some(asked) => Some(asked.to_owned()),
            None => beside.into_iter().chain(on_path).find(|file| path::executable(file).is_ok()),
        };
        let path = found.ok_or_else(|| {
            Error::new("jug-oci was not found")
                .next("install it beside jug or on PATH, or give --runtime PATH")
        })?;
        path::executable(&path).map_err(|e| e.context("the runtime"))?;
        Ok(Self { path, state: place.oci() })
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.state);
        command
    }

    /// The same with its errors in a file, from which [`failure`] reads them.
    pub fn logged(&self, log: &Path) -> Command {
        let mut command = self.command();
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }
}

/// Runs a command to its end: the terminal and the streams are the caller's, and signals sent to this process are
/// handed on. `relayed`: the command is not to use the caller's own streams. Gives its exit code.
pub fn foreground(mut command: Command, interactive: bool, relayed: bool) -> Result<i32> {
    if !interactive {
        command.stdin(Stdio::null());
    }
    let mut relays = if relayed { relay::between(&mut command, interactive)? } else { Vec::new() };
    let signals = signal::block_all()?;
    let child = command.spawn().map_err(io(format_args!("running {:?}", command.get_program())))?;
    // With its ends of pipes, whose end would never be seen.
    drop(command);
    let pid = child.id() as i32;
    let pidfd = process::pidfd_open(pid)?.ok_or_else(|| Error::new("the runtime is gone"))?;
    loop {
        let own = [(pidfd.as_fd(), libc::POLLIN), (signals.as_fd(), libc::POLLIN)];
        let ready = fd::poll(&own.into_iter().chain(relay::waits(&relays)).collect::<Vec<_>>(), -1)?;
        relay::carry(&mut relays, &ready[own.len()..]);
        while let Some((number, from_terminal)) = signal::next_and_origin(signals.as_fd())? {
            match number {
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
                // The terminal tells everybody in the foreground, the runtime too.
                _ if from_terminal => {}
                number => drop(process::pidfd_kill(pidfd.as_fd(), number)),
            }
        }
        if let Some(exit) = process::wait(pidfd.as_fd(), false)? {
            relay::finish(relays)?;
            return Ok(exit.code());
        }
    }
}

/// The error in the runtime's log, if it failed itself, and the exit code that people know for it.
pub fn failure(log: &Path) -> Option<(u8, String)> {
    let text = crate::host::read(log).ok()?;
    let mut messages = text.lines().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        (entry["level"] == "error").then(|| entry["msg"].as_str().unwrap_or("").to_owned())
    });
    let message = messages.next_back()?;
    let said =
        message.split_once("unable to start container process: ").map_or(message.as_str(), |(_, said)| said);
    let first = said.lines().next().unwrap_or("");
    let code = match first.starts_with("exec") || first.starts_with("chdir to cwd") {
        true if first.contains("not found") || first.contains("no such file") => NOT_FOUND,
        true => NOT_EXECUTABLE,
        false => FAILED,
    };
    Some((code, said.to_owned()))
}
