//! Loops of create, start, kill and delete; then many containers that run at once, stopped and deleted one by one.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::config::Which;
use crate::tally::Tally;
use crate::worker::Worker;

pub fn prove(worker: &mut Worker) -> io::Result<()> {
    if worker.options.wants("loops") {
        loops(worker)?;
    }
    // One worker alone: the figure is that of a caller who stops one after the other.
    if worker.options.wants("many") && worker.number == 0 {
        many(worker)?;
    }
    Ok(())
}

fn loops(worker: &mut Worker) -> io::Result<()> {
    worker.configure(Which::Plain)?;
    let mut tally = Tally::new(format!("loops, {} wide", worker.options.workers));
    let id = worker.place.id();
    for trial in (worker.number..worker.options.trials).step_by(worker.options.workers) {
        worker.running()?;
        worker.must(&["kill", &id, "KILL"])?;
        let faults = match delete_stopped(worker, &id) {
            Ok(()) => worker.audit.leftovers(),
            Err(e) => vec![e.to_string()],
        };
        worker.judge(&mut tally, &format!("loop {trial}"), &faults);
        worker.place.clear();
        if !faults.is_empty() {
            worker.conclude(&mut tally, false)?;
        }
    }
    println!("{}", tally.line());
    Ok(())
}

/// `delete` without force, which is refused until the process is gone. What dies needs a processor to do it: there is a
/// rest between two attempts.
fn delete_stopped(worker: &mut Worker, id: &str) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let call = worker.place.call(&mut worker.tracer, &["delete", id])?;
        if call.ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("delete: {call:?}: {}", worker.place.said())));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn many(worker: &mut Worker) -> io::Result<()> {
    worker.configure(Which::Plain)?;
    let count = worker.options.containers;
    let mut tally = Tally::new(format!("{count} running containers at once"));
    let mut ids = Vec::new();
    for number in 0..count {
        let id = format!("{}-{number}", worker.place.tag);
        let cgroup = format!("/{id}");
        worker.place.write_config(&crate::config::spec(Which::Plain, &cgroup))?;
        worker.must(&["run", "--detach", "--bundle", "bundle", &id])?;
        ids.push(id);
    }
    let begun = Instant::now();
    let (mut took, mut cost) = (Vec::new(), Vec::new());
    for id in &ids {
        let (one, before) = (Instant::now(), cpu_of_children()?);
        worker.must(&["kill", id, "KILL"])?;
        delete_stopped(worker, id)?;
        took.push(one.elapsed());
        cost.push(cpu_of_children()?.saturating_sub(before));
    }
    let all = begun.elapsed();
    let faults = worker.audit.leftovers();
    worker.judge(&mut tally, "all", &faults);
    let tenth = (count / 10).max(1);
    let ends = |all: &[Duration]| (median(&all[..tenth]), median(&all[count - tenth..]));
    let ((first, last), (first_cpu, last_cpu)) = (ends(&took), ends(&cost));
    println!(
        "{count} running containers: stopped and deleted in {:.2} s; the median of the first {tenth} took \
         {first:.1} ms and {first_cpu:.2} ms of CPU, of the last {tenth} {last:.1} ms and {last_cpu:.2} ms, load {}",
        all.as_secs_f64(),
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?")
    );
    if all > Duration::from_secs(15) {
        println!("FAILED {}: more than 15 s", tally.series);
        tally.add("failed", 1);
    }
    // With a cost that grows with the number of containers, the first would cost many times as much as the last.
    if first_cpu > 2.0 * last_cpu.max(0.5) || last_cpu > 2.0 * first_cpu.max(0.5) {
        println!("FAILED {}: the cost is not flat", tally.series);
        tally.add("failed", 1);
    }
    println!("{}", tally.line());
    Ok(())
}

/// In milliseconds.
fn median(part: &[Duration]) -> f64 {
    let mut sorted = part.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or(0.0, |middle| middle.as_secs_f64() * 1e3)
}

/// What all children that were waited for have used, and so the runtime and the container's own end (getrusage(2)).
fn cpu_of_children() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros =
        [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(micros.into_iter().sum::<i64>().try_into().unwrap_or(0)))
}
