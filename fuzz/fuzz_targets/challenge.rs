//! See `jug::fuzz::images::challenge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::images::challenge(raw));
