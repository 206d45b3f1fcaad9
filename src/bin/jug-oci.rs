//! The door for engines: runc's command line. Its entry point is `jug_entry` (see `sys::seal`), its main is C's: Rust's
//! start-up would read /proc/self/maps and set up a signal stack, which a container start need not pay for.
#![no_main]

/// This program never starts a thread.
#[global_allocator]
static ALLOCATOR: jug::sys::alloc::Bump = jug::sys::alloc::Bump::new();

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    jug::cli::oci::main()
}
