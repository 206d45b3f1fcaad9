//! The log as engines read it: one line an entry, text or JSON, in the file that `--log` names or on stderr.
//!
//! Readers take the whole file as JSON: a failure writes exactly one entry of level error.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::container::record::rfc3339;
use crate::error::{Error, Result};
use crate::sys::{fd, path, process};

#[derive(Debug, Default)]
pub struct Log {
    file: Option<OwnedFd>,
    json: bool,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Says where the log goes; once, at the door.
pub fn init(file: Option<PathBuf>, format: &str, debug: bool) -> Result<()> {
    let json = match format {
        "json" => true,
        "text" => false,
        other => return Err(Error::new(format!("unknown log-format {other:?}")).next("use text or json")),
    };
    let file = match file {
        Some(name) => {
            let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT;
            Some(path::openat(crate::sys::cwd(), &name, flags, 0o644).map_err(|e| e.context("--log"))?)
        }
        None => None,
    };
    let _ = LOG.set(Log { file, json, debug });
    Ok(())
}

pub fn warn(message: &str) {
    write("warning", message);
}

pub fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", message);
    }
}

/// In the environment of a runtime whose stderr is the container's own and nothing else: errors go to the log alone.
pub const LOG_ONLY: &str = "JUG_LOG_ONLY";

/// The one error entry of a failed command; with a log file people get the text on stderr too.
pub fn fatal(message: &str) {
    let log = LOG.get();
    let has_file = log.is_some_and(|log| log.file.is_some());
    if has_file && std::env::var_os(LOG_ONLY).is_some() {
        return write("error", message);
    }
    let plain = log.is_none_or(|log| !log.json);
    if has_file || !plain {
        write("error", message);
    }
    if has_file || plain {
        say(&format!("{message}\n"));
    }
}

fn write(level: &str, message: &str) {
    let default = Log::default();
    let log = LOG.get().unwrap_or(&default);
    let time = rfc3339((process::now().0, 0));
    let line = if log.json {
        let entry = serde_json::json!({ "level": level, "msg": message, "time": time });
        format!("{entry}\n")
    } else {
        format!("time={time:?} level={level} msg={message:?}\n")
    };
    match &log.file {
        // The disk may be full: the message still goes to stderr by the caller.
        Some(file) => drop(fd::write_all(file.as_fd(), line.as_bytes())),
        None => say(&line),
    }
}

fn say(text: &str) {
    if let Some(stderr) = fd::inherited(2) {
        let _ = fd::write_all(stderr, text.as_bytes());
    }
}

/// Prints to stdout; a reader that went away is no error of ours.
pub fn print(text: &str) {
    let stdout: Option<BorrowedFd<'_>> = fd::inherited(1);
    if let Some(stdout) = stdout {
        let _ = fd::write_all(stdout, text.as_bytes());
    }
}

/// The same for a reader that is to be told more: `false` when it went away.
pub fn print_to_reader(text: &str) -> bool {
    fd::inherited(1).is_some_and(|stdout| fd::write_all(stdout, text.as_bytes()).is_ok())
}
