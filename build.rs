//! What the binaries are told when they are linked: the entry point of `jug-oci` (see `sys::seal`), the order of its
//! functions, and the commit they were built from; and the image that `jug` carries.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs_builder::recipe::Recipe;
use rootfs_builder::source::{Workshop, go_arch};
use rootfs_builder::{image, layer};

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
    if std::env::var_os("CARGO_FEATURE_ENGINE").is_some() {
        hello();
    }
}

/// The image `jug/hello`, made by rootfs-builder: the configuration as `hello.json`, its one layer as `hello.tar`.
fn hello() {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|why| panic!("{name}: {why}"));
    let out = PathBuf::from(of("OUT_DIR"));
    compile_hello(&of, &out.join("hello"));
    println!("cargo:rerun-if-changed=src/image/hello/image.toml");
    let recipe = Recipe::load(Path::new("src/image/hello/image.toml")).unwrap_or_else(|why| panic!("{why}"));
    let arch = go_arch(&of("CARGO_CFG_TARGET_ARCH")).to_owned();
    // The program, which the recipe names, is in `dir`. No time of this machine's gets into the image.
    let shop = Workshop { dir: out.clone(), epoch: None, arch, cache: out.clone(), offline: true };
    let layers: Result<Vec<_>, _> = recipe.layers.iter().map(|layer| layer::make(layer, &shop)).collect();
    let made = layers.and_then(|layers| image::make(&recipe, &layers, &shop.arch, shop.mtime()));
    let image = made.unwrap_or_else(|why| panic!("{why}"));
    let [layer] = &image.layers[..] else { panic!("jug/hello has one layer") };
    for (name, blob) in [("hello.json", &image.config), ("hello.tar", layer)] {
        let mut file = File::create(out.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
        blob.data.copy_to(&mut file).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// Compiles the program of `jug/hello`: static, small, for the target, and the same bytes wherever it is built by the
/// same means. Against musl, where Rust has it, it is less than half as large as against glibc.
fn compile_hello(of: &dyn Fn(&str) -> String, program: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/hello/program.rs");
    println!("cargo:rerun-if-changed={source}");
    let own = of("TARGET");
    let musl = own.replace("-gnu", "-musl");
    let library = Command::new(of("RUSTC")).args(["--print=target-libdir", "--target", &musl]).output();
    let there = library.ok().and_then(|library| String::from_utf8(library.stdout).ok());
    let there = there.is_some_and(|library| std::fs::metadata(library.trim()).is_ok());
    let target = if there { &musl } else { &own };
    let mut rustc = Command::new(of("RUSTC"));
    rustc.args([
        "--edition=2024",
        "--crate-name=hello",
        "--crate-type=bin",
        "-C",
        "opt-level=z",
        "-C",
        "lto=fat",
    ]);
    rustc.args(["-C", "panic=abort", "-C", "strip=symbols", "-C", "codegen-units=1"]);
    rustc.args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
    rustc.arg(format!("--target={target}")).arg(format!("--remap-path-prefix={source}=hello.rs"));
    rustc.arg("-o").arg(program).arg(source);
    if let (true, Ok(linker)) = (!there || own != of("HOST"), std::env::var("RUSTC_LINKER")) {
        rustc.arg(format!("-Clinker={linker}"));
    }
    assert!(rustc.status().expect("rustc").success(), "the program of jug/hello does not compile");
}
