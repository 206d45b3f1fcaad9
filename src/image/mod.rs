//! Images: a reference becomes verified layers in the store, and those become the root of a bundle.
//!
//!     reference -> source -> layers -> store -> snapshot -> bundle
//!
//! This room knows nothing of containers: it meets the runtime at the bundle only. Every byte that comes from a
//! source is somebody else's: it meets a limit and a digest before it meets anything else.

mod erofs;
pub mod layer;
pub mod snapshot;
pub mod source;
