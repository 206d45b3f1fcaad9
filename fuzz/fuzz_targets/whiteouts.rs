//! See `jug::fuzz::images::whiteouts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::images::whiteouts(raw));
