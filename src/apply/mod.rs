//! Making it so. File names pair with `plan`: `plan/mounts.rs` decides, `apply/mounts.rs` does.
//!
//! This room reads the Plan and never the Spec. A step that fails ends the container; nothing here warns and goes on.

pub mod console;
pub mod copy_up;
pub mod devices;
pub mod hooks;
pub mod ids;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod opened;
pub mod paths;
pub mod process;
pub mod program;
pub mod rdt;
pub mod root;
pub mod sysctl;
