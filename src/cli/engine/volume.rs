//! `jug volume`: directories that outlive containers, by their names. Making one for a container: `engine::volumes`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Global;
use super::each::place;
use super::format::Format;
use super::room::{names_in, prune_volumes, used_volumes};
use super::shown::{glob, inspected, print, size, tell};
use super::system::agreed;
use crate::container::record::rfc3339;
use crate::engine::container::remove_tree;
use crate::engine::place::{Place, io};
use crate::engine::{names, rootless};
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{self, path};

/// Beside a volume's files.
const LABELS: &str = "labels";

/// Volumes: list them, make and remove them
#[derive(Debug, Args)]
pub struct Volume {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Make a volume, if it is not there
#[derive(Debug, Args)]
struct Create {
    /// What keeps its files; there is `local` alone
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Label for whoever looks at it
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its name [default: an id]
    name: Option<String>,
}

/// Show everything about volumes
#[derive(Debug, Args)]
struct Inspect {
    /// A Go template such as '{{.Mountpoint}}', or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

/// List volumes
#[derive(Debug, Args)]
struct Ls {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json`, or a Go template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// dangling=BOOL, name=PATTERN, label=KEY[=VALUE]
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Remove volumes without a name that no container has
#[derive(Debug, Args)]
struct Prune {
    /// Also volumes that have a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes that no container has
#[derive(Debug, Args)]
struct Rm {
    /// Say nothing of volumes that are not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    names: Vec<String>,
}

impl Volume {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let place = place(global)?;
        // Files of a volume belong to the users of containers.
        rootless::enter()?;
        match self.verb {
            Verb::Create(verb) => verb.perform(&place),
            Verb::Inspect(verb) => verb.perform(&place),
            Verb::Ls(verb) => verb.perform(&place),
            Verb::Prune(verb) => verb.perform(&place),
            Verb::Rm(verb) => verb.perform(&place),
        }
    }
}

/// Where a volume's files are. Nothing is asked of the disk.
fn mountpoint(place: &Place, name: &str) -> Result<PathBuf> {
    names::check(name).map_err(|_| {
        Error::new(format!("{name:?} is no name for a volume"))
            .next("use letters, digits, _ . and -, two at least, the first a letter or a digit")
    })?;
    Ok(place.volumes().join(name).join("_data"))
}

/// A volume as Docker describes it; `None` where there is none.
fn described(place: &Place, name: &str) -> Result<Option<Value>> {
    let data = mountpoint(place, name)?;
    let made = match path::stat(sys::cwd(), &place.volumes().join(name)) {
        Ok(st) => rfc3339((st.st_mtime, 0)),
        Err(e) if e.errno() == libc::ENOENT => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(json!({
        "Name": name, "Driver": "local", "Mountpoint": data, "CreatedAt": made, "Scope": "local",
        "Labels": labels(place, name)?, "Options": {},
    })))
}

/// The labels that a volume was made with; they lie beside its files.
fn labels(place: &Place, name: &str) -> Result<BTreeMap<String, String>> {
    match host::read(place.volumes().join(name).join(LABELS)) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|e| Error::new(format!("the labels of the volume {name}: {e}"))),
        Err(e) if e.errno() == libc::ENOENT => Ok(BTreeMap::new()),
        Err(e) => Err(e),
    }
}

fn none(name: &str) -> Error {
    Error::new(format!("no such volume: {name}")).next("`jug volume ls` lists them")
}

impl Create {
    fn perform(self, place: &Place) -> Result<u8> {
        let name = self.name.map_or_else(names::id, Ok)?;
        let data = mountpoint(place, &name)?;
        let dir = data.parent().unwrap_or(Path::new("/"));
        place.make(dir)?;
        match std::fs::create_dir(&data) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(io(format_args!("mkdir({data:?})")))?;
                write_labels(&dir.join(LABELS), &self.label)?;
            }
        }
        print(&format!("{name}\n"))?;
        Ok(0)
    }
}

fn write_labels(file: &Path, said: &[String]) -> Result<()> {
    if said.is_empty() {
        return Ok(());
    }
    let labels: BTreeMap<&str, &str> =
        said.iter().map(|label| label.split_once('=').unwrap_or((label, ""))).collect();
    std::fs::write(file, json!(labels).to_string()).map_err(io(format_args!("write({file:?})")))
}

impl Inspect {
    fn perform(self, place: &Place) -> Result<u8> {
        let (mut all, mut code) = (Vec::new(), 0);
        for name in &self.names {
            match described(place, name).and_then(|found| found.ok_or_else(|| none(name))) {
                Ok(volume) => all.push(volume),
                Err(e) => {
                    tell(&format!("Error: {e}"));
                    code = 1;
                }
            }
        }
        print(&inspected(&all, self.format.as_deref())?)?;
        Ok(code)
    }
}

impl Ls {
    fn perform(self, place: &Place) -> Result<u8> {
        let used = used_volumes(place)?;
        let mut rows = Vec::new();
        for name in names_in(&place.volumes())? {
            let Some(text) = name.to_str() else { continue };
            if self.keeps(place, text, used.contains(&name))? {
                rows.extend(described(place, text)?);
            }
        }
        if self.quiet && self.format.is_none() {
            let names = rows.iter().filter_map(|row| row["Name"].as_str());
            print(&names.map(|name| format!("{name}\n")).collect::<String>())?;
            return Ok(0);
        }
        let columns = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
        print(&Format::parse(self.format.as_deref())?.list(&rows, &columns)?)?;
        Ok(0)
    }

    fn keeps(&self, place: &Place, name: &str, used: bool) -> Result<bool> {
        for filter in &self.filter {
            let kept = match filter.split_once('=') {
                Some(("dangling", "true" | "1")) => !used,
                Some(("dangling", "false" | "0")) => used,
                Some(("label", label)) => {
                    let (key, wanted) = label.split_once('=').map_or((label, None), |(k, v)| (k, Some(v)));
                    let found = labels(place, name)?;
                    found.get(key).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
                }
                Some(("name", pattern)) => name.contains(pattern) || glob(pattern, name),
                _ => {
                    return Err(Error::new(format!("invalid filter {filter:?}"))
                        .next("use dangling=BOOL, name=PATTERN or label=KEY[=VALUE]"));
                }
            };
            if !kept {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Prune {
    fn perform(self, place: &Place) -> Result<u8> {
        let which = if self.all { "volumes" } else { "volumes without a name" };
        if !self.force && !agreed(&format!("This removes all {which} that no container has."))? {
            return Ok(0);
        }
        let bytes = prune_volumes(place, self.all)?;
        print(&format!("Total reclaimed space: {}\n", size(bytes)))?;
        Ok(0)
    }
}

impl Rm {
    fn perform(self, place: &Place) -> Result<u8> {
        let mut code = 0;
        for name in &self.names {
            match self.remove(place, name) {
                Ok(()) => print(&format!("{name}\n"))?,
                Err(e) => {
                    tell(&format!("Error: {e}"));
                    code = 1;
                }
            }
        }
        Ok(code)
    }

    fn remove(&self, place: &Place, name: &str) -> Result<()> {
        if described(place, name)?.is_none() {
            return if self.force { Ok(()) } else { Err(none(name)) };
        }
        if used_volumes(place)?.contains(std::ffi::OsStr::new(name)) {
            return Err(Error::new(format!("volume {name} is in use")).next(format!(
                "`jug ps -a --filter volume={name}` shows by whom; remove those containers first"
            )));
        }
        remove_tree(&place.volumes().join(name))
    }
}
