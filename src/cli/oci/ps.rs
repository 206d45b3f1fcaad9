//! `ps`: the processes of a container, through ps(1).

use std::os::fd::AsFd as _;
use std::path::Path;

use clap::Args;

use super::Globals;
use crate::cgroup;
use crate::cli::log;
use crate::container::{Container, record::Id};
use crate::error::{Error, Result};
use crate::sys::{self, path};

/// Show the processes of a container
#[derive(Debug, Args)]
pub struct Ps {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
    /// Options for ps(1) [default: -ef]
    #[arg(value_name = "ps options", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        let id = Id::new(&self.id)?;
        let container = Container::load(&globals.root()?, &id)?;
        let mut pids = cgroup::pids(&container.record.cgroup)?;
        if pids.is_empty() {
            pids = Some(container.state()?.pid).filter(|pid| *pid > 0).map(of_namespace).unwrap_or_default();
        }
        match self.format.as_str() {
            "json" => {
                // Go's list of nobody is null, and so it is for those who read it.
                let pids = (!pids.is_empty()).then_some(pids);
                let text =
                    serde_json::to_string(&pids).map_err(|e| Error::new(format!("writing the list: {e}")))?;
                log::print(&(text + "\n"));
                Ok(0)
            }
            "table" => table(&pids, &self.options),
            other => Err(Error::new(format!("invalid format option {other:?}")).next("use table or json")),
        }
    }
}

/// Those of the PID namespace of a container that has no cgroup, an unprivileged user's; where it is ours too, its
/// first process alone. Who may not be asked is not of it.
fn of_namespace(init: i32) -> Vec<i32> {
    let of = |pid: &str| path::readlinkat(sys::cwd(), Path::new(&format!("/proc/{pid}/ns/pid"))).ok();
    let theirs = of(&init.to_string()).filter(|theirs| of("self").is_some_and(|own| own != *theirs));
    let proc = path::open(Path::new("/proc"), libc::O_RDONLY | libc::O_DIRECTORY);
    let names = proc.and_then(|proc| path::list(proc.as_fd())).unwrap_or_default();
    let pids =
        names.iter().filter_map(|name| name.to_str()).filter(|name| theirs.is_some() && of(name) == theirs);
    let mut pids: Vec<i32> = pids.filter_map(|name| name.parse().ok()).chain([init]).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn table(pids: &[i32], options: &[String]) -> Result<i32> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output = std::process::Command::new("ps").args(options).output().map_err(|e| {
        Error::call("running ps", e.raw_os_error().unwrap_or(0)).next("install procps, or use --format json")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(Error::new(format!("ps failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let mut lines = text.lines();
    let head = lines.next().unwrap_or("");
    let column = head.split_whitespace().position(|name| name == "PID").ok_or_else(|| {
        Error::new("couldn't find PID field in ps output").next("choose options that show it")
    })?;
    log::print(&format!("{head}\n"));
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            log::print(&format!("{line}\n"));
        }
    }
    Ok(0)
}
