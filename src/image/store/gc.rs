//! Garbage: what no image, name, pin or running pull names. Marked and renamed away while nobody else writes metadata,
//! unlinked after that, so that nobody waits for it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::image::Digest;

use super::lock::Wait;
use super::{Image, LONGEST_RECORD, Store, blob, boot_id, images, layer, unique};
use crate::error::{Error, Result};
use crate::image::digest;
use crate::sys::{fd, path};

/// What a collection removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    pub blobs: Vec<String>,
    pub layers: Vec<String>,
    /// Bytes of the blobs, and of the layers' files.
    pub bytes: u64,
}

/// What the store holds, in bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Usage {
    pub blobs: u64,
    pub layers: u64,
    /// Downloads that were broken off.
    pub partial: u64,
    /// Of blobs and layers, what nothing names.
    pub garbage: u64,
}

/// What a running pull will name, so that gc leaves it alone. Dropped or killed, it counts no more.
pub struct Lease<'s> {
    store: &'s Store,
    file: OwnedFd,
    name: String,
}

impl Store {
    /// A lease that keeps nothing yet.
    pub fn lease(&self) -> Result<Lease<'_>> {
        let _shared = self.shared()?;
        let name = format!("leases/{}", unique());
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_APPEND;
        let file = path::openat(self.root(), Path::new(&name), flags, 0o600)?;
        fd::flock(file.as_fd(), libc::LOCK_EX)?;
        Ok(Lease { store: self, file, name })
    }

    /// Removes what nothing names. Abandoned downloads stay for the next pull of the same, unless `partial`.
    pub fn gc(&self, partial: bool) -> Result<Collected> {
        let alone = self.alone()?;
        let collected = self.sweep(partial)?;
        drop(alone);
        self.empty_trash()?;
        Ok(collected)
    }

    /// Takes `names` away, then `images`, then collects. An image goes that nobody uses and that has no other name, or
    /// with `force` whatever its names; one that is used loses its names at most.
    pub fn remove(&self, names: &[String], images: &[Digest], force: bool) -> Result<Collected> {
        let alone = self.alone()?;
        for name in names {
            self.throw_away(&images::name_name(name))?;
        }
        let (all, pins) = (self.names()?, self.pins()?);
        for id in images {
            let mut left: Vec<_> = all.iter().filter(|name| name.image == *id).collect();
            if force {
                for name in left.drain(..) {
                    self.throw_away(&images::name_name(&name.name))?;
                }
            }
            if left.is_empty() && !pins.iter().any(|pin| pin.image == *id) {
                self.throw_away(&images::record_name(id)?)?;
            }
        }
        self.finish_removal(alone, false)
    }

    /// Removes images that have no name and that nobody uses, with `all` whatever their names, and of these the ones
    /// that `goes` says; then collects, abandoned downloads too. Nobody can name or use one of them in between.
    pub fn prune(&self, all: bool, goes: &dyn Fn(&Image) -> bool) -> Result<(Vec<Digest>, Collected)> {
        let alone = self.alone()?;
        let unused: Vec<Digest> =
            self.unused(all)?.into_iter().filter(|image| goes(image)).map(|image| image.id).collect();
        for name in self.names()?.iter().filter(|name| unused.contains(&name.image)) {
            self.throw_away(&images::name_name(&name.name))?;
        }
        for id in &unused {
            self.throw_away(&images::record_name(id)?)?;
        }
        Ok((unused, self.finish_removal(alone, true)?))
    }

    /// A name is gone for good before its image is, and that before its blobs are.
    fn finish_removal(&self, alone: OwnedFd, partial: bool) -> Result<Collected> {
        for directory in ["names", "images"] {
            self.sync_directory(Path::new(directory))?;
        }
        let collected = self.sweep(partial)?;
        drop(alone);
        self.empty_trash()?;
        Ok(collected)
    }

    /// After a boot: blobs and layers that no image names may have lost bytes. Blobs go back to where they are hashed
    /// again before they are used, layers go.
    pub(super) fn recover(&self) -> Result<()> {
        let now = boot_id()?;
        let same =
            |store: &Self| Ok::<_, Error>(store.read::<String>("boot").ok().flatten().as_ref() == Some(&now));
        if same(self)? {
            return Ok(());
        }
        let alone = self.alone()?;
        if same(self)? {
            return Ok(());
        }
        let marked = self.marked()?;
        for (algorithm, hex) in self.unmarked_blobs(&marked)? {
            let digest: Digest =
                format!("{algorithm}:{hex}").parse().map_err(|e| Error::new(format!("{e}")))?;
            let (from, to) = (format!("blobs/{algorithm}/{hex}"), blob::partial_name(&digest));
            path::renameat(self.root(), Path::new(&from), Path::new(&to), 0)?;
            std::fs::set_permissions(
                self.path().join(to),
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            )
            .map_err(|e| Error::new(format!("{from}: {e}")))?;
        }
        self.drop_passing_pins()?;
        self.sweep(false)?;
        self.write("boot", &now)?;
        drop(alone);
        self.empty_trash()
    }

    /// Everything that must stay: `blobs/sha256/HEX`, `layers/HEX`. A file of metadata that cannot be read ends the
    /// collection: who knows what it names.
    fn marked(&self) -> Result<HashSet<String>> {
        let mut marked = HashSet::new();
        for record in self.records()? {
            for held in &record.manifests {
                marked.insert(format!("blobs/{}", digest::path(held.manifest.digest())?));
                for blob in &held.blobs {
                    marked.insert(format!("blobs/{}", digest::path(blob)?));
                }
            }
            for chain in &record.layers {
                marked.insert(layer::directory(chain)?);
                // It may have come with another image, and then is the only form in which it can be sent.
                if let Ok(Some(layer)) = self.layer(chain) {
                    marked.insert(format!("blobs/{}", digest::path(&layer.meta.blob)?));
                }
            }
        }
        for name in self.list("leases")? {
            let name = format!("leases/{name}");
            let Some(file) = self.open_if_there(&name)? else { continue };
            if fd::flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB)? {
                path::remove_if_there(self.root(), Path::new(&name), 0)?;
                continue;
            }
            let text = fd::read_to_end(file.as_fd(), LONGEST_RECORD)?;
            marked.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Ok(marked)
    }

    /// Algorithm and digits of the blobs that nothing names.
    fn unmarked_blobs(&self, marked: &HashSet<String>) -> Result<Vec<(&'static str, String)>> {
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let names = self.list(&format!("blobs/{algorithm}"))?.into_iter();
            found.extend(
                names
                    .filter(|hex| !marked.contains(&format!("blobs/{algorithm}/{hex}")))
                    .map(|hex| (algorithm, hex)),
            );
        }
        Ok(found)
    }

    /// Renames everything that may go into the trash. The caller is alone.
    fn sweep(&self, partial: bool) -> Result<Collected> {
        let marked = self.marked()?;
        let mut collected = Collected::default();
        for (algorithm, hex) in self.unmarked_blobs(&marked)? {
            let name = format!("blobs/{algorithm}/{hex}");
            collected.bytes +=
                path::stat(self.root(), Path::new(&name)).map_or(0, |stat| stat.st_size as u64);
            self.throw_away(&name)?;
            collected.blobs.push(format!("{algorithm}:{hex}"));
        }
        for hex in self.list("layers")? {
            let name = format!("layers/{hex}");
            if !marked.contains(&name) {
                let meta = self.read::<super::Meta>(&format!("{name}/meta")).ok().flatten();
                collected.bytes += meta.map_or(0, |meta| meta.bytes);
                self.throw_away(&name)?;
                collected.layers.push(format!("sha256:{hex}"));
            }
        }
        self.sweep_staging(partial)?;
        for directory in ["blobs/sha256", "blobs/sha512", "layers"] {
            self.sync_directory(Path::new(directory))?;
        }
        Ok(collected)
    }

    /// What is in `staging` and under no lock was abandoned by somebody who was killed. Locks that nobody holds go,
    /// too.
    fn sweep_staging(&self, partial: bool) -> Result<()> {
        for entry in self.list("staging")? {
            let lock = entry.strip_suffix(".partial").map_or_else(
                || entry.clone(),
                // staging/blob-sha256-HEX.partial is under locks/blob-HEX.
                |name| format!("blob-{}", name.rsplit('-').next().unwrap_or_default()),
            );
            if (entry.ends_with(".partial") && !partial) || self.lock(&lock, Wait::No)?.is_none() {
                continue;
            }
            self.throw_away(&format!("staging/{entry}"))?;
        }
        for name in self.list("locks")? {
            if let Some(_lock) = self.lock(&name, Wait::No)? {
                path::remove_if_there(self.root(), Path::new(&format!("locks/{name}")), 0)?;
            }
        }
        Ok(())
    }

    /// The sizes of everything. The caller is alone.
    pub(super) fn measure(&self) -> Result<Usage> {
        let marked = self.marked()?;
        let mut usage = Usage::default();
        let size =
            |name: &str| path::stat(self.root(), Path::new(name)).map_or(0, |stat| stat.st_size as u64);
        for algorithm in ["sha256", "sha512"] {
            for hex in self.list(&format!("blobs/{algorithm}"))? {
                let name = format!("blobs/{algorithm}/{hex}");
                usage.blobs += size(&name);
                usage.garbage += if marked.contains(&name) { 0 } else { size(&name) };
            }
        }
        for hex in self.list("layers")? {
            let name = format!("layers/{hex}");
            let bytes = self.read::<super::Meta>(&format!("{name}/meta"))?.map_or(0, |meta| meta.bytes);
            usage.layers += bytes;
            usage.garbage += if marked.contains(&name) { 0 } else { bytes };
        }
        for entry in self.list("staging")?.iter().filter(|entry| entry.ends_with(".partial")) {
            usage.partial += size(&format!("staging/{entry}"));
        }
        Ok(usage)
    }

    /// Images that have no name and that nobody uses; with `all`, every image that nobody uses.
    pub fn unused(&self, all: bool) -> Result<Vec<Image>> {
        let pins = self.pins()?;
        let free = |image: &Image| !pins.iter().any(|pin| pin.image == image.id);
        let nameless = |image: &Image| image.names.is_empty() && image.digests.is_empty();
        Ok(self.images()?.into_iter().filter(|image| free(image) && (all || nameless(image))).collect())
    }
}

impl Lease<'_> {
    /// Keeps these blobs and layers from now on: look whether they are there after this.
    pub fn keep(&self, blobs: &[Digest], chains: &[Digest]) -> Result<()> {
        let mut lines = String::new();
        for blob in blobs {
            lines += &format!("blobs/{}\n", digest::path(blob)?);
        }
        for chain in chains {
            lines += &format!("{}\n", layer::directory(chain)?);
        }
        let _shared = self.store.shared()?;
        fd::write_all(self.file.as_fd(), lines.as_bytes())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let _ = path::remove_if_there(self.store.root(), Path::new(&self.name), 0);
    }
}
