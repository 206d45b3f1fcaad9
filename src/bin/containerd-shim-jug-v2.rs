//! The door for containerd: the command line of a v2 shim. Its main is C's: what Rust's start-up
//! sets up, nothing here needs.
#![no_main]

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    jug::shim::main()
}
