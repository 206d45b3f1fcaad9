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

/// A field of ours beside the kernel's: what MemAvailable leaves out although it can be had.
const LEFT_OUT: &str = "left out of MemAvailable";

impl Memory {
    pub fn now() -> Self {
        let lines = read("/proc/meminfo");
        let number = |rest: &str| rest.trim().trim_end_matches(" kB").parse().ok();
        let fields = lines.lines().filter_map(|line| line.split_once(':'));
        let mut memory =
            Self(fields.filter_map(|(name, rest)| Some((name.to_owned(), number(rest)?))).collect());
        let left_out = memory.left_out(&read("/proc/zoneinfo"));
        memory.0.insert(LEFT_OUT.to_owned(), left_out);
        memory
    }

    /// KiB that MemAvailable lacks, of `zones`, which is /proc/zoneinfo. The one is free pages that wait in each
    /// processor's lists for their next use, megabytes after a growth. The other comes and goes with the kernel's
    /// raising its watermarks for a while, as it does when a block of memory gets another use
    /// (vm.watermark_boost_factor): si_mem_available() leaves half of the page cache and of what can be reclaimed out,
    /// but no more than the low watermarks. `low` holds the boost.
    fn left_out(&self, zones: &str) -> f64 {
        let pages = |name: &str| -> f64 {
            let lines = zones.lines().filter_map(|line| line.trim().split_once(' '));
            lines.filter(|(word, _)| *word == name).filter_map(|(_, n)| n.trim().parse::<f64>().ok()).sum()
        };
        let page = self.kib("MemTotal") / pages("managed").max(1.0);
        let (low, boost) = (pages("low") * page, pages("boost") * page);
        let lacks = |half: f64| half.min(low) - half.min(low - boost);
        let cache = self.kib("Active(file)") + self.kib("Inactive(file)");
        pages("count:") * page + lacks(cache / 2.0) + lacks(self.kib("KReclaimable") / 2.0)
    }

    /// KiB of one field; 0 where the kernel has none.
    pub fn kib(&self, field: &str) -> f64 {
        self.0.get(field).copied().unwrap_or(0.0)
    }

    pub fn used(&self) -> f64 {
        self.kib("MemTotal") - self.available()
    }

    /// MemAvailable with what it leaves out.
    fn available(&self) -> f64 {
        self.kib("MemAvailable") + self.kib(LEFT_OUT)
    }

    /// How much of all memory is still to be had, in percent.
    pub fn available_percent(&self) -> f64 {
        100.0 * self.available() / self.kib("MemTotal").max(1.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_of_the_processors_and_a_boost_of_the_watermarks_are_no_use_of_memory() {
        let fields = [
            ("MemTotal", 4000.0),
            ("Inactive(file)", 1000.0),
            ("KReclaimable", 60.0),
            ("MemAvailable", 900.0),
        ];
        let mut memory = Memory(fields.map(|(name, kib)| (name.to_owned(), kib)).into());
        // 1,000 pages of 4 KiB: half of the cache is more than all watermarks, half of the rest is 30 KiB.
        let zones = |boost: u32, listed: u32| {
            let low = 5 + boost;
            let list = format!("    cpu: 0\n              count:    {listed}\n              high:     9\n");
            let zone = format!("pages free 9\n  boost {boost}\n  low      {low}\n  managed  1000\n");
            format!("Node 0, zone Normal\n  {zone}  pagesets\n{list}{list}")
        };
        assert_eq!(memory.left_out(&zones(0, 0)), 0.0);
        assert_eq!(memory.left_out(&zones(10, 0)), 40.0 + 10.0);
        assert_eq!(memory.left_out(&zones(0, 7)), 2.0 * 28.0);
        assert_eq!(memory.left_out("low 5\nmanaged 1000\n"), 0.0);
        memory.0.insert(LEFT_OUT.to_owned(), 50.0);
        assert_eq!(memory.used(), 4000.0 - 950.0);
    }
}
