//! What a pull or a push says while it goes on. Who shows it lives at the door; this room only says it.

use oci_spec::image::Digest;

/// How far one blob or layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its turn has not come.
    Queued,
    /// Somebody else brings the same; we wait for it.
    Waiting,
    /// Bytes there so far, and bytes in all.
    Downloading(u64, u64),
    Uploading(u64, u64),
    /// It is there, and is being unpacked.
    Unpacking,
    /// It was there before.
    Exists,
    Done,
}

/// Who hears of it, from several threads. `about` is the digest of a layer's blob.
pub trait Progress: Sync {
    fn step(&self, about: &Digest, step: Step);

    /// A line for people, such as `Copying config sha256:...`.
    fn say(&self, line: &str);
}

/// Nobody.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _about: &Digest, _step: Step) {}

    fn say(&self, _line: &str) {}
}
