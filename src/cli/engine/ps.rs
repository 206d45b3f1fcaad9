//! `ps`: the containers, as a table.

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::each::place;
use super::format::Format;
use crate::cli::log;
use crate::engine::container::{Container, Status};
use crate::engine::quantity;
use crate::error::{Error, Result};
use crate::sys::process;

/// List containers
#[derive(Debug, Args)]
pub struct Ps {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// The newest N, running or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// The newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// id=, name=, label=, status=, ancestor=, exited=, volume=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template such as '{{.ID}} {{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

impl Ps {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let format = Format::parse(self.format.as_deref())?;
        let filters = self.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
        let last = if self.latest { Some(1) } else { self.last };
        // Who asks for a status means also those that do not run.
        let all = self.all
            || last.is_some()
            || filters.iter().any(|filter| ["status", "exited"].contains(&filter.key));
        let mut rows = Vec::new();
        for container in Container::all(&place(global)?)? {
            // It may go away while it is looked at.
            let Ok(status) = container.status() else { continue };
            let shown = (all || status.is_up()) && Filter::all_match(&filters, &container, &status);
            if shown && last.is_none_or(|n| rows.len() < n) {
                rows.push(self.row(&container, &status)?);
            }
        }
        if self.quiet && self.format.is_none() {
            rows.iter().for_each(|row| log::print(&format!("{}\n", row["ID"].as_str().unwrap_or(""))));
            return Ok(0);
        }
        log::print(&format.list(&rows, &COLUMNS)?);
        Ok(0)
    }

    fn row(&self, container: &Container, status: &Status) -> Result<Value> {
        let record = &container.record;
        let created = quantity::seconds_of(&record.created).unwrap_or(0);
        let labels: Vec<String> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let network = record.settings.network.as_deref().unwrap_or("private");
        let mounts = record.volumes.iter().chain(&record.settings.volume);
        Ok(json!({
            "ID": if self.no_trunc { &record.id } else { &record.id[..12] },
            "Image": record.image,
            "Command": format!("\"{}\"", self.command(&record.args)),
            "CreatedAt": record.created,
            "RunningFor": format!("{} ago", quantity::ago(process::now().0 - created)),
            "Status": container.status_words(status)?,
            "State": status.word(),
            "Ports": "",
            "Names": record.name,
            "Labels": labels.join(","),
            "Networks": network,
            "Mounts": mounts.cloned().collect::<Vec<_>>().join(","),
            "LocalVolumes": record.volumes.len().to_string(),
        }))
    }

    /// Twenty characters, as docker's.
    fn command(&self, args: &[String]) -> String {
        let whole = args.join(" ").replace(['\n', '\t'], " ");
        if self.no_trunc || whole.chars().count() <= 20 {
            return whole;
        }
        whole.chars().take(19).chain(['…']).collect()
    }
}

struct Filter<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> Filter<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Error::new(format!("--filter: {text:?} is not KEY=VALUE")))?;
        let known = ["id", "name", "label", "status", "ancestor", "exited", "volume"];
        if !known.contains(&key) {
            return Err(Error::new(format!("invalid filter {key:?}"))
                .next(format!("use one of {}", known.join(", "))));
        }
        Ok(Self { key, value })
    }

    /// Of filters with one key one has to match, labels apart.
    fn all_match(filters: &[Filter], container: &Container, status: &Status) -> bool {
        filters.iter().all(|filter| {
            let alike = filters.iter().filter(|other| other.key == filter.key && filter.key != "label");
            filter.matches(container, status)
                || alike.into_iter().any(|other| other.matches(container, status))
        })
    }

    fn matches(&self, container: &Container, status: &Status) -> bool {
        let record = &container.record;
        match self.key {
            "id" => record.id.starts_with(self.value),
            "name" => record.name.contains(self.value.trim_start_matches('^').trim_end_matches('$')),
            "label" => match self.value.split_once('=') {
                Some((key, value)) => record.labels.get(key).is_some_and(|found| found == value),
                None => record.labels.contains_key(self.value),
            },
            "status" => status.word() == self.value,
            "ancestor" => {
                record.image == self.value
                    || record.image_id.trim_start_matches("sha256:").starts_with(self.value)
            }
            "exited" => matches!(status, Status::Exited { code, .. } if self.value == code.to_string()),
            "volume" => {
                record.settings.volume.iter().chain(&record.volumes).any(|volume| volume.contains(self.value))
            }
            _ => false,
        }
    }
}
