//! One container through its verbs. What it prints is kept in memory, whoever started it.

use std::fs::File;

use serde_json::Value;

use super::call::{contents, memory};
use super::{Bundle, Call, Output, eventually, in_guest, patience};

pub struct Container<'b> {
    pub bundle: &'b Bundle,
    pub id: String,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl<'b> Container<'b> {
    /// A container of that id in the bundle's state root, whether or not it exists.
    pub fn named(bundle: &'b Bundle, id: String) -> Self {
        Self { bundle, id, stdout: memory("stdout"), stderr: memory("stderr") }
    }

    /// `VERB FLAGS… ID ARGS…`, not yet under way.
    pub fn call(&self, verb: &str, flags: &[&str], args: &[&str]) -> Call {
        self.bundle.call(&[verb]).args(flags).args(&[&self.id]).args(args)
    }

    /// `VERB FLAGS… ID` to its end, whatever that is.
    #[track_caller]
    pub fn verb(&self, verb: &str, flags: &[&str]) -> Output {
        self.call(verb, flags, &[]).output()
    }

    #[track_caller]
    pub fn start(&self) -> &Self {
        self.verb("start", &[]).ok();
        self
    }

    /// `exec ID ARGS…`
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(&[], args)
    }

    #[track_caller]
    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Output {
        self.call("exec", flags, args).output()
    }

    /// The probe's report from an `exec` with these flags.
    #[track_caller]
    pub fn exec_probe(&self, flags: &[&str], questions: &[&str]) -> Value {
        let args: Vec<&str> = ["/bin/probe"].iter().chain(questions).copied().collect();
        self.exec_with(flags, &args).ok().json()
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb("state", &[]).ok().json()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or("?").to_owned()
    }

    /// The host's number of the container's init.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("state has a pid");
        i32::try_from(pid).expect("a pid")
    }

    /// Waits until `state` says `status`.
    #[track_caller]
    pub fn wait(&self, status: &str) -> &Self {
        eventually(&format!("status {status}"), || (self.status() == status).then_some(()));
        self
    }

    /// `kill ID SIGNAL`, which must succeed.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> &Self {
        self.call("kill", &[], &[signal]).ok();
        self
    }

    /// KILL, and wait until it is stopped.
    #[track_caller]
    pub fn stop(&self) -> &Self {
        self.kill("KILL").wait("stopped")
    }

    #[track_caller]
    pub fn delete(&self) {
        self.verb("delete", &[]).ok();
    }

    /// What the container (and the runtime that made it) has written so far.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits until the container has written `words`.
    #[track_caller]
    pub fn wait_stdout(&self, words: &str) -> &Self {
        let start = std::time::Instant::now();
        while !self.stdout().contains(words) {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            assert!(start.elapsed() < patience(), "never came: {words:?} in {stdout:?}, stderr {stderr:?}");
            std::thread::sleep(std::time::Duration::from_millis(if in_guest() { 50 } else { 5 }));
        }
        self
    }
}
