//! Tar archives: the deterministic writer and the reader that loses nothing.
//!
//! `tar::Header` serves as the codec of the 512-byte block; the extended records are ours, because the crate splits
//! them at newlines, which binary attributes such as `security.capability` contain (reference/ecosystem.md 2.4).

mod pax;
mod read;
mod write;

pub use read::read;
pub use write::write;
