//! The same input is the same bytes, and SOURCE_DATE_EPOCH is an input.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{Bench, recipe};

const OUTPUTS: [&str; 4] = ["tar:x.tar", "oci:x.oci", "oci-archive:x.oci.tar", "docker-archive:x.docker"];

fn build_all(bench: &Bench, epoch: Option<&str>, recipe: &str) -> BTreeMap<String, Vec<u8>> {
    let mut args = vec!["build", recipe];
    args.extend(OUTPUTS.iter().flat_map(|output| ["--output", output]));
    let output = bench.run_at(epoch, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files = BTreeMap::new();
    collect(&bench.path(""), &bench.path(""), &mut files);
    files
}

fn collect(top: &Path, dir: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            collect(top, &path, into);
        } else {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            into.insert(name, fs::read(&path).unwrap());
        }
    }
}

#[test]
fn two_builds_are_the_same_bytes() {
    for name in ["busybox.toml", "hello.toml", "layers.toml"] {
        let first = build_all(&Bench::new(), Some("1700000000"), &recipe(name));
        let second = build_all(&Bench::new(), Some("1700000000"), &recipe(name));
        assert!(first.len() >= 3 + 5, "{name}: {:?}", first.keys());
        assert!(first == second, "{name} differs: {:?}", first.keys());
    }
}

#[test]
fn another_epoch_is_another_time() {
    let at_zero = build_all(&Bench::new(), None, &recipe("busybox.toml"));
    let later = build_all(&Bench::new(), Some("1700000000"), &recipe("busybox.toml"));
    for (files, mtime) in [(&at_zero, 0), (&later, 1_700_000_000)] {
        let mut archive = tar::Archive::new(&files["x.tar"][..]);
        for entry in archive.entries().unwrap() {
            assert_eq!(entry.unwrap().header().mtime().unwrap(), mtime);
        }
    }
    let index = String::from_utf8_lossy(&at_zero["x.oci/index.json"]).into_owned();
    assert_ne!(index, String::from_utf8_lossy(&later["x.oci/index.json"]));
}

#[test]
fn the_order_and_times_of_a_directory_are_no_input() {
    let (one, other) = (Bench::new(), Bench::new());
    for (bench, names) in [(&one, ["a", "sub/b", "c"]), (&other, ["c", "sub/b", "a"])] {
        for name in names {
            bench.write(&format!("in/{name}"), name);
        }
    }
    let earlier = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(12345);
    fs::File::open(other.path("in/a")).unwrap().set_modified(earlier).unwrap();
    for bench in [&one, &other] {
        bench.build(&["--from", "dir:in", "--output", "tar:out.tar"]);
    }
    assert!(fs::read(one.path("out.tar")).unwrap() == fs::read(other.path("out.tar")).unwrap());
}

#[test]
fn the_gzip_header_has_neither_name_nor_time() {
    let bench = Bench::new();
    bench.write("in/a", "a");
    bench.build(&["--from", "dir:in", "--output", "tar:x.tgz"]);
    let header = &fs::read(bench.path("x.tgz")).unwrap()[..10];
    assert_eq!(header[..2], [0x1f, 0x8b]);
    assert_eq!(header[3], 0, "flags: no name, no comment");
    assert_eq!(header[4..8], [0; 4], "mtime");
}

#[test]
fn a_bad_epoch_is_refused() {
    let bench = Bench::new();
    for bad in ["", "-1", "+1", "now", "99999999999999999999", "1.5"] {
        let output = bench.run_at(Some(bad), &["build", "--from", "busybox", "--output", "tar:x.tar"]);
        assert_eq!(output.status.code(), Some(1), "{bad}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("SOURCE_DATE_EPOCH"), "{bad}");
    }
}

#[test]
fn a_tree_that_comes_back_as_a_directory_is_the_same_tar() {
    if !support::is_root() {
        return;
    }
    let bench = Bench::new();
    bench.build(&[&recipe("busybox.toml"), "--output", "tar:one.tar", "--output", "tree:root"]);
    bench.build(&["--from", "dir:root", "--output", "tar:two.tar"]);
    assert!(fs::read(bench.path("one.tar")).unwrap() == fs::read(bench.path("two.tar")).unwrap());
    assert_eq!(fs::metadata(bench.path("root/etc/passwd")).unwrap().mtime(), 1_700_000_000);
}
