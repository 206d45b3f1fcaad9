//! `audit`: a running container, read back from the kernel and compared with its plan. jug's own.

use clap::Args;

use super::Globals;
use crate::audit;
use crate::cli::log;
use crate::container::{Container, record::Id};
use crate::error::{Error, Result};

/// Compare a running container with its plan (jug's own)
///
/// Reads a running container's first process back from the kernel and compares it with the plan of its config as it
/// was at create. Prints each difference as a line; nothing where there is none.
///
/// Compared are: user and group ids and id maps; additional groups; namespaces, made or joined (by inode); time
/// offsets; the five capability sets after execve(2); no_new_privs; seccomp mode and number of filters; rlimits of the
/// config; umask, OOM score, personality; AppArmor and SELinux labels; the root (read-only, propagation); each mount of
/// the config (type, flags, size of a tmpfs), and any mount that it does not name; masked and read-only paths; the
/// cgroup and each limit in it, and that the device program is there; host name, domain name and sysctls; open
/// descriptors that lead to files or directories of the host.
///
/// Not compared are: the source of a bind mount and what lies below a recursive one, the contents of the seccomp filter
/// and the device program, environment and working directory, which are the program's to change.
///
/// Exit status: 0 where all is as planned, 1 where something differs, 2 where the container cannot be audited.
#[derive(Debug, Args)]
pub struct Audit {
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// Name of the container
    #[arg(value_name = "container-id")]
    id: String,
}

/// The exit code of an audit that found something.
const DIFFERS: i32 = 1;

impl Audit {
    pub fn perform(self, globals: &Globals) -> Result<i32> {
        if !["text", "json"].contains(&self.format.as_str()) {
            return Err(
                Error::new(format!("invalid format option {:?}", self.format)).next("use text or json")
            );
        }
        let id = Id::new(&self.id)?;
        let report = audit::audit(&Container::load(&globals.root()?, &id)?)?;
        let equal = report.differences.is_empty();
        if self.format == "json" {
            let object = serde_json::json!({
                "id": id.as_str(),
                "equal": equal,
                "differences": report.differences,
                "notCompared": report.not_compared,
            });
            let text = serde_json::to_string_pretty(&object)
                .map_err(|e| Error::new(format!("writing the report: {e}")))?;
            log::print(&(text + "\n"));
        } else {
            report.not_compared.iter().for_each(|what| log::warn(&format!("not compared: {what}")));
            for d in &report.differences {
                // A name of the container's stays on its line.
                let (planned, found) = (d.planned.escape_debug(), d.found.escape_debug());
                log::print(&format!("{}: planned {planned}, found {found}\n", d.what.escape_debug()));
            }
        }
        Ok(if equal { 0 } else { DIFFERS })
    }
}
