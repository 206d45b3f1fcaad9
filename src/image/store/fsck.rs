//! Looking for damage: what metadata names and is not there, or is not as it should be. `deep` reads every byte. Repair
//! moves the damaged object into `quarantine`; the pull of the images that named it then brings it again.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::image::{Descriptor, Digest, ImageManifest};

use super::images::Record;
use super::{LONGEST_RECORD, Store, gc, images, layer, unique};
use crate::error::{Error, Result};
use crate::image::digest::{self, Hasher};
use crate::image::layer::{EROFS_NAME, Form, tree};
use crate::image::snapshot;
use crate::sys::{fd, path};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory below the store's root.
    pub path: String,
    /// A sentence.
    pub what: String,
    /// The ids of the images that cannot be used because of it.
    pub images: Vec<Digest>,
}

impl Store {
    /// Everything that is damaged.
    pub fn fsck(&self, deep: bool) -> Result<Vec<Damage>> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for id in self.list("images")? {
            let name = format!("images/{id}");
            match self.read::<Record>(&name) {
                Ok(None) => {}
                Ok(Some(record)) if record.id.digest() == id => {
                    self.check_image(&record, deep, &mut seen, &mut found)?
                }
                Ok(Some(_)) => found.push(damage(name, "it is the file of another image", None)),
                Err(error) => found.push(damage(name, error.what(), None)),
            }
        }
        let ids: HashSet<String> = self.list("images")?.into_iter().collect();
        for file in self.list("names")? {
            let path = format!("names/{file}");
            match self.read::<images::Name>(&path) {
                Ok(None) => {}
                Ok(Some(name)) if images::name_name(&name.name) != path => {
                    found.push(damage(path, "it is the file of another name", None));
                }
                Ok(Some(name)) if !ids.contains(name.image.digest()) => {
                    found.push(damage(
                        path,
                        &format!("{} names an image that is not there", name.name),
                        None,
                    ));
                }
                Ok(Some(_)) => {}
                Err(error) => found.push(damage(path, error.what(), None)),
            }
        }
        for owner in self.list("pins")? {
            let path = format!("pins/{owner}");
            match self.pinned(&owner) {
                Ok(Some(pin)) if !ids.contains(pin.image.digest()) => {
                    found.push(damage(path, &format!("{owner} uses an image that is not there"), None));
                }
                Ok(_) => {}
                Err(error) => found.push(damage(path, error.what(), None)),
            }
        }
        Ok(found)
    }

    fn check_image(
        &self,
        record: &Record,
        deep: bool,
        seen: &mut HashSet<String>,
        found: &mut Vec<Damage>,
    ) -> Result<()> {
        let mut note = |path: String, fault: Option<String>, first: bool| {
            // Another image has the same fault: it is told once, with both ids.
            if let Some(known) = found.iter_mut().find(|damage: &&mut Damage| damage.path == path) {
                known.images.push(record.id.clone());
            } else if let (Some(what), true) = (fault, first) {
                found.push(damage(path, &what, Some(&record.id)));
            }
        };
        for held in &record.manifests {
            let mut blobs: Vec<Descriptor> = vec![held.manifest.clone()];
            // The sizes are in the manifest, where that can be read.
            let manifest = self.read_blob(&held.manifest, LONGEST_RECORD).ok();
            let parsed = manifest.and_then(|bytes| serde_json::from_slice::<ImageManifest>(&bytes).ok());
            if let Some(manifest) = &parsed {
                blobs.push(manifest.config().clone());
                blobs.extend(manifest.layers().iter().cloned());
            }
            for blob in &blobs {
                let path = format!("blobs/{}", digest::path(blob.digest())?);
                let first = seen.insert(path.clone());
                let small = parsed.as_ref().is_some_and(|manifest| manifest.config() == blob);
                let fault = if first { self.blob_fault(blob, deep || small)? } else { None };
                // A layer that came with another image needs no blob of this one's compression.
                let needless = fault.as_deref() == Some(MISSING)
                    && parsed.as_ref().is_some_and(|manifest| manifest.layers().contains(blob))
                    && self.came_otherwise(record, blob.digest());
                note(path, fault.filter(|_| !needless), first);
            }
        }
        for chain in &record.layers {
            let path = layer::directory(chain)?;
            let first = seen.insert(path.clone());
            let fault = if first { self.layer_fault(chain, deep)? } else { None };
            note(path, fault, first);
        }
        Ok(())
    }

    /// Whether no layer of the image was unpacked from this blob.
    fn came_otherwise(&self, record: &Record, blob: &Digest) -> bool {
        let layers = record.layers.iter().map(|chain| self.layer(chain));
        layers.flatten().all(|layer| layer.is_some_and(|layer| layer.meta.blob != *blob))
    }

    fn blob_fault(&self, wanted: &Descriptor, deep: bool) -> Result<Option<String>> {
        let Some(file) = self.blob(wanted.digest())? else { return Ok(Some(MISSING.to_owned())) };
        let size = path::stat(file.as_fd(), Path::new(""))?.st_size as u64;
        if size != wanted.size() {
            return Ok(Some(format!("it has {size} bytes instead of {}", wanted.size())));
        }
        if !deep {
            return Ok(None);
        }
        let mut hasher = Hasher::like(wanted.digest())?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match fd::read(file.as_fd(), &mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) => return Ok(Some(error.what().to_owned())),
            }
        }
        let found = hasher.finish();
        Ok((found != *wanted.digest()).then(|| format!("its bytes have the digest {found}")))
    }

    fn layer_fault(&self, chain: &Digest, deep: bool) -> Result<Option<String>> {
        let layer = match self.layer(chain) {
            Ok(Some(layer)) => layer,
            Ok(None) => return Ok(Some(MISSING.to_owned())),
            Err(error) => return Ok(Some(error.what().to_owned())),
        };
        if !deep {
            return Ok(None);
        }
        // An image is read through the kernel. One that cannot says nothing about the layer.
        if layer.path.ends_with(EROFS_NAME) {
            snapshot::takes_images()?;
        }
        let found = match snapshot::root_of(&layer.path)
            .and_then(|root| tree::digest(root.as_fd(), &HashMap::new()))
        {
            Ok(found) => found,
            Err(error) => return Ok(Some(error.what().to_owned())),
        };
        Ok((found != layer.meta.tree)
            .then(|| format!("its files have the digest {found}, not {}", layer.meta.tree)))
    }

    /// Moves what is damaged aside, so that it counts as missing. Returns the new place of what there was to move.
    pub fn quarantine(&self, damage: &Damage) -> Result<Option<String>> {
        let _alone = self.alone()?;
        let to = format!("quarantine/{}-{}", unique(), damage.path.rsplit('/').next().unwrap_or_default());
        match path::renameat(self.root(), Path::new(&damage.path), Path::new(&to), libc::RENAME_NOREPLACE) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.errno() == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The manifest of an image by its id, whatever else of it is damaged, where it came from, and the form of its
    /// layers.
    pub fn origin(&self, id: &Digest) -> Result<(Descriptor, Option<String>, Form)> {
        let record = self.record(id)?;
        let held = record.manifests.into_iter().next_back();
        let manifest =
            held.map(|held| held.manifest).ok_or_else(|| Error::new("an image without a manifest"))?;
        Ok((manifest, record.source, record.form))
    }

    /// How much there is: bytes of blobs, of layers' files, and of abandoned downloads; and of these what gc would
    /// remove.
    pub fn usage(&self) -> Result<gc::Usage> {
        let _alone = self.alone()?;
        self.measure()
    }
}

/// The fault of what is not there.
const MISSING: &str = "it is missing";

fn damage(path: String, what: &str, image: Option<&Digest>) -> Damage {
    Damage { path, what: what.to_owned(), images: image.into_iter().cloned().collect() }
}
