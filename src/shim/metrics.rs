//! What a container uses, as containerd's clients read it: the metrics of github.com/containerd/cgroups, in their v2
//! form, and in their v1 form where v1 hierarchies hold the controllers.

use std::path::PathBuf;

use super::message::Any;
use crate::cgroup::stats::{BlkioEntry, MemoryEntry, Stats};
use crate::cgroup::{Place, Traces, usage};
use crate::error::Result;
use crate::host::Host;
use crate::protobuf::Message;

/// The cgroups of a process in all hierarchies, leaving out those that it shares with this one.
pub fn cgroups_of(pid: i32) -> Result<Traces> {
    let host = Host::controllers()?;
    let (its, own) =
        (crate::host::read(format!("/proc/{pid}/cgroup"))?, crate::host::read("/proc/self/cgroup")?);
    let mut traces = Traces::default();
    let Some(mount) = host.cgroup2 else { return Ok(traces) };
    for line in its.lines().rev().filter(|line| !own.lines().any(|own| own == *line)) {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = PathBuf::from(path.trim_start_matches('/'));
        if controllers.is_empty() {
            // The one on cgroup2 comes first.
            traces.places.insert(0, Place { mount: mount.clone(), path, foreign: 0 });
        } else if let Some((_, mount)) =
            host.cgroup1.iter().find(|(name, _)| controllers.split(',').any(|controller| controller == name))
        {
            traces.places.push(Place { mount: mount.clone(), path, foreign: 0 });
        }
    }
    // Without a cgroup of its own nothing can be said, and nothing may be killed.
    if !its.lines().any(|line| line.starts_with("0::") && !own.lines().any(|own| own == line)) {
        traces.places.clear();
    }
    Ok(traces)
}

/// Whether this host's controllers are cgroup v2's.
fn unified() -> Result<bool> {
    Ok(Host::controllers()?.cgroup1.is_empty())
}

/// google.protobuf.Any of the metrics.
pub fn look(traces: &Traces) -> Result<Message> {
    let stats = usage::look(traces)?;
    Ok(match unified()? {
        true => Any::write("io.containerd.cgroups.v2.Metrics", &v2(&stats, traces)),
        false => Any::write("io.containerd.cgroups.v1.Metrics", &v1(&stats)),
    })
}

fn numbers(values: &[(u64, u64)]) -> Message {
    let mut message = Message::default();
    for (field, value) in values {
        message.unsigned(*field, *value);
    }
    message
}

/// The keys of memory.stat in the order of their fields, 1 and on (cgroup2/stats/metrics.proto).
const MEMORY: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

fn v2(stats: &Stats, traces: &Traces) -> Message {
    let mut metrics = Message::default();
    let limit = if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit };
    metrics.message(1, &numbers(&[(1, stats.pids.current), (2, limit)]));
    let (usage, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    metrics.message(
        2,
        &numbers(&[
            (1, usage.total / 1000),
            (2, usage.user / 1000),
            (3, usage.kernel / 1000),
            (4, throttling.periods),
            (5, throttling.throttled_periods),
            (6, throttling.throttled_time / 1000),
        ]),
    );
    let (memory, swap) = (&stats.memory.usage, &stats.memory.swap);
    let mut all: Vec<(u64, u64)> = (1..)
        .zip(MEMORY)
        .map(|(field, key)| (field, stats.memory.raw.get(key).copied().unwrap_or(0)))
        .collect();
    // The statistics count both together, as v1 did.
    let alone = |both: u64, memory: u64| if both == u64::MAX { both } else { both.saturating_sub(memory) };
    all.extend([
        (32, memory.usage),
        (33, memory.limit),
        (34, alone(swap.usage, memory.usage)),
        (35, alone(swap.limit, memory.limit)),
        (36, memory.max),
    ]);
    metrics.message(4, &numbers(&all));
    metrics.message(6, &io(stats));
    for (size, page) in &stats.hugetlb {
        metrics.message(7, numbers(&[(1, page.usage), (2, page.max)]).text(3, size));
    }
    if let Some(events) = traces.places.first().and_then(|p| crate::cgroup::value(p, "memory.events").ok()) {
        let of = |key| crate::cgroup::watch::number(&events, key).unwrap_or(0);
        let keys = ["low", "high", "max", "oom", "oom_kill"].map(of);
        metrics.message(8, &numbers(&(1..).zip(keys).collect::<Vec<_>>()));
    }
    metrics
}

/// One entry for each device.
fn io(stats: &Stats) -> Message {
    let mut devices: Vec<(u64, u64)> =
        stats.blkio.io_service_bytes_recursive.iter().map(|entry| (entry.major, entry.minor)).collect();
    devices.dedup();
    let mut message = Message::default();
    for (major, minor) in devices {
        let of = |list: &[BlkioEntry], op: &str| {
            let found = list.iter().find(|e| (e.major, e.minor) == (major, minor) && e.op == op);
            found.map_or(0, |entry| entry.value)
        };
        let (bytes, times) = (&stats.blkio.io_service_bytes_recursive, &stats.blkio.io_serviced_recursive);
        message.message(
            1,
            &numbers(&[
                (1, major),
                (2, minor),
                (3, of(bytes, "Read")),
                (4, of(bytes, "Write")),
                (5, of(times, "Read")),
                (6, of(times, "Write")),
            ]),
        );
    }
    message
}

/// The keys of a v1 memory.stat in the order of their fields (stats/v1/metrics.proto); the same with `total_` follow.
const MEMORY_V1: [&str; 15] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
];

fn v1(stats: &Stats) -> Message {
    let mut metrics = Message::default();
    for (size, page) in &stats.hugetlb {
        metrics.message(1, numbers(&[(1, page.usage), (2, page.max), (3, page.failcnt)]).text(4, size));
    }
    metrics.message(2, &numbers(&[(1, stats.pids.current), (2, stats.pids.limit)]));
    let (usage, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    let mut time = numbers(&[(1, usage.total), (2, usage.kernel), (3, usage.user)]);
    for cpu in &usage.percpu {
        time.number(4, cpu.cast_signed());
    }
    let throttled = numbers(&[
        (1, throttling.periods),
        (2, throttling.throttled_periods),
        (3, throttling.throttled_time),
    ]);
    metrics.message(3, Message::default().message(1, &time).message(2, &throttled));
    metrics.message(4, &memory_v1(stats));
    let mut blkio = Message::default();
    let lists = [
        &stats.blkio.io_service_bytes_recursive,
        &stats.blkio.io_serviced_recursive,
        &stats.blkio.io_queued_recursive,
        &stats.blkio.io_service_time_recursive,
        &stats.blkio.io_wait_time_recursive,
        &stats.blkio.io_merged_recursive,
        &stats.blkio.io_time_recursive,
        &stats.blkio.sectors_recursive,
    ];
    for (field, list) in (1..).zip(lists) {
        for entry in list {
            let mut message = Message::default();
            message.some_text(1, &entry.op).unsigned(3, entry.major).unsigned(4, entry.minor);
            blkio.message(field, message.unsigned(5, entry.value));
        }
    }
    metrics.message(5, &blkio);
    metrics
}

fn memory_v1(stats: &Stats) -> Message {
    let raw = |key: &str| stats.memory.raw.get(key).copied().unwrap_or(0);
    let mut all: Vec<(u64, u64)> = (1..).zip(MEMORY_V1.map(raw)).collect();
    all.extend([(16, raw("hierarchical_memory_limit")), (17, raw("hierarchical_memsw_limit"))]);
    all.extend((18..).zip(MEMORY_V1.map(|key| raw(&format!("total_{key}")))));
    let mut message = numbers(&all);
    let entry = |entry: &MemoryEntry| {
        numbers(&[(1, entry.limit), (2, entry.usage), (3, entry.max), (4, entry.failcnt)])
    };
    let entries = [&stats.memory.usage, &stats.memory.swap, &stats.memory.kernel, &stats.memory.kernel_tcp];
    for (field, one) in (33..).zip(entries) {
        message.message(field, &entry(one));
    }
    message
}
