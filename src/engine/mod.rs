//! Containers for people: what has a name, a log and a monitor. The life of a container is jug-oci's, which this room
//! runs as a program of its own: it never clones a container itself.
//!
//! ```text
//! settings -> spec (with user, seccomp, files, volumes) -> container (its directory) -> launch -> jug-oci
//!                                                               |                        |
//!                                                ps, inspect, logs, rm                monitor (log, exit code)
//! ```
//!
//! Nothing is shared between containers: each has its directory, whoever runs it holds the lock on that, and what the
//! state is the kernel says.

pub mod apparmor;
pub mod attach;
pub mod container;
pub mod devices;
pub mod files;
pub mod ids;
pub mod init;
pub mod launch;
pub mod life;
pub mod limits;
pub mod log;
pub mod monitor;
pub mod names;
pub mod place;
pub mod points;
pub mod quantity;
pub mod ranges;
pub mod relay;
pub mod rootless;
pub mod runtime;
pub mod seccomp;
pub mod selinux;
pub mod session;
pub mod settings;
pub mod snapshot;
pub mod spec;
pub mod user;
pub mod volumes;
