//! The seccomp compiler beside libseccomp: a profile as JSON, or one that the bytes are the seed of.
#![no_main]

#[path = "../../tests/support/bpf.rs"]
mod bpf;
#[path = "../../tests/support/equivalence.rs"]
mod equivalence;
#[path = "../../tests/support/model.rs"]
mod model;
#[path = "../../tests/support/oracle.rs"]
mod oracle;
#[path = "../../tests/support/profiles.rs"]
mod profiles;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jug::seccomp::{Arch, Filter, compile};
use oci_spec::runtime::LinuxSeccomp;

fn generated(raw: &[u8]) -> Vec<(LinuxSeccomp, Arch, Filter)> {
    let mut seed = DefaultHasher::new();
    raw.hash(&mut seed);
    let mut random = profiles::Random::new(seed.finish());
    let native = if raw.len() % 4 == 0 { Arch::Aarch64 } else { Arch::X86_64 };
    let profile = profiles::generate(&mut random, native);
    let filter = compile(&profile, native).expect("a generated profile compiles");
    vec![(profile, native, filter)]
}

/// What the oracle's words can carry.
fn is_plain(profile: &LinuxSeccomp) -> bool {
    let plain =
        |name: &String| name.len() < 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    profile.syscalls().iter().flatten().all(|entry| entry.names().iter().all(plain))
}

libfuzzer_sys::fuzz_target!(|raw: &[u8]| {
    let mut cases = jug::fuzz::seccomp(raw);
    if cases.is_empty() {
        cases = generated(raw);
    }
    for (profile, native, filter) in cases {
        // What libseccomp does not know or refuses is held to the model alone.
        let known = |oracle: &oracle::Oracle| oracle.unknown.is_empty() && oracle.loads_numbers();
        let theirs =
            is_plain(&profile).then(|| oracle::compile(&profile, native).ok()).flatten().filter(known);
        let tally = &mut equivalence::Tally::default();
        equivalence::compare("fuzz", &profile, native, &filter, theirs.as_ref(), tally);
    }
});
