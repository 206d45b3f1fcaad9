//! Layouts, archives and directories: skopeo and umoci read what jug writes, jug reads what they write, and an archive
//! of somebody else's is a bounded error at worst.
#![cfg(feature = "engine")]

#[path = "registry/place.rs"]
mod place;

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use jug::image::manifest::{Document, parse};
use jug::image::reference::Transport;
use jug::image::source::{self, Access, Source};
use place::Place;

/// Reads a whole image and compares every digest and size: what the store does, without the store.
#[track_caller]
fn whole(source: &dyn Source) -> (String, usize) {
    let (descriptor, bytes) = source.manifest(None).expect("a manifest");
    assert_eq!(*descriptor.digest(), jug::image::digest::of(&bytes));
    let Document::Manifest(image) = parse(&bytes, Some(descriptor.media_type())).expect("parses") else {
        panic!("an index")
    };
    for blob in image.layers().iter().chain([image.config()]) {
        let mut content = Vec::new();
        source.blob(blob, 0).expect("a blob").read_to_end(&mut content).expect("read");
        assert_eq!(
            (content.len() as u64, jug::image::digest::of(&content)),
            (blob.size(), blob.digest().clone())
        );
        let mut rest = Vec::new();
        source.blob(blob, blob.size() / 2).expect("a blob").read_to_end(&mut rest).expect("read");
        assert_eq!(rest, content[content.len() / 2..]);
    }
    (image.config().digest().to_string(), image.layers().len())
}

#[track_caller]
fn open(text: &str) -> Box<dyn Source> {
    source::open(&Transport::parse(text).expect(text), &Access::default())
        .unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn what_skopeo_writes() {
    let place = Place::new();
    let layout = place.image("made", "amd64", "gzip");
    let at = |name: &str| place.text(name);
    let wanted = whole(&*open(&layout));
    assert_eq!(wanted.1, 2);
    for (to, more) in [
        (format!("oci-archive:{}:n", at("a.tar")), ""),
        (format!("oci:{}:n", at("zstd")), "zstd"),
        (format!("dir:{}", at("dir")), ""),
        (format!("docker-archive:{}:some/name:1", at("d.tar")), ""),
    ] {
        let compress = ["--dest-compress-format", more];
        let flags = if more.is_empty() { &[][..] } else { &compress[..] };
        place.skopeo(&[&["copy", "-q"], flags, &[&layout, &to]].concat());
        assert_eq!(whole(&*open(&to)), wanted, "{to}");
    }
    // The same archive compressed, and through a pipe's eyes: it cannot be read at any place.
    place.run("gzip", &["-k", &at("d.tar")]);
    assert_eq!(whole(&*open(&format!("docker-archive:{}", at("d.tar.gz")))), wanted);
    let found = source::images_in(Path::new(&at("d.tar.gz")), &Access::default()).expect("images");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0[0].to_string(), "docker.io/some/name:1");
    let other = Transport::parse(&format!("docker-archive:{}:other", at("d.tar"))).expect("parses");
    let error = source::open(&other, &Access::default()).err().expect("no such image").to_string();
    assert!(error.contains("docker.io/library/other:latest") && error.contains("some/name:1"), "{error}");
}

#[test]
fn what_jug_writes() {
    let place = Place::new();
    let layout = place.image("made", "amd64", "gzip");
    let id = place.jug(&["pull", "-q", &layout]).works().trim_end().to_owned();
    let at = |name: &str| place.text(name);
    let layout = format!("oci:{}:n", at("out"));
    for to in [
        layout.clone(),
        format!("oci-archive:{}:n", at("out.tar")),
        format!("docker-archive:{}:some/name:1", at("docker.tar")),
        format!("dir:{}", at("outdir")),
    ] {
        place.jug(&["push", "-q", &id, &to]).works();
        let back = format!("oci:{}:t", at("back"));
        place.skopeo(&["copy", "-q", &to, &back]);
        let raw = place.skopeo(&["inspect", "--raw", &back]);
        assert!(raw.contains(&id), "{to}: {raw}");
        assert_eq!(whole(&*open(&to)).0, format!("sha256:{id}"), "{to}");
    }
    // A second image goes beside the first, and the first stays.
    let second = format!("oci:{}:m", at("out"));
    place.jug(&["push", "-q", &id, &second]).works();
    place.jug(&["push", "-q", &id, &second]).works();
    let mut names: Vec<String> =
        place.run("umoci", &["ls", "--layout", &at("out")]).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["m", "n"]);
    whole(&*open(&layout));
    let two = Transport::parse(&format!("oci:{}", at("out"))).expect("parses");
    let error = source::open(&two, &Access::default()).err().expect("two of them").to_string();
    assert!(error.contains("several images") && error.contains("n, m"), "{error}");
    // Nothing half done is left beside an archive.
    let left = std::fs::read_dir(place.path("")).expect("readdir").flatten().map(|entry| entry.file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

/// A tar of names and contents; with a type other than `0`, the content is what a link points to.
fn tar(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_mut_bytes();
        raw[..name.len()].copy_from_slice(name.as_bytes());
        raw[156] = *kind;
        let link = *kind == b'2' || *kind == b'1';
        if link {
            raw[157..157 + content.len()].copy_from_slice(content);
        }
        header.set_size(if link { 0 } else { content.len() as u64 });
        header.set_mode(0o644);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if !link {
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#;

fn config(layer: &[u8]) -> Vec<u8> {
    CONFIG.replace("DIFF", jug::image::digest::of(layer).as_ref()).into_bytes()
}

/// The forms of `docker save` of before: a directory for each layer, and links between them.
#[test]
fn old_docker_archives() {
    let place = Place::new();
    let layer = tar(&[("etc/x", b'0', b"x")]);
    let config = config(&layer);
    let list = br#"[{"Config":"c.json","RepoTags":null,"Layers":["b/layer.tar"]}]"#;
    for (what, kind, target) in [("symbolic", b'2', &b"../a/layer.tar"[..]), ("hard", b'1', b"a/layer.tar")] {
        let archive = tar(&[
            ("a/", b'5', b""),
            ("a/VERSION", b'0', b"1.0"),
            ("a/layer.tar", b'0', &layer),
            ("b/layer.tar", kind, target),
            ("c.json", b'0', &config),
            ("manifest.json", b'0', list),
        ]);
        let file = place.write("old.tar", archive);
        assert_eq!(whole(&*open(&format!("docker-archive:{}", file.display()))).1, 1, "{what}");
        assert_eq!(source::images_in(&file, &Access::default()).expect("images").len(), 1, "{what}");
    }
}

#[track_caller]
fn refused(place: &Place, name: &str, bytes: &[u8], words: &str) {
    let file = place.write(&format!("{name}.tar"), bytes);
    let begin = Instant::now();
    for transport in ["docker-archive", "oci-archive"] {
        let transport = Transport::parse(&format!("{transport}:{}", file.display())).expect("parses");
        let opened = source::open(&transport, &Access::default());
        assert!(opened.is_err(), "{name}");
    }
    let error = source::images_in(&file, &Access::default()).map(drop).expect_err(name).to_string();
    assert!(error.contains(words), "{name}: {error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{name}");
}

#[test]
fn archives_of_somebody_else() {
    let place = Place::new();
    place.write("canary", "unchanged");
    let layer = tar(&[("x", b'0', b"x")]);
    let config = config(&layer);
    let list =
        |config: &str, layer: &str| format!(r#"[{{"Config":"{config}","Layers":["{layer}"]}}]"#).into_bytes();
    let image = |list: &[u8], more: &[(&str, u8, &[u8])]| {
        let mut all = vec![("manifest.json", b'0', list), ("c.json", b'0', &config), ("l.tar", b'0', &layer)];
        all.extend(more);
        tar(&all)
    };
    let good = list("c.json", "l.tar");
    refused(&place, "empty", b"", "manifest.json");
    refused(&place, "noise", &[b'x'; 5000], "tar header");
    refused(&place, "twice", &image(&good, &[("c.json", b'0', b"{}")]), "twice");
    refused(
        &place,
        "cycle",
        &image(&list("a", "l.tar"), &[("a", b'2', b"b"), ("b", b'2', b"a")]),
        "link too many",
    );
    refused(&place, "escape", &image(&list("../../canary", "l.tar"), &[]), "has no");
    refused(&place, "link out", &image(&list("a", "l.tar"), &[("a", b'2', b"/etc/passwd")]), "has no");
    refused(&place, "more layers", &image(br#"[{"Config":"c.json","Layers":[]}]"#, &[]), "lists 0 layers");
    let mut cut = image(&good, &[]);
    cut.truncate(1024);
    refused(&place, "cut", &cut, "");
    let mut long = image(&good, &[]);
    // The size of the first entry, octal: far beyond the end.
    long[124..136].copy_from_slice(b"77777777777\0");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&long[..512]);
    header.set_cksum();
    long[..512].copy_from_slice(header.as_bytes());
    refused(&place, "long", &long, "ends in the middle");
    // 4 MiB of a manifest, and a configuration that is no smaller.
    refused(&place, "large", &image(&vec![b' '; 5 << 20], &[]), "longer than");
    let names: Vec<String> = (0..10_001).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, u8, &[u8])> = names.iter().map(|name| (name.as_str(), b'0', &b""[..])).collect();
    refused(&place, "many", &tar(&many), "more than 10000");
    refused(&place, "pax", &image(&good, &[("x", b'x', b"999 size=1\n")]), "pax");
    // What an archive is called in an index of its own is no path either.
    let index = br#"{"schemaVersion":2,"manifests":[{"mediaType":"x/y","digest":"sha256:../../../canary","size":9}]}"#;
    let layout =
        tar(&[("oci-layout", b'0', br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", b'0', index)]);
    refused(&place, "index", &layout, "Invalid encoded value");
    assert_eq!(std::fs::read_to_string(place.path("canary")).expect("read"), "unchanged");
}

/// Nothing in a layout leads out of it, and nothing in it is waited for.
#[test]
fn layouts_of_somebody_else() {
    let place = Place::new();
    let transport = place.image("made", "amd64", "none");
    whole(&*open(&transport));
    let (descriptor, bytes) = open(&transport).manifest(None).expect("a manifest");
    let Ok(Document::Manifest(image)) = parse(&bytes, None) else { panic!("{descriptor:?}") };
    let blob = place.path("made/blobs/sha256").join(image.layers()[0].digest().digest());
    let outside = place.write("outside", "secret");
    std::fs::remove_file(&blob).expect("rm");
    std::os::unix::fs::symlink(&outside, &blob).expect("a link");
    assert!(open(&transport).blob(&image.layers()[0], 0).is_err(), "a link that leads out");
    std::fs::remove_file(&blob).expect("rm");
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let begin = Instant::now();
    assert!(open(&transport).blob(&image.layers()[0], 0).is_err(), "a FIFO is no blob");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// Damaged bytes at any place are an error or the same image, never a panic and never a hang.
#[test]
fn damaged_archives() {
    let place = Place::new();
    let layer = tar(&[("x", b'0', b"x")]);
    let config = config(&layer);
    let list = br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l.tar"]}]"#;
    let good = tar(&[("manifest.json", b'0', list), ("c.json", b'0', &config), ("l.tar", b'0', &layer)]);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..400 {
        let mut bad = good.clone();
        for _ in 0..=next(3) {
            let at = next(bad.len());
            bad[at] = next(256) as u8;
        }
        bad.truncate(bad.len() - next(2) * next(bad.len()));
        let file = place.write("bad.tar", bad);
        match source::images_in(&file, &Access::default()) {
            Ok(images) => {
                read += 1;
                for (_, image) in images {
                    image.manifest(None).map(drop).expect("it is there, or it was no image");
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}
