//! See `jug::fuzz::images::tar`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::images::tar(raw));
