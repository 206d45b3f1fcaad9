//! Layers against other readers and writers of tar: random trees, packed by GNU tar and by Python, unpacked by jug,
//! by GNU tar and by umoci, compared file by file; and what jug writes, read by them.
#![cfg(feature = "engine")]

#[path = "layers/place.rs"]
mod place;
#[path = "layers/random.rs"]
mod random;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use jug::image::layer::{adopt, write};
use place::{Place, listing};

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}

fn gnu_tar(args: &[&str], archive: &Path, dir: &Path) {
    let mut tar = Command::new("tar");
    tar.args(args)
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(dir);
    if args.contains(&"-c") {
        tar.args(["--sort=name", "."]);
    } else {
        tar.args(["-p", "--same-owner", "--delay-directory-restore"]);
    }
    run(&mut tar);
}

#[track_caller]
fn same(ours: &[String], theirs: &[String], what: &str) {
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:#?}, extra {extra:#?}");
}

#[test]
fn random_trees_of_gnu_tar_come_out_the_same() {
    for seed in 0..12 {
        let place = Place::new();
        random::tree(&place.path("tree"), seed);
        for format in ["pax", "gnu"] {
            let tar = place.path("tar");
            let mut args = vec!["-c".to_owned(), "--sparse".to_owned(), format!("--format={format}")];
            if format == "pax" {
                args.push(format!("--sparse-version={}", ["0.0", "0.1", "1.0"][seed as usize % 3]));
            }
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            if format == "gnu" {
                // Xattrs need PAX.
                let mut plain = Command::new("tar");
                plain.args(&args).args(["--numeric-owner", "--sort=name", "-f"]).arg(&tar).arg("-C");
                run(plain.arg(place.path("tree")).arg("."));
            } else {
                gnu_tar(&args, &tar, &place.path("tree"));
            }
            let bytes = fs::read(&tar).expect("read");
            place.empty_staging();
            let applied = place.unpack(&bytes).unwrap_or_else(|e| panic!("seed {seed}, {format}: {e}"));
            assert!(applied.warnings.is_empty() && applied.implied.is_empty(), "{applied:?}");
            let _ = fs::remove_dir_all(place.path("other"));
            fs::create_dir(place.path("other")).expect("mkdir");
            gnu_tar(&["-x"], &tar, &place.path("other"));
            same(&place.listing(), &listing(&place.path("other")), &format!("seed {seed}, {format}"));
            if format == "pax" {
                same(
                    &place.listing(),
                    &listing(&place.path("tree")),
                    &format!("seed {seed}, the tree itself"),
                );
            }
        }
    }
}

/// Python writes PAX headers of its own kind, and ustar with its prefix.
#[test]
fn random_trees_of_python_come_out_the_same() {
    const PACK: &str = "import sys, tarfile\n\
        f = {'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT}[sys.argv[3]]\n\
        t = tarfile.open(sys.argv[1], 'w', format=f, errors='surrogateescape'); t.add(sys.argv[2], '.'); t.close()";
    for seed in 100..104 {
        for format in ["pax", "gnu"] {
            let place = Place::new();
            random::tree(&place.path("tree"), seed);
            let mut python = Command::new("python3");
            run(python.args(["-c", PACK]).arg(place.path("tar")).arg(place.path("tree")).arg(format));
            place
                .unpack(&fs::read(place.path("tar")).expect("read"))
                .unwrap_or_else(|e| panic!("seed {seed}, {format}: {e}"));
            fs::create_dir(place.path("other")).expect("mkdir");
            gnu_tar(&["-x"], &place.path("tar"), &place.path("other"));
            // Python's times are floats, and GNU tar rounds them as we do.
            same(&place.listing(), &listing(&place.path("other")), &format!("seed {seed}, {format}"));
        }
    }
}

/// umoci unpacks images: an OCI layout is made around the layer by umoci itself.
#[test]
fn umoci_unpacks_the_same() {
    for seed in 200..204 {
        let place = Place::new();
        random::tree(&place.path("tree"), seed);
        gnu_tar(&["-c", "--format=pax"], &place.path("tar"), &place.path("tree"));
        let umoci = |args: &[&str]| {
            let mut umoci = Command::new("umoci");
            run(umoci.args(args).current_dir(&place.dir));
        };
        umoci(&["init", "--layout", "oci"]);
        umoci(&["new", "--image", "oci:x"]);
        umoci(&["raw", "add-layer", "--image", "oci:x", "tar"]);
        umoci(&["raw", "unpack", "--image", "oci:x", "other"]);
        let applied = place.unpack(&fs::read(place.path("tar")).expect("read")).expect("unpack");
        assert!(applied.entries > 10);
        same(&place.listing(), &listing(&place.path("other")), &format!("seed {seed}"));
    }
}

/// A tree, as jug writes it: GNU tar and jug read the same tree back, and the same tree is the same bytes.
#[test]
fn what_is_written_is_read_back() {
    for seed in 300..306 {
        let place = Place::new();
        random::tree(&place.path("tree"), seed);
        let pack = |dir: &str| {
            let (root, mut tar) = (File::open(place.path(dir)).expect("open"), Vec::new());
            write::tar_of(root.as_fd(), None, &mut tar).expect("tar_of");
            tar
        };
        let tar = pack("tree");
        fs::write(place.path("tar"), &tar).expect("write");
        fs::create_dir(place.path("other")).expect("mkdir");
        gnu_tar(&["-x"], &place.path("tar"), &place.path("other"));
        let tree = listing(&place.path("tree"));
        same(&listing(&place.path("other")), &tree, &format!("seed {seed}, GNU tar"));
        place.unpack(&tar).expect("unpack");
        same(&place.listing(), &tree, &format!("seed {seed}, jug"));
        assert!(pack("staging") == tar, "seed {seed}: the same tree is the same bytes");
    }
}

/// An upper directory becomes a layer and back: whiteouts and opaque directories as the specification writes them.
#[test]
fn an_upper_directory_becomes_a_layer_and_back() {
    let place = Place::new();
    let upper = place.path("upper");
    random::tree(&upper, 400);
    let dir = File::open(&upper).expect("open");
    for gone in ["gone", "also gone"] {
        jug::sys::path::mknodat(dir.as_fd(), Path::new(gone), libc::S_IFCHR, (0, 0)).expect("mknod");
    }
    fs::create_dir_all(upper.join("opaque/inner")).expect("mkdir");
    jug::sys::xattr::set(dir.as_fd(), Path::new("opaque"), b"trusted.overlay.opaque", b"y")
        .expect("setxattr");
    jug::sys::xattr::set(dir.as_fd(), Path::new("opaque"), b"trusted.overlay.origin", b"x")
        .expect("setxattr");
    let mut tar = Vec::new();
    write::layer_of(dir.as_fd(), None, &mut tar).expect("layer_of");
    fs::write(place.path("tar"), &tar).expect("write");
    let names = Command::new("tar").arg("-tf").arg(place.path("tar")).output().expect("tar");
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    for name in ["\n.wh.gone\n", "\n.wh.also gone\n", "\nopaque/\nopaque/.wh..wh..opq\nopaque/inner/\n"] {
        assert!(names.contains(name), "{name:?} in {names}");
    }
    let applied = place.unpack(&tar).expect("unpack");
    assert_eq!(applied.implied, [Path::new("")], "the root has no entry");
    let but_root = |lines: Vec<String>| -> Vec<String> {
        // Whiteouts have no times worth a word, and overlayfs's own notes stay behind.
        let lines = lines.into_iter().filter(|line| !line.starts_with(". ") && !line.contains("gone"));
        lines.map(|line| line.replace(" trusted.overlay.origin=x", "")).collect()
    };
    same(&but_root(place.listing()), &but_root(listing(&upper)), "the upper directory");
    assert!(place.listing().iter().any(|line| line.starts_with("gone ") && line.contains("device 0x0")));
    fs::write(upper.join(".wh.x"), "").expect("write");
    let error =
        write::layer_of(dir.as_fd(), None, &mut Vec::new()).expect_err("a file with a whiteout's name");
    assert!(error.what().contains(".wh.x"), "{error}");
}

#[test]
fn changes_are_told_against_the_layers_below() {
    use write::Kind::{Added, Changed, Deleted};
    let place = Place::new();
    let file = |name: &str| {
        let path = place.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, "x").expect("write");
    };
    for name in
        ["l0/a", "l0/b", "l0/gone", "l0/d/x", "l0/d/y", "l0/never", "l0/o/p", "l0/o/q", "l1/c", "upper/b"]
    {
        file(name);
    }
    for name in ["upper/new", "upper/d/x", "upper/d/z", "upper/never", "upper/o/q", "upper/o/r"] {
        file(name);
    }
    let open = |name: &str| File::open(place.path(name)).expect("open");
    let whiteout = |dir: &str, name: &str| {
        jug::sys::path::mknodat(open(dir).as_fd(), Path::new(name), libc::S_IFCHR, (0, 0)).expect("mknod");
    };
    whiteout("l1", "never");
    for name in ["gone", "c", "not there"] {
        whiteout("upper", name);
    }
    jug::sys::xattr::set(open("upper").as_fd(), Path::new("o"), b"trusted.overlay.opaque", b"y")
        .expect("xattr");
    let (l0, l1) = (open("l0"), open("l1"));
    let changes = write::changes(open("upper").as_fd(), &[l0.as_fd(), l1.as_fd()]).expect("changes");
    let found: Vec<_> =
        changes.iter().map(|change| (change.kind, change.path.to_str().expect("text"))).collect();
    let want = [
        (Changed, "b"),
        (Deleted, "c"),
        (Changed, "d"),
        (Changed, "d/x"),
        (Added, "d/z"),
        (Deleted, "gone"),
        (Added, "never"),
        (Added, "new"),
        (Changed, "o"),
        (Deleted, "o/p"),
        (Changed, "o/q"),
        (Added, "o/r"),
    ];
    assert_eq!(found, want);
}

/// A layer that puts a file into /tmp without a word about /tmp leaves it as the layers below have it.
#[test]
fn directories_without_an_entry_are_as_the_layers_below_have_them() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let place = Place::new();
    let base = place.path("base");
    fs::create_dir_all(base.join("tmp/sub")).expect("mkdir");
    fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o751)).expect("chmod");
    std::os::unix::fs::chown(base.join("tmp/sub"), Some(5), Some(6)).expect("chown");
    fs::create_dir_all(place.path("tree/tmp/sub/own")).expect("mkdir");
    fs::write(place.path("tree/tmp/sub/own/file"), "x").expect("write");
    let mut tar = Command::new("tar");
    run(tar.arg("-cf").arg(place.path("tar")).arg("-C").arg(place.path("tree")).arg("tmp/sub/own/file"));
    let applied = place.unpack(&fs::read(place.path("tar")).expect("read")).expect("unpack");
    assert_eq!(applied.implied, ["", "tmp", "tmp/sub", "tmp/sub/own"].map(std::path::PathBuf::from));
    let (staging, lower) = (File::open(place.staging()).expect("open"), File::open(&base).expect("open"));
    let tree =
        adopt(staging.as_fd(), &applied.implied, &[], &[lower.as_fd()]).expect("adopt").expect("a change");
    assert_ne!(tree, applied.tree);
    let meta = |name: &str| {
        let meta = fs::metadata(place.staging().join(name)).expect("stat");
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!([meta("."), meta("tmp")], [(0o751, 0, 0), (0o1777, 0, 0)]);
    assert_eq!([meta("tmp/sub"), meta("tmp/sub/own")], [(0o755, 5, 6), (0o755, 0, 0)]);
    assert_eq!(adopt(staging.as_fd(), &[], &[], &[lower.as_fd()]).expect("nothing to do"), None);
}

/// The digest of a tree is that of the disk: any change of it is seen, and nothing else is.
#[test]
fn the_digest_of_a_tree_is_what_is_on_disk() {
    use jug::image::layer::tree::digest;
    let place = Place::new();
    random::tree(&place.path("tree"), 500);
    fs::write(place.path("tree/known"), "x".repeat(10_000)).expect("write");
    gnu_tar(&["-c", "--format=pax", "--sparse"], &place.path("tar"), &place.path("tree"));
    let applied = place.unpack(&fs::read(place.path("tar")).expect("read")).expect("unpack");
    let now = |dir: &str| {
        let root = File::open(place.path(dir)).expect("open");
        digest(root.as_fd(), &Default::default()).expect("a digest")
    };
    assert_eq!(now("staging"), applied.tree, "read again from the disk");
    assert_eq!(now("tree"), applied.tree, "the tree that was packed is the same");
    let path = place.staging().join("known");
    let meta = fs::metadata(&path).expect("stat");
    let mut bytes = fs::read(&path).expect("read");
    bytes[0] ^= 1;
    fs::write(&path, bytes).expect("write");
    let file = File::options().write(true).open(&path).expect("open");
    file.set_modified(meta.modified().expect("a time")).expect("utimes");
    assert_ne!(now("staging"), applied.tree, "one bit");
}
