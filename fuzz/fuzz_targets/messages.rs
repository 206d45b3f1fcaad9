//! See `jug::fuzz::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::messages(raw));
