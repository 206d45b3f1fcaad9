//! C's main, for the programs that do without Rust's start-up: it would read /proc/self/maps and set up a signal stack,
//! which neither a container's start nor a shim's idle memory need pay for.

/// Makes C's main of an expression that answers the exit code.
#[macro_export]
macro_rules! c_main {
    ($code:expr) => {
        // SAFETY: the only `main` of a program that says `#![no_main]`; the C library calls it as its own, and may find
        // it without its arguments.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $code
        }
    };
}
