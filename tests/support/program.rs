//! Programs that a test writes and then executes.
//!
//! Another process writes them. What this one held open for writing, a process that another thread forks would hold
//! too, until it executes something; and until then the kernel executes no such file (ETXTBSY). What was there before
//! is removed, not written over.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program to `to`, for everybody to execute.
#[track_caller]
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    write(from.as_ref(), to.as_ref(), "");
}

/// Writes a script to `to`, for everybody to execute.
#[track_caller]
pub fn script(to: impl AsRef<Path>, text: &str) {
    write(Path::new("/dev/stdin"), to.as_ref(), text);
}

#[track_caller]
fn write(from: &Path, to: &Path, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "--"]).args([from, to]).stdin(Stdio::piped());
    let mut install = install.spawn().expect("install (Debian: coreutils)");
    install.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write");
    assert!(install.wait().expect("install").success(), "no program at {}", to.display());
}
