//! The OCI layout (image-spec image-layout.md): blobs by digest, an index, and the file that says so.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::blob::{self, Blob, Compression};
use crate::entry::{Data, Entry, Kind, Meta, Mtime};
use crate::error::Result;
use crate::image::{Image, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    architecture: &'a str,
    os: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'a str,
    manifests: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayoutVersion {
    image_layout_version: &'static str,
}

/// The files of the layout, sorted, for a directory or a tar.
pub fn layout(image: &Image, compression: Compression) -> Result<Vec<Entry>> {
    let layers = image.layers.iter().map(|layer| compress(layer, compression));
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let layer_type = format!("{LAYER}{}", compression.suffix());
    let manifest = Blob::of(json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: descriptor(CONFIG, &image.config),
        layers: layers.iter().map(|layer| descriptor(&layer_type, layer)).collect(),
    })?);
    let index = Index { schema_version: 2, media_type: INDEX, manifests: vec![in_index(image, &manifest)] };
    let version = LayoutVersion { image_layout_version: "1.0.0" };

    let mut entries = vec![dir("blobs", image.mtime), dir("blobs/sha256", image.mtime)];
    // Two equal layers are one blob.
    let blobs: BTreeMap<&str, &Blob> =
        layers.iter().chain([&image.config, &manifest]).map(|blob| (blob.hex.as_str(), blob)).collect();
    entries.extend(
        blobs.iter().map(|(hex, blob)| file(format!("blobs/sha256/{hex}"), blob.data.clone(), image.mtime)),
    );
    entries.push(file("index.json".into(), Data::bytes(json(&index)?), image.mtime));
    entries.push(file("oci-layout".into(), Data::bytes(json(&version)?), image.mtime));
    Ok(entries)
}

fn compress(layer: &Blob, compression: Compression) -> Result<Blob> {
    match compression {
        Compression::None => Ok(layer.clone()),
        _ => blob::spool(|out| compression.write(out, |mut to| layer.data.copy_to(&mut to))),
    }
}

fn descriptor<'a>(media_type: &str, blob: &Blob) -> Descriptor<'a> {
    Descriptor {
        media_type: media_type.into(),
        digest: blob.digest(),
        size: blob.data.len(),
        annotations: BTreeMap::new(),
        platform: None,
    }
}

fn in_index<'a>(image: &'a Image, manifest: &Blob) -> Descriptor<'a> {
    Descriptor {
        annotations: image.tag.iter().map(|tag| (REF_NAME, tag.as_str())).collect(),
        platform: Some(Platform { architecture: &image.arch, os: "linux" }),
        ..descriptor(MANIFEST, manifest)
    }
}

fn dir(path: &str, mtime: Mtime) -> Entry {
    Entry { path: path.into(), kind: Kind::Dir, meta: Meta::root(0o755, mtime) }
}

pub fn file(path: String, data: Data, mtime: Mtime) -> Entry {
    Entry { path: path.into_bytes(), kind: Kind::File(data), meta: Meta::root(0o644, mtime) }
}
