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

/// A few bytes of an input changed, cut out or put in; of an archive, with the checksums that its headers then need.
#[cfg(feature = "engine")]
fn changed(bytes: &[u8], dice: &mut impl FnMut(usize) -> usize, archive: bool) -> Vec<u8> {
    const WORTH: [u8; 12] = [0, b' ', b'/', b'.', b'0', b'7', b'8', b'=', b'\n', b'"', 0x80, 0xff];
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + dice(4) {
        if bytes.is_empty() {
            break;
        }
        let at = dice(bytes.len());
        match dice(if archive { 4 } else { 5 }) {
            0 => bytes[at] = dice(256) as u8,
            1 => bytes[at] = WORTH[dice(WORTH.len())],
            2 => bytes[at] ^= 1 << dice(8),
            // In an archive whole blocks go or come twice.
            3 if archive => {
                let (from, to) = (dice(bytes.len() / 512) * 512, dice(bytes.len() / 512) * 512);
                bytes.copy_within(from..from + 512, to);
            }
            3 => drop(bytes.remove(at)),
            _ => bytes.insert(at, WORTH[dice(WORTH.len())]),
        }
    }
    if archive {
        for header in bytes.chunks_exact_mut(512).filter(|header| header.iter().any(|byte| *byte != 0)) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

#[cfg(feature = "engine")]
type Target = fn(&[u8]);

/// What a fuzzer would try first, without one: JUG_ROUNDS changes of each input.
#[cfg(feature = "engine")]
#[test]
fn images_with_bytes_changed() {
    let targets: [(&str, Target); 5] = [
        ("reference", jug::fuzz::images::reference),
        ("manifest", jug::fuzz::images::manifest),
        ("challenge", jug::fuzz::images::challenge),
        ("tar", jug::fuzz::images::tar),
        ("whiteouts", jug::fuzz::images::whiteouts),
    ];
    let rounds = std::env::var("JUG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    let mut state = 7u64;
    let mut dice = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let mut found = Vec::new();
    for (target, run) in targets {
        for (name, bytes) in corpus(target) {
            for round in 0..rounds {
                let input = changed(&bytes, &mut dice, target == "tar");
                if std::panic::catch_unwind(|| run(&input)).is_err() {
                    let kept = std::env::temp_dir().join(format!("jug-fuzz-{target}-{round}"));
                    fs::write(&kept, &input).expect("write");
                    found.push(format!("{name}, changed: see above, and {}", kept.display()));
                    break;
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
