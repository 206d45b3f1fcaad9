//! Where images come from and go to: registries, layouts and archives, behind two faces.
//!
//! A source only fetches: digests and sizes are checked by who receives (the store), while the bytes stream.

use std::io::Read;

use oci_spec::image::{Descriptor, Digest};

use crate::error::Result;

/// The longest manifest or index that is read, in bytes; the distribution specification's own limit.
pub const LONGEST_MANIFEST: usize = 4 << 20;

/// One repository of a transport, from which manifests and blobs are read.
pub trait Source: Sync {
    /// The manifest or index of `digest`, or, without one, of the image that the reference names: what describes it (its
    /// media type as the source says it, the digest and the size of the bytes), and the bytes, at most
    /// [`LONGEST_MANIFEST`].
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)>;

    /// The bytes of a blob from `offset` on. A source that cannot begin there skips what comes before.
    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>>;
}

/// One repository of a transport, to which an image is written: blobs first, then manifests, the named one last.
pub trait Destination: Sync {
    /// Whether the blob is there already, or can be had from elsewhere in the same place.
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Takes the bytes of a blob, as long as the descriptor says.
    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()>;

    /// Takes a manifest or an index. `named`: it is what the reference of the destination names from now on.
    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()>;
}
