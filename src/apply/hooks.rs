//! Hooks: run one after the other, with their own environment only, in `/` or the container's root, the state on stdin,
//! and an end to their patience.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::plan::hooks::Hook;
use crate::sys::fd;
use crate::sys::process::{kill, pidfd_open};
use crate::sys::spawn::become_exactly;

/// Most that is kept of what a failing hook says, in bytes.
const WORDS_LIMIT: usize = 8192;

/// Runs hooks in order; the first failure ends it.
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<()> {
    run_at(Path::new("/"), hooks, state)
}

/// The same in another directory than `/`.
pub fn run_at(dir: &Path, hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| {
        one(hook, dir, state).map_err(|e| e.context(format_args!("error running {}", hook.name)))
    })
}

/// Runs every hook whatever the others do, as the specification wants it after the start; returns what went wrong.
pub fn run_all(hooks: &[Hook], state: &[u8]) -> Vec<Error> {
    hooks
        .iter()
        .filter_map(|hook| {
            one(hook, Path::new("/"), state)
                .err()
                .map(|e| e.context(format_args!("error running {}", hook.name)))
        })
        .collect()
}

fn one(hook: &Hook, dir: &Path, state: &[u8]) -> Result<()> {
    let path = hook.path.display();
    let failed =
        |e: std::io::Error| Error::call(format_args!("fork/exec {path}"), e.raw_os_error().unwrap_or(0));
    let mut command = Command::new(&hook.path);
    command.current_dir(dir).process_group(0);
    become_exactly(&mut command, &hook.path, &hook.args, &environment(hook))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    feed(&mut child, state);
    let (ended, words) = wait(&mut child, hook).map_err(failed)?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let words = String::from_utf8_lossy(&words);
            let status = ended_by(status);
            Err(Error::new(format!("{path}: {status}, stdout: , stderr: {}", words.trim_end())))
        }
        None => Err(Error::new(format!(
            "{path}: hook ran past specified timeout of {:?}",
            hook.timeout.unwrap_or_default()
        ))),
    }
}

/// In the order of the config, which std's Command would sort; of two entries of one name the last one, as Go has it.
fn environment(hook: &Hook) -> Vec<&String> {
    let name = |entry: &String| entry.find('=').map_or(entry.len(), |at| at);
    let mut kept: Vec<&String> = Vec::with_capacity(hook.env.len());
    for entry in hook.env.iter().rev() {
        if !kept.iter().any(|other| other[..name(other)] == entry[..name(entry)]) {
            kept.push(entry);
        }
    }
    kept.reverse();
    kept
}

/// How a hook ended, in Go's words, which callers of runc know.
fn ended_by(status: ExitStatus) -> String {
    let signal = match status.signal() {
        Some(libc::SIGABRT) => "aborted",
        Some(libc::SIGKILL) => "killed",
        Some(libc::SIGSEGV) => "segmentation fault",
        Some(libc::SIGSYS) => "bad system call",
        Some(libc::SIGTERM) => "terminated",
        _ => return status.to_string(),
    };
    format!("signal: {signal}{}", if status.core_dumped() { " (core dumped)" } else { "" })
}

/// A hook need not read its stdin; one that closed it early is not at fault.
fn feed(child: &mut Child, state: &[u8]) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(state);
    }
}

/// Waits for the end, reading what it says meanwhile: a full pipe would stop it. The status is `None` when the timeout
/// passed, and the hook's process group was killed.
fn wait(child: &mut Child, hook: &Hook) -> std::io::Result<(Option<ExitStatus>, Vec<u8>)> {
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    // A startContainer hook lives under the container's filter, which may know no pidfds: then its end is asked for.
    const A_MOMENT: i32 = 10;
    let pidfd = pidfd_open(child.id() as i32).ok().flatten();
    let mut stderr = child.stderr.take();
    let mut words = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            let _ = kill(-(child.id() as i32), libc::SIGKILL);
            let _ = child.kill();
            child.wait()?;
            return Ok((None, words));
        }
        let ms = left.map_or(-1, |left| i32::try_from(left.as_millis().max(1)).unwrap_or(i32::MAX));
        let ms = if pidfd.is_none() { A_MOMENT } else { ms };
        let mut watched: Vec<_> = pidfd.iter().map(|pidfd| (pidfd.as_fd(), libc::POLLIN)).collect();
        watched.extend(stderr.as_ref().map(|pipe| (pipe.as_fd(), libc::POLLIN)));
        let ready = fd::poll(&watched, ms).map_err(|e| std::io::Error::from_raw_os_error(e.errno()))?;
        let spoke = stderr.is_some() && ready.last() == Some(&true);
        if spoke && !read_some(stderr.as_mut(), &mut words) {
            stderr = None;
        } else if pidfd.as_ref().map_or(!spoke, |_| ready[0])
            && let Some(status) = child.try_wait()?
        {
            // What it said last still lies in the pipe; what its own children may yet say is not waited for.
            return Ok((Some(status), words));
        }
    }
}

/// Reads what is there, and keeps the first of it. False at the end.
fn read_some(pipe: Option<&mut ChildStderr>, words: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match pipe.map(|pipe| pipe.read(&mut buffer)) {
        Some(Ok(n)) if n > 0 => {
            let room = WORDS_LIMIT.saturating_sub(words.len());
            words.extend(&buffer[..n.min(room)]);
            true
        }
        _ => false,
    }
}
