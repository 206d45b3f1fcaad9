//! What virtual machines begin with: an initramfs, as cpio(1) reads it, and a disk, as debugfs(8) does.

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;

use support::{Bench, is_root};

const RECIPE: &str = r#"
[[layer]]
from = "busybox"
files = [
    { path = "/init", symlink = "/bin/sh" },
    { path = "/etc/motd", content = "hello\n", mode = 0o4600, uid = 5, gid = 6 },
    { path = "/etc/again", hardlink = "/etc/motd" },
    { path = "/dev/null", device = "c 1 3", mode = 0o666 },
    { path = "/f", fifo = true },
]
"#;

/// The standard output of a program that must succeed.
fn said(program: &str, args: &[&str], dir: &std::path::Path) -> String {
    let output = Command::new(program).args(args).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_initramfs_is_the_tree() {
    let bench = Bench::new();
    bench.write("recipe.toml", RECIPE);
    let outputs = ["--output", "initramfs:x.cpio", "--output", "initramfs:x.cpio.gz"];
    bench.build(&[&["recipe.toml"], &outputs[..]].concat());
    bench.build(&["recipe.toml", "--output", "initramfs:again.cpio"]);
    let bytes = std::fs::read(bench.path("x.cpio")).unwrap();
    assert!(bytes == std::fs::read(bench.path("again.cpio")).unwrap(), "the same recipe, other bytes");
    let there = bench.path("there");
    std::fs::create_dir(&there).unwrap();
    said("sh", &["-c", "busybox gunzip -c ../x.cpio.gz | cmp - ../x.cpio"], &there);
    said("sh", &["-c", "busybox cpio -idm <../x.cpio"], &there);
    let stat = |name: &str| std::fs::symlink_metadata(there.join(name)).unwrap();
    assert_eq!(std::fs::read(there.join("etc/motd")).unwrap(), b"hello\n");
    assert_eq!((stat("etc/motd").ino(), stat("etc/motd").nlink()), (stat("etc/again").ino(), 2));
    assert_eq!(std::fs::read_link(there.join("init")).unwrap().to_str(), Some("/bin/sh"));
    assert!(stat("f").file_type().is_fifo() && stat("bin/busybox").size() > 100_000);
    assert_eq!(stat("etc/motd").mtime(), 1_700_000_000);
    if is_root() {
        assert_eq!((stat("etc/motd").uid(), stat("etc/motd").gid()), (5, 6));
        assert_eq!(stat("dev/null").rdev(), rustix::fs::makedev(1, 3));
    }
}

#[test]
fn an_initramfs_has_no_attributes() {
    let bench = Bench::new();
    bench.write(
        "recipe.toml",
        r#"layer = [{ files = [{ path = "/a", content = "", xattrs = { "user.a" = "b" } }] }]"#,
    );
    let said = bench.refuse(&["recipe.toml", "--output", "initramfs:x.cpio"]);
    assert!(said.contains("'a'") && said.contains("no room for its extended attributes"), "{said}");
    assert!(!bench.path("x.cpio").exists());
}

#[test]
fn a_disk_is_the_tree() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.write("recipe.toml", RECIPE);
    bench.build(&["recipe.toml", "--output", "ext4:disk"]);
    said("e2fsck", &["-fn", "disk"], &bench.path(""));
    let ask = |what: &str| said("debugfs", &["-R", what, "disk"], &bench.path(""));
    assert_eq!(ask("cat /etc/again"), "hello\n");
    let stat = ask("stat /etc/motd");
    for words in ["Mode:  04600", "User:     5", "Group:     6", "Links: 2"] {
        assert!(stat.contains(words), "{words}: {stat}");
    }
    assert!(ask("stat /dev/null").contains("Device major/minor number: 01:03"));
    assert!(ask("stat /init").contains("Fast link dest: \"/bin/sh\""));
    assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 2, "something is left");
}
