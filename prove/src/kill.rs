//! Kills each verb at every system call that it, or any of its processes, makes.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::config::Which;
use crate::names;
use crate::tally::Tally;
use crate::trace::{Deed, End, Entry};
use crate::worker::Worker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// All processes that the verb has made, and the verb.
    All,
    /// The verb itself, whoever stands at the call; the others live on.
    Runtime,
    /// Whoever stands at the call, when it is not the verb; which must end by itself, and soon.
    Child,
}

const VERBS: [&str; 6] = ["create", "run", "start", "exec", "delete", "delete --force"];

pub fn prove(worker: &mut Worker) -> io::Result<()> {
    for which in [Which::Plain, Which::Rich] {
        for verb in VERBS {
            for (victim, whose) in
                [(Victim::All, "all"), (Victim::Runtime, "the runtime"), (Victim::Child, "the child")]
            {
                let series = format!("kill {} of {verb}, {}", whose, which.name());
                // delete has no child of its own but the hooks.
                if victim == Victim::Child && verb.starts_with("delete") && which == Which::Plain {
                    continue;
                }
                if worker.options.wants(&series) {
                    worker.configure(which)?;
                    let mut tally = Tally::new(series);
                    every_point(worker, verb, victim, &mut tally)?;
                    println!("{}", tally.line());
                }
            }
        }
    }
    Ok(())
}

fn every_point(worker: &mut Worker, verb: &str, victim: Victim, tally: &mut Tally) -> io::Result<()> {
    for point in 1.. {
        if !worker.is_mine(point) {
            continue;
        }
        prepare(worker, verb)?;
        let words = words(worker, verb);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = worker.place.traced(&words)?;
        let patience = worker.place.patience();
        let mut lent = false;
        let deed = |entry: &Entry| {
            lent |= entry.nth < point && lends(entry);
            if entry.nth == point { Deed::Halt } else { Deed::Go }
        };
        let end = worker.tracer.follow(command, patience, deed)?;
        let (mut faults, at) = match &end {
            End::Halted(entry) => {
                let whose = if entry.root { "runtime" } else { "child" };
                let at = format!("call {point}: {} of the {whose}", names::name(entry.number));
                (strike(worker, victim, entry), at)
            }
            End::Hung => {
                worker.tracer.kill_all();
                (Some(vec!["hung without being killed".into()]), format!("call {point}"))
            }
            // The last point was the one before. What is undisturbed must end well, too.
            End::Exited(code) => {
                worker.tracer.release();
                let fault = (*code != 0).then(|| format!("undisturbed: {code}: {}", worker.place.said()));
                (Some(fault.into_iter().collect()), format!("after {} calls", point - 1))
            }
        };
        let concluded = worker.conclude(tally, true)?;
        if let Some(faults) = &mut faults {
            faults.extend(concluded);
            tally.add("after memory was lent", u64::from(lent));
            if !matches!(end, End::Exited(_)) || !faults.is_empty() {
                worker.judge(tally, &at, faults);
            }
        }
        if matches!(end, End::Exited(_)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a child is made here that shares its maker's memory (clone3(2): the flags come first).
fn lends(entry: &Entry) -> bool {
    let flags = || {
        let memory = fs::File::open(format!("/proc/{}/mem", entry.pid)).ok()?;
        let mut flags = [0; 8];
        memory.read_exact_at(&mut flags, entry.args[0]).ok()?;
        Some(u64::from_ne_bytes(flags))
    };
    entry.number == libc::SYS_clone3 && flags().is_some_and(|flags| flags & libc::CLONE_VM as u64 != 0)
}

/// `None`: this victim does not exist at this point.
fn strike(worker: &mut Worker, victim: Victim, entry: &Entry) -> Option<Vec<String>> {
    let root = worker.tracer.root();
    match victim {
        Victim::All => worker.tracer.kill_all(),
        Victim::Runtime => worker.tracer.kill_one(root),
        Victim::Child if entry.root => {
            worker.tracer.kill_all();
            return None;
        }
        Victim::Child => {
            worker.tracer.kill_one(entry.pid);
            // An exit code is no matter: the child may have done all that the verb is for.
            if worker.place.wait(&mut worker.tracer, root).is_none() {
                return Some(vec!["the runtime hangs".into()]);
            }
        }
    }
    Some(Vec::new())
}

/// What there must be before the verb.
fn prepare(worker: &mut Worker, verb: &str) -> io::Result<()> {
    let id = worker.place.id();
    match verb {
        // Its first process belongs to the start, and is followed from its birth.
        "start" => {
            let command = worker.place.traced(&["create", "--bundle", "bundle", &id])?;
            let patience = worker.place.patience();
            match worker.tracer.follow(command, patience, |_| Deed::Go)? {
                End::Exited(0) => Ok(()),
                other => Err(io::Error::other(format!("create: {other:?}: {}", worker.place.said()))),
            }
        }
        "exec" | "delete --force" => worker.running(),
        "delete" => {
            worker.running()?;
            worker.must(&["kill", &id, "KILL"])?;
            // A delete of what has not quite ended is refused.
            for _ in 0..1000 {
                let state =
                    worker.place.command(&["state", &id])?.stdout(std::process::Stdio::piped()).output()?;
                if String::from_utf8_lossy(&state.stdout).contains("\"stopped\"") {
                    return Ok(());
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Err(io::Error::other("the container does not stop"))
        }
        _ => Ok(()),
    }
}

fn words(worker: &Worker, verb: &str) -> Vec<String> {
    let id = worker.place.id();
    let line = match verb {
        "create" => format!("create --bundle bundle --pid-file files/pid {id}"),
        // Without a pid file the plain one lends its memory to the child; the other one cannot, because of its hooks.
        "run" if worker.which == Which::Plain => format!("run --detach --bundle bundle {id}"),
        "run" => format!("run --detach --bundle bundle --pid-file files/pid {id}"),
        "exec" => format!("exec --pid-file files/pid {id} /bin/busybox true"),
        "delete --force" => format!("delete --force {id}"),
        _ => format!("{verb} {id}"),
    };
    line.split(' ').map(str::to_owned).collect()
}
