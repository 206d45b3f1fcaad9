//! A filter beside libseccomp's and beside the profile itself, on every call worth trying.

use crate::bpf::{self, Call};
use crate::oracle::Oracle;
use crate::{model, profiles};
use jug::seccomp::{Arch, Filter, tables};
use oci_spec::runtime::LinuxSeccomp;

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
pub struct Tally {
    pub calls: usize,
    /// libseccomp returns what no matching rule asks for: see tests/support/model.rs.
    pub libseccomp_wrong: usize,
    /// For the same reason it misses one of several matching rules and chooses the next.
    pub other_choice: usize,
}

/// The filters on every call worth trying. jug must do what libseccomp does; where libseccomp does not do what the
/// profile says, or was not asked, jug must do what the profile says.
pub fn compare(
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
