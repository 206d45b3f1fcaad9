//! The door for engines: runc's command line. Its entry point is `jug_entry` (see `sys::seal`), its main is C's.
#![no_main]

/// This program never starts a thread.
#[global_allocator]
static ALLOCATOR: jug::sys::alloc::Bump = jug::sys::alloc::Bump::new();

jug::c_main!(jug::cli::oci::main());
