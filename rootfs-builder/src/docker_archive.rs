//! The archive of `docker save`: `manifest.json` beside the configuration and the uncompressed layers.
//!
//! In the shape Docker wrote before it took to OCI layouts (`HEX.json`, `HEX/layer.tar`), which every engine still
//! loads.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::entry::{Data, Entry, Kind, Meta};
use crate::error::Result;
use crate::image::{Image, json};
use crate::oci::file;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// The files of the archive, sorted.
pub fn layout(image: &Image) -> Result<Vec<Entry>> {
    let layer_path = |hex: &str| format!("{hex}/layer.tar");
    let manifest = Manifest {
        config: format!("{}.json", image.config.hex),
        repo_tags: image.tag.iter().map(|tag| with_tag(tag)).collect(),
        layers: image.layers.iter().map(|layer| layer_path(&layer.hex)).collect(),
    };
    let mut files = BTreeMap::new();
    files.insert(manifest.config.clone(), image.config.data.clone());
    files.insert("manifest.json".into(), Data::bytes(json(&[manifest])?));
    files.extend(image.layers.iter().map(|layer| (layer_path(&layer.hex), layer.data.clone())));

    let mut entries = Vec::new();
    for (path, data) in files {
        if let Some(dir) = path.strip_suffix("/layer.tar") {
            let meta = Meta::root(0o755, image.mtime);
            entries.push(Entry { path: dir.into(), kind: Kind::Dir, meta });
        }
        entries.push(file(path, data, image.mtime));
    }
    Ok(entries)
}

/// Docker refuses a name without a tag here; a colon before the last slash belongs to a port.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.into() } else { format!("{name}:latest") }
}
