//! See `jug::fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::record(raw));
