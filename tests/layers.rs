//! Layers: what is unpacked is what the archive says, nothing outside is touched, and a bad archive is a bounded
//! error that names the entry. The unpacking is the real one, in its confined process.
#![cfg(feature = "engine")]

#[path = "layers/archive.rs"]
mod archive;
#[path = "layers/place.rs"]
mod place;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use archive::Archive;
use place::{Place, digest};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

fn simple() -> Vec<u8> {
    Archive::new()
        .dir("./")
        .dir("etc")
        .file("etc/hostname", "lamb\n")
        .symlink("etc/mtab", "/proc/mounts")
        .end()
}

#[test]
fn the_compression_is_told_by_the_bytes() {
    let tar = simple();
    let place = Place::new();
    let plain = place.unpack_blob(&tar, &tar).expect("plain");
    let (want, entries) = (place.listing(), plain.entries);
    assert_eq!((entries, plain.bytes), (4, tar.len() as u64));
    assert_eq!(fs::read_to_string(place.path("staging/etc/hostname")).expect("read"), "lamb\n");
    let half = tar.len() / 2;
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("zstd");
    for (name, blob) in [
        ("gzip", gzip(&tar)),
        ("two gzip members", [gzip(&tar[..half]), gzip(&tar[half..])].concat()),
        ("zstd", zstd(&tar)),
        ("two zstd frames", [zstd(&tar[..half]), zstd(&tar[half..])].concat()),
    ] {
        place.empty_staging();
        let applied = place.unpack_blob(&blob, &tar).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(place.listing(), want, "{name}");
        assert_eq!(applied, plain, "{name}");
    }
}

/// What an entry does, and a part of the error that it shall be; empty: it is unpacked.
#[test]
fn nothing_outside_is_ever_touched() {
    let outside = "../outside";
    let cases: Vec<(&str, Archive, &str)> = vec![
        ("a name that climbs", Archive::new().file("../outside/canary", "dead"), "leaves the directory"),
        (
            "one that climbs inside",
            Archive::new().file("a/../../outside/canary", "dead"),
            "leaves the directory",
        ),
        ("an absolute name", Archive::new().file("/outside/canary", "inside"), ""),
        (
            "a link that climbs, and a file below",
            Archive::new().symlink("l", outside).file("l/canary", "in"),
            "",
        ),
        ("an absolute link", Archive::new().symlink("l", "/tmp").file("l/jug-canary", "inside"), ""),
        (
            "a link to a link",
            Archive::new().symlink("a", "b").symlink("b", outside).file("a/canary", "in"),
            "",
        ),
        (
            "a link in the middle",
            Archive::new().dir("d").symlink("d/l", "../..").file("d/l/outside/canary", "in"),
            "",
        ),
        (
            "a file through a link at the end",
            Archive::new().symlink("c", "../outside/canary").file("c", "own"),
            "",
        ),
        (
            "a directory through one",
            Archive::new().symlink("d", outside).dir("d").file("d/canary", "own"),
            "",
        ),
        (
            "a mode through one",
            Archive::new().symlink("d", outside).header("d/inner", b'5', "", 0, |_| {}),
            "",
        ),
        ("the dot of umoci", Archive::new().symlink("a/.", outside).file("a/canary", "own"), ""),
        ("a whiteout through a link", Archive::new().symlink("l", outside).file("l/.wh.canary", ""), ""),
        (
            "an opaque mark through a link",
            Archive::new().symlink("l", outside).file("l/.wh..wh..opq", ""),
            "",
        ),
        (
            "a device through a link",
            Archive::new().symlink("l", outside).entry("l/canary", b'3', "", b""),
            "",
        ),
        ("a hard link that climbs", Archive::new().link("l", "../outside/canary"), "leaves the directory"),
        ("an absolute hard link", Archive::new().link("l", "/etc/passwd"), "not in the layer"),
        (
            "a hard link through a link",
            Archive::new().symlink("d", outside).link("l", "d/canary"),
            "not in the layer",
        ),
        (
            "a hard link to a link, and a file over it",
            Archive::new().symlink("s", "../outside/canary").link("l", "s").file("l", "own"),
            "",
        ),
        ("a root that is a link", Archive::new().symlink("./", outside), "the root is a directory"),
        ("a root that is a file", Archive::new().file("/", "x"), "the root is a directory"),
        ("a whiteout of the root", Archive::new().file(".wh.", ""), "a whiteout of nothing"),
        ("of what is above", Archive::new().file(".wh...", ""), "a whiteout of nothing"),
        ("of itself, deep", Archive::new().file("a/b/c/.wh..", ""), "a whiteout of nothing"),
        ("links in a circle", Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", ""), "too many"),
        ("a long name of nothing", Archive::new().entry("x", b'L', "", b"\0\0\0").file("a", "x"), "is empty"),
        ("a link to itself", Archive::new().file("a", "x").link("a", "a"), "link to itself"),
        ("a link to a directory", Archive::new().dir("a").link("b", "a"), "cannot be linked to"),
        ("a link to what comes later", Archive::new().link("b", "a").file("a", "x"), "not in the layer"),
        ("a file below a file", Archive::new().file("a", "x").file("a/b", "x"), "no directory"),
        ("a name with a NUL", Archive::new().pax(&[("path", b"a\0b")]).file("a", ""), "NUL"),
        ("a name too long", Archive::new().pax(&[("path", &[b'x'; 300])]).file("a", ""), "longer than 255"),
        (
            "a path too deep",
            Archive::new().pax(&[("path", "a/".repeat(300).as_bytes())]).dir("a"),
            "deeper than",
        ),
    ];
    let place = Place::new();
    for (what, archive, error) in cases {
        place.empty_staging();
        match place.unpack(&archive.end()) {
            Ok(_) => assert_eq!(error, "", "{what} was unpacked"),
            Err(e) => assert!(!error.is_empty() && e.what().contains(error), "{what}: {e}"),
        }
    }
    assert!(!std::path::Path::new("/tmp/jug-canary").exists());
}

/// Exponential look-ups: each link is gone through twice by the next one.
#[test]
fn links_that_multiply_are_cut_short() {
    let place = Place::new();
    let mut archive = Archive::new().dir("l0");
    for n in 1..60 {
        archive = archive.symlink(&format!("l{n}"), &format!("l{0}/../l{0}", n - 1));
    }
    let error = place.unpack(&archive.file("l59/x", "").end()).expect_err("too many links");
    assert!(error.what().contains("too many"), "{error}");
}

#[test]
fn paths_are_resolved_as_a_container_sees_them() {
    let place = Place::new();
    let tar = Archive::new()
        .symlink("lib", "usr/lib")
        .file("lib/a", "a")
        .symlink("var/run", "/run")
        .file("var/run/pid", "1")
        .symlink("up", "../../usr")
        .file("up/b", "b")
        .link("c", "/lib/a")
        .end();
    let applied = place.unpack(&tar).expect("unpack");
    let read = |name: &str| fs::read_to_string(place.path(&format!("staging/{name}"))).expect(name);
    assert_eq!([read("usr/lib/a"), read("run/pid"), read("usr/b"), read("c")], ["a", "1", "b", "a"]);
    let mut implied: Vec<_> =
        applied.implied.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    implied.sort();
    assert_eq!(implied, ["", "run", "usr", "usr/lib", "var"]);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let tar = Archive::new()
        .file("file-to-dir", "x")
        .dir("file-to-dir")
        .file("file-to-dir/inner", "new")
        .dir("dir-to-file")
        .file("dir-to-file/inner", "x")
        .file("dir-to-file", "new")
        .file("twice", "long before")
        .file("twice", "new")
        .symlink("link-to-file", "twice")
        .file("link-to-file", "own")
        .file("linked", "x")
        .link("other", "linked")
        .file("linked", "new")
        .end();
    place.unpack(&tar).expect("unpack");
    let read = |name: &str| fs::read_to_string(place.path(&format!("staging/{name}"))).expect(name);
    for name in ["file-to-dir/inner", "dir-to-file", "twice", "linked"] {
        assert_eq!(read(name), "new", "{name}");
    }
    assert_eq!((read("link-to-file").as_str(), read("other").as_str()), ("own", "x"));
    let lines = place.listing();
    let dir = lines.iter().find(|line| line.starts_with("file-to-dir ")).expect("the directory");
    assert!(dir.contains("trusted.overlay.opaque=y"), "the file before it hid what lower layers have: {dir}");
}

#[test]
fn whiteouts_hide_lower_layers_in_any_order() {
    let place = Place::new();
    let whiteout = |name: &str| {
        let meta = fs::symlink_metadata(place.path(&format!("staging/{name}"))).expect(name);
        meta.mode() & libc::S_IFMT == libc::S_IFCHR && meta.rdev() == 0
    };
    let is_opaque = |name: &str| {
        place
            .listing()
            .iter()
            .any(|line| line.starts_with(&format!("{name} ")) && line.contains("trusted.overlay.opaque=y"))
    };
    let before =
        Archive::new().file("d/.wh..wh..opq", "").file(".wh.a", "").file(".wh.e", "").file(".wh.gone", "");
    let own = |archive: Archive| archive.dir("d").file("d/x", "x").file("a", "own").dir("e").file("e/x", "x");
    for (order, tar) in [
        ("whiteouts first", own(before)),
        (
            "whiteouts last",
            own(Archive::new())
                .file("d/.wh..wh..opq", "")
                .file(".wh.a", "")
                .file(".wh.e", "")
                .file(".wh.gone", ""),
        ),
    ] {
        place.empty_staging();
        place.unpack(&tar.file(".wh..wh.plnk/1.2", "").end()).expect(order);
        assert!(whiteout("gone"), "{order}");
        assert_eq!(fs::read_to_string(place.path("staging/a")).expect("a"), "own", "{order}");
        assert!(is_opaque("d") && is_opaque("e"), "{order}: {:#?}", place.listing());
        assert!(place.path("staging/d/x").exists() && place.path("staging/e/x").exists(), "{order}");
        assert!(!place.path("staging/.wh..wh.plnk").exists(), "{order}");
    }
}

/// An image cannot speak overlayfs's language: what it says in it is as if absent.
#[test]
fn the_words_of_overlayfs_are_not_an_images_to_say() {
    let place = Place::new();
    let zero = |header: &mut [u8; 512]| header[329..345].fill(0);
    let tar = Archive::new()
        .file("kept", "x")
        .header("null", b'3', "", 0, zero)
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.other", b"x"),
            ("SCHILY.xattr.security.selinux", b"x:y:z:s0\0"),
            ("SCHILY.xattr.user.own", b"\x00\n\xff"),
        ])
        .dir("d")
        .end();
    place.unpack(&tar).expect("unpack");
    assert!(!place.path("staging/null").exists());
    let lines = place.listing();
    let dir = lines.iter().find(|line| line.starts_with("d ")).expect("the directory");
    assert!(dir.ends_with("[user.own=\\x00\\n\\xff] "), "{dir}");
}

/// Archives on which readers disagree, or that lie.
#[test]
fn what_is_ambiguous_or_damaged_is_refused() {
    let size = |field: &'static [u8]| move |header: &mut [u8; 512]| header[124..136].copy_from_slice(field);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no tar", b"x".repeat(1024), "checksum"),
        ("a short one", simple()[..700].to_vec(), "ends in the middle"),
        ("zeros amid", Archive::new().file("a", "").data(&[0; 512]).file("b", "").end(), "zeros stands amid"),
        ("a link with data", Archive::new().entry("a", b'2', "b", b"data").end(), "where there can be none"),
        (
            "a directory with data",
            Archive::new().entry("a", b'5', "", b"data").end(),
            "where there can be none",
        ),
        ("an unknown type", Archive::new().entry("a", b'Z', "", b"").end(), "not known"),
        ("a negative size", Archive::new().header("a", b'0', "", 0, size(&[0xff; 12])).end(), "negative"),
        (
            "an endless size",
            Archive::new()
                .header("a", b'0', "", 0, size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"))
                .end(),
            "longer than",
        ),
        ("no number", Archive::new().header("a", b'0', "", 0, size(b"0000000000x\0")).end(), "no number"),
        ("a negative PAX size", Archive::new().pax(&[("size", b"-1")]).file("a", "").end(), "no number"),
        ("a PAX size of a header", Archive::new().pax(&[("size", b"512")]).dir("a").end(), "none"),
        ("an id too large", Archive::new().pax(&[("uid", b"4294967295")]).file("a", "").end(), "too large"),
        (
            "two names",
            Archive::new().pax(&[("path", b"a")]).entry("L", b'L', "", b"b\0").file("c", "").end(),
            "another of GNU",
        ),
        ("two PAX headers", Archive::new().pax(&[]).pax(&[]).file("c", "").end(), "two headers"),
        ("a header of nothing", Archive::new().pax(&[("path", b"a")]).end(), "header of a header"),
        (
            "a global size",
            Archive::new().entry("g", b'g', "", &archive::record("size", b"1")).end(),
            "global",
        ),
        ("records too long", Archive::new().header("x", b'x', "", 2 << 20, |_| {}).end(), "longer than"),
        (
            "an xattr too long",
            Archive::new().pax(&[("SCHILY.xattr.user.x", &[b'x'; 70_000])]).file("a", "").end(),
            "64 KiB",
        ),
        (
            "holes that overlap",
            Archive::new()
                .pax(&[("GNU.sparse.map", b"0,4,2,4"), ("GNU.sparse.size", b"100")])
                .file("a", "12345678")
                .end(),
            "an extent",
        ),
        (
            "a map without an end",
            Archive::new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
                .file("a", &"9".repeat(600))
                .end(),
            "damaged",
        ),
        (
            "a map too long",
            Archive::new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
                .file("a", &format!("99999999\n{}", "0\n".repeat(300)))
                .end(),
            "extents",
        ),
    ];
    let place = Place::new();
    for (what, tar, words) in cases {
        place.empty_staging();
        let error = place.unpack(&tar).expect_err(what);
        assert!(error.what().contains(words), "{what}: {error}");
    }
    let error = place.unpack(&Archive::new().file("ok", "").entry("the/name", b'Z', "", b"").end());
    assert!(error.expect_err("an unknown type").what().contains("the/name"), "the error names the entry");
}

#[test]
fn a_layer_is_what_the_config_names_or_nothing() {
    let (place, tar) = (Place::new(), simple());
    let error = place.unpack_blob(&gzip(&tar), b"something else").expect_err("another digest");
    assert!(error.what().contains("unpacks to sha256:") && error.what().contains("not to"), "{error}");
    // What follows the end of the archive is a part of it.
    place.empty_staging();
    let padded = [&tar[..], &[0; 5000]].concat();
    place.unpack_blob(&gzip(&padded), &padded).expect("padding");
    place.empty_staging();
    let cut = gzip(&tar);
    let error = place.unpack_blob(&cut[..cut.len() - 9], &tar).expect_err("a cut file");
    assert!(error.what().contains("damaged"), "{error}");
    place.empty_staging();
    let error = place.unpack_blob(&[gzip(&tar), b"garbage".to_vec()].concat(), &tar).expect_err("garbage");
    assert!(error.what().contains("damaged"), "{error}");
    place.empty_staging();
    let error = place.unpack_blob(b"\xfd7zXZ\0....", &tar).expect_err("xz");
    assert!(error.what().contains("xz"), "{error}");
}

/// A file that is still being written, and one that never will be.
#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let tar = Archive::new().file("a", &"x".repeat(3_000_000)).file("b", "b").end();
    let blob = gzip(&tar);
    let place = Place::new();
    for whole in [true, false] {
        place.empty_staging();
        let mut file = fs::File::create(place.path("blob")).expect("create");
        let (reader, writer) = std::io::pipe().expect("pipe");
        let reading = fs::File::open(place.path("blob")).expect("open");
        let (bytes, mut written, mut writer) = (blob.clone(), 0u64, writer);
        let download = std::thread::spawn(move || {
            for piece in bytes.chunks(1 + bytes.len() / 7).take(if whole { 7 } else { 3 }) {
                file.write_all(piece).expect("write");
                written += piece.len() as u64;
                writer.write_all(&written.to_le_bytes()).expect("the pipe");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            if whole {
                writer.write_all(&u64::MAX.to_le_bytes()).expect("the pipe");
            }
        });
        let blob = jug::image::layer::Blob { file: reading, growing: Some(reader.into()) };
        let result = place.unpack_from(blob, &digest(&tar));
        download.join().expect("the download");
        match result {
            Ok(applied) => assert!(whole && applied.bytes == tar.len() as u64),
            Err(error) => assert!(!whole && error.what().contains("download ended"), "{error}"),
        }
    }
}

/// The kernel's own words about the worker, while it waits for a download that does not come.
#[test]
fn the_worker_has_given_up_what_it_does_not_need() {
    let place = Place::new();
    fs::write(place.path("blob"), "").expect("write");
    let reading = fs::File::open(place.path("blob")).expect("open");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let blob = jug::image::layer::Blob { file: reading, growing: Some(reader.into()) };
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| place.unpack_from(blob, &digest(b"")));
        let status = confined_child();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().to_owned()
        };
        assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "1"), "{status}");
        // chown, dac_override, fowner, fsetid, sys_admin, mknod, setfcap (linux/capability.h).
        let most: u64 = [0, 1, 3, 4, 21, 27, 31].iter().map(|bit| 1 << bit).sum();
        for set in ["CapEff:", "CapPrm:"] {
            let has = u64::from_str_radix(&field(set), 16).expect("a set");
            assert_eq!(has & !most, 0, "{set} {has:x}");
        }
        drop(writer);
        let error = unpacking.join().expect("the thread").expect_err("the download ended");
        assert!(error.what().contains("download ended"), "{error}");
    });
}

/// The status of a worker of this program, once its filter is there.
fn confined_child() -> String {
    let own = format!("PPid:\t{}\n", std::process::id());
    for _ in 0..3000 {
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let waits = fs::read(entry.path().join("cmdline")).unwrap_or_default() == b"jug-unpack\0";
            // Other tests have workers at the same time, and all end up like this.
            if waits && status.contains(&own) && status.contains("Seccomp:\t2") {
                return status;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no worker was seen under its filter");
}

/// Landlock holds one thread here: what lies below the directory can be made and linked, and nothing else be opened.
#[test]
fn landlock_leaves_the_staging_directory_and_nothing_else() {
    use jug::sys::{landlock, path, process};
    use std::os::fd::AsFd as _;
    let abi = landlock::abi();
    if abi < 2 {
        let _ = writeln!(std::io::stderr(), "SKIP landlock: this kernel has ABI {abi}");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("staging/a")).expect("mkdir");
    fs::create_dir(place.path("staging/b")).expect("mkdir");
    let staging = fs::File::open(place.staging()).expect("open");
    let (made, linked, outside, changed) = std::thread::scope(|scope| {
        let restricted = scope.spawn(|| {
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).expect("no_new_privs");
            landlock::restrict_to(staging.as_fd(), landlock::READ_AND_CHANGE, abi).expect("landlock");
            let dir = staging.as_fd();
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
            let made = path::openat(dir, "a/file".as_ref(), flags, 0o600);
            let linked = path::linkat(dir, "a/file".as_ref(), dir, "b/file".as_ref());
            let outside = path::openat(dir, "../outside/canary".as_ref(), libc::O_RDONLY, 0);
            let changed = path::openat(dir, "../outside/new".as_ref(), flags, 0o600);
            (made.is_ok(), linked.is_ok(), outside.map_err(|e| e.errno()), changed.map_err(|e| e.errno()))
        });
        restricted.join().expect("the thread")
    });
    assert!(made && linked);
    assert_eq!(outside.expect_err("reading outside"), libc::EACCES);
    assert_eq!(changed.expect_err("writing outside"), libc::EACCES);
    fs::read(place.path("outside/canary")).expect("the others may still");
}

/// Few bytes that want to become many: time, memory and disk are bounded by limits, not by the image.
/// What the unpack worker gives up, given up by a process of ours: this test once more, in a process of its own.
#[test]
fn the_worker_can_reach_nothing_outside() {
    use jug::image::layer::confine;
    use std::os::fd::AsFd as _;
    const INSIDE: &str = "JUG_TEST_STAGING";
    if let Ok(staging) = std::env::var(INSIDE) {
        let staging = fs::File::open(staging).expect("open");
        confine::files_and_privileges(staging.as_fd()).expect("confined");
        let open = |path: &str, flags| jug::sys::path::openat(staging.as_fd(), path.as_ref(), flags, 0o600);
        let reads =
            ["../outside/canary", "/etc/passwd", "/proc/self/environ"].map(|path| open(path, 0).is_ok());
        let writes = open("../outside/new", libc::O_WRONLY | libc::O_CREAT).is_ok();
        let inside = open("file", libc::O_WRONLY | libc::O_CREAT).is_ok();
        std::process::exit(if (reads, writes, inside) == ([false; 3], false, true) { 7 } else { 8 });
    }
    if jug::sys::landlock::abi() < 2 {
        let _ = writeln!(std::io::stderr(), "SKIP the_worker_can_reach_nothing_outside: no Landlock here");
        return;
    }
    let place = Place::new();
    let again = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "the_worker_can_reach_nothing_outside"])
        .env(INSIDE, place.staging())
        .output()
        .expect("this test");
    assert_eq!(again.status.code(), Some(7), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn bombs_go_off_within_bounds() {
    let place = Place::new();
    // 200 MB behind the end of the archive.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&simple()).expect("gzip");
    (0..200).for_each(|_| encoder.write_all(&vec![0; 1 << 20]).expect("gzip"));
    let error = place.unpack_blob(&encoder.finish().expect("gzip"), b"").expect_err("a long tail");
    assert!(error.what().contains("follow the end"), "{error}");
    // A window of 128 MB, as `zstd --long=27` makes it.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    encoder.window_log(27).expect("a window");
    encoder.write_all(&simple()).expect("zstd");
    place.empty_staging();
    let error = place.unpack_blob(&encoder.finish().expect("zstd"), &simple()).expect_err("a window");
    assert!(error.what().contains("window is larger than 32 MiB"), "{error}");
    // A file of 8 TiB that is all hole: nothing to write, nothing to read, and nothing to hash.
    let size = (8u64 << 40).to_string();
    let tar = Archive::new()
        .pax(&[("GNU.sparse.map", b"0,4"), ("GNU.sparse.size", size.as_bytes())])
        .file("holes", "data")
        .end();
    place.empty_staging();
    place.unpack(&tar).expect("holes cost nothing");
    let meta = fs::metadata(place.path("staging/holes")).expect("stat");
    assert!(meta.len() == 8 << 40 && meta.blocks() < 100, "{meta:?}");
}

/// A disk without room: the call and the entry are named.
#[test]
fn a_full_disk_is_a_clear_error() {
    let place = Place::new();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs"])
        .arg(place.staging())
        .status()
        .expect("mount(8)");
    assert!(mount.success());
    let tar = Archive::new().file("small", "x").file("large", &"x".repeat(200_000)).end();
    let result = place.unpack(&tar);
    assert!(std::process::Command::new("umount").arg(place.staging()).status().expect("umount(8)").success());
    let error = result.expect_err("no room");
    assert!(error.what().contains("\"large\"") && error.what().contains("no space left"), "{error}");
    assert_eq!(error.errno(), libc::ENOSPC, "a caller can tell");
}
