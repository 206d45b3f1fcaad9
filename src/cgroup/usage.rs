//! What a container uses at this moment, read from the files of its cgroups. Those that a kernel or a hierarchy lacks
//! leave their part empty. Must not change anything.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::stats::{
    Blkio, BlkioEntry, Cpu, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Pressure, Stats, Throttling,
};
use super::watch::number;
use super::{Traces, collect_pids, descend, find, hierarchy, read};
use crate::error::{Error, Result};
use crate::sys;

/// Without a cgroup (rootless) nothing can be known.
pub fn look(traces: &Traces) -> Result<Stats> {
    let mut stats = Stats::default();
    let Some(dir) = find(traces)? else {
        return match traces.places.is_empty() {
            true => Ok(stats),
            false => Err(Error::new("unable to get container cgroup stats: the cgroup is gone")),
        };
    };
    let v2 = Files { dir: &dir };
    v2.cpu(&mut stats.cpu);
    v2.memory(&mut stats.memory);
    v2.pids(&mut stats.pids)?;
    v2.io(&mut stats.blkio);
    v2.hugetlb(&mut stats.hugetlb, "current")?;
    for place in &traces.places[1..] {
        let dir = descend(hierarchy(&place.mount)?.as_fd(), &place.path)?;
        let v1 = Files { dir: &dir };
        v1.cpu_v1(&mut stats.cpu);
        v1.memory_v1(&mut stats.memory);
        v1.cpuset_v1(&mut stats.cpuset);
        v1.pids_limit(&mut stats.pids);
        v1.blkio_v1(&mut stats.blkio);
        v1.hugetlb(&mut stats.hugetlb, "usage_in_bytes")?;
    }
    Ok(stats)
}

/// The files of one cgroup. One that is missing reads as `None`.
struct Files<'a> {
    dir: &'a OwnedFd,
}

impl Files<'_> {
    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn text(&self, file: &str) -> Option<String> {
        read(self.dir(), file).ok()
    }

    /// The one number of a file; `max` is as large as a number can be.
    fn number(&self, file: &str) -> Option<u64> {
        match self.text(file)?.trim() {
            "max" => Some(u64::MAX),
            n => n.parse().ok(),
        }
    }

    /// `key value` lines.
    fn table(&self, file: &str) -> BTreeMap<String, u64> {
        let text = self.text(file).unwrap_or_default();
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    fn pressure(&self, file: &str) -> Option<Pressure> {
        let text = self.text(file)?;
        let mut pressure = Pressure::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let of = match words.next() {
                Some("some") => &mut pressure.some,
                Some("full") => &mut pressure.full,
                _ => continue,
            };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "avg10" => of.avg10 = value.parse().ok()?,
                    "avg60" => of.avg60 = value.parse().ok()?,
                    "avg300" => of.avg300 = value.parse().ok()?,
                    "total" => of.total = value.parse().ok()?,
                    _ => {}
                }
            }
        }
        Some(pressure)
    }

    fn cpu(&self, cpu: &mut Cpu) {
        let stat = self.table("cpu.stat");
        let of = |key: &str| stat.get(key).copied().unwrap_or(0);
        cpu.usage.total = of("usage_usec") * 1000;
        cpu.usage.user = of("user_usec") * 1000;
        cpu.usage.kernel = of("system_usec") * 1000;
        cpu.throttling = Throttling {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: of("throttled_usec") * 1000,
        };
        cpu.psi = self.pressure("cpu.pressure");
    }

    fn cpu_v1(&self, cpu: &mut Cpu) {
        let stat = self.table("cpu.stat");
        if let Some(time) = stat.get("throttled_time") {
            let of = |key: &str| stat.get(key).copied().unwrap_or(0);
            cpu.throttling = Throttling {
                periods: of("nr_periods"),
                throttled_periods: of("nr_throttled"),
                throttled_time: *time,
            };
        }
        // Only v1 counts by CPU; its hierarchy is often mounted together with that of cpu.
        if let Some(list) = self.text("cpuacct.usage_percpu") {
            cpu.usage.percpu = list.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        }
        for line in self.text("cpuacct.usage_all").unwrap_or_default().lines().skip(1) {
            let fields: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            if let [_, user, kernel] = fields[..] {
                cpu.usage.percpu_user.push(user);
                cpu.usage.percpu_kernel.push(kernel);
            }
        }
    }

    fn memory(&self, memory: &mut Memory) {
        memory.psi = self.pressure("memory.pressure");
        let Some(usage) = self.number("memory.current") else { return };
        memory.raw = self.table("memory.stat");
        memory.cache = memory.raw.get("file").copied().unwrap_or(0);
        let limit = self.number("memory.max").unwrap_or(u64::MAX);
        let max = self.number("memory.peak").unwrap_or(0);
        memory.usage = MemoryEntry { limit, usage, max, failcnt: 0 };
        // v1 counted memory and swap together, and so does this field.
        let alone = self.number("memory.swap.current").unwrap_or(0);
        let swap_limit = self.number("memory.swap.max").unwrap_or(0);
        memory.swap = MemoryEntry {
            limit: swap_limit.saturating_add(limit),
            usage: alone.saturating_add(usage),
            ..MemoryEntry::default()
        };
    }

    fn memory_v1(&self, memory: &mut Memory) {
        if self.number("memory.usage_in_bytes").is_none() {
            return;
        }
        memory.raw = self.table("memory.stat");
        memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
        let entry = |name: &str| MemoryEntry {
            limit: self.number(&format!("{name}.limit_in_bytes")).unwrap_or(0),
            usage: self.number(&format!("{name}.usage_in_bytes")).unwrap_or(0),
            max: self.number(&format!("{name}.max_usage_in_bytes")).unwrap_or(0),
            failcnt: self.number(&format!("{name}.failcnt")).unwrap_or(0),
        };
        memory.usage = entry("memory");
        memory.swap = entry("memory.memsw");
        memory.kernel = entry("memory.kmem");
        memory.kernel_tcp = entry("memory.kmem.tcp");
    }

    fn cpuset_v1(&self, cpuset: &mut Cpuset) {
        let Some(cpus) = self.text("cpuset.cpus") else { return };
        let flag = |name: &str| self.number(&format!("cpuset.{name}")).unwrap_or(0);
        let level = self.text("cpuset.sched_relax_domain_level");
        *cpuset = Cpuset {
            cpus: numbers(&cpus),
            cpu_exclusive: flag("cpu_exclusive"),
            mems: numbers(&self.text("cpuset.mems").unwrap_or_default()),
            mem_hardwall: flag("mem_hardwall"),
            mem_exclusive: flag("mem_exclusive"),
            memory_migrate: flag("memory_migrate"),
            memory_spread_page: flag("memory_spread_page"),
            memory_spread_slab: flag("memory_spread_slab"),
            memory_pressure: flag("memory_pressure"),
            sched_load_balance: flag("sched_load_balance"),
            sched_relax_domain_level: level.and_then(|n| n.trim().parse().ok()).unwrap_or(0),
        };
    }

    fn pids(&self, pids: &mut Pids) -> Result<()> {
        if self.pids_limit(pids) {
            return Ok(());
        }
        // Without the controller they are counted.
        let mut list = Vec::new();
        collect_pids(self.dir(), &mut list)?;
        pids.current = list.len() as u64;
        Ok(())
    }

    /// No limit is 0, as in runc. `false`: no such controller here.
    fn pids_limit(&self, pids: &mut Pids) -> bool {
        let Some(current) = self.number("pids.current") else { return false };
        let limit = self.number("pids.max").filter(|n| *n != u64::MAX).unwrap_or(0);
        *pids = Pids { current, limit };
        true
    }

    fn io(&self, blkio: &mut Blkio) {
        blkio.psi = self.pressure("io.pressure");
        for line in self.text("io.stat").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(device) else { continue };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let (list, op) = match key {
                    "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                    "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                    "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                    "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                    _ => continue,
                };
                let value = value.parse().unwrap_or(0);
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }

    /// What the scheduler of the disks counts, and else what throttling does.
    fn blkio_v1(&self, blkio: &mut Blkio) {
        let first = |names: &[&str]| {
            let lists = names.iter().map(|name| self.blkio_list(&format!("blkio.{name}")));
            lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
        };
        let both = |name: &str| first(&[&format!("bfq.{name}_recursive"), &format!("{name}_recursive")]);
        let counted = |name: &str| {
            let list = both(name);
            if list.is_empty() {
                first(&[&format!("throttle.{name}_recursive"), &format!("throttle.{name}")])
            } else {
                list
            }
        };
        let (bytes, serviced) = (counted("io_service_bytes"), counted("io_serviced"));
        if !bytes.is_empty() || !serviced.is_empty() {
            (blkio.io_service_bytes_recursive, blkio.io_serviced_recursive) = (bytes, serviced);
        }
        for (list, name) in [
            (&mut blkio.sectors_recursive, "sectors"),
            (&mut blkio.io_service_time_recursive, "io_service_time"),
            (&mut blkio.io_wait_time_recursive, "io_wait_time"),
            (&mut blkio.io_merged_recursive, "io_merged"),
            (&mut blkio.io_queued_recursive, "io_queued"),
            (&mut blkio.io_time_recursive, "time"),
        ] {
            let found = both(name);
            if !found.is_empty() {
                *list = found;
            }
        }
    }

    /// Lines of `MAJOR:MINOR OP VALUE` or `MAJOR:MINOR VALUE`; the sum at the end is left out.
    fn blkio_list(&self, file: &str) -> Vec<BlkioEntry> {
        let entry = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (major, minor) = device(words.first()?)?;
            let (op, value) = match words[1..] {
                [op, value] => (op, value),
                [value] => ("", value),
                _ => return None,
            };
            Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
        };
        self.text(file).unwrap_or_default().lines().filter_map(entry).collect()
    }

    /// `usage`: the last part of the file that says how much is used, in the words of this version.
    fn hugetlb(&self, all: &mut BTreeMap<String, Hugetlb>, usage: &str) -> Result<()> {
        for name in sys::path::list(self.dir())? {
            let name = name.to_string_lossy();
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(usage));
            let Some(size) = size.and_then(|size| size.strip_suffix('.')).filter(|size| !size.contains('.'))
            else {
                continue;
            };
            let file = |part: &str| format!("hugetlb.{size}.{part}");
            // Reserved pages are counted where the kernel does.
            let reserved = self.number(&file(&format!("rsvd.{usage}")));
            let events = self.text(&file("events")).and_then(|text| number(&text, "max"));
            let entry = Hugetlb {
                usage: reserved.or_else(|| self.number(&name)).unwrap_or(0),
                max: self.number(&file("max_usage_in_bytes")).unwrap_or(0),
                failcnt: events.or_else(|| self.number(&file("failcnt"))).unwrap_or(0),
            };
            all.insert(size.to_owned(), entry);
        }
        Ok(())
    }
}

/// `MAJOR:MINOR`.
fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A list such as `0-2,5` (cpuset(7), List format).
fn numbers(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_spelled_out() {
        assert_eq!(numbers("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(numbers("\n"), [0u16; 0]);
    }
}
