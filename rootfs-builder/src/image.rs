//! An image: its configuration and its layers as uncompressed blobs, before any layout.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::archive;
use crate::blob::{self, Blob};
use crate::entry::Mtime;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::recipe::{ConfigRecipe, Recipe};

#[derive(Debug, Clone)]
pub struct Image {
    pub tag: Option<String>,
    pub arch: String,
    /// The time of everything around the layers.
    pub mtime: Mtime,
    pub config: Blob,
    /// Uncompressed: their digests are the diff IDs.
    pub layers: Vec<Blob>,
}

/// image-spec config.md#properties; the order of the fields is the order of the keys.
#[derive(Serialize)]
struct Document<'a> {
    created: String,
    architecture: &'a str,
    os: &'a str,
    config: Execution<'a>,
    rootfs: RootfsIds,
    history: Vec<History>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    env: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
}

/// Go's `map[string]struct{}`.
#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct RootfsIds {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Serialize)]
struct History {
    created: String,
    created_by: String,
}

pub fn make(recipe: &Recipe, layers: &[Layer], arch: &str, mtime: Mtime) -> Result<Image> {
    let layers = layers.iter().map(layer_blob).collect::<Result<Vec<_>>>()?;
    let created = rfc3339(mtime.secs)?;
    let history = |index: usize| History {
        created: created.clone(),
        created_by: format!("rootfs-builder: layer {}", index + 1),
    };
    let document = Document {
        created: created.clone(),
        architecture: arch,
        os: "linux",
        config: execution(&recipe.config),
        rootfs: RootfsIds { kind: "layers", diff_ids: layers.iter().map(Blob::digest).collect() },
        history: (0..layers.len()).map(history).collect(),
    };
    let config = Blob::of(json(&document)?);
    Ok(Image { tag: recipe.tag.clone(), arch: arch.into(), mtime, config, layers })
}

fn layer_blob(layer: &Layer) -> Result<Blob> {
    match &layer.verbatim {
        None => blob::spool(|mut out| archive::write(&layer.entries, &mut out)),
        Some(file) => {
            let len =
                file.metadata().map_err(|error| Error::new(format!("cannot stat a tarball: {error}")))?.len();
            let data = crate::entry::Data::Range { file: file.clone(), offset: 0, len };
            blob::spool(|mut out| data.copy_to(&mut out))
        }
    }
}

fn execution(config: &ConfigRecipe) -> Execution<'_> {
    Execution {
        user: config.user.as_deref(),
        exposed_ports: config.exposed_ports.iter().map(|port| (port.as_str(), Empty {})).collect(),
        env: &config.env,
        entrypoint: &config.entrypoint,
        cmd: &config.cmd,
        volumes: config.volumes.iter().map(|path| (path.as_str(), Empty {})).collect(),
        working_dir: config.workdir.as_deref(),
        labels: &config.labels,
        stop_signal: config.stop_signal.as_deref(),
    }
}

pub fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::new(format!("cannot write JSON: {error}")))
}

/// Seconds since 1970 as `2023-11-14T22:13:20Z` (RFC 3339 has four digits for the year).
fn rfc3339(secs: i64) -> Result<String> {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is the last one; 146097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return Err(
            Error::new(format!("the time {secs} is beyond the year 9999")).next("set SOURCE_DATE_EPOCH")
        );
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(secs).unwrap(), text);
        }
        assert!(rfc3339(253_402_300_800).is_err());
    }
}
