//! See `jug::fuzz::images::reference`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::images::reference(raw));
