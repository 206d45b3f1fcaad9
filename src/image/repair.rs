//! A damaged image is pulled again: what the store still has of it comes from there, the rest from where it came from.

use std::io::Read;

use oci_spec::image::{Descriptor, Digest};

use super::manifest::{self, Document};
use super::progress::Progress;
use super::pull::{Options, platform_of, pull};
use super::reference::Transport;
use super::source::{self, Access, LONGEST_MANIFEST, Source};
use super::store::{Image, Receive, Store};
use crate::error::{Error, Result};

/// The store's own blobs, and behind them the source that the image came from.
struct Remains<'a> {
    store: &'a Store,
    manifest: Descriptor,
    origin: Option<Box<dyn Source>>,
}

impl Remains<'_> {
    fn origin(&self, what: &Digest) -> Result<&dyn Source> {
        self.origin.as_deref().ok_or_else(|| {
            Error::new(format!("{what} is damaged, and where it came from is not known"))
                .next("load or import the image again")
        })
    }
}

impl Source for Remains<'_> {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        let digest = digest.unwrap_or(self.manifest.digest());
        if digest == self.manifest.digest()
            && let Ok(bytes) = self.store.read_blob(&self.manifest, LONGEST_MANIFEST)
        {
            return Ok((self.manifest.clone(), bytes));
        }
        let (_, bytes) = self.origin(digest)?.manifest(Some(digest))?;
        Ok((self.manifest.clone(), bytes))
    }

    fn blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        self.origin(wanted.digest())?.blob(wanted, offset)
    }
}

/// The blobs of layers that are there themselves, so that no pull fetches them. (A blob that never was here, since its
/// layer came in another compression, is fetched too, where that is possible.)
fn blobs(store: &Store, remains: &Remains<'_>) -> Result<()> {
    let bytes = store.read_blob(&remains.manifest, LONGEST_MANIFEST)?;
    let Document::Manifest(parsed) = manifest::parse(&bytes, Some(remains.manifest.media_type()))? else {
        return Err(Error::new(format!("{} is no manifest", remains.manifest.digest())));
    };
    for blob in parsed.layers() {
        let Receive::Missing(mut incoming) = store.receive(blob, &|| ())? else { continue };
        let mut rest = match remains.blob(blob, incoming.length()) {
            Err(_) if remains.origin.is_none() => continue,
            rest => rest?,
        };
        std::io::copy(&mut rest, &mut *incoming).map_err(|e| incoming.failed(&e))?;
        incoming.finish(store)?;
    }
    store.barrier()
}

/// Brings back what is missing of an image.
pub fn repair(store: &Store, id: &Digest, access: &Access, progress: &dyn Progress) -> Result<Image> {
    let (manifest, origin, form) = store.origin(id)?;
    let origin = origin.as_deref().map(Transport::parse).transpose()?;
    let origin = origin.map(|transport| source::open(&transport, access)).transpose()?;
    let remains = Remains { store, manifest, origin };
    let mut options = Options { form, ..Options::default() };
    // Whatever platform it is for: it was wanted once. A config that is gone says nothing; then it is the host's.
    if let Ok(Some(file)) = store.blob(id)
        && let Ok(config) = serde_json::from_reader(file)
    {
        options.platform = platform_of(&config);
    }
    let image = pull(store, &remains, None, &options, progress)?;
    blobs(store, &remains)?;
    Ok(image)
}
