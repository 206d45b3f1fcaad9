//! Layers: what is unpacked is what the archive says, nothing outside is touched, and a bad archive is a bounded error
//! that names the entry. The unpacking is the real one, in its confined process.
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
