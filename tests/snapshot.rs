//! Snapshots: what the kernel shows of layers that lie upon one another.
#![cfg(feature = "engine")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use jug::image::snapshot::{Options, Upper, mount};
use jug::sys::{path, xattr};

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/jug-test-snapshot-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for name in ["upper", "work"] {
            fs::create_dir_all(dir.join(name)).expect("mkdir");
        }
        Self(dir)
    }

    fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.0.join(name);
        for (file, text) in files {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().expect("a parent")).expect("mkdir");
            fs::write(file, text).expect("write");
        }
        dir
    }

    fn mount(&self, layers: &[PathBuf], options: &Options<'_>) -> OwnedFd {
        let (upper, work) = (self.0.join("upper"), self.0.join("work"));
        mount(layers, Some(&Upper { upper: &upper, work: &work }), options).expect("a snapshot")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A path into a detached mount.
fn inside(tree: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", tree.as_raw_fd()))
}

fn text(tree: &OwnedFd, name: &str) -> String {
    fs::read_to_string(inside(tree, name)).unwrap_or_else(|e| format!("({e})"))
}

fn is_read_only(tree: &OwnedFd) -> bool {
    fs::write(inside(tree, "new"), "x").is_err_and(|e| e.raw_os_error() == Some(libc::EROFS))
}

#[test]
fn layers_lie_upon_one_another() {
    let place = Place::new();
    let low =
        place.layer("low", &[("a", "low"), ("b", "low"), ("gone", "low"), ("d/x", "low"), ("d/y", "low")]);
    let high = place.layer("high", &[("b", "high"), ("d/z", "high")]);
    let dir = File::open(&high).expect("open");
    path::mknodat(dir.as_fd(), Path::new("gone"), libc::S_IFCHR, (0, 0)).expect("mknod");
    xattr::set(dir.as_fd(), Path::new("d"), b"trusted.overlay.opaque", b"y").expect("setxattr");
    let tree = place.mount(&[low.clone(), high.clone()], &Options::default());
    assert_eq!(text(&tree, "a"), "low");
    assert_eq!(text(&tree, "b"), "high");
    assert!(!inside(&tree, "gone").exists(), "a whiteout hides");
    let seen: Vec<_> =
        fs::read_dir(inside(&tree, "d")).expect("readdir").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(seen, ["z"], "an opaque directory shows only its own");
    fs::write(inside(&tree, "a"), "changed").expect("write");
    drop(tree);
    assert_eq!(fs::read_to_string(place.0.join("upper/a")).expect("the change is in the upper"), "changed");
    assert_eq!(fs::read_to_string(low.join("a")).expect("the layer is as it was"), "low");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(place.0.to_str().expect("text")), "nothing is mounted");
}

#[test]
fn without_an_upper_directory_nothing_can_be_written() {
    let place = Place::new();
    let layers = [place.layer("low", &[("a", "low")]), place.layer("high", &[("b", "high")])];
    for (layers, b) in [(&layers[..], "high"), (&layers[..1], "(No such file or directory (os error 2))")] {
        let tree = mount(layers, None, &Options::default()).expect("a snapshot");
        assert_eq!((text(&tree, "a").as_str(), text(&tree, "b").as_str()), ("low", b));
        assert!(is_read_only(&tree), "{} layers", layers.len());
    }
    assert!(mount(&[], None, &Options::default()).is_err());
}

#[test]
fn there_may_be_very_many_layers_with_very_long_paths() {
    let place = Place::new();
    let long = "long".repeat(40);
    let layers: Vec<PathBuf> = (0..200)
        .map(|n| {
            let (own, shared) = (format!("file{n}"), n.to_string());
            place.layer(&format!("{long}/{long}/{n}"), &[(&own, "own"), ("shared", &shared)])
        })
        .collect();
    let tree = place.mount(&layers, &Options::default());
    assert_eq!((text(&tree, "file0").as_str(), text(&tree, "file199").as_str()), ("own", "own"));
    assert_eq!(text(&tree, "shared"), "199");
    assert!(mount(&vec![layers[0].clone(); 501], None, &Options::default()).is_err());
}

#[test]
fn a_volatile_snapshot_says_so_to_the_kernel() {
    let place = Place::new();
    let layers = [place.layer("low", &[("a", "low")])];
    let tree = place.mount(&layers, &Options { volatile: true, ..Options::default() });
    fs::write(inside(&tree, "b"), "new").expect("write");
    assert!(place.0.join("work/work/incompat/volatile").exists(), "the kernel marks the work directory");
}

#[test]
fn layers_appear_under_the_ids_of_a_user_namespace() {
    let place = Place::new();
    let low = place.layer("low", &[("a", "low"), ("b", "low")]);
    let high = place.layer("high", &[("c", "high")]);
    chown(low.join("b"), Some(7), Some(8)).expect("chown");
    // A process that does nothing, in a user namespace of its own.
    let mut holder = Command::new("unshare")
        .args(["--user", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare(1)");
    let mut input = holder.stdin.take().expect("a pipe");
    // It answers, so it is in its namespace.
    input.write_all(b"x").expect("write");
    std::io::Read::read_exact(&mut holder.stdout.take().expect("a pipe"), &mut [0]).expect("read");
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.id()), "0 100000 65536").expect("the map");
    }
    let userns = File::open(format!("/proc/{}/ns/user", holder.id())).expect("the namespace");
    let options = Options { id_map: Some(userns.as_fd()), ..Options::default() };
    let tree = place.mount(&[low.clone(), high], &options);
    let ids = |name| {
        let meta = fs::metadata(inside(&tree, name)).expect("stat");
        (meta.uid(), meta.gid())
    };
    assert_eq!([ids("a"), ids("b"), ids("c")], [(100_000, 100_000), (100_007, 100_008), (100_000, 100_000)]);
    let alone = mount(&[low], None, &options).expect("a bind");
    assert_eq!(fs::metadata(inside(&alone, "b")).expect("stat").uid(), 100_007);
    drop(input);
    holder.wait().expect("wait");
}
