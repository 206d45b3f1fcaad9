//! The doors: arguments in, one call into the library, the error out.

pub mod engine;
pub mod log;
pub mod oci;
