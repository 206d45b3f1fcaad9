//! Layers as EROFS images: the kernel and erofs-utils see in the image what the tar says.
#![cfg(feature = "engine")]

#[path = "layers/place.rs"]
mod place;
#[path = "layers/random.rs"]
mod random;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use jug::image::layer::{Blob, EROFS_NAME, Form, Ids, Wanted, tree, write};
use jug::image::snapshot::{Options, Upper, mount};
use place::{Place, digest, listing};

/// Makes an image of the tree of a seed; returns its digest and the place.
fn image(seed: u64) -> (Place, oci_spec::image::Digest) {
    let place = Place::new();
    random::tree(&place.path("tree"), seed);
    // Names for several blocks of one directory, some of which sort before the dot.
    fs::create_dir(place.path("tree/many")).expect("mkdir");
    for n in 0..300 {
        fs::write(place.path(&format!("tree/many/{}{n}", if n % 2 == 0 { "-" } else { "x" })), "")
            .expect("write");
    }
    let (root, mut tar) = (File::open(place.path("tree")).expect("open"), Vec::new());
    write::tar_of(root.as_fd(), None, &mut tar).expect("tar_of");
    fs::write(place.path("blob"), &tar).expect("write");
    let blob = Blob { file: File::open(place.path("blob")).expect("open"), growing: None };
    let staging = File::open(place.staging()).expect("open");
    let wanted = Wanted { diff_id: &digest(&tar), form: Form::Erofs, ids: Ids::Kept };
    let applied = jug::image::layer::unpack(blob, staging.as_fd(), &wanted).expect("unpack");
    let names: Vec<_> =
        fs::read_dir(place.staging()).expect("readdir").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [EROFS_NAME], "one file and nothing else");
    (place, applied.tree)
}

fn inside(tree: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", tree.as_raw_fd()))
}

/// EROFS from Linux 6.12 on; the tests' guest has neither.
fn kernel_mounts_files() -> bool {
    let here = fs::read_to_string("/proc/filesystems").expect("filesystems").contains("erofs");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let new = (numbers.next(), numbers.next()) >= (Some(6), Some(12));
    if !(here && new) {
        let _ =
            writeln!(std::io::stderr(), "SKIP erofs: this kernel ({}) mounts no image file", release.trim());
    }
    here && new
}

#[test]
fn erofs_utils_find_no_fault() {
    for seed in 600..603 {
        let (place, _) = image(seed);
        let output =
            Command::new("fsck.erofs").arg(place.staging().join(EROFS_NAME)).output().expect("fsck.erofs");
        assert!(output.status.success(), "seed {seed}: {output:?}");
    }
}

#[test]
fn the_kernel_sees_the_tree() {
    if !kernel_mounts_files() {
        return;
    }
    for seed in 600..604 {
        let (place, want) = image(seed);
        let layer = place.staging().join(EROFS_NAME);
        let mounted = mount(&[layer], None, &Options::default()).expect("a snapshot");
        let (seen, tree) = (listing(&inside(&mounted)), listing(&place.path("tree")));
        let missing: Vec<_> = tree.iter().filter(|line| !seen.contains(line)).collect();
        let extra: Vec<_> = seen.iter().filter(|line| !tree.contains(line)).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "seed {seed}: missing {missing:#?}, extra {extra:#?}"
        );
        let root = File::open(inside(&mounted)).expect("open");
        assert_eq!(tree::digest(root.as_fd(), &Default::default()).expect("a digest"), want, "seed {seed}");
    }
}

/// Images and directories lie upon one another, whiteouts included, below a place for changes.
#[test]
fn images_are_layers_of_a_snapshot() {
    if !kernel_mounts_files() {
        return;
    }
    let (place, _) = image(610);
    let low = place.path("low");
    fs::create_dir_all(low.join("many")).expect("mkdir");
    fs::write(low.join("own"), "low").expect("write");
    fs::write(low.join("many/-0"), "hidden").expect("write");
    for name in ["upper", "work"] {
        fs::create_dir(place.path(name)).expect("mkdir");
    }
    let (upper, work) = (place.path("upper"), place.path("work"));
    let layers = [low, place.staging().join(EROFS_NAME)];
    let upper = Upper { upper: &upper, work: &work };
    let mounted = mount(&layers, Some(&upper), &Options::default()).expect("a snapshot");
    let root = inside(&mounted);
    assert_eq!(fs::read_to_string(root.join("own")).expect("read"), "low");
    assert_eq!(fs::read_to_string(root.join("many/-0")).expect("read"), "", "the image lies upon it");
    fs::write(root.join("many/x1"), "changed").expect("write");
    fs::remove_file(root.join("many/x3")).expect("unlink");
    assert_eq!(fs::read_dir(root.join("many")).expect("readdir").count(), 299);
    assert_eq!(fs::read_to_string(place.path("upper/many/x1")).expect("read"), "changed");
}
