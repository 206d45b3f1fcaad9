//! See `jug::fuzz::mountinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| jug::fuzz::mountinfo(raw));
