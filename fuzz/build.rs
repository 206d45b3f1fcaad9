//! tests/support/oracle.rs builds its C program in the directory that cargo gives to tests.

fn main() {
    println!("cargo:rustc-env=CARGO_TARGET_TMPDIR={}", std::env::var("OUT_DIR").unwrap_or_default());
    println!("cargo:rerun-if-changed=build.rs");
}
