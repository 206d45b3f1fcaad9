//! `ps`: the containers, as a table.

use clap::Args;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::Global;
use super::each::place;
use super::format::Format;
use crate::cli::log;
use crate::engine::container::{Container, Status};
use crate::engine::place::Place;
use crate::engine::quantity;
use crate::error::{Error, Result};
use crate::image::reference::Reference;
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
    /// id=, name=PATTERN, label=KEY[=VALUE], status=, ancestor=IMAGE, exited=CODE, volume=, network=, before=, since=
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
        let place = place(global)?;
        let filters =
            self.filter.iter().map(|text| Filter::parse(&place, text)).collect::<Result<Vec<_>>>()?;
        let last = if self.latest { Some(1) } else { self.last };
        // Who asks for a status means also those that do not run.
        let all = self.all
            || last.is_some()
            || filters.iter().any(|filter| matches!(filter.test, Test::Status(_) | Test::Exited(_)));
        let mut rows = Vec::new();
        for container in Container::all(&place)? {
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
            "Pid": container.pid()?.unwrap_or(0),
            "ExitCode": if let Status::Exited { code, .. } = status { *code } else { 0 },
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

/// A regular expression, found anywhere in a name.
fn regex(text: &str) -> Result<Regex> {
    const MOST_BYTES: usize = 1 << 20;
    RegexBuilder::new(text).size_limit(MOST_BYTES).build().map_err(|e| {
        // The first lines draw where in the text it is.
        let why = e.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Error::new(format!("--filter: {text:?} is no regular expression")).why(why)
    })
}

struct Filter<'a> {
    key: &'a str,
    test: Test<'a>,
}

enum Test<'a> {
    Id(&'a str),
    Name(Regex),
    Label(&'a str, Option<&'a str>),
    NoLabel(&'a str, Option<&'a str>),
    Status(&'a str),
    /// By its canonical name, and by the beginning of its id.
    Ancestor(&'a str, Option<Reference>),
    Exited(i32),
    Volume(&'a str),
    Network(&'a str),
    /// Made before this time, or after it.
    Before(String),
    Since(String),
}

impl<'a> Filter<'a> {
    fn parse(place: &Place, text: &'a str) -> Result<Self> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Error::new(format!("--filter: {text:?} is not KEY=VALUE")))?;
        let label = || value.split_once('=').map_or((value, None), |(key, value)| (key, Some(value)));
        let test = match key {
            "id" => Test::Id(value),
            "name" => {
                // Docker's own names begin with a slash.
                let bare = value.strip_prefix("^/").map(|rest| format!("^{rest}"));
                Test::Name(regex(bare.as_deref().unwrap_or(value.trim_start_matches('/')))?)
            }
            "label" => Test::Label(label().0, label().1),
            "label!" => Test::NoLabel(label().0, label().1),
            "status" => {
                let known = ["created", "running", "paused", "exited"];
                // What Docker has besides is never so here.
                if !known.contains(&value) && !["restarting", "removing", "dead"].contains(&value) {
                    return Err(Error::new(format!("--filter: {value:?} is no status"))
                        .next(format!("use one of {}", known.join(", "))));
                }
                Test::Status(value)
            }
            "ancestor" => Test::Ancestor(value, Reference::parse(value).ok()),
            "exited" => Test::Exited(
                value.parse().map_err(|_| Error::new(format!("--filter: {value:?} is no exit code")))?,
            ),
            "volume" => Test::Volume(value),
            "network" => Test::Network(value),
            "before" => Test::Before(Container::find(place, value)?.record.created),
            "since" => Test::Since(Container::find(place, value)?.record.created),
            _ => {
                return Err(Error::new(format!("invalid filter {key:?}")).next(
                    "use one of id, name, label, label!, status, ancestor, exited, volume, network, before, since",
                ));
            }
        };
        Ok(Self { key, test })
    }

    /// Of filters with one key one has to match, labels apart.
    fn all_match(filters: &[Filter], container: &Container, status: &Status) -> bool {
        filters.iter().all(|filter| {
            let alike =
                filters.iter().filter(|other| other.key == filter.key && !filter.key.starts_with("label"));
            filter.matches(container, status)
                || alike.into_iter().any(|other| other.matches(container, status))
        })
    }

    fn matches(&self, container: &Container, status: &Status) -> bool {
        let record = &container.record;
        let labelled = |key: &str, value: &Option<&str>| {
            record.labels.get(key).is_some_and(|found| value.is_none_or(|value| found == value))
        };
        match &self.test {
            Test::Id(id) => record.id.starts_with(id),
            Test::Name(pattern) => pattern.is_match(&record.name),
            Test::Label(key, value) => labelled(key, value),
            Test::NoLabel(key, value) => !labelled(key, value),
            Test::Status(word) => status.word() == *word,
            Test::Ancestor(said, name) => {
                record.image == *said
                    || name.is_some() && Reference::parse(&record.image).ok() == *name
                    || record
                        .image_id
                        .trim_start_matches("sha256:")
                        .starts_with(said.trim_start_matches("sha256:"))
            }
            Test::Exited(wanted) => matches!(status, Status::Exited { code, .. } if code == wanted),
            Test::Volume(said) => {
                record.settings.volume.iter().chain(&record.volumes).any(|volume| volume.contains(said))
            }
            Test::Network(said) => record.settings.network.as_deref().unwrap_or("private") == *said,
            Test::Before(time) => record.created < *time,
            Test::Since(time) => record.created > *time,
        }
    }
}
