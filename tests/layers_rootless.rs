//! Layers for a user without privileges: one user, one group, no devices, and overlayfs's other words.
#![cfg(feature = "engine")]

#[path = "layers/archive.rs"]
mod archive;
#[path = "layers/place.rs"]
mod place;
#[path = "support/program.rs"]
mod program;
#[path = "support/unpack.rs"]
mod unpack;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use archive::Archive;
use jug::image::layer::{Blob, Form, Ids, Wanted, unpack};
use place::{Place, digest, listing};
use program::install;

const USER: u32 = 12345;
/// Where the unprivileged half of the test works.
const DIR: &str = "JUG_TEST_ROOTLESS_DIR";

fn tar() -> Vec<u8> {
    let id = |header: &mut [u8; 512]| header[108..124].copy_from_slice(b"0001750\x000001751\0");
    let mode = |mode: &'static [u8]| move |header: &mut [u8; 512]| header[100..108].copy_from_slice(mode);
    Archive::new()
        .dir("./")
        .header("closed", b'5', "", 0, mode(b"0000000\0"))
        .file("closed/file", "x")
        .header("read-only", b'5', "", 0, mode(b"0000555\0"))
        .dir("read-only/inner")
        .file("read-only/inner/file", "x")
        .header("other", b'0', "", 0, id)
        .entry("null", b'3', "", b"")
        .file("read-only/.wh.gone", "")
        .file("read-only/inner/.wh..wh..opq", "")
        .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02"), ("SCHILY.xattr.user.own", b"kept")])
        .file("capable", "x")
        .file("closed/late", "x")
        .end()
}

/// Runs as the user, in a process of its own; otherwise there is nothing to do.
#[test]
fn the_half_without_privileges() {
    let Some(dir) = std::env::var_os(DIR).map(std::path::PathBuf::from) else { return };
    let tar = tar();
    fs::write(dir.join("blob"), &tar).expect("write");
    let blob = Blob { file: File::open(dir.join("blob")).expect("open"), growing: None };
    let staging = File::open(dir.join("staging")).expect("open");
    let wanted = Wanted { diff_id: &digest(&tar), form: Form::Directory, ids: Ids::Single };
    let applied = unpack(blob, staging.as_fd(), &wanted).unwrap_or_else(|e| panic!("{e}"));
    fs::write(dir.join("warnings"), applied.warnings.join("\n")).expect("write");
}

#[test]
fn a_user_without_privileges_unpacks_for_himself() {
    let place = Place::new();
    for dir in ["", "staging"] {
        chown(place.path(dir), Some(USER), Some(USER)).expect("chown");
    }
    // The test program, where that user can reach it.
    install(std::env::current_exe().expect("a program"), place.path("test"));
    let output = Command::new(place.path("test"))
        .args(["--exact", "the_half_without_privileges", "--nocapture"])
        .env(DIR, &place.dir)
        .uid(USER)
        .gid(USER)
        .output()
        .expect("the test as another user");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = listing(&place.staging());
    let line = |name: &str| {
        let found = lines.iter().find(|line| line.starts_with(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("{name} in {lines:#?}")).clone()
    };
    assert!(lines.iter().all(|line| line.contains("12345:12345")), "{lines:#?}");
    assert!(line("closed").contains(" 40000 ") && line("read-only").contains(" 40555 "), "{lines:#?}");
    assert!(
        ["closed/file", "closed/late", "read-only/inner/file", "other"]
            .iter()
            .all(|name| !line(name).is_empty())
    );
    assert!(line("closed").contains(" 1000000.000000000 "), "its time is as it shall be: {}", line("closed"));
    assert!(line("read-only/inner").contains("[user.overlay.opaque=y]"), "{lines:#?}");
    assert!(line("read-only/gone").contains("device 0x0"));
    assert!(line("capable").contains("[user.own=kept]"));
    assert!(!place.path("staging/null").exists());
    let warnings = fs::read_to_string(place.path("warnings")).expect("the warnings");
    for words in ["files of other owners", "devices are left out", "\"security.capability\" could not"] {
        assert_eq!(warnings.matches(words).count(), 1, "one warning of {words}: {warnings}");
    }
}
