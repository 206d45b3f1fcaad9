//! `jug images`: what is in the store.

use serde_json::{Value, json};

use super::Global;
use super::format::Format;
use super::shown::{ago, glob, id, print, size, time};
use crate::container::record::rfc3339;
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::image::store::{Image, repository};

/// List images
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Only images of this name, or pattern of names
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Also images that a newer one has taken the name from (they are shown anyway)
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// With a column of digests
    #[arg(long)]
    digests: bool,
    /// `table`, `json`, or a Go template such as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
}

impl Images {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let mut images = store.images()?;
        for filter in &self.filter {
            let keep = Filter::parse(filter, &store)?;
            images.retain(|image| keep.keeps(image));
        }
        let mut rows = Vec::new();
        for image in &images {
            rows.extend(self.rows(image, &store)?);
        }
        if self.quiet && self.format.is_none() {
            let mut ids: Vec<String> = Vec::new();
            for row in &rows {
                let id = row["ID"].as_str().unwrap_or_default().to_owned();
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
            return Ok(0);
        }
        let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID")];
        if self.digests {
            columns.insert(2, ("DIGEST", "Digest"));
        }
        columns.extend([("CREATED", "CreatedSince"), ("SIZE", "Size")]);
        print(&Format::parse(self.format.as_deref())?.list(&rows, &columns)?)?;
        Ok(0)
    }

    /// A row for each name; one with `<none>` where there is none.
    fn rows(&self, image: &Image, store: &crate::image::store::Store) -> Result<Vec<Value>> {
        let created = created(image);
        let row = |repository: &str, tag: &str, digest: &str| {
            json!({
                "Repository": repository, "Tag": tag, "ID": id(image.id.as_ref(), self.no_trunc), "Digest": digest,
                "CreatedSince": ago(created), "CreatedAt": rfc3339((created, 0)), "Size": size(image.size),
                "VirtualSize": size(image.size), "SharedSize": "N/A", "UniqueSize": "N/A", "Containers": "N/A",
            })
        };
        let names = store.names()?.into_iter().filter(|name| name.image == image.id);
        let mut rows = Vec::new();
        for name in names {
            let reference = Reference::parse(&name.name)?;
            if self.name.as_deref().is_none_or(|wanted| named(wanted, &reference)) {
                let short = reference.familiar();
                let digest = name.digest.to_string();
                // A name with a digest means that, whatever tag stands in it.
                let tag = reference.tag().filter(|_| reference.digest().is_none()).unwrap_or("<none>");
                rows.push(row(repository(&short), tag, &digest));
            }
        }
        if rows.is_empty() && self.name.is_none() {
            rows.push(row("<none>", "<none>", "<none>"));
        }
        Ok(rows)
    }
}

/// When an image was made, by its own word; else when it came. Seconds since 1970.
pub fn created(image: &Image) -> i64 {
    image.config.created().as_deref().and_then(time).unwrap_or(image.since)
}

/// Whether a name is meant by `alpine`, `alpine:3`, `docker.io/library/alpine` or a pattern.
fn named(wanted: &str, reference: &Reference) -> bool {
    let (full, short) = (reference.to_string(), reference.familiar());
    [full.as_str(), &short, repository(&full), repository(&short)].iter().any(|name| glob(wanted, name))
}

/// One `--filter`.
pub enum Filter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
    /// Made before, or after, a time.
    Before(i64),
    Since(i64),
}

impl Filter {
    pub fn parse(text: &str, store: &crate::image::store::Store) -> Result<Self> {
        let wrong = || {
            Error::new(format!("--filter {text:?} is unknown"))
                .next("use dangling=, reference=, label=, before=, since= or until=")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let when = |value: &str| store.find(value).map(|image| created(&image));
        Ok(match key {
            "dangling" => Self::Dangling(matches!(value, "true" | "1" | "True")),
            "reference" => Self::Reference(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "before" => Self::Before(when(value)?),
            "since" => Self::Since(when(value)?),
            "until" => Self::Before(until(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }

    pub fn keeps(&self, image: &Image) -> bool {
        match self {
            Self::Dangling(wanted) => (image.names.is_empty() && image.digests.is_empty()) == *wanted,
            Self::Reference(pattern) => image
                .names
                .iter()
                .any(|name| Reference::parse(name).is_ok_and(|reference| named(pattern, &reference))),
            Self::Label(key, wanted) => {
                let config = image.config.config().as_ref();
                let found =
                    config.and_then(|config| config.labels().as_ref()).and_then(|labels| labels.get(key));
                found.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| value == wanted))
            }
            Self::Before(time) => created(image) < *time,
            Self::Since(time) => created(image) > *time,
        }
    }
}

/// `24h`, `30m`, a time of RFC 3339, or seconds since 1970: seconds since 1970.
fn until(text: &str) -> Option<i64> {
    let now = crate::sys::process::now().0;
    let unit = |c| match c {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let relative = text
        .chars()
        .last()
        .and_then(unit)
        .and_then(|unit| Some(now - text[..text.len() - 1].parse::<i64>().ok()?.checked_mul(unit)?));
    relative.or_else(|| time(text)).or_else(|| text.parse().ok())
}
