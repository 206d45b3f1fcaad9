//! Profiles made up at random, the same ones on every run.

use jug::seccomp::{Arch, tables};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// xorshift64*: enough to wander, and needs no crate.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len());
        &list[at]
    }
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ALLOW",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

const VALUES: [u64; 14] =
    [0, 1, 2, 3, 5, 16, 40, 255, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 5, 1 << 63, u64::MAX];

/// Names libseccomp 2.5.4 knows: Linux 6.1 and before.
fn names() -> Vec<&'static str> {
    let old = |row: tables::Numbers| {
        let number = Arch::ALL.into_iter().filter(|arch| *arch != Arch::X32).find_map(|arch| row.on(arch));
        number.is_some_and(|number| !(450..=0xf_0000).contains(&number))
    };
    tables::all()
        .filter(|(name, row)| old(*row) && !["uprobe", "uretprobe"].contains(name))
        .map(|(name, _)| name)
        .collect()
}

fn args(random: &mut Random) -> Value {
    let arg = |random: &mut Random| {
        json!({
            "index": random.below(4),
            "value": random.pick(&VALUES),
            "valueTwo": random.pick(&VALUES),
            "op": random.pick(&OPERATORS),
        })
    };
    (0..=random.below(3)).map(|_| arg(random)).collect()
}

/// A profile of one to twelve entries. Calls that several entries speak of are frequent, as are multiplexed ones.
pub fn generate(random: &mut Random, native: Arch) -> LinuxSeccomp {
    let all = names();
    let few = ["socket", "shmget", "read", "clone", "ioctl", "accept4", "send", "semop", "openat", "futex"];
    let archs: &[&str] = if native == Arch::Aarch64 {
        &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_NATIVE"]
    } else {
        &["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]
    };
    let mut profile = json!({ "defaultAction": random.pick(&ACTIONS), "syscalls": [] });
    if random.below(2) == 0 {
        profile["defaultErrnoRet"] = json!(random.pick(&[1, 22, 38, 4094]));
    }
    if random.below(4) > 0 {
        profile["architectures"] = archs.iter().filter(|_| random.below(3) > 0).copied().collect();
    }
    // Half of the profiles have one action, so that rules for the same call cannot disagree.
    let action = *random.pick(&ACTIONS);
    let mixed = random.below(2) == 0;
    let entries = (0..=random.below(12)).map(|_| {
        let names: Value = (0..=random.below(4))
            .map(|_| *if random.below(3) == 0 { random.pick(&few) } else { random.pick(&all) })
            .collect();
        let mut entry = json!({ "names": names });
        entry["action"] = json!(if mixed { random.pick(&ACTIONS) } else { &action });
        if random.below(3) == 0 {
            entry["errnoRet"] = json!(random.below(200));
        }
        if random.below(3) > 0 {
            entry["args"] = args(random);
        }
        entry
    });
    profile["syscalls"] = entries.collect();
    serde_json::from_value(profile).expect("a generated profile is well-formed")
}
