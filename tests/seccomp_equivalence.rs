//! A compiled profile does what runc and libseccomp make of it, for every architecture, number and argument boundary.
//!
//! libseccomp is the oracle and needs cc and libseccomp-dev: without them these tests fail, they do not skip.

#[path = "support/bpf.rs"]
mod bpf;
#[path = "support/model.rs"]
mod model;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/profiles.rs"]
mod profiles;

use bpf::Call;
use jug::seccomp::{Arch, Filter, compile, tables};
use oci_spec::runtime::LinuxSeccomp;
use oracle::Oracle;
use std::time::Instant;

/// Every audit architecture a filter can meet, and one that no profile lists (AUDIT_ARCH_S390X).
const AUDIT_ARCHS: [u32; 5] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016];

/// Every number that means something, those around it, and the ends of each half.
fn numbers() -> Vec<u32> {
    let small = (0..=600).chain(1000..1003).chain(0xf_0000..0xf_0008);
    let x32 = 0x4000_0000..=0x4000_0258;
    let ends =
        [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0x8000_0005, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, u32::MAX];
    small.chain(x32).chain(ends).collect()
}

/// Values around each boundary of the profile's conditions, in both words.
fn boundaries(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 31, 1 << 32, u64::from(u32::MAX)];
    for arg in profile.syscalls().iter().flatten().flat_map(|entry| entry.args().iter().flatten()) {
        for value in [arg.value(), arg.value_two().unwrap_or(0)] {
            values.extend([value, value.wrapping_sub(1), value.wrapping_add(1), !value]);
            values.extend([value ^ (1 << 32), value ^ (1 << 63), value & !0xffff_ffff, value << 32]);
            values.push(value & 0xffff_ffff);
        }
    }
    // A multiplexer's first argument.
    values.extend(2..=24);
    values.sort_unstable();
    values.dedup();
    values
}

/// The argument lists worth trying: each boundary in all places, and in each place with others around it.
fn arguments(profile: &LinuxSeccomp, random: &mut profiles::Random) -> Vec<[u64; 6]> {
    let values = boundaries(profile);
    let mut lists: Vec<[u64; 6]> = values.iter().map(|value| [*value; 6]).collect();
    for _ in 0..values.len() * 2 {
        lists.push(std::array::from_fn(|_| *random.pick(&values)));
    }
    lists
}

/// Numbers some rule with conditions speaks of, on any architecture; others do not look at arguments.
fn conditional(profile: &LinuxSeccomp) -> Vec<u32> {
    let mut found = vec![102, 117];
    for entry in profile.syscalls().iter().flatten().filter(|entry| entry.args().is_some()) {
        for row in entry.names().iter().filter_map(|name| tables::numbers(name)) {
            found.extend(Arch::ALL.into_iter().filter_map(|arch| row.on(arch)));
        }
    }
    found
}

/// How many calls were tried, and how libseccomp fared.
#[derive(Default, Debug)]
struct Tally {
    calls: usize,
    /// libseccomp returns what no matching rule asks for: see tests/support/model.rs.
    libseccomp_wrong: usize,
    /// For the same reason it misses one of several matching rules and chooses the next.
    other_choice: usize,
}

/// The filters on every call worth trying. jug must do what libseccomp does; where libseccomp does not do what the
/// profile says, or was not asked, jug must do what the profile says.
fn compare(
    what: &str,
    profile: &LinuxSeccomp,
    native: Arch,
    ours: &Filter,
    theirs: Option<&Oracle>,
    tally: &mut Tally,
) {
    bpf::check(&ours.program)
        .unwrap_or_else(|fault| panic!("{what}: the kernel would refuse the filter: {fault}"));
    let mut random = profiles::Random::new(what.len() as u64);
    let lists = arguments(profile, &mut random);
    let conditional = conditional(profile);
    let listed = listed(profile, native);
    for arch in AUDIT_ARCHS {
        for number in numbers() {
            let lists = if conditional.contains(&number) { &lists[..] } else { &lists[..1] };
            for args in lists {
                let call = Call { number, arch, args: *args };
                let mine = bpf::run(&ours.program, &call);
                tally.calls += 1;
                let its = theirs.map(|theirs| theirs.run(&call));
                if its == Some(mine) {
                    continue;
                }
                let asked = model::actions(profile, &listed, &call);
                let json = || serde_json::to_string(profile).unwrap_or_default();
                assert!(
                    asked.contains(&mine),
                    "{what}: {call:x?}: jug returns {mine:#x}, not {asked:x?}\n{}",
                    json()
                );
                match its {
                    None => {}
                    Some(its) if !asked.contains(&its) => tally.libseccomp_wrong += 1,
                    Some(_) => tally.other_choice += 1,
                }
            }
        }
    }
}

/// The architectures of the profile, and the native one.
fn listed(profile: &LinuxSeccomp, native: Arch) -> Vec<Arch> {
    let names: Vec<String> = profile.architectures().iter().flatten().map(ToString::to_string).collect();
    Arch::ALL
        .into_iter()
        .filter(|arch| *arch == native || names.iter().any(|name| name == arch.name()))
        .collect()
}

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
