//! An image goes out of the store: its blobs as they came, so that every digest stays, and its manifest last. What is
//! there already is not sent.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Descriptor;

use super::manifest::{self, Document};
use super::progress::{Progress, Step};
use super::source::{Destination, LONGEST_MANIFEST};
use super::store::{Image, Store};
use crate::error::{Error, Result};

/// How many blobs are sent at once.
const JOBS: usize = 4;

/// Sends an image, and names it there what the destination says.
pub fn push(store: &Store, image: &Image, to: &dyn Destination, progress: &dyn Progress) -> Result<()> {
    let lease = store.lease()?;
    let manifest = store.complete_manifest(image)?;
    let bytes = store.read_blob(&manifest, LONGEST_MANIFEST)?;
    let Document::Manifest(parsed) = manifest::parse(&bytes, Some(manifest.media_type()))? else {
        return Err(Error::new(format!("{} is an index, and no manifest", manifest.digest())));
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

fn send_all(
    store: &Store,
    blobs: &[&Descriptor],
    to: &dyn Destination,
    progress: &dyn Progress,
) -> Result<()> {
    let queue = Mutex::new(blobs.iter().copied().collect::<VecDeque<_>>());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(blobs.len()) {
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
