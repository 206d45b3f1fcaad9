//! Hooks: run one after the other, with their own environment only, `/` as working directory, the state on stdin, and
//! an end to their patience.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::plan::hooks::Hook;

/// Most that is kept of what a failing hook says, in bytes.
const WORDS_LIMIT: u64 = 8192;

/// Runs hooks in order; the first failure ends it.
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| {
        one(hook, state).map_err(|e| e.context(format_args!("error running {}", hook.name)))
    })
}

/// Runs every hook whatever the others do, as the specification wants it after the start; returns what went wrong.
pub fn run_all(hooks: &[Hook], state: &[u8]) -> Vec<Error> {
    hooks
        .iter()
        .filter_map(|hook| {
            one(hook, state).err().map(|e| e.context(format_args!("error running {}", hook.name)))
        })
        .collect()
}

fn one(hook: &Hook, state: &[u8]) -> Result<()> {
    let path = hook.path.display();
    let failed =
        |e: std::io::Error| Error::call(format_args!("fork/exec {path}"), e.raw_os_error().unwrap_or(0));
    let mut command = Command::new(&hook.path);
    command.arg0(&hook.args[0]).args(&hook.args[1..]).env_clear().current_dir("/").process_group(0);
    for entry in &hook.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    feed(&mut child, state);
    let ended = wait(&mut child, hook).map_err(failed)?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let mut words = String::new();
            if let Some(stderr) = child.stderr.take() {
                let _ = stderr.take(WORDS_LIMIT).read_to_string(&mut words);
            }
            Err(Error::new(format!("{path}: {status}, stdout: , stderr: {}", words.trim_end())))
        }
        None => Err(Error::new(format!(
            "{path}: hook ran past specified timeout of {:?}",
            hook.timeout.unwrap_or_default()
        ))),
    }
}

/// A hook need not read its stdin; one that closed it early is not at fault.
fn feed(child: &mut Child, state: &[u8]) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(state);
    }
}

/// `None`: the timeout passed, and the hook's process group was killed.
fn wait(child: &mut Child, hook: &Hook) -> std::io::Result<Option<std::process::ExitStatus>> {
    let Some(timeout) = hook.timeout else { return child.wait().map(Some) };
    let deadline = Instant::now() + timeout;
    let pidfd = crate::sys::process::pidfd_open(child.id() as i32).ok().flatten();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = crate::sys::process::kill(-(child.id() as i32), libc::SIGKILL);
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        let ms = i32::try_from(left.as_millis().max(1)).unwrap_or(i32::MAX);
        match &pidfd {
            Some(fd) => drop(crate::sys::fd::poll(&[(std::os::fd::AsFd::as_fd(fd), libc::POLLIN)], ms)),
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
}
