//! A compiled profile does what runc and libseccomp make of it, for every architecture, number and argument boundary.
//!
//! libseccomp is the oracle and needs cc and libseccomp-dev: without them these tests fail, they do not skip.

#[path = "support/bpf.rs"]
mod bpf;
#[path = "support/equivalence.rs"]
mod equivalence;
#[path = "support/model.rs"]
mod model;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/profiles.rs"]
mod profiles;

use equivalence::{Tally, compare};
use jug::seccomp::{Arch, compile, tables};
use oci_spec::runtime::LinuxSeccomp;
use std::time::Instant;

/// The names libseccomp 2.5.4 does not know are taken out: what it ignores, we honour.
fn without(mut profile: LinuxSeccomp, unknown: &[String]) -> LinuxSeccomp {
    let entries = profile.syscalls().clone().unwrap_or_default();
    let kept = entries.into_iter().map(|mut entry| {
        let names = entry.names().iter().filter(|name| !unknown.contains(name)).cloned().collect();
        entry.set_names(names);
        entry
    });
    profile.set_syscalls(Some(kept.collect()));
    profile
}

fn fixture(name: &str) -> LinuxSeccomp {
    let path = format!("{}/tests/fixtures/seccomp/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn fixture_is_equivalent(name: &str, native: Arch) {
    let full = fixture(name);
    let unknown =
        oracle::compile(&full, native).unwrap_or_else(|refused| panic!("{name}: {refused:?}")).unknown;
    let profile = without(full.clone(), &unknown);
    let theirs = oracle::compile(&profile, native).expect("accepted before");
    let ours = compile(&profile, native).expect("compiles");
    let mut tally = Tally::default();
    compare(name, &profile, native, &ours, Some(&theirs), &mut tally);
    assert_eq!((tally.libseccomp_wrong, tally.other_choice), (0, 0), "{name}");
    let time = |_| {
        let begin = Instant::now();
        std::hint::black_box(compile(std::hint::black_box(&full), native).expect("compiles"));
        begin.elapsed()
    };
    let best = (0..50).map(time).min().expect("some rounds");
    println!(
        "{name}: {} calls equal; {} instructions (libseccomp {}), compiled in {:.1} µs at best",
        tally.calls,
        ours.program.len(),
        theirs.instructions(),
        best.as_secs_f64() * 1e6
    );
}

#[test]
fn the_tables_have_libseccomp_s_numbers() {
    for arch in Arch::ALL {
        let theirs = oracle::names(arch);
        assert!(theirs.len() > 300, "{arch:?}: libseccomp lists only {} calls", theirs.len());
        for (number, name) in &theirs {
            let ours = tables::numbers(name).and_then(|row| row.on(arch));
            assert_eq!(ours, Some(*number), "{name} on {arch:?}");
        }
        let newest = theirs.iter().map(|(number, _)| number & 0xffff).filter(|number| *number < 500).max();
        for (name, row) in tables::all() {
            // uretprobe and uprobe fill old holes on x86_64.
            let new =
                row.on(arch).is_none_or(|number| Some(number & 0xffff) > newest) || name.ends_with("probe");
            assert!(
                new || theirs.iter().any(|(_, known)| known == name),
                "{name} does not exist on {arch:?}"
            );
        }
    }
}

#[test]
fn docker_default() {
    fixture_is_equivalent("docker-default", Arch::X86_64);
}

#[test]
fn docker_default_on_arm() {
    fixture_is_equivalent("docker-default-arm", Arch::Aarch64);
}

#[test]
fn podman_default() {
    fixture_is_equivalent("podman-default", Arch::X86_64);
}

#[test]
fn flatpak_denylist() {
    fixture_is_equivalent("flatpak-denylist", Arch::X86_64);
}

#[test]
fn strict_kill() {
    fixture_is_equivalent("strict-kill", Arch::X86_64);
    fixture_is_equivalent("strict-kill", Arch::Aarch64);
}

#[test]
fn notify() {
    fixture_is_equivalent("notify", Arch::X86_64);
}

#[test]
fn generated_profiles() {
    // Profiles libseccomp refuses or breaks are compared with the model alone.
    let mut random = profiles::Random::new(0x6a75_675f_7365_6363);
    let mut tally = Tally::default();
    let (mut refused, mut broken) = (0, 0);
    for round in 0..400 {
        let native = if round % 4 == 0 { Arch::Aarch64 } else { Arch::X86_64 };
        let profile = profiles::generate(&mut random, native);
        let ours = compile(&profile, native).expect("a generated profile compiles");
        let theirs = match oracle::compile(&profile, native) {
            Ok(theirs) if theirs.loads_numbers() => Some(theirs),
            Ok(_) => {
                broken += 1;
                None
            }
            Err(fault) => {
                assert_eq!(fault, oracle::Refused(-libc::EEXIST), "generated {round}");
                refused += 1;
                None
            }
        };
        compare(&format!("generated {round}"), &profile, native, &ours, theirs.as_ref(), &mut tally);
    }
    println!("400 generated profiles: {tally:?}; {refused} refused by libseccomp, {broken} broken by it");
}

/// Nothing is loaded then and nothing compared, and still a filter has an instruction. Found by the fuzz target.
#[test]
fn a_profile_that_kills_every_call_is_a_filter() {
    let profile: LinuxSeccomp =
        serde_json::from_str(r#"{ "defaultAction": "SCMP_ACT_KILL", "syscalls": [] }"#).expect("a profile");
    for native in [Arch::X86_64, Arch::Aarch64] {
        let ours = compile(&profile, native).expect("compiles");
        assert_eq!(ours.program.len(), 1);
        let theirs = oracle::compile(&profile, native).expect("libseccomp takes it");
        compare("kill", &profile, native, &ours, Some(&theirs), &mut Tally::default());
    }
}
