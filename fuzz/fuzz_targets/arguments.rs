//! See `jug::fuzz::arguments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::arguments(raw));
