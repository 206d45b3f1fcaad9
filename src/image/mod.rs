//! Images: a reference becomes verified layers in the store, and those become the root of a bundle.
//!
//! ```text
//! reference -> source -> layers -> store -> snapshot -> bundle
//! ```
//!
//! This room knows nothing of containers: it meets the runtime at the bundle only. Every byte that comes from a
//! source is somebody else's: it meets a limit and a digest before it meets anything else.

pub mod digest;
mod erofs;
pub mod hello;
pub mod layer;
pub mod made;
pub mod manifest;
pub mod platform;
pub mod policy;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod repair;
pub mod snapshot;
pub mod source;
pub mod store;
