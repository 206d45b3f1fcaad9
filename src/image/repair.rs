//! A damaged image is pulled again: what the store still has of it comes from there, the rest from where it came from.

use std::io::Read;

use oci_spec::image::{Descriptor, Digest};

use super::progress::Progress;
use super::pull::{Options, platform_of, pull};
use super::reference::Transport;
use super::source::{self, Access, LONGEST_MANIFEST, Source};
use super::store::{Image, Store};
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

/// Brings back what is missing of an image.
pub fn repair(store: &Store, id: &Digest, access: &Access, progress: &dyn Progress) -> Result<Image> {
    let (manifest, origin) = store.origin(id)?;
    let origin = origin.as_deref().map(Transport::parse).transpose()?;
    let origin = origin.map(|transport| source::open(&transport, access)).transpose()?;
    let remains = Remains { store, manifest, origin };
    let mut options = Options::default();
    // Whatever platform it is for: it was wanted once. A config that is gone says nothing; then it is the host's.
    if let Ok(Some(file)) = store.blob(id)
        && let Ok(config) = serde_json::from_reader(file)
    {
        options.platform = platform_of(&config);
    }
    pull(store, &remains, None, &options, progress)
}
