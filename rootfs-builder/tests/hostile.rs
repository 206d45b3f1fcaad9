//! Tarballs that try to leave the root: every output is written or refused, and nothing outside is touched.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::{Bench, RawTar};

/// Builds a tree and a tar from `tar` beside a canary and checks that the canary lives untouched.
///
/// `verbatim` keeps the entries from being cleaned before they are merged.
fn attack(name: &str, tar: impl Fn(&str) -> RawTar) -> Vec<(Bench, bool)> {
    let mut done = Vec::new();
    for verbatim in [false, true] {
        let bench = Bench::new();
        let canary = bench.write("outside/canary", "alive");
        let outside = bench.path("outside").display().to_string();
        bench.write("in.tar", tar(&outside).bytes());
        bench.write("r.toml", format!("[[layer]]\nfrom = {{ tar = \"in.tar\", verbatim = {verbatim} }}\n"));
        let output =
            bench.run(&["build", "r.toml", "--no-chown", "--output", "tree:root", "--output", "tar:out.tar"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {output:?}");

        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive", "{name}");
        assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1, "{name}: a hard link to the canary was made");
        let outside = fs::read_dir(bench.path("outside")).unwrap().count();
        assert_eq!(outside, 1, "{name}: something was written outside");
        assert!(!bench.path("escaped").exists(), "{name}");
        done.push((bench, output.status.success()));
    }
    done
}

fn refused(name: &str, tar: impl Fn(&str) -> RawTar) {
    for (bench, built) in attack(name, tar) {
        assert!(!built, "{name} was built");
        assert!(!bench.path("root").exists(), "{name} was refused after the tree was begun");
    }
}

fn confined(name: &str, inside: &str, tar: impl Fn(&str) -> RawTar) {
    for (bench, built) in attack(name, tar) {
        assert!(built, "{name} was refused");
        let path = inside.replace("OUTSIDE", bench.path("outside").to_str().unwrap());
        assert!(
            fs::symlink_metadata(bench.path("root").join(path.trim_start_matches('/'))).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn dot_dot_names_are_refused() {
    refused("dotdot", |_| RawTar::default().file("../escaped", "x"));
    refused("inner dotdot", |_| RawTar::default().dir("a/").file("a/../../escaped", "x"));
    refused("dotdot dir", |_| RawTar::default().dir("../escaped/"));
    refused("hard link to dotdot", |_| RawTar::default().hardlink("x", "../outside/canary"));
}

#[test]
fn whiteouts_of_what_is_no_name_are_refused() {
    refused("whiteout of ..", |_| RawTar::default().file(".wh...", ""));
    refused("whiteout of .", |_| RawTar::default().file(".wh..", ""));
    refused("bare whiteout", |_| RawTar::default().file("etc/.wh.", ""));
}

#[test]
fn absolute_names_stay_inside() {
    for (bench, built) in
        attack("absolute", |outside| RawTar::default().file(&format!("{outside}/canary"), "x"))
    {
        assert!(built);
        let inside = format!("root{}/canary", bench.path("outside").display());
        assert_eq!(fs::read_to_string(bench.path(&inside)).unwrap(), "x");
    }
}

#[test]
fn writes_through_links_stay_inside() {
    confined("absolute link", "OUTSIDE/canary", |outside| {
        RawTar::default().symlink("link", outside).file("link/canary", "dead")
    });
    confined("relative link", "outside/canary", |_| {
        RawTar::default().symlink("link", "../../../outside").file("link/canary", "dead")
    });
    confined("chain of links", "OUTSIDE/new", |outside| {
        RawTar::default().symlink("a", "b").symlink("b", outside).file("a/new", "x")
    });
    confined("file over a link", "link", |outside| {
        RawTar::default().symlink("link", &format!("{outside}/canary")).file("link", "dead")
    });
    confined("directory over a link", "link/x", |outside| {
        RawTar::default().symlink("link", outside).dir("link/").file("link/x", "x")
    });
}

#[test]
fn link_loops_are_refused() {
    refused("loop", |_| RawTar::default().symlink("a", "b").symlink("b", "a").file("a/x", "x"));
}

#[test]
fn hard_links_out_are_refused() {
    refused("absolute", |outside| RawTar::default().hardlink("x", &format!("{outside}/canary")));
    refused("through a link", |outside| {
        RawTar::default().symlink("link", outside).hardlink("x", "link/canary").file("x", "dead")
    });
}

#[test]
fn whiteouts_through_links_stay_inside() {
    let bench = Bench::new();
    let canary = bench.write("outside/canary", "alive");
    let outside = bench.path("outside").display().to_string();
    bench.write("one.tar", RawTar::default().symlink("link", &outside).bytes());
    let two = RawTar::default().file("link/.wh.canary", "").file("link/.wh..wh..opq", "");
    bench.write("two.tar", two.bytes());
    bench.build(&["--from", "tar:one.tar", "--from", "tar:two.tar", "--output", "tree:root", "--no-chown"]);
    assert_eq!(fs::read_to_string(canary).unwrap(), "alive");
}

#[test]
fn a_tree_is_only_written_into_an_empty_directory() {
    let bench = Bench::new();
    bench.write("root/mine", "mine");
    let said = bench.refuse(&["--from", "busybox", "--output", "tree:root", "--no-chown"]);
    assert!(said.contains("not empty"), "{said}");
    assert_eq!(fs::read_dir(bench.path("root")).unwrap().count(), 1);
}

#[test]
fn damaged_archives_are_refused() {
    let whole = RawTar::default().file("a", &"x".repeat(2000)).bytes();
    for (name, bytes) in
        [("cut", &whole[..1200]), ("short", &whole[..100]), ("text", b"hello, I am no archive".as_slice())]
    {
        let bench = Bench::new();
        bench.write("in.tar", bytes);
        let said = bench.refuse(&["--from", "tar:in.tar", "--output", "tar:out.tar"]);
        assert!(said.contains("in.tar"), "{name}: {said}");
        assert!(!bench.path("out.tar").exists());
    }
}

#[test]
fn a_verbatim_layer_keeps_its_bytes() {
    let bench = Bench::new();
    let hostile = RawTar::default().file("../escaped", "x").bytes();
    bench.write("in.tar", &hostile);
    bench.write("r.toml", "[[layer]]\nfrom = { tar = \"in.tar\", verbatim = true }\n");
    bench.build(&[
        "r.toml",
        "--output",
        "docker-archive:out.tar",
        "--output",
        "oci:layout",
        "--compression",
        "none",
    ]);
    let blobs = fs::read_dir(bench.path("layout/blobs/sha256")).unwrap();
    assert!(blobs.into_iter().any(|blob| fs::read(blob.unwrap().path()).unwrap() == hostile));
}

/// The second wall: entries that no merge has cleaned meet the kernel's refusal (openat2(2), RESOLVE_NO_SYMLINKS).
#[test]
fn the_tree_itself_follows_no_link() {
    use rootfs_builder::entry::{Data, Entry, Kind, Meta, Mtime};

    let entry =
        |path: &str, kind| Entry { path: path.into(), kind, meta: Meta::root(0o644, Mtime::default()) };
    for path in ["link/canary", "link/new", "../outside/new", "d/../../outside/new"] {
        let bench = Bench::new();
        let canary = bench.write("outside/canary", "alive");
        let outside = bench.path("outside").into_os_string().into_encoded_bytes();
        let entries = [
            entry("d", Kind::Dir),
            entry("link", Kind::Symlink(outside)),
            entry(path, Kind::File(Data::bytes("dead"))),
        ];
        let error = rootfs_builder::tree::write(&entries, &bench.path("root"), false);
        assert!(error.is_err(), "{path} was written");
        assert_eq!(fs::read_to_string(canary).unwrap(), "alive");
        assert_eq!(fs::read_dir(bench.path("outside")).unwrap().count(), 1, "{path}");
    }
}
