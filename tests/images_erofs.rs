//! Layers as EROFS images (`--layers erofs`): one file each, and for everybody who looks the same as directories.
#![cfg(feature = "engine")]

#[path = "layers/place.rs"]
mod place;
#[path = "support/store.rs"]
mod store;
mod support;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use jug::image::snapshot;
use place::listing;
use store::{Shop, images_are_taken};
use support::Engine;

/// Files of many kinds; the second layer hides some, and both it and the third lie in directories that they do not
/// name, whose owner and mode are those of the layers below.
const LAYERS: &str = r#"
tag = "jug/layers:latest"
[config]
cmd = ["/bin/sh"]
[[layer]]
files = [
    { path = "/bin/tool", content = "one", mode = 0o4755 },
    { path = "/bin/link", symlink = "tool" },
    { path = "/bin/same", hardlink = "/bin/tool" },
    { path = "/bin/pipe", fifo = true },
    { path = "/etc/old", content = "old" },
    { path = "/srv", dir = true, mode = 0o2750, uid = 7, gid = 8 },
    { path = "/srv/deep", dir = true, mode = 0o711, uid = 9, gid = 10 },
    { path = "/var/cache/a", content = "a", uid = 7, gid = 8 },
    { path = "/tmp", dir = true, mode = 0o1777 },
    { path = "/zeros", zeros = 3000000 },
]
[[layer]]
whiteouts = ["/etc/old"]
opaque = ["/var/cache"]
files = [{ path = "/etc/new", content = "new" }, { path = "/srv/deep/x", content = "x" }]
[[layer]]
files = [{ path = "/tmp/x", content = "x" }, { path = "/srv/deep/y", content = "y" }]
"#;

/// The layers of the image, bottom first.
fn layers(shop: &Shop) -> Vec<PathBuf> {
    let format = "{{.GraphDriver.Data.LowerDir}}";
    let dirs = shop.ok(&["image", "inspect", "--format", format, "jug/layers"]);
    dirs.trim().split(':').rev().map(PathBuf::from).collect()
}

/// Everything that a container would find, from a snapshot of the layers.
fn seen(layers: &[PathBuf]) -> Vec<String> {
    let tree = snapshot::mount(layers, None, &snapshot::Options::default()).unwrap_or_else(|e| panic!("{e}"));
    listing(Path::new(&format!("/proc/self/fd/{}/.", tree.as_raw_fd())))
}

/// Two stores with the image: one of directories, one of images.
fn both(name: &str) -> (Shop, Shop, String) {
    let shop = Shop::new(name);
    let layout = shop.image("oci", "layout", LAYERS) + ":jug/layers:latest";
    let images = shop.beside("images");
    shop.ok(&["pull", &layout]);
    images.ok(&["pull", "--layers", "erofs", &layout]);
    (shop, images, layout)
}

#[test]
fn a_container_sees_what_it_sees_of_directories() {
    if !images_are_taken() {
        return;
    }
    let (shop, images, _) = both("erofs-same");
    let files = layers(&images);
    for file in &files {
        assert!(file.ends_with("layer.erofs") && file.is_file(), "one file: {}", file.display());
        let beside = fs::read_dir(file.parent().expect("a directory")).expect("readdir").count();
        assert_eq!(beside, 2, "the file and `meta`, nothing else");
    }
    assert_eq!(seen(&files), seen(&layers(&shop)));
    for n in 0..3 {
        assert_eq!(seen(&files[n..=n]), seen(&layers(&shop)[n..=n]), "layer {n} alone");
    }
    assert_eq!(images.trees(), shop.trees());
    // Some of these and some of those.
    let mixed = [files[0].clone(), layers(&shop)[1].clone(), files[2].clone()];
    assert_eq!(seen(&mixed), seen(&files));
    images.is_whole();
    images.ok(&["rmi", "jug/layers"]);
    images.empties();
}

#[test]
fn what_goes_out_is_what_came_in() {
    if !images_are_taken() {
        return;
    }
    let (shop, images, _) = both("erofs-save");
    let saved = |shop: &Shop| {
        let path = shop.dir.join("saved.tar");
        shop.ok(&["save", "-o", &path.display().to_string(), "jug/layers"]);
        path
    };
    let (ours, theirs) = (saved(&images), saved(&shop));
    assert!(fs::read(&ours).expect("read") == fs::read(theirs).expect("read"), "the same archive");
    let again = shop.beside("again");
    again.ok(&["load", "--layers", "erofs", "-i", &ours.display().to_string()]);
    assert_eq!(seen(&layers(&again)), seen(&layers(&shop)));
    assert!(layers(&again).iter().all(|layer| layer.ends_with("layer.erofs")));
}

#[test]
fn a_damaged_image_is_found_and_comes_again_as_one() {
    if !images_are_taken() {
        return;
    }
    let (_shop, images, _) = both("erofs-damage");
    let files = layers(&images);
    let before = seen(&files);
    let bytes = fs::read(&files[0]).expect("read");
    let damage: [(&str, Vec<u8>); 3] = [
        ("a bit of a file", {
            let at = bytes.windows(3).position(|three| three == b"old").expect("the file's content");
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            bytes
        }),
        ("half of it is gone", bytes[..bytes.len() / 2].to_vec()),
        ("there is nothing", Vec::new()),
    ];
    for (what, bytes) in damage {
        fs::write(&files[0], bytes).expect("write");
        images.fails(&["system", "fsck", "--deep"], &["damaged"]);
        images.ok(&["system", "fsck", "--deep", "--repair"]);
        images.is_whole();
        assert_eq!(layers(&images), files, "{what}: an image again");
        assert_eq!(seen(&files), before, "{what}");
    }
}

#[test]
fn containers_run_on_images() {
    if !images_are_taken() {
        return;
    }
    let e = Engine::new();
    let tar = e.bundle.path("root.tar");
    let packed =
        std::process::Command::new("tar").arg("-C").arg(e.bundle.rootfs()).args(["-cf", &tar, "."]).status();
    assert!(matches!(packed.expect("tar(1)").code(), Some(0 | 1)));
    e.jug(&["import", "-q", "--layers", "erofs", &tar, "box"]).ok();
    let layer = e.jug(&["image", "inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", "box"]).ok().stdout;
    assert!(layer.trim().ends_with("layer.erofs"), "{layer}");
    assert_eq!(e.jug(&["run", "--rm", "box", "echo", "said"]).ok().stdout, "said\n");
    assert_eq!(e.jug(&["run", "--rm", "--read-only", "box", "cat", "/etc/group"]).ok().stdout, {
        fs::read_to_string(e.bundle.rootfs().join("etc/group")).expect("the bundle's file")
    });
    let script = "echo new > /new; rm /etc/group; echo more >> /etc/passwd";
    e.jug(&["run", "--name", "writer", "box", "sh", "-c", script]).ok();
    let diff = e.jug(&["diff", "writer"]).ok().stdout;
    for line in ["A /new", "D /etc/group", "C /etc/passwd"] {
        assert!(diff.lines().any(|found| found == line), "{line} in:\n{diff}");
    }
    let out = e.bundle.path("export.tar");
    e.jug(&["export", "-o", &out, "writer"]).ok();
    let list = std::process::Command::new("tar").args(["-tf", &out]).output().expect("tar(1)");
    let list = String::from_utf8_lossy(&list.stdout);
    assert!(list.lines().any(|line| line == "new") && !list.contains("etc/group\n"), "{list}");
    e.jug(&["commit", "writer", "second"]).ok();
    assert_eq!(e.jug(&["run", "--rm", "second", "cat", "/new"]).ok().stdout, "new\n");
    e.jug(&["rmi", "box"]).exits(1).says("is used by container");
    e.jug(&["rm", "writer"]).ok();
    e.jug(&["rmi", "box", "second"]).ok();
    assert_eq!(fs::read_dir(e.root().join("layers")).expect("layers").count(), 0);
}

/// A file system for this thread alone, until it is dropped.
struct Memory(PathBuf);

impl Memory {
    fn at(place: PathBuf) -> Self {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private");
        fs::create_dir_all(&place).expect("mkdir");
        mount(Some("jug-test"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=256m")).expect("tmpfs");
        Self(place)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// The loop devices whose file is a layer of that store.
fn loops(root: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("/sys/block").flatten().map(|entry| entry.path());
    let files = devices.filter_map(|device| fs::read_to_string(device.join("loop/backing_file")).ok());
    let root = root.display().to_string();
    files.filter(|file| file.starts_with(&root)).collect()
}

/// The kernel mounts a file only where the file system reads by pages, which a tmpfs does not (fs/erofs/super.c).
/// There, as on every kernel before 6.12, an image is mounted from a loop device, which goes with its last container.
#[test]
fn a_store_in_memory_goes_by_loop_devices() {
    if !images_are_taken() || !Path::new("/dev/loop-control").exists() {
        return;
    }
    let e = Engine::new();
    let memory = Memory::at(e.root());
    let tar = e.bundle.path("root.tar");
    let packed =
        std::process::Command::new("tar").arg("-C").arg(e.bundle.rootfs()).args(["-cf", &tar, "."]).status();
    assert!(matches!(packed.expect("tar(1)").code(), Some(0 | 1)));
    e.jug(&["import", "-q", "--layers", "erofs", &tar, "box"]).ok();
    e.jug(&["run", "-d", "--name", "looped", "box", "sleep", "3600"]).ok();
    let found = loops(&e.root());
    assert!(found.len() == 1 && found[0].trim().ends_with("/layer.erofs"), "{found:?}");
    let group = fs::read_to_string(e.bundle.rootfs().join("etc/group")).expect("the bundle's file");
    assert_eq!(e.jug(&["exec", "looped", "cat", "/etc/group"]).ok().stdout, group);
    e.jug(&["exec", "looped", "sh", "-c", "echo new > /etc/group"]).ok();
    assert_eq!(e.jug(&["run", "--rm", "--read-only", "box", "cat", "/etc/group"]).ok().stdout, group);
    e.jug(&["system", "fsck", "--deep"]).ok();
    e.jug(&["rm", "-f", "looped"]).ok();
    support::eventually("the end of the loop devices", || loops(&e.root()).is_empty().then_some(()));
    e.jug(&["rmi", "box"]).ok();
    drop(memory);
}
