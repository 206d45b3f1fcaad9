//! Namespaces: which are the container's, and what their names and sysctls are.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::Report;
use super::reader::Reader;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::sys::clone::{Side, clone3, setns};
use crate::sys::{path, process, socket};

/// Longest answer of [`inside`].
const ANSWER: usize = 64 << 10;

pub fn compare(
    plan: &Plan,
    reader: &Reader,
    pidfd: &OwnedFd,
    container: &Container,
    report: &mut Report,
) -> Result<()> {
    for kind in Kind::ALL {
        let what = format!("{kind} namespace");
        match reader.identity(&format!("ns/{}", kind.file())) {
            Ok(found) => one(plan, kind, &what, found, report),
            // A kernel without this kind.
            Err(e) if e.errno() == libc::ENOENT && !plan.namespaces.has(kind) => {}
            Err(e) => report.unknown(&what, &e),
        }
    }
    if !plan.namespaces.time_offsets.is_empty() {
        offsets(plan, reader, report);
    }
    names_and_sysctls(plan, pidfd, container, report)
}

fn own(kind: Kind) -> Option<(u64, u64)> {
    identity(&Path::new("/proc/self/ns").join(kind.file()))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = path::open(path, libc::O_PATH).ok()?;
    let st = path::stat(file.as_fd(), Path::new("")).ok()?;
    Some((st.st_dev, st.st_ino))
}

fn one(plan: &Plan, kind: Kind, what: &str, found: (u64, u64), report: &mut Report) {
    let own = own(kind);
    let joined = plan.namespaces.join.iter().find(|(joined, _)| *joined == kind);
    if let Some((_, path)) = joined {
        match identity(path) {
            Some(wanted) if wanted != found => report.differs(
                what,
                format!("inode {} of {}", wanted.1, path.display()),
                format!("inode {}", found.1),
            ),
            Some(_) => {}
            None => report.not_compared.push(format!("{what}: {} is gone", path.display())),
        }
    } else if plan.namespaces.makes(kind) {
        if own == Some(found) {
            report.differs(what, "one of its own", format!("inode {}, the caller's", found.1));
        }
    } else if own.is_some_and(|own| own != found) {
        report.differs(what, "the caller's", format!("inode {}, another one", found.1));
    }
}

/// Lines of /proc/PID/timens_offsets: clock, seconds, nanoseconds.
fn offsets(plan: &Plan, reader: &Reader, report: &mut Report) {
    let text = match reader.text("timens_offsets") {
        Ok(text) => text,
        Err(e) => return report.unknown("time offsets", &e),
    };
    for (clock, seconds, nanoseconds) in &plan.namespaces.time_offsets {
        let line = text.lines().find_map(|line| line.strip_prefix(clock.as_str()));
        let found = line.unwrap_or("none").split_whitespace().collect::<Vec<_>>().join(" ");
        report.fact(&format!("clock {clock}"), format!("{seconds} {nanoseconds}"), found);
    }
}

/// These files show the reader's own namespaces: a child of ours joins the container's and reads the host's /proc.
fn names_and_sysctls(plan: &Plan, pidfd: &OwnedFd, container: &Container, report: &mut Report) -> Result<()> {
    let mut wanted: Vec<(String, String, String)> = Vec::new();
    for (what, file, value) in [
        ("hostname", "kernel/hostname", &plan.hostname),
        ("domainname", "kernel/domainname", &plan.domainname),
    ] {
        if let Some(value) = value {
            wanted.push((what.to_owned(), file.to_owned(), value.clone()));
        }
    }
    for (file, value) in &plan.sysctl {
        wanted.retain(|(_, other, _)| other != file);
        wanted.push((format!("sysctl {}", file.replace('/', ".")), file.clone(), value.clone()));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let kinds = [Kind::User, Kind::Ipc, Kind::Uts, Kind::Network];
    let flags = kinds.map(Kind::flag).iter().sum::<i32>() & container.record.namespaces;
    let files: Vec<&str> = wanted.iter().map(|(_, file, _)| file.as_str()).collect();
    match inside(pidfd, flags, &files) {
        Err(e) => report.unknown("hostname and sysctls", &e),
        Ok(found) => {
            for ((what, _, value), found) in wanted.iter().zip(found) {
                match found {
                    Some(found) => report.fact(what, words(value), words(&found)),
                    None => report.not_compared.push(format!("{what}: it cannot be read")),
                }
            }
        }
    }
    Ok(())
}

/// The kernel parts the values of a sysctl by tabs.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Files below /proc/sys as a process in these namespaces sees them.
fn inside(pidfd: &OwnedFd, flags: i32, files: &[&str]) -> Result<Vec<Option<String>>> {
    let (ours, theirs) = socket::pair()?;
    match clone3(0, None)? {
        Side::Child => {
            drop(ours);
            let read = || -> Result<Vec<u8>> {
                setns(pidfd.as_fd(), flags)?;
                let values: Vec<Option<String>> = files
                    .iter()
                    .map(|file| crate::host::read(Path::new("/proc/sys").join(file)).ok())
                    .collect();
                serde_json::to_vec(&values).map_err(|e| Error::new(e.to_string()))
            };
            let sent = read().and_then(|answer| socket::send(theirs.as_fd(), &answer, None));
            process::exit_now(i32::from(sent.is_err()))
        }
        Side::Parent(child) => {
            drop(theirs);
            let heard = socket::receive(ours.as_fd(), ANSWER);
            process::wait(child.pidfd.as_fd(), true)?;
            serde_json::from_slice(&heard?.0).map_err(|_| Error::new("its namespaces cannot be joined"))
        }
    }
}
