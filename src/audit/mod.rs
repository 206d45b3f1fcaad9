//! `audit`: what a running container is, read back from the kernel and compared with the plan of its config.
//!
//! Nothing here decides what a container should be (that is `plan`), and nothing here changes anything. The process is
//! known by its pidfd, before and after; its files are read through one descriptor of its /proc directory, which means
//! this process or none; and what lies below its root is looked up without leaving that root.

mod cgroup;
pub mod mounts;
mod namespaces;
mod privileges;
mod reader;

use serde::Serialize;

use crate::bundle::{self, Bundle};
use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::{Options, Plan};

use self::reader::Reader;

/// One fact that is not what the plan says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub what: String,
    pub planned: String,
    pub found: String,
}

/// What was found out about one container.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub differences: Vec<Difference>,
    /// What the plan says and the kernel does not tell this caller.
    pub not_compared: Vec<String>,
}

impl Report {
    /// Compares one fact.
    fn fact(&mut self, what: &str, planned: impl ToString, found: impl ToString) {
        let (planned, found) = (planned.to_string(), found.to_string());
        if planned != found {
            self.differences.push(Difference { what: what.to_owned(), planned, found });
        }
    }

    fn differs(&mut self, what: impl Into<String>, planned: impl Into<String>, found: impl Into<String>) {
        self.differences.push(Difference { what: what.into(), planned: planned.into(), found: found.into() });
    }

    fn unknown(&mut self, what: &str, why: &Error) {
        self.not_compared.push(format!("{what}: {}", why.what()));
    }
}

/// Compares a container that runs (or is paused) with its plan.
pub fn audit(container: &Container) -> Result<Report> {
    match container.status()? {
        Status::Running | Status::Paused => {}
        Status::Created => {
            return Err(Error::new(
                "the container is created and not started: it is confined when it starts",
            ));
        }
        Status::Creating | Status::Stopped => return Err(Error::new("container not running")),
    }
    let pidfd = container.process()?.ok_or_else(|| Error::new("container not running"))?;
    let reader = Reader::open(container.record.pid)?;
    // The directory that was opened by number is this process's, if the process of the record lives after that.
    still_there(container)?;
    let plan = plan(container)?;
    let mut report = Report::default();
    privileges::compare(&plan, &reader, container, &mut report)?;
    namespaces::compare(&plan, &reader, &pidfd, container, &mut report)?;
    mounts::compare(&plan, &reader, &mut report)?;
    cgroup::compare(&plan, &reader, container, &mut report)?;
    still_there(container)?;
    Ok(report)
}

fn still_there(container: &Container) -> Result<()> {
    match container.process()? {
        Some(_) => Ok(()),
        None => Err(Error::new("the container ended while it was read")),
    }
}

/// The plan of the config as it was at create, made for whoever made the container.
fn plan(container: &Container) -> Result<Plan> {
    let record = &container.record;
    let raw = container.entry.config()?;
    let (spec, warnings) = bundle::parse(&raw)?;
    let bundle = Bundle { dir: record.bundle.clone(), spec, raw, warnings };
    let options = Options {
        no_pivot: false,
        no_new_keyring: record.no_new_keyring,
        preserve_fds: record.preserve_fds,
        systemd_cgroup: record.cgroup.unit.is_some(),
    };
    let mut host = Host::look(&bundle.spec, &options)?;
    if record.owner != host.euid {
        let st = crate::sys::path::stat(container.entry.dir(), std::path::Path::new(""))?;
        (host.euid, host.egid, host.rootless) = (record.owner, st.st_gid, record.owner != 0);
    }
    Plan::new(&record.id, &bundle, &options, &host)
}
