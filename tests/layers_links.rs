//! Hard links to files that only a lower layer has: each becomes a file with what is there.
#![cfg(feature = "engine")]

#[path = "layers/archive.rs"]
mod archive;
#[path = "layers/place.rs"]
mod place;
#[path = "support/store.rs"]
mod store;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use archive::Archive;
use jug::error::Result;
use jug::image::layer::{Applied, Blob, Form, Ids, Wanted, adopt, unpack};
use place::{Place, digest};
use store::{Shop, images_are_taken};

/// Unpacks a layer onto a lower one with `a`, `d/x`, the directory `dir` and the symbolic links `s` and `sd`.
fn onto_lower(tar: &[u8]) -> (Place, Result<Applied>) {
    let place = Place::new();
    let lower = place.path("lower");
    fs::create_dir_all(lower.join("d")).expect("mkdir");
    fs::create_dir(lower.join("dir")).expect("mkdir");
    fs::write(lower.join("a"), "of a").expect("write");
    fs::write(lower.join("d/x"), "of x").expect("write");
    chown(lower.join("d/x"), Some(7), Some(8)).expect("chown");
    fs::set_permissions(lower.join("d/x"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    std::os::unix::fs::symlink("a", lower.join("s")).expect("symlink");
    std::os::unix::fs::symlink("d", lower.join("sd")).expect("symlink");
    fs::write(place.path("blob"), tar).expect("write");
    let blob = Blob { file: File::open(place.path("blob")).expect("open"), growing: None };
    let (staging, below) = (File::open(place.staging()).expect("open"), File::open(&lower).expect("open"));
    let wanted = Wanted { diff_id: &digest(tar), form: Form::Directory, ids: Ids::Kept };
    let before = place::listing(&place.path("outside"));
    let result = unpack(blob, staging.as_fd(), &wanted).and_then(|applied| {
        adopt(staging.as_fd(), &applied.implied, &applied.borrowed, &[below.as_fd()])?;
        Ok(applied)
    });
    assert_eq!(place::listing(&place.path("outside")), before, "something outside has changed");
    assert_eq!(fs::read(lower.join("a")).expect("read"), b"of a", "the lower layer is as it was");
    (place, result)
}

/// Names with their content.
type Files = &'static [(&'static str, &'static str)];

#[test]
fn each_order_of_entries_has_its_result() {
    let same: [(&str, Archive, Files); 7] = [
        ("a link", Archive::new().link("l", "a"), &[("l", "of a")]),
        ("a link from a directory", Archive::new().dir("e").link("e/l", "/d/x"), &[("e/l", "of x")]),
        ("a file over it", Archive::new().link("l", "a").file("l", "own"), &[("l", "own")]),
        (
            "a link to it, and a file over it",
            Archive::new().link("l", "a").link("m", "l").file("l", "own"),
            &[("l", "own"), ("m", "of a")],
        ),
        (
            "two of one, and a file over the first",
            Archive::new().link("l", "a").link("m", "a").file("l", "own").link("n", "a"),
            &[("l", "own"), ("m", "of a"), ("n", "of a")],
        ),
        (
            "its directory is gone, and comes again",
            Archive::new().dir("e").link("e/l", "a").file("e", "no more").link("k", "d/x"),
            &[("e", "no more"), ("k", "of x")],
        ),
        (
            "the file itself comes later",
            Archive::new().link("l", "a").file("a", "new"),
            &[("l", "of a"), ("a", "new")],
        ),
    ];
    for (what, tar, files) in same {
        let (place, result) = onto_lower(&tar.end());
        result.unwrap_or_else(|e| panic!("{what}: {e}"));
        for (name, content) in files {
            assert_eq!(
                fs::read_to_string(place.staging().join(name)).expect("read"),
                *content,
                "{what}: {name}"
            );
        }
    }
    let (place, result) = onto_lower(&Archive::new().link("l", "d/x").link("m", "d/x").end());
    result.expect("unpack");
    let meta = fs::metadata(place.staging().join("l")).expect("stat");
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.nlink()),
        (0o4751, 7, 8, 2),
        "one file for both"
    );
}

#[test]
fn what_is_no_file_below_is_refused() {
    let cases = [
        ("nowhere", Archive::new().link("l", "b"), "b to be linked to is not in the layer"),
        ("a directory", Archive::new().link("l", "dir"), "it is no regular file"),
        ("a link below", Archive::new().link("l", "s"), "it is no regular file"),
        ("through a link below", Archive::new().link("l", "sd/x"), "is not in the layer"),
        ("through a file below", Archive::new().link("l", "a/x"), "is not in the layer"),
        (
            "it was removed by this layer",
            Archive::new().file(".wh.a", "").link("l", "a"),
            "is not in the layer",
        ),
        ("it climbs", Archive::new().link("l", "../outside/canary"), "leaves the directory"),
        (
            "through a link of its own",
            Archive::new().symlink("o", "../outside").link("l", "o/canary"),
            "not in the layer",
        ),
        ("itself", Archive::new().link("a", "a"), "a link to itself"),
    ];
    for (what, tar, words) in cases {
        let (_place, result) = onto_lower(&tar.end());
        let error = result.map(drop).expect_err(what).to_string();
        assert!(error.contains(words), "{what}: {error}");
    }
}

const LAYERS: &str = r#"
tag = "jug/links:latest"
[[layer]]
files = [{ path = "/bin/tool", content = "one", mode = 0o4755, uid = 7, gid = 8 }]
[[layer]]
files = [{ path = "/bin/again", hardlink = "/bin/tool" }, { path = "/usr/bin/third", hardlink = "/bin/tool" }]
"#;

#[test]
fn an_image_with_such_links_is_pulled() {
    let shop = Shop::new("links");
    let layout = shop.image("oci", "layout", LAYERS) + ":jug/links:latest";
    shop.ok(&["pull", &layout]);
    shop.is_whole();
    let dirs = shop.ok(&["image", "inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", "jug/links"]);
    let top = std::path::Path::new(dirs.split(':').next().expect("a layer"));
    let meta = fs::metadata(top.join("bin/again")).expect("stat");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.nlink()), (0o4755, 7, 8, 2));
    assert_eq!(fs::read(top.join("usr/bin/third")).expect("read"), b"one");
    if images_are_taken() {
        let images = shop.beside("images");
        images.ok(&["pull", "--layers", "erofs", &layout]);
        images.is_whole();
        assert_eq!(images.trees(), shop.trees());
    }
}
