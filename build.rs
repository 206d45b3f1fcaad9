//! What the binaries are told when they are linked: the entry point of `jug-oci` (see `sys::seal`), the order of its
//! functions, and the commit they were built from.

use std::process::Command;

fn main() {
    println!("cargo:rustc-link-arg-bin=jug-oci=-Wl,-e,jug_entry");
    // Code and constants in one segment: two mappings less in each exec, and fewer pages to fault in.
    println!("cargo:rustc-link-arg-bin=jug-oci=-Wl,-z,noseparate-code");
    // What a start executes, side by side (scripts/order). In a debug build it is nothing of the kind anyway.
    let order = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/jug-oci.ld");
    println!("cargo:rerun-if-changed={order}");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo:rustc-link-arg-bin=jug-oci=-Wl,-T,{order}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo:rustc-env=JUG_COMMIT={}", commit.as_deref().unwrap_or("unknown").trim());
}
