//! The doors: arguments in, one call into the library, the error out.

#[cfg(feature = "engine")]
pub mod engine;
pub mod log;
pub mod oci;
