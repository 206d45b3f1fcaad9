//! See `jug::fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::config(raw));
