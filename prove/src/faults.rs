//! Makes every system call of create, run and exec fail, one at a time, with each of six errors. Whatever then ends
//! with 0 must have confined its program as the config says: the program is the probe, and what it reads is compared
//! with what it reads without a fault.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::config::Which;
use crate::names;
use crate::place::DIR;
use crate::tally::Tally;
use crate::trace::{Deed, End, Entry};
use crate::worker::Worker;

const ERRORS: [(i32, &str); 6] = [
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EMFILE, "EMFILE"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EINTR, "EINTR"),
    (libc::EPERM, "EPERM"),
];

pub fn prove(worker: &mut Worker) -> io::Result<()> {
    for (verb, which) in [
        ("create", Which::Probe),
        ("create", Which::RichProbe),
        ("run", Which::Probe),
        ("exec", Which::Plain),
        ("exec", Which::Rich),
    ] {
        let series = format!("faults in {verb}, {}", which.name());
        if !worker.options.wants(&series) {
            continue;
        }
        worker.configure(which)?;
        let mut tally = Tally::new(series);
        let right = match trial(worker, verb, 0, 0)? {
            Trial { end: End::Exited(0), report: Some(report), .. } => report,
            other => {
                return Err(io::Error::other(format!(
                    "{verb} undisturbed: {other:?} {}",
                    worker.place.said()
                )));
            }
        };
        worker.conclude(&mut tally, false)?;
        for (errno, name) in ERRORS {
            every_point(worker, verb, (errno, name), &right, &mut tally)?;
        }
        println!("{}", tally.line());
    }
    Ok(())
}

#[derive(Debug)]
struct Trial {
    end: End,
    /// The call that failed, if the verb came so far.
    failed: Option<Entry>,
    /// What the probe saw, if it ran.
    report: Option<Value>,
    /// How a create ended that went well: the code of its start.
    started: Option<i32>,
}

fn every_point(
    worker: &mut Worker,
    verb: &str,
    (errno, name): (i32, &str),
    right: &Value,
    tally: &mut Tally,
) -> io::Result<()> {
    for point in 1.. {
        if !worker.is_mine(point) {
            continue;
        }
        let trial = trial(worker, verb, point, errno)?;
        let mut faults = Vec::new();
        match (&trial.end, &trial.report) {
            (End::Exited(0), Some(report)) => {
                tally.add("ended with 0 and the right confinement", u64::from(report == right));
                faults.extend(differences(right, report));
            }
            (End::Exited(0), None) if trial.started == Some(0) || trial.started.is_none() => {
                faults.push("ended with 0, and the program did not run".to_owned());
            }
            (End::Exited(0), None) => tally.add("failed in start", 1),
            (End::Exited(_), _) => {
                tally.add("were refused", 1);
                if worker.place.said().is_empty() {
                    tally.add("said nothing", 1);
                    faults.push("failed without a word".to_owned());
                }
            }
            _ => faults.push("hung".to_owned()),
        }
        if matches!(trial.end, End::Hung) {
            worker.tracer.kill_all();
        }
        faults.extend(worker.conclude(tally, false)?);
        match &trial.failed {
            None if matches!(trial.end, End::Exited(_)) && trial.report.is_some() => return Ok(()),
            None if faults.is_empty() => {}
            failed => {
                let call = failed.as_ref().map_or("?".to_owned(), |entry| names::name(entry.number));
                let whose = if failed.as_ref().is_some_and(|entry| entry.root) { "runtime" } else { "child" };
                worker.judge(tally, &format!("{name} at call {point}, {call} of the {whose}"), &faults);
            }
        }
    }
    Ok(())
}

/// What cannot fail, and what is not the runtime's any more.
fn is_spared(entry: &Entry) -> bool {
    const NEVER: [i64; 9] = [
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_umask,
        libc::SYS_getpid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
    ];
    entry.program || NEVER.contains(&entry.number)
}

/// One run of the verb in which the call of this number fails; 0: none.
fn trial(worker: &mut Worker, verb: &str, point: usize, errno: i32) -> io::Result<Trial> {
    let id = worker.place.id();
    let mut words = vec!["create", "--bundle", "bundle", "--pid-file", "files/pid", &id];
    // Without a pid file: the child has the runtime's memory.
    if verb == "run" {
        words = vec!["run", "--detach", "--bundle", "bundle", &id];
    }
    if verb == "exec" {
        worker.running()?;
        words = vec!["exec", "--pid-file", "files/pid", &id];
        words.extend(crate::config::PROBE);
    }
    let command = worker.place.traced(&words)?;
    let patience = worker.place.patience();
    let mut failed = None;
    let mut spared = false;
    let end = worker.tracer.follow(command, patience, |entry| {
        if entry.nth != point {
            return Deed::Go;
        }
        if is_spared(entry) {
            spared = true;
            return Deed::Go;
        }
        failed = Some(entry.clone());
        Deed::Fail(errno)
    })?;
    let (mut report, mut started) = (None, None);
    if matches!(end, End::Exited(_)) {
        worker.tracer.release();
    }
    if matches!(end, End::Exited(0)) && verb == "create" && !spared {
        started = worker.place.call(&mut worker.tracer, &["start", &id])?.code;
    }
    if matches!(end, End::Exited(0)) && started.unwrap_or(0) == 0 && !spared {
        report = read_report(Duration::from_secs(5));
    }
    // A call that is spared is no trial, and not the end either.
    Ok(Trial { end, failed, report, started: if spared { Some(-1) } else { started } })
}

/// What the probe printed, made comparable.
fn read_report(moment: Duration) -> Option<Value> {
    let deadline = Instant::now() + moment;
    while Instant::now() < deadline {
        let text = fs::read_to_string(format!("{DIR}/out")).unwrap_or_default();
        if let Ok(Value::Object(mut report)) = serde_json::from_str::<Value>(text.trim()) {
            settle(&mut report);
            return Some(Value::Object(report));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Takes out what is another one each time: numbers of processes, namespaces, mounts and keys, and what is in use.
fn settle(report: &mut Map<String, Value>) {
    for key in ["pid", "ppid", "pgid", "sid"] {
        report.remove(key);
    }
    report.get_mut("keyring").and_then(Value::as_object_mut).map(|keyring| keyring.remove("serial"));
    report.get_mut("cgroup").and_then(Value::as_object_mut).map(|cgroup| cgroup.remove("files"));
    if let Some(namespaces) = report.get_mut("namespaces").and_then(Value::as_object_mut) {
        for (kind, inode) in namespaces.iter_mut() {
            use std::os::unix::fs::MetadataExt as _;
            let own = fs::metadata(format!("/proc/self/ns/{kind}")).map(|meta| meta.ino()).unwrap_or(0);
            *inode = Value::Bool(inode.as_u64() == Some(own));
        }
    }
    for mount in report.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(mount) = mount.as_object_mut() {
            for key in ["id", "parent", "device", "peers", "optional"] {
                mount.remove(key);
            }
        }
    }
    for (list, volatile) in [("fds", "target"), ("devices", "inode")] {
        for (_, entry) in report.get_mut(list).and_then(Value::as_object_mut).into_iter().flatten() {
            entry.as_object_mut().map(|entry| entry.remove(volatile));
        }
    }
}

/// The paths at which two reports differ.
fn differences(right: &Value, wrong: &Value) -> Vec<String> {
    match (right, wrong) {
        (Value::Object(right), Value::Object(wrong)) => {
            let mut keys: Vec<&String> = right.keys().chain(wrong.keys()).collect();
            keys.sort();
            keys.dedup();
            let below = keys.into_iter().flat_map(|key| {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                differences(&of(right), &of(wrong)).into_iter().map(move |rest| format!("/{key}{rest}"))
            });
            below.collect()
        }
        _ if right == wrong => Vec::new(),
        (Value::Array(right), Value::Array(wrong)) => {
            let lost = right.iter().filter(|value| !wrong.contains(value)).map(|v| format!(" lost {v}"));
            let new = wrong.iter().filter(|value| !right.contains(value)).map(|v| format!(" has {v}"));
            lost.chain(new).collect()
        }
        _ => vec![format!(" ended with 0: {right} became {wrong}")],
    }
}
