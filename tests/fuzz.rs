//! The fuzz targets on the inputs that are kept in fuzz/corpus: what was found once is not lost. scripts/fuzz looks for
//! more.
#![cfg(feature = "fuzz")]

use std::fs;
use std::path::Path;

/// Every input of a target: its name and its bytes. None at all is a fault.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let inputs: Vec<_> = entries
        .map(|entry| entry.expect("readdir(3)").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("an input")))
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", dir.display());
    inputs
}

fn replay(target: &str, run: fn(&[u8])) {
    for (name, bytes) in corpus(target) {
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{name}: see above");
        }
    }
}

#[test]
fn config() {
    replay("config", jug::fuzz::config);
}

#[test]
fn mount() {
    replay("mount", jug::fuzz::mount);
}

#[test]
fn mountinfo() {
    replay("mountinfo", jug::fuzz::mountinfo);
}

#[test]
fn record() {
    replay("record", jug::fuzz::record);
}

#[test]
fn arguments() {
    replay("arguments", jug::fuzz::arguments);
}

#[test]
fn messages() {
    replay("messages", jug::fuzz::messages);
}

/// Whether the filters are right is tests/seccomp_equivalence.rs's matter, and the fuzz target's.
#[test]
fn seccomp() {
    let filters: usize = corpus("seccomp").iter().map(|(_, bytes)| jug::fuzz::seccomp(bytes).len()).sum();
    assert!(filters > 0, "no input is a profile");
}

#[cfg(feature = "engine")]
#[test]
fn images() {
    replay("reference", jug::fuzz::images::reference);
    replay("manifest", jug::fuzz::images::manifest);
    replay("challenge", jug::fuzz::images::challenge);
    replay("tar", jug::fuzz::images::tar);
    replay("whiteouts", jug::fuzz::images::whiteouts);
}
