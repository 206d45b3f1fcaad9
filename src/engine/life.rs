//! What is done to a container that exists: told to end, waited for, frozen, removed.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::container::{Container, Status};
use super::{attach, monitor};
use crate::container as oci;
use crate::container::record::Root;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{fd, signal, socket};

/// How long a monitor may take for what it has to do after an end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

fn records(container: &Container) -> Result<Root> {
    container.place.records()?.ok_or_else(|| not_running(container))
}

fn not_running(container: &Container) -> Error {
    Error::new(format!("container {} is not running", container.record.name))
}

/// Sends a signal to the program, or, by SIGKILL, to all processes.
pub fn kill(container: &Container, number: i32) -> Result<()> {
    if !container.status()?.is_up() {
        return Err(not_running(container));
    }
    // Without a cgroup the end of the first process is the end of the others, in a PID namespace of their own.
    let alone = host::is_rootless() && container.record.settings.pid.is_none();
    let all = number == libc::SIGKILL && !alone;
    let sent = oci::kill(&records(container)?, &container.oci_id()?, number, all);
    // It may have ended meanwhile, and even be gone.
    let ended = ["container not running", "container does not exist"];
    sent.map_err(|e| if ended.contains(&e.what()) { not_running(container) } else { e })
}

/// Asks the program to end, by its own signal or another one, and kills it after so many seconds (-1: never). A
/// container that does not run is no error.
pub fn stop(container: &Container, asked_by: Option<i32>, seconds: Option<i64>) -> Result<()> {
    let status = container.status()?;
    if !status.is_up() {
        return Ok(());
    }
    let settings = &container.record.settings;
    let seconds = seconds.or(settings.stop_timeout).unwrap_or(10);
    let own = || signal::number(&container.record.stop_signal);
    let number = asked_by.or_else(own).unwrap_or(libc::SIGTERM);
    if seconds != 0 {
        ignore_end(kill(container, number))?;
        if status == Status::Paused {
            let _ = pause(container, false);
        }
    }
    let time = u64::try_from(seconds).ok().map(Duration::from_secs);
    if seconds == 0 || !await_end(container, time)? {
        ignore_end(kill(container, libc::SIGKILL))?;
        if !await_end(container, Some(PATIENCE))? {
            return Err(Error::new(format!("container {} does not end", container.record.name))
                .why("its processes are in the middle of a system call that cannot be interrupted"));
        }
    }
    Ok(())
}

/// It may have ended just before.
fn ignore_end(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.what().ends_with("is not running") => Ok(()),
        other => other,
    }
}

/// Waits until the container has ended and that is written down; `false`: it has not within this time.
pub fn await_end(container: &Container, time: Option<Duration>) -> Result<bool> {
    let deadline = time.map(|time| Instant::now() + time);
    let process = container.oci()?.map(|container| container.process()).transpose()?.flatten();
    if let Some(pidfd) = process {
        let millis = time.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
        if !fd::poll(&[(pidfd.as_fd(), libc::POLLIN)], millis)?[0] {
            return Ok(false);
        }
    }
    let deadline = deadline.map(|deadline| deadline.max(Instant::now() + PATIENCE));
    while container.status()?.is_up() {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// The exit code, when there is one.
pub fn wait(container: &Container) -> Result<i32> {
    // Who removes itself leaves nothing to be read: its monitor says it to those who are attached.
    if container.record.settings.rm
        && let Ok(monitor) = socket::connect_packets(&container.path.join(monitor::ATTACH))
    {
        loop {
            match socket::receive(monitor.as_fd(), attach::LONGEST)?.0.split_first() {
                Some((b'x', code)) => return Ok(code.try_into().map_or(255, i32::from_le_bytes)),
                Some(_) => {}
                None => return Ok(255),
            }
        }
    }
    loop {
        match container.status()? {
            Status::Exited { code, .. } => return Ok(code),
            Status::Created if container.started()?.is_none() && container.record.settings.rm => {
                return Ok(255);
            }
            _ => {
                await_end(container, Some(PATIENCE))?;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Freezes the container, or thaws it.
pub fn pause(container: &Container, freeze: bool) -> Result<()> {
    let name = &container.record.name;
    match (container.status()?, freeze) {
        (Status::Running, true) | (Status::Paused, false) => {
            oci::pause(&records(container)?, &container.oci_id()?, freeze)
        }
        (Status::Paused, true) => Err(Error::new(format!("container {name} is already paused"))),
        (Status::Running, false) => Err(Error::new(format!("container {name} is not paused"))),
        _ => Err(not_running(container)),
    }
}

/// Removes a container; `force`: even one that runs.
pub fn remove(container: Container, force: bool, volumes: bool) -> Result<()> {
    // What is in the middle of its start has to come to its end first, on a busy machine too.
    let deadline = Instant::now() + 3 * PATIENCE;
    let mut failed = None;
    loop {
        let up = container.status()?.is_up();
        let name = &container.record.name;
        if up && !force {
            return Err(Error::new(format!("cannot remove container {name}: it is running"))
                .next("stop it first, or use rm -f"));
        }
        if container.lock()? {
            return container.remove(volumes);
        }
        // What is still being made is let through first: the runtime takes a process that is killed at birth for the
        // kernel's trap, and bears it once more. It may have borne it just then: so a kill that fails is tried again.
        if up && !is_being_made(&container)? {
            failed = ignore_end(kill(&container, libc::SIGKILL)).err();
        }
        if Instant::now() > deadline {
            if let Some(failed) = failed {
                return Err(failed);
            }
            return Err(Error::new(format!("cannot remove container {name}: another process works on it")));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The runtime is at work on it, and has not said yet that it runs.
fn is_being_made(container: &Container) -> Result<bool> {
    let status = container.oci()?.map(|container| container.status()).transpose()?;
    Ok(status == Some(oci::Status::Creating))
}
