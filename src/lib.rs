//! jug: a daemonless OCI runtime and container engine.
pub mod apply;
pub mod audit;
pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod container;
pub mod criu;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod host;
#[cfg(feature = "engine")]
pub mod image;
pub mod plan;
pub mod seccomp;
pub mod sys;
