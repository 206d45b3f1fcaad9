//! jug: a daemonless OCI runtime and container engine.
pub mod error;
pub mod seccomp;
