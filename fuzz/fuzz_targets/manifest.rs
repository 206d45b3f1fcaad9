//! See `jug::fuzz::images::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::images::manifest(raw));
