//! What a tree and a tar hold: layers in order, whiteouts obeyed, owners, modes, times, attributes and nodes kept.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use support::{Bench, RawTar, recipe};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = [0; 256];
    let len = rustix::fs::lgetxattr(path, OsStr::new(name), &mut value[..]).unwrap();
    value[..len].to_vec()
}

#[test]
fn layers_apply_in_order_with_their_whiteouts() {
    let bench = Bench::new();
    bench.build(&[&recipe("layers.toml"), "--output", "tree:root", "--no-chown"]);
    let root = bench.path("root");
    assert_eq!(read(&root.join("etc/motd")), "upper\n");
    assert_eq!(
        read(&root.join("etc/hard")),
        "lower\n",
        "the other name of a replaced file keeps its content"
    );
    assert_eq!(read(&root.join("etc/old")), "back\n", "a later layer may bring a name back");
    assert!(!root.join("opt/tool/bin").exists(), "a whiteout takes a directory with all below it");
    let cache: Vec<_> =
        fs::read_dir(root.join("var/cache")).unwrap().map(|i| i.unwrap().file_name()).collect();
    assert_eq!(cache, ["new"], "opaque hides the lower layers and not its own");
    assert_eq!(read(&root.join("opt/tool/through")), "through a link of the lower layer");
    let (hard, link) = (root.join("etc/hard"), root.join("etc/lower-link"));
    assert_eq!(fs::metadata(hard).unwrap().ino(), fs::metadata(link).unwrap().ino());
    let markers = fs::read_dir(root.join("etc"))
        .unwrap()
        .filter(|item| item.as_ref().unwrap().file_name().to_string_lossy().starts_with(".wh."));
    assert_eq!(markers.count(), 0);
}

#[test]
fn whiteouts_do_not_hide_their_own_layer_whatever_the_order() {
    let bench = Bench::new();
    bench.write("lower.tar", RawTar::default().file("d/a", "lower").file("d/b", "lower").bytes());
    let upper = RawTar::default().file("d/a", "upper").file("d/.wh..wh..opq", "").file("d/.wh.a", "");
    bench.write("upper.tar", upper.bytes());
    bench.write(
        "r.toml",
        "[[layer]]\nfrom = \"tar:lower.tar\"\n[[layer]]\nfrom = { tar = \"upper.tar\", verbatim = true }\n",
    );
    bench.build(&["r.toml", "--output", "tree:root", "--no-chown"]);
    assert_eq!(read(&bench.path("root/d/a")), "upper");
    assert!(!bench.path("root/d/b").exists());
}

#[test]
fn files_and_directories_take_each_others_place() {
    let bench = Bench::new();
    bench.write("one.tar", RawTar::default().file("a/x", "x").file("b", "b").symlink("c", "b").bytes());
    bench.write("two.tar", RawTar::default().file("a", "a").file("b/y", "y").dir("c/").bytes());
    // `b/y` without an entry for `b`: the archive never said that b is a directory now.
    let said = bench.refuse(&["--from", "tar:one.tar", "--from", "tar:two.tar", "--output", "tar:x.tar"]);
    assert!(said.contains("'b' is not a directory"), "{said}");
    bench.write("two.tar", RawTar::default().file("a", "a").dir("b/").file("b/y", "y").dir("c/").bytes());
    bench.build(&["--from", "tar:one.tar", "--from", "tar:two.tar", "--output", "tree:root", "--no-chown"]);
    assert_eq!(read(&bench.path("root/a")), "a");
    assert_eq!(read(&bench.path("root/b/y")), "y");
    assert!(fs::symlink_metadata(bench.path("root/c")).unwrap().is_dir());
}

const EVERYTHING: &str = r#"
[[layer]]
files = [
    { path = "/bin/su", content = "x", mode = 0o4755, uid = 1000, gid = 100 },
    { path = "/var/mail", dir = true, mode = 0o3775, uid = 4000000000, gid = 8 },
    { path = "/var/mail/box", content = "m", mtime = 1000000000, mtime_nsec = 123456789 },
    { path = "/dev/null", device = "c 1 3", mode = 0o666 },
    { path = "/dev/loop", device = "b 7 0", mode = 0o660, gid = 6 },
    { path = "/run/fifo", fifo = true, mode = 0o620, uid = 3 },
    { path = "/link", symlink = "/nowhere", uid = 5, gid = 6, xattrs = { "trusted.link" = "t" } },
    { path = "/a/file", content = "", xattrs = { "user.note" = "two\nlines", "trusted.bin" = "0x00ff0a3d00" } },
    { path = "/a/cap", content = "",
        xattrs = { "security.capability" = "0x0100000200040000000000000000000000000000" } },
    { path = "/old", content = "", mtime = -5 },
    { path = "/zeros", zeros = 3000000 },
    { path = """/a/very/long/name/\
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""", content = "long" },
    { path = "/h", hardlink = "/a/file" },
    { path = "/hh", hardlink = "/h" },
]
"#;

fn check_everything(root: &Path) {
    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    let owner_mode = |name: &str| (stat(name).uid(), stat(name).gid(), stat(name).mode() & 0o7777);
    assert_eq!(owner_mode("bin/su"), (1000, 100, 0o4755));
    assert_eq!(owner_mode("var/mail"), (4_000_000_000, 8, 0o3775));
    assert_eq!(owner_mode("dev/null"), (0, 0, 0o666));
    assert!(stat("dev/null").file_type().is_char_device());
    assert_eq!(stat("dev/null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(owner_mode("dev/loop"), (0, 6, 0o660));
    assert!(stat("dev/loop").file_type().is_block_device());
    assert_eq!(owner_mode("run/fifo"), (3, 0, 0o620));
    assert!(stat("run/fifo").file_type().is_fifo());
    assert_eq!((stat("link").uid(), stat("link").gid()), (5, 6));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/nowhere"));
    assert_eq!(xattr(&root.join("link"), "trusted.link"), b"t");
    assert_eq!(xattr(&root.join("a/file"), "user.note"), b"two\nlines");
    assert_eq!(xattr(&root.join("a/file"), "trusted.bin"), b"\x00\xff\n=\x00");
    assert_eq!(xattr(&root.join("a/cap"), "security.capability").len(), 20);
    assert_eq!((stat("zeros").len(), stat("var/mail").mtime()), (3_000_000, 1_700_000_000));
    let long = format!("a/very/long/name/{}", "a".repeat(102));
    assert_eq!(read(&root.join(long)), "long");
    assert_eq!((stat("a/file").nlink(), stat("hh").ino()), (3, stat("a/file").ino()));
}

#[test]
fn a_tree_keeps_all_metadata() {
    if !support::is_root() {
        return;
    }
    let bench = Bench::new();
    bench.write("r.toml", EVERYTHING);
    bench.build(&["r.toml", "--output", "tree:root", "--output", "tar:x.tar"]);
    check_everything(&bench.path("root"));
    let stat = |name: &str| fs::metadata(bench.path("root").join(name)).unwrap();
    assert_eq!(
        (stat("var/mail/box").mtime(), stat("var/mail/box").mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
    assert_eq!(stat("old").mtime(), -5);
    // The way through a tar loses nothing, and a second one is the same bytes.
    bench.build(&["--from", "tar:x.tar", "--output", "tree:again", "--output", "tar:y.tar"]);
    check_everything(&bench.path("again"));
    assert!(fs::read(bench.path("x.tar")).unwrap() == fs::read(bench.path("y.tar")).unwrap());
    // So does the way through a directory, but for the times, which become the build's.
    bench.build(&["--from", "dir:root", "--output", "tree:third"]);
    check_everything(&bench.path("third"));
}

#[test]
fn gnu_tar_reads_what_was_written() {
    let bench = Bench::new();
    bench.write("r.toml", EVERYTHING);
    bench.build(&["r.toml", "--output", "tar:x.tar"]);
    let listing = std::process::Command::new("tar").args(["tvf"]).arg(bench.path("x.tar")).output().unwrap();
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.status.success() && listing.stderr.is_empty(), "{listing:?}");
    for part in [
        "-rwsr-xr-x 1000/100",
        "crw-rw-rw- 0/0             1,3",
        "4000000000/8",
        "/aaaaaaaa",
        "link to a/file",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn gnu_tar_and_gzip_are_read() {
    let bench = Bench::new();
    let long = format!("in/{}/{}", "d".repeat(90), "f".repeat(90));
    bench.write(&long, "content");
    for (format, name) in [("gnu", "a.tar.gz"), ("pax", "b.tar.gz"), ("ustar", "c.tar.gz")] {
        let tar = std::process::Command::new("tar")
            .current_dir(bench.path(""))
            .args(["czf", name, "-C", "in", &format!("--format={format}"), "."])
            .status();
        assert!(tar.unwrap().success());
        let tree = format!("tree:{format}");
        bench.build(&["--from", &format!("tar:{name}"), "--output", &tree, "--no-chown"]);
        let path = bench.path(format).join(long.strip_prefix("in/").unwrap());
        assert_eq!(read(&path), "content", "{format}");
    }
}

#[test]
fn times_in_a_tarball_are_kept_up_to_the_epoch() {
    let bench = Bench::new();
    bench.write("in.tar", RawTar::default().file("a", "").bytes()); // 1600000000
    for (epoch, expected) in [(None, 1_600_000_000), (Some("1700000000"), 1_600_000_000), (Some("5"), 5)] {
        let out = format!("tree:root-{expected}-{}", epoch.unwrap_or("none"));
        let output = bench.run_at(epoch, &["build", "--from", "tar:in.tar", "--no-chown", "--output", &out]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = bench.path(out.strip_prefix("tree:").unwrap()).join("a");
        assert_eq!(fs::metadata(path).unwrap().mtime(), expected);
    }
}

#[test]
fn an_opaque_root_hides_every_lower_layer() {
    let bench = Bench::new();
    bench.write(
        "r.toml",
        "[[layer]]\nfrom = 'busybox'\n[[layer]]\nopaque = ['/']\nfiles = [{ path = '/a', content = '' }]",
    );
    bench.build(&["r.toml", "--output", "tree:root", "--no-chown"]);
    let names: Vec<_> =
        fs::read_dir(bench.path("root")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names, ["a"]);
}
