//! The machine that is measured on: what a reader has to know of it to repeat the figures, and its memory.
//! It only reads.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// A file's text without the blanks around it; empty if it cannot be read.
pub fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The machine and its state.
pub fn facts(load_before: &str) -> Vec<(&'static str, Value)> {
    let cpus = read("/proc/cpuinfo");
    let models: Vec<_> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name))
        .collect();
    vec![
        ("kernel", json!(read("/proc/sys/kernel/osrelease"))),
        ("CPU", json!(format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown")))),
        ("mitigations", json!(mitigations())),
        ("load before", json!(load_before)),
        ("load after", json!(read("/proc/loadavg"))),
        ("mounts", json!(read("/proc/self/mountinfo").lines().count())),
    ]
}

/// What costs every system call and every switch: the vulnerabilities this kernel works around.
pub fn mitigations() -> String {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return "unknown".into();
    };
    let mut active = Vec::new();
    for entry in entries.flatten() {
        let state = fs::read_to_string(entry.path()).unwrap_or_default();
        if state.starts_with("Mitigation") {
            active.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    active.sort();
    if active.is_empty() { "none".into() } else { active.join(" ") }
}

/// What the kernel says of its memory, in KiB, by the names of /proc/meminfo.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Memory(pub BTreeMap<String, f64>);

impl Memory {
    pub fn now() -> Self {
        let lines = read("/proc/meminfo");
        let number = |rest: &str| rest.trim().trim_end_matches(" kB").parse().ok();
        let fields = lines.lines().filter_map(|line| line.split_once(':'));
        Self(fields.filter_map(|(name, rest)| Some((name.to_owned(), number(rest)?))).collect())
    }

    /// KiB of one field; 0 where the kernel has none.
    pub fn kib(&self, field: &str) -> f64 {
        self.0.get(field).copied().unwrap_or(0.0)
    }

    pub fn used(&self) -> f64 {
        self.kib("MemTotal") - self.kib("MemAvailable")
    }

    /// How much of all memory is still to be had, in percent.
    pub fn available_percent(&self) -> f64 {
        100.0 * self.kib("MemAvailable") / self.kib("MemTotal").max(1.0)
    }

    /// What the kernel itself holds: slabs, stacks, page tables and its per-CPU areas.
    pub fn kernel(&self) -> f64 {
        ["Slab", "KernelStack", "PageTables", "Percpu"].iter().map(|field| self.kib(field)).sum()
    }
}

/// Has the kernel give back what its caches hold in empty slabs, which counts as used: without it a growth begins in
/// what the one before it has left, and its first instances cost nothing. Nobody notices but the allocator.
pub fn shrink_slabs() {
    for cache in fs::read_dir("/sys/kernel/slab").into_iter().flatten().flatten() {
        if cache.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::write(cache.path().join("shrink"), "1");
        }
    }
}

/// The same for a report that others shall be able to repeat.
pub fn description() -> BTreeMap<String, Value> {
    let mut all: BTreeMap<String, Value> =
        facts(&read("/proc/loadavg")).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.remove("load after");
    let memory = Memory::now();
    all.insert("memory, MiB".into(), json!((memory.kib("MemTotal") / 1024.0).round()));
    all.insert("swap, MiB".into(), json!((memory.kib("SwapTotal") / 1024.0).round()));
    all.insert("huge pages".into(), json!(read("/sys/kernel/mm/transparent_hugepage/enabled")));
    all.insert("KSM".into(), json!(read("/sys/kernel/mm/ksm/run")));
    all.insert("rcu_expedited".into(), json!(read("/sys/kernel/rcu_expedited")));
    all.insert("boot".into(), json!(read("/proc/sys/kernel/random/boot_id")));
    all
}
