//! See `jug::fuzz::mount`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::mount(raw));
