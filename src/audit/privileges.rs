//! Who the process is and what it may do: ids, groups, capabilities, no_new_privs, seccomp, rlimits, labels, open
//! descriptors.

use super::reader::Reader;
use super::{Report, mounts};
use crate::container::Container;
use crate::error::Result;
use crate::plan::namespaces::Kind;
use crate::plan::process::{CapabilityPlan, names};
use crate::plan::{Plan, ProcessPlan};

pub fn compare(plan: &Plan, reader: &Reader, container: &Container, report: &mut Report) -> Result<()> {
    ids(plan, reader, report)?;
    capabilities(&plan.process, reader, report)?;
    report.fact("no_new_privs", u8::from(plan.process.no_new_privileges), reader.status("NoNewPrivs")?);
    seccomp(plan, reader, report)?;
    rlimits(&plan.process, reader, report)?;
    report.fact("umask", format!("{:04o}", plan.process.umask), reader.status("Umask")?);
    if let Some(score) = plan.process.oom_score_adj
        && !plan.process.oom_best_effort
    {
        report.fact("oom_score_adj", score, reader.text("oom_score_adj")?.trim());
    }
    if let Some(persona) = plan.personality {
        report.fact("personality", format!("{persona:08x}"), reader.text("personality")?.trim());
    }
    labels(&plan.process, reader, report);
    descriptors(plan, reader, container, report)
}

/// A map of ids as the kernel shows it to this caller: (inside, outside, how many).
fn map(text: &str) -> Vec<(u32, u32, u32)> {
    let number = |word: Option<&str>| word.and_then(|w| w.parse().ok());
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((number(words.next())?, number(words.next())?, number(words.next())?))
    };
    text.lines().filter_map(line).collect()
}

fn outside(map: &[(u32, u32, u32)], id: u32) -> Option<u32> {
    map.iter()
        .find(|(inside, _, n)| id >= *inside && id - inside < *n)
        .map(|(inside, out, _)| out + (id - inside))
}

fn ids(plan: &Plan, reader: &Reader, report: &mut Report) -> Result<()> {
    let (uids, gids) = (map(&reader.text("uid_map")?), map(&reader.text("gid_map")?));
    if plan.namespaces.makes(Kind::User) {
        for (what, planned, found) in [("uid map", &plan.ids.uid, &uids), ("gid map", &plan.ids.gid, &gids)] {
            let mut planned: Vec<_> = planned.iter().map(|r| (r.container, r.host, r.size)).collect();
            let mut found = found.clone();
            planned.sort_unstable();
            found.sort_unstable();
            report.fact(what, format!("{planned:?}"), format!("{found:?}"));
        }
    }
    let process = &plan.process;
    for (what, line, map, id) in [("uid", "Uid", &uids, process.uid), ("gid", "Gid", &gids, process.gid)] {
        let id = outside(map, id).unwrap_or(id);
        // Real, effective, saved, file system.
        report.fact(what, [id; 4].map(|id| id.to_string()).join(" "), words(reader.status(line)?));
    }
    if process.keep_groups {
        return Ok(());
    }
    let mut planned: Vec<u32> =
        process.groups.iter().map(|gid| outside(&gids, *gid).unwrap_or(*gid)).collect();
    planned.sort_unstable();
    let mut found: Vec<u32> =
        reader.status("Groups")?.split_whitespace().filter_map(|g| g.parse().ok()).collect();
    found.sort_unstable();
    report.fact("groups", format!("{planned:?}"), format!("{found:?}"));
    Ok(())
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What execve(2) leaves of the sets, for a program without file capabilities (capabilities(7)).
fn after_exec(plan: &ProcessPlan) -> CapabilityPlan {
    let before = plan.capabilities;
    let mut after = before;
    if plan.uid == 0 {
        after.permitted = before.inheritable | before.bounding;
        if plan.no_new_privileges && after.permitted & !before.permitted != 0 {
            after.permitted &= before.permitted;
        }
        after.permitted |= before.ambient;
        after.effective = after.permitted;
    } else {
        after.permitted = before.ambient;
        after.effective = before.ambient;
    }
    after
}

fn capabilities(process: &ProcessPlan, reader: &Reader, report: &mut Report) -> Result<()> {
    let planned = after_exec(process);
    for (line, what, planned) in [
        ("CapBnd", "capabilities bounding", planned.bounding),
        ("CapPrm", "capabilities permitted", planned.permitted),
        ("CapEff", "capabilities effective", planned.effective),
        ("CapInh", "capabilities inheritable", planned.inheritable),
        ("CapAmb", "capabilities ambient", planned.ambient),
    ] {
        let found = u64::from_str_radix(reader.status(line)?, 16).unwrap_or(u64::MAX);
        if planned != found {
            let shown = |set| if set == 0 { "none".to_owned() } else { names(set) };
            report.differs(what, shown(planned), shown(found));
        }
    }
    Ok(())
}

/// The mode, and the number of filters: the caller's own ones, under which its containers are too, and the plan's.
fn seccomp(plan: &Plan, reader: &Reader, report: &mut Report) -> Result<()> {
    let own = crate::host::read("/proc/self/status")?;
    let own = own.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse::<u32>().ok());
    let planned = own.unwrap_or(0) + u32::from(plan.seccomp.is_some());
    report.fact("seccomp mode", if planned > 0 { 2 } else { 0 }, reader.status("Seccomp")?);
    // The line is as old as Linux 5.9.
    if let Ok(found) = reader.status("Seccomp_filters") {
        report.fact("seccomp filters", planned, found);
    }
    Ok(())
}

/// Lines of proc_pid_limits(5), in the order of their numbers, which begins with 0 (RLIMIT_CPU).
const LIMITS: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

fn rlimits(process: &ProcessPlan, reader: &Reader, report: &mut Report) -> Result<()> {
    if process.rlimits.is_empty() {
        return Ok(());
    }
    let text = reader.text("limits")?;
    for limit in &process.rlimits {
        let Some(name) = LIMITS.get(limit.resource as usize) else { continue };
        let line = text.lines().find_map(|line| line.strip_prefix(*name)).unwrap_or_default();
        let mut found = line.split_whitespace();
        let found = format!("soft {} hard {}", found.next().unwrap_or("?"), found.next().unwrap_or("?"));
        let shown = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
        report.fact(
            &format!("rlimit {}", name.trim_start_matches("Max ")),
            format!("soft {} hard {}", shown(limit.soft), shown(limit.hard)),
            found,
        );
    }
    Ok(())
}

fn labels(process: &ProcessPlan, reader: &Reader, report: &mut Report) {
    if let Some(profile) = &process.apparmor {
        match reader.text("attr/apparmor/current").or_else(|_| reader.text("attr/current")) {
            // `docker-default (enforce)`
            Ok(text) => {
                report.fact("apparmor profile", profile, text.trim().split(" (").next().unwrap_or_default());
            }
            Err(e) => report.unknown("apparmor profile", &e),
        }
    }
    if let Some(label) = &process.selinux {
        match reader.text("attr/current") {
            Ok(text) => report.fact("selinux label", label, text.trim_end_matches(['\0', '\n'])),
            Err(e) => report.unknown("selinux label", &e),
        }
    }
}

/// A directory or file of the host that is open inside is a way out (CVE-2024-21626). Standard streams, descriptors
/// that were to be kept, pipes, sockets and the like are none.
fn descriptors(plan: &Plan, reader: &Reader, container: &Container, report: &mut Report) -> Result<()> {
    if !plan.namespaces.has(Kind::Mount) {
        return Ok(());
    }
    let descriptors = match reader.descriptors() {
        Ok(list) => list,
        Err(e) => {
            report.unknown("descriptors", &e);
            return Ok(());
        }
    };
    let inside: Vec<u64> = mounts::read(reader)?.iter().map(|m| m.id).collect();
    let kept = 3 + container.record.preserve_fds as i32;
    for (number, st, mount) in descriptors {
        let kind = match st.st_mode & libc::S_IFMT {
            libc::S_IFDIR => "directory",
            // An inode without a link may live in memory alone (memfd_create(2)).
            libc::S_IFREG if number >= kept && st.st_nlink > 0 => "file",
            _ => continue,
        };
        let is_kept = (3..kept).contains(&number);
        if !is_kept && !inside.contains(&mount) {
            report.differs(
                format!("descriptor {number}"),
                "none outside the container's mounts",
                format!("a {kind} on mount {mount}, which is not the container's"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_applied() {
        let map = map("         0     100000       1000\n      5000       1000          1\n");
        assert_eq!(map, [(0, 100_000, 1000), (5000, 1000, 1)]);
        assert_eq!(
            (outside(&map, 7), outside(&map, 5000), outside(&map, 1000)),
            (Some(100_007), Some(1000), None)
        );
    }
}
