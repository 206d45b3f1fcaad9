//! Images and their names: small files of JSON, each written whole. They are read without a lock.

use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};
use serde::{Deserialize, Serialize};

use super::{LONGEST_RECORD, Store};
use crate::error::{Error, Result};
use crate::image::digest;
use crate::image::hello;
use crate::image::layer::Form;
use crate::image::reference::{Reference, is_short};
use crate::sys::{path, process};

/// An image, whole: every layer is there.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its config.
    pub id: Digest,
    /// Its names, `docker.io/library/alpine:latest`, sorted.
    pub names: Vec<String>,
    /// The names with the digest they had, `docker.io/library/alpine@sha256:...`, sorted.
    pub digests: Vec<String>,
    /// The manifest of the name that was asked for, else the newest.
    pub manifest: Descriptor,
    pub config: ImageConfiguration,
    /// The directories or EROFS images of its layers, bottom first.
    pub layers: Vec<PathBuf>,
    /// The chain IDs of its layers, bottom first.
    pub chains: Vec<Digest>,
    /// Bytes of its files, unpacked.
    pub size: u64,
    /// The highest user or group that owns one of them.
    pub highest_id: u32,
    /// When it came, in seconds since 1970.
    pub since: i64,
    /// Where it came from, as a reference to pull again: absent where it was loaded or made here.
    pub source: Option<String>,
}

/// What `images/HEX` holds. It names everything that the image consists of, so that gc reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: Digest,
    /// Of the same config, with differently compressed layers; the newest is last.
    pub manifests: Vec<Held>,
    /// Chain IDs, bottom first.
    pub layers: Vec<Digest>,
    pub since: i64,
    pub source: Option<String>,
    /// What its layers became when it was pulled, and shall be when they are brought again.
    #[serde(default)]
    pub form: Form,
}

/// A manifest and the blobs that it names, the config's among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub manifest: Descriptor,
    pub blobs: Vec<Digest>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// `docker.io/library/alpine:latest`, or with `@sha256:...`.
    pub name: String,
    pub image: Digest,
    pub manifest: Digest,
    /// What the source answered to the name: the manifest, or the index it was chosen from.
    pub digest: Digest,
}

/// Who uses an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub owner: String,
    pub image: Digest,
}

/// What a pull brought.
pub struct Arrival<'a> {
    pub manifest: &'a Descriptor,
    pub parsed: &'a ImageManifest,
    pub chains: &'a [Digest],
    /// Layers were unpacked, though the image may have been there: it was damaged.
    pub unpacked: bool,
    /// What its layers became, where they were not there before.
    pub form: Form,
    pub source: Option<String>,
    /// The name, and what the source answered to it.
    pub name: Option<(&'a str, &'a Digest)>,
}

impl Store {
    /// Makes everything that was received durable, and then an image of it. Its blobs and layers are there, under the
    /// caller's lease.
    pub fn commit(&self, arrival: &Arrival<'_>) -> Result<Image> {
        let id = arrival.parsed.config().digest();
        let layers = arrival.parsed.layers().iter().map(|layer| layer.digest().clone());
        let blobs = std::iter::once(id.clone()).chain(layers).collect();
        let held = Held { manifest: arrival.manifest.clone(), blobs };
        let name = record_name(id)?;
        let before: Option<Record> = self.read(&name)?;
        let mut record = before.clone().unwrap_or_else(|| Record {
            id: id.clone(),
            manifests: Vec::new(),
            layers: arrival.chains.to_vec(),
            since: process::now().0,
            source: None,
            form: arrival.form,
        });
        record.manifests.retain(|other| other.manifest.digest() != held.manifest.digest());
        record.manifests.push(held);
        record.source = arrival.source.clone().or(record.source);
        if before.as_ref() != Some(&record) || arrival.unpacked {
            self.barrier()?;
        }
        let shared = self.shared()?;
        if before.as_ref() != Some(&record) {
            self.write(&name, &record)?;
        }
        if let Some((name, digest)) = arrival.name {
            self.name(name, id, arrival.manifest.digest(), digest)?;
        }
        drop(shared);
        let mut image = self.image(id)?;
        image.manifest = arrival.manifest.clone();
        Ok(image)
    }

    /// Writes a name, where it does not say the same already. The caller shares the store's lease.
    fn name(&self, name: &str, image: &Digest, manifest: &Digest, digest: &Digest) -> Result<()> {
        let wanted = Name {
            name: name.to_owned(),
            image: image.clone(),
            manifest: manifest.clone(),
            digest: digest.clone(),
        };
        if self.named(name)?.as_ref() == Some(&wanted) {
            Ok(())
        } else {
            self.write(&name_name(name), &wanted)
        }
    }

    /// Gives an image another name, which may have meant another image until now.
    pub fn tag(&self, image: &Image, name: &str) -> Result<()> {
        let _shared = self.shared()?;
        self.record(&image.id)?;
        let manifest = image.manifest.digest();
        self.name(name, &image.id, manifest, manifest)
    }

    /// What a name means.
    pub fn named(&self, name: &str) -> Result<Option<Name>> {
        self.read(&name_name(name))
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = self.all::<Name>("names")?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    /// An image by its id.
    pub fn image(&self, id: &Digest) -> Result<Image> {
        self.look(self.record(id)?, &self.names()?)
    }

    /// The image that people mean: by name (with Docker's defaults, else of this machine, `localhost/NAME`), by name
    /// and digest, by id or by the beginning of one. The image that jug carries is put there when it is asked for.
    pub fn find(&self, text: &str) -> Result<Image> {
        self.find_named(text).map(|(image, _)| image)
    }

    /// The same, and the name by which it was found, unless that was an id.
    pub fn find_named(&self, text: &str) -> Result<(Image, Option<Name>)> {
        let names = self.names()?;
        if let Ok(wanted) = Reference::parse(text) {
            let local = Reference::parse(&format!("localhost/{text}")).ok().filter(|_| is_short(text));
            for wanted in std::iter::once(&wanted).chain(&local) {
                if let Some(name) = names.iter().find(|name| means(name, wanted)) {
                    let mut image = self.look(self.record(&name.image)?, &names)?;
                    image.manifest = self.held_manifest(&name.image, &name.manifest)?;
                    return Ok((image, Some(name.clone())));
                }
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let mut found = self.list("images")?;
        found.retain(|id| hex.len() >= 2 && id.starts_with(hex));
        match found.as_slice() {
            [id] => {
                let id = self.read::<Record>(&format!("images/{id}"))?.ok_or_else(|| unknown(text))?;
                Ok((self.look(id, &names)?, None))
            }
            [] if hello::is_meant(text) => Ok((hello::bring(self)?, self.named(hello::NAME)?)),
            [] => Err(unknown(text)),
            several => Err(Error::new(format!("{text} is the beginning of {} image ids", several.len()))),
        }
    }

    /// All images, the newest first. One that is damaged is an error; `fsck` says more.
    pub fn images(&self) -> Result<Vec<Image>> {
        let names = self.names()?;
        let records = self.records()?.into_iter();
        let mut images: Vec<Image> =
            records.map(|record| self.look(record, &names)).collect::<Result<_>>()?;
        images.sort_by(|a, b| (b.since, &a.names, &a.id.digest()).cmp(&(a.since, &b.names, &b.id.digest())));
        Ok(images)
    }

    /// Keeps an image while `owner` (the id of a container) uses it. `durable`: past a crash of the machine, too. What
    /// nobody will run again needs that not: its pin is a link, which is there whole or not at all without any
    /// fsync(2), and the first who opens the store after a boot throws it out (`gc::recover`).
    pub fn pin(&self, image: &Image, owner: &str, durable: bool) -> Result<()> {
        let _shared = self.shared()?;
        self.record(&image.id)?;
        let name = pin_name(owner)?;
        if durable {
            return self.write(&name, &Pin { owner: owner.to_owned(), image: image.id.clone() });
        }
        path::symlinkat(Path::new(&image.id.to_string()), self.root(), Path::new(&name))
    }

    pub fn unpin(&self, owner: &str) -> Result<()> {
        let _shared = self.shared()?;
        let name = pin_name(owner)?;
        path::remove_if_there(self.root(), Path::new(&name), 0).map(drop)
    }

    /// Who uses what.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        self.list("pins")?.iter().filter_map(|owner| self.pinned(owner).transpose()).collect()
    }

    /// The pin of one owner, if there is one.
    pub(super) fn pinned(&self, owner: &str) -> Result<Option<Pin>> {
        let name = format!("pins/{owner}");
        match path::readlinkat(self.root(), Path::new(&name)) {
            Ok(image) => {
                let image = image.to_string_lossy().parse();
                let image = image.map_err(|e| Error::new(format!("{name} names no image: {e}")))?;
                Ok(Some(Pin { owner: owner.to_owned(), image }))
            }
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(_) => self.read(&name),
        }
    }

    /// Throws out the pins that were not to outlive a boot.
    pub(super) fn drop_passing_pins(&self) -> Result<()> {
        for owner in self.list("pins")? {
            let name = format!("pins/{owner}");
            if path::readlinkat(self.root(), Path::new(&name)).is_ok() {
                path::remove_if_there(self.root(), Path::new(&name), 0)?;
            }
        }
        Ok(())
    }

    /// One of the manifests of an image.
    pub fn held_manifest(&self, id: &Digest, manifest: &Digest) -> Result<Descriptor> {
        let mut held = self.record(id)?.manifests.into_iter().map(|held| held.manifest);
        held.find(|other| other.digest() == manifest)
            .ok_or_else(|| Error::new(format!("image {id} has no manifest {manifest}")))
    }

    /// A manifest of the image whose blobs are all here: its own where that is so, else the newest.
    pub fn complete_manifest(&self, image: &Image) -> Result<Descriptor> {
        let held = self.record(&image.id)?.manifests;
        let own = held.iter().filter(|held| held.manifest.digest() == image.manifest.digest());
        for held in own.chain(held.iter().rev()) {
            let there = held.blobs.iter().map(|blob| Ok(self.blob(blob)?.is_some()));
            if there.collect::<Result<Vec<_>>>()?.into_iter().all(|there| there) {
                return Ok(held.manifest.clone());
            }
        }
        Err(Error::new(format!("image {} has not all blobs of any of its manifests", image.id))
            .why("its layers came with other images, compressed in another way")
            .next("remove it and those, and pull it again"))
    }

    pub(super) fn record(&self, id: &Digest) -> Result<Record> {
        self.read(&record_name(id)?)?.ok_or_else(|| Error::new(format!("image {id} is not in the store")))
    }

    pub(super) fn records(&self) -> Result<Vec<Record>> {
        self.all("images")
    }

    /// Every file of a directory. One that goes away while we look is passed over.
    fn all<T: serde::de::DeserializeOwned>(&self, directory: &str) -> Result<Vec<T>> {
        let names = self.list(directory)?.into_iter();
        names.filter_map(|name| self.read(&format!("{directory}/{name}")).transpose()).collect()
    }

    fn look(&self, record: Record, names: &[Name]) -> Result<Image> {
        let held = record.manifests.last().ok_or_else(|| Error::new("an image without a manifest"))?;
        let own = || names.iter().filter(|name| name.image == record.id);
        let mut layers = Vec::new();
        let (mut size, mut highest_id) = (0, 0);
        for chain in &record.layers {
            let layer = self.layer(chain)?.ok_or_else(|| missing(&record.id, chain))?;
            size += layer.meta.bytes;
            highest_id = layer.meta.highest_id.max(highest_id);
            layers.push(layer.path);
        }
        let mut digests: Vec<String> =
            own().map(|name| format!("{}@{}", repository(&name.name), name.digest)).collect();
        digests.sort();
        digests.dedup();
        let config = self.read_config(&record.id)?;
        Ok(Image {
            names: own().map(|name| name.name.clone()).filter(|name| !name.contains('@')).collect(),
            digests,
            manifest: held.manifest.clone(),
            config,
            layers,
            chains: record.layers,
            size,
            highest_id,
            since: record.since,
            source: record.source,
            id: record.id,
        })
    }

    fn read_config(&self, id: &Digest) -> Result<ImageConfiguration> {
        let missing = || Error::new(format!("the config {id} is not in the store"));
        let file = self.blob(id)?.ok_or_else(missing)?;
        let bytes = crate::sys::fd::read_to_end(std::os::fd::AsFd::as_fd(&file), LONGEST_RECORD)?;
        if digest::of(&bytes) != *id && id.algorithm().as_ref() == "sha256" {
            return Err(Error::new(format!("the config {id} is damaged")).next("jug system fsck --repair"));
        }
        serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("the config {id}: {e}")))
    }
}

/// Whether a name is the one wanted; a digest counts more than a tag, as everywhere.
fn means(name: &Name, wanted: &Reference) -> bool {
    match wanted.digest() {
        None => name.name == wanted.to_string(),
        Some(digest) => {
            repository(&name.name) == wanted.name() && (name.digest == *digest || name.manifest == *digest)
        }
    }
}

fn unknown(text: &str) -> Error {
    Error::new(format!("{text}: no such image"))
        .next(format!("jug pull {text}, or jug images for what is here"))
}

fn missing(image: &Digest, chain: &Digest) -> Error {
    Error::new(format!("layer {chain} of image {image} is not in the store"))
        .next("jug system fsck --repair fetches it again")
}

/// A name without its tag or digest.
pub fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

pub(super) fn record_name(id: &Digest) -> Result<String> {
    digest::path(id).map(|_| format!("images/{}", id.digest()))
}

pub(super) fn name_name(name: &str) -> String {
    format!("names/{}", digest::of(name.as_bytes()).digest())
}

fn pin_name(owner: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if owner.is_empty() || owner.starts_with('.') || owner.len() > 200 || !owner.chars().all(plain) {
        return Err(Error::new(format!("{owner:?} cannot own an image")));
    }
    Ok(format!("pins/{owner}"))
}
