//! `ps`: the processes of a container, through ps(1).

use clap::Args;

use super::Globals;
use crate::cgroup;
use crate::cli::log;
use crate::container::{Container, record::Id};
use crate::error::{Error, Result};

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
        let pids = cgroup::pids(&container.record.cgroup)?;
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
