//! The cgroup: whether the process is in it, its limits, its device program.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::Report;
use super::reader::Reader;
use crate::cgroup::{self, Place};
use crate::container::Container;
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::cgroup::Write;
use crate::plan::process::cpu_list;
use crate::sys::bpf;

/// What the kernel rounds limits of memory to.
const PAGE: u64 = 4096;

pub fn compare(plan: &Plan, reader: &Reader, container: &Container, report: &mut Report) -> Result<()> {
    let Some(planned) = &plan.cgroup else { return Ok(()) };
    let Some((v2, v1)) = container.record.cgroup.places.split_first() else { return Ok(()) };
    let text = reader.text("cgroup")?;
    let found = crate::host::cgroup_of(&text);
    // The program may have divided its cgroup, and moved below.
    if !found.strip_prefix("/").is_ok_and(|path| path.starts_with(&v2.path)) {
        report.differs("cgroup", format!("/{}", v2.path.display()), found.display().to_string());
    }
    limits(&planned.writes, v2, report);
    for (plan, place) in planned.v1.iter().zip(v1) {
        limits(&plan.writes, place, report);
    }
    if planned.device_program.is_some() {
        match cgroup::directory(v2).and_then(|dir| bpf::device_programs(dir.as_fd())) {
            Ok(found) => report.fact("device program", 1, found),
            Err(e) => report.unknown("device program", &e),
        }
    }
    Ok(())
}

fn limits(writes: &[Write], place: &Place, report: &mut Report) {
    for (i, write) in writes.iter().enumerate() {
        let same = |later: &&Write| later.file == write.file && key(&later.value) == key(&write.value);
        // Of two values for one thing the later one is there.
        if writes[i + 1..].iter().any(|later| same(&later) && !is_table(&write.file)) {
            continue;
        }
        let mut file = (&write.file, &write.value);
        let mut found = cgroup::value(place, file.0);
        if let (Err(e), Some((other, value))) = (&found, &write.otherwise)
            && e.errno() == libc::ENOENT
        {
            file = (other, value);
            found = cgroup::value(place, other);
        }
        match found {
            Ok(found) if agrees(file.0, file.1, found.trim()) => {}
            Ok(found) => {
                let path = PathBuf::from("/").join(&place.path).join(file.0);
                let line = line_of(file.0, file.1, found.trim()).unwrap_or(found.trim()).to_owned();
                report.differs(format!("limit {}", path.display()), file.1.clone(), line);
            }
            Err(e) if write.optional && e.errno() == libc::ENOENT => {}
            Err(e) => report.unknown(write.at, &e),
        }
    }
}

fn key(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

/// Files with a line for each device.
fn is_table(file: &str) -> bool {
    ["io.max", "rdma.max", "net_prio.ifpriomap"].contains(&file)
        || file.starts_with("blkio.throttle")
        || file.ends_with("weight_device")
        || file == "io.bfq.weight"
}

fn line_of<'f>(file: &str, value: &str, found: &'f str) -> Option<&'f str> {
    let begins = |line: &&str| key(line) == key(value);
    if is_table(file) { found.lines().find(begins) } else { None }
}

/// Whether a control file shows what was written, in the kernel's own form.
fn agrees(file: &str, value: &str, found: &str) -> bool {
    if value == found || found == format!("default {value}") {
        return true;
    }
    if file.starts_with("cpuset.") {
        let sorted = |text: &str| {
            let mut list = cpu_list(text, file).ok()?;
            list.sort_unstable();
            Some(list)
        };
        return sorted(value).is_some() && sorted(value) == sorted(found);
    }
    if file == "memory.oom_control" {
        return found.lines().any(|line| line == format!("oom_kill_disable {value}"));
    }
    if is_table(file) {
        let Some(line) = line_of(file, value, found) else {
            // The default weight stands behind the word; a limit of `max` has no line.
            return value.split(' ').skip(1).all(|word| word.ends_with("=max")) && value.contains('=')
                || found.lines().any(|line| line == format!("default {value}"));
        };
        return value.split(' ').all(|word| line.split(' ').any(|found| found == word));
    }
    match (value.parse::<i64>(), found.parse::<u64>()) {
        // No limit, in v1's words: the largest number of pages.
        (Ok(n), Ok(found)) if n < 0 => found > i64::MAX as u64 - 2 * PAGE,
        (Ok(n), Ok(found)) if file.starts_with("memory.") => (n as u64) / PAGE * PAGE == found,
        (Ok(n), Ok(found)) => n as u64 == found,
        _ => words(value) == words(found),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_form_of_a_value_is_the_value() {
        for (file, value, found) in [
            ("memory.max", "5000", "4096"),
            ("memory.limit_in_bytes", "-1", "9223372036854771712"),
            ("io.weight", "910", "default 910"),
            ("cpuset.cpus", "0,1", "0-1"),
            (
                "io.max",
                "8:0 rbps=5",
                "7:0 rbps=5 wbps=max riops=max wiops=max\n8:0 rbps=5 wbps=max riops=max wiops=9",
            ),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:0 5"),
            ("cpu.max", "max 100000", "max 100000"),
            ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0"),
        ] {
            assert!(agrees(file, value, found), "{file}: {value} is {found}");
        }
        for (file, value, found) in [
            ("memory.max", "8192", "4096"),
            ("pids.max", "5", "6"),
            ("pids.max", "max", "6"),
            ("cpuset.cpus", "0", "0-1"),
            ("io.max", "8:0 rbps=5", "8:0 rbps=50 wbps=max riops=max wiops=max"),
            ("io.max", "8:0 rbps=5", ""),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0"),
        ] {
            assert!(!agrees(file, value, found), "{file}: {value} is not {found}");
        }
    }
}
