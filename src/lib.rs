//! jug: a daemonless OCI runtime and container engine.
pub mod bundle;
pub mod error;
pub mod host;
pub mod plan;
pub mod seccomp;
pub mod sys;
