//! `docker-archive:`, what `docker save` writes, read in all its forms.
//!
//! `manifest.json` lists images: a configuration, names and layers, each a name in the archive (`ID/layer.tar`, a link
//! to another such, `DIGEST.tar`, or `blobs/sha256/HEX`). There is no manifest in it that could be kept: one is made,
//! always the same for the same archive. What digests say is checked by who receives the bytes.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, MediaType};
use serde::Deserialize;
use serde_json::json;

use super::archive::Archive;
use super::{LONGEST_MANIFEST, Source};
use crate::error::{Error, Result};
use crate::image::digest::{self, Hasher};
use crate::image::manifest::LONGEST_CONFIG;
use crate::image::reference::{self, Reference};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// One image of an archive.
#[derive(Debug)]
pub struct DockerArchive {
    archive: Arc<Archive>,
    manifest: (Descriptor, Vec<u8>),
    blobs: HashMap<Digest, String>,
}

impl DockerArchive {
    /// The image with a name; without one, the only image.
    pub fn open(file: &Path, name: Option<&Reference>) -> Result<Self> {
        let archive = Arc::new(Archive::open(file)?);
        let items = items(&archive).map_err(|e| e.context(file.display()))?;
        let known =
            || items.iter().flat_map(names).map(|name| name.familiar()).collect::<Vec<_>>().join(", ");
        let item = match (name, &items[..]) {
            (None, [only]) => only,
            (None, []) => return Err(Error::new(format!("{} holds no image", file.display()))),
            (None, _) => {
                return Err(Error::new(format!("{} holds several images", file.display()))
                    .next(format!("name one of them: {}", known())));
            }
            (Some(name), _) => items.iter().find(|item| names(item).contains(name)).ok_or_else(|| {
                Error::new(format!("{} holds no image {name}", file.display()))
                    .next(format!("it has: {}", known()))
            })?,
        };
        Self::of(&archive, item).map_err(|e| e.context(file.display()))
    }

    fn of(archive: &Arc<Archive>, item: &Item) -> Result<Self> {
        let config = archive.bytes(&item.config, LONGEST_CONFIG as usize)?;
        let config_digest = digest::of(&config);
        let read: ImageConfiguration =
            serde_json::from_slice(&config).map_err(|e| Error::new(format!("{}: {e}", item.config)))?;
        let diff_ids = read.rootfs().diff_ids();
        let layers = item.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != layers.len() {
            let (ids, layers) = (diff_ids.len(), layers.len());
            return Err(Error::new(format!("manifest.json lists {layers} layers, the configuration {ids}")));
        }
        let mut blobs = HashMap::from([(config_digest.clone(), item.config.clone())]);
        let mut descriptors = Vec::new();
        for (name, diff_id) in layers.iter().zip(diff_ids) {
            let (media_type, digest) = layer(archive, name, diff_id)?;
            descriptors.push(Descriptor::new(media_type, archive.size(name)?, digest.clone()));
            blobs.insert(digest, name.clone());
        }
        let document = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": Descriptor::new(MediaType::ImageConfig, config.len() as u64, config_digest),
            "layers": descriptors,
        });
        let bytes = document.to_string().into_bytes();
        let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest::of(&bytes));
        Ok(Self { archive: archive.clone(), manifest: (descriptor, bytes), blobs })
    }
}

/// Every image of an archive with its names.
pub fn images(archive: Archive) -> Result<Vec<(Vec<Reference>, DockerArchive)>> {
    let archive = Arc::new(archive);
    items(&archive)?.iter().map(|item| Ok((names(item), DockerArchive::of(&archive, item)?))).collect()
}

fn items(archive: &Archive) -> Result<Vec<Item>> {
    if !archive.has("manifest.json") && archive.has("repositories") {
        return Err(Error::new("the archive was written by a Docker before 1.10, and has no manifest.json")
            .next("load it into a newer Docker or Podman and save it again"));
    }
    let bytes = archive
        .bytes("manifest.json", LONGEST_MANIFEST)
        .map_err(|e| e.why("what `docker save` writes has a manifest.json"))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("manifest.json: {e}")))
}

fn names(item: &Item) -> Vec<Reference> {
    item.repo_tags.iter().flatten().filter_map(|tag| Reference::parse(tag).ok()).collect()
}

/// What a layer is, and its digest: an uncompressed layer's is its diff ID, which is not computed here again.
fn layer(archive: &Archive, name: &str, diff_id: &str) -> Result<(MediaType, Digest)> {
    let mut bytes = archive.read(name, 0)?;
    let failed = |e: std::io::Error| Error::io(format_args!("{name} in the archive"), &e);
    let mut magic = Vec::new();
    (&mut bytes).take(4).read_to_end(&mut magic).map_err(failed)?;
    let media_type = match magic[..] {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => return Ok((MediaType::ImageLayer, reference::digest(diff_id)?)),
    };
    let mut hash = Hasher::sha256();
    hash.update(&magic);
    let mut buf = vec![0; 128 << 10];
    loop {
        match bytes.read(&mut buf).map_err(failed)? {
            0 => return Ok((media_type, hash.finish())),
            n => hash.update(&buf[..n]),
        }
    }
}

impl Source for DockerArchive {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        match digest {
            Some(digest) if digest != self.manifest.0.digest() => {
                Err(Error::new(format!("the archive has no manifest {digest}")))
            }
            _ => Ok(self.manifest.clone()),
        }
    }

    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        let digest = descriptor.digest();
        let name =
            self.blobs.get(digest).ok_or_else(|| Error::new(format!("the archive has no blob {digest}")))?;
        self.archive.read(name, offset)
    }
}
