//! OCI layouts and docker archives: the configuration lands where the specification has it, and every digest is true.

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{Bench, recipe};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A blob whose digest and size are what the descriptor says.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(sha256(&bytes), hex);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

/// The index descriptor, the manifest and the configuration of a layout with one image.
fn open(layout: &Path) -> (Value, Value, Value) {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(parse(&fs::read(layout.join("oci-layout")).unwrap()), json!({"imageLayoutVersion": "1.0.0"}));
    let index = parse(&fs::read(layout.join("index.json")).unwrap());
    assert_eq!(index["schemaVersion"], 2);
    let manifest = parse(&blob(layout, &index["manifests"][0]));
    let config = parse(&blob(layout, &manifest["config"]));
    (index["manifests"][0].clone(), manifest, config)
}

#[test]
fn every_field_of_the_configuration_lands() {
    let bench = Bench::new();
    bench.build(&[&recipe("hello.toml"), "--arch", "amd64", "--output", "oci:out"]);
    let (index, manifest, config) = open(&bench.path("out"));
    assert_eq!(index["annotations"]["org.opencontainers.image.ref.name"], "jug/hello:latest");
    assert_eq!(index["platform"], json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(config["os"], "linux");
    let expected = json!({
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/", "GREETING=hello world"],
        "Entrypoint": ["/hello", "echo"],
        "Cmd": ["hello"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/work",
        "Labels": {"a": "b", "org.example.purpose": "test"},
        "StopSignal": "SIGUSR1",
    });
    assert_eq!(config["config"], expected);
}

#[test]
fn flags_go_over_the_recipe() {
    let bench = Bench::new();
    let flags = "--entrypoint /x --entrypoint -c --cmd --flag --env PATH=/bin --env NEW=1 --user 5 --workdir /w \
                 --label a=c --label n=1 --tag other:1 --arch arm64 --compression none --output oci:out";
    let recipe = recipe("hello.toml");
    let args: Vec<&str> = [recipe.as_str()].into_iter().chain(flags.split_whitespace()).collect();
    bench.build(&args);
    let (index, manifest, config) = open(&bench.path("out"));
    assert_eq!(index["annotations"]["org.opencontainers.image.ref.name"], "other:1");
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    let config = &config["config"];
    assert_eq!(config["Entrypoint"], json!(["/x", "-c"]));
    assert_eq!(config["Cmd"], json!(["--flag"]));
    assert_eq!(config["Env"], json!(["GREETING=hello world", "PATH=/bin", "NEW=1"]));
    assert_eq!(config["User"], "5");
    assert_eq!(config["WorkingDir"], "/w");
    assert_eq!(config["Labels"], json!({"a": "c", "n": "1", "org.example.purpose": "test"}));
}

#[test]
fn layers_match_their_diff_ids() {
    let bench = Bench::new();
    bench.build(&[&recipe("layers.toml"), "--output", "oci:out"]);
    let layout = bench.path("out");
    let (_, manifest, config) = open(&layout);
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((layers.len(), diff_ids.len()), (3, 3));
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let mut plain = Vec::new();
        GzDecoder::new(&blob(&layout, layer)[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(*diff_id, format!("sha256:{}", sha256(&plain)));
    }
}

#[test]
fn whiteouts_are_in_the_layer_that_hides() {
    let bench = Bench::new();
    bench.build(&[&recipe("layers.toml"), "--output", "oci:out", "--compression", "none"]);
    let layout = bench.path("out");
    let (_, manifest, _) = open(&layout);
    let bytes = blob(&layout, &manifest["layers"][1]);
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    let expected = [
        "etc/.wh.never-was",
        "etc/.wh.old",
        "etc/motd",
        "opt/link/through",
        "opt/tool/.wh.bin",
        "var/cache/.wh..wh..opq",
        "var/cache/new",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_docker_archive_holds_what_its_manifest_names() {
    let bench = Bench::new();
    bench.build(&[&recipe("layers.toml"), "--output", "docker-archive:out.tar", "--tag", "host:5000/name"]);
    let mut files = std::collections::BTreeMap::new();
    let archive_bytes = fs::read(bench.path("out.tar")).unwrap();
    for entry in tar::Archive::new(&archive_bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest.as_array().unwrap().len(), 1);
    assert_eq!(manifest[0]["RepoTags"], json!(["host:5000/name:latest"]));
    let name = manifest[0]["Config"].as_str().unwrap();
    assert_eq!(name, format!("{}.json", sha256(&files[name])));
    let config: Value = serde_json::from_slice(&files[name]).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        assert_eq!(*diff_id, format!("sha256:{}", sha256(&files[layer.as_str().unwrap()])));
    }
}

#[test]
fn equal_layers_are_one_blob() {
    let bench = Bench::new();
    bench.write("in/a", "a");
    bench.build(&[
        "--from",
        "dir:in",
        "--from",
        "dir:in",
        "--output",
        "oci:out",
        "--output",
        "docker-archive:d.tar",
    ]);
    let (_, manifest, config) = open(&bench.path("out"));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    assert_eq!(config["rootfs"]["diff_ids"][0], config["rootfs"]["diff_ids"][1]);
    assert_eq!(fs::read_dir(bench.path("out/blobs/sha256")).unwrap().count(), 3);
}

#[test]
fn zstd_layers_match_their_diff_ids() {
    let bench = Bench::new();
    bench.write("in/a", "a");
    bench.build(&[
        "--from",
        "dir:in",
        "--compression",
        "zstd",
        "--output",
        "oci:out",
        "--output",
        "tar:x.tar.zst",
    ]);
    let (_, manifest, config) = open(&bench.path("out"));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let plain = zstd::decode_all(&blob(&bench.path("out"), &manifest["layers"][0])[..]).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&plain)));
    bench.build(&["--from", "tar:x.tar.zst", "--output", "tree:root", "--no-chown"]);
    assert_eq!(fs::read(bench.path("root/a")).unwrap(), b"a");
}
