//! An image goes out of the store: its blobs as they came, so that every digest stays, and its manifest last. What is
//! there already is not sent.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::manifest::{self, Document};
use super::progress::{Progress, Step};
use super::source::{Destination, LONGEST_MANIFEST};
use super::store::{Image, Store};
use super::{digest, made};
use crate::error::{Error, Result};

/// Sends an image, and names it there what the destination says.
pub fn push(store: &Store, image: &Image, to: &dyn Destination, progress: &dyn Progress) -> Result<()> {
    let lease = store.lease()?;
    let (manifest, bytes, parsed) = match store.complete_manifest(image) {
        Ok(manifest) => read(store, manifest)?,
        Err(incomplete) => remade(store, image)?.ok_or(incomplete)?,
    };
    let mut blobs: Vec<&Descriptor> = Vec::new();
    for blob in parsed.layers().iter().chain([parsed.config()]) {
        if !blobs.iter().any(|other| other.digest() == blob.digest())
            && !manifest::is_foreign(blob.media_type())
        {
            blobs.push(blob);
        }
    }
    lease.keep(&blobs.iter().map(|blob| blob.digest().clone()).collect::<Vec<_>>(), &[])?;
    for blob in &blobs {
        progress.step(blob.digest(), Step::Queued);
    }
    send_all(store, &blobs, to, progress)?;
    to.put_manifest(&manifest, &bytes, true)
}

fn read(store: &Store, manifest: Descriptor) -> Result<(Descriptor, Vec<u8>, ImageManifest)> {
    let bytes = store.read_blob(&manifest, LONGEST_MANIFEST)?;
    match manifest::parse(&bytes, Some(manifest.media_type()))? {
        Document::Manifest(parsed) => Ok((manifest, bytes, parsed)),
        Document::Index(_) => Err(Error::new(format!("{} is an index, and no manifest", manifest.digest()))),
    }
}

/// A manifest of our own for an image whose layers came with other images, compressed in another way: with the blobs
/// that they were unpacked from. The image stays the same, for its config does. `None`: such a blob is not there.
fn remade(store: &Store, image: &Image) -> Result<Option<(Descriptor, Vec<u8>, ImageManifest)>> {
    let (_, _, mut parsed) = read(store, image.manifest.clone())?;
    let mut layers = Vec::new();
    for (layer, chain) in parsed.layers().iter().zip(&image.chains) {
        let digest = match (store.blob(layer.digest())?, store.layer(chain)?) {
            (None, Some(there)) => there.meta.blob,
            _ => layer.digest().clone(),
        };
        let Some(mut blob) = store.blob(&digest)? else { return Ok(None) };
        let failed = |e: io::Error| Error::io(format_args!("blob {digest}"), &e);
        let size = blob.metadata().map_err(failed)?.len();
        let mut magic = [0; 4];
        let n = blob.read(&mut magic).map_err(failed)?;
        layers.push(Descriptor::new(made::layer_type(&magic[..n]), size, digest));
    }
    let mut config = parsed.config().clone();
    config.set_media_type(MediaType::ImageConfig);
    parsed.set_media_type(Some(MediaType::ImageManifest)).set_config(config).set_layers(layers);
    let bytes = manifest::sorted(&parsed)?;
    let manifest = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest::of(&bytes));
    Ok(Some((manifest, bytes, parsed)))
}

fn send_all(
    store: &Store,
    blobs: &[&Descriptor],
    to: &dyn Destination,
    progress: &dyn Progress,
) -> Result<()> {
    let queue = Mutex::new(blobs.iter().copied().collect::<VecDeque<_>>());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..to.at_once().min(blobs.len()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(blob) = next else { return };
                    if let Err(error) = send(store, blob, to, progress) {
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn send(store: &Store, blob: &Descriptor, to: &dyn Destination, progress: &dyn Progress) -> Result<()> {
    if to.has_blob(blob)? {
        progress.step(blob.digest(), Step::Exists);
        return Ok(());
    }
    let missing = || Error::new(format!("blob {} is not in the store", blob.digest()));
    let file = store.blob(blob.digest())?.ok_or_else(missing)?;
    let mut counted = Counted { inner: file, sent: 0, blob, progress };
    to.put_blob(blob, &mut counted).map_err(|e| e.context(format_args!("blob {}", blob.digest())))?;
    progress.step(blob.digest(), Step::Done);
    Ok(())
}

/// Bytes that say how many of them went.
struct Counted<'a, R> {
    inner: R,
    sent: u64,
    blob: &'a Descriptor,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sent += n as u64;
        self.progress.step(self.blob.digest(), Step::Uploading(self.sent, self.blob.size()));
        Ok(n)
    }
}
