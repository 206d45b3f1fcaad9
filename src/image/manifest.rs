//! Manifests and indexes: bytes of somebody else's become types, or a refusal.
//!
//! What a document is, the document says. A header or a descriptor that says otherwise makes it ambiguous, and then two
//! readers could run two different images for one digest (CVE-2021-41190): it is refused.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reference::known_algorithm;
use super::source::LONGEST_MANIFEST;
use crate::error::{Error, Result};

/// Docker's media types (image manifest version 2, schema 2), which oci-spec has no words for.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Most layers of an image, and most entries of an index.
const MOST_LAYERS: usize = 1000;
const MOST_MANIFESTS: usize = 4096;
/// How deep an index may lie in another one before whoever follows it gives up.
pub const DEEPEST_INDEX: usize = 4;
/// The longest image configuration, in bytes: what other engines read, too.
pub const LONGEST_CONFIG: u64 = 4 << 20;
/// No file is longer than the kernel's `loff_t` can say.
const LONGEST_BLOB: u64 = i64::MAX as u64;

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Document {
    Index(ImageIndex),
    Manifest(ImageManifest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Index,
    Manifest,
}

/// The members that decide what a document is. serde refuses each of them when it stands there twice.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index. `declared` is what the registry or a descriptor calls it, if anything.
pub fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Document> {
    if bytes.len() > LONGEST_MANIFEST {
        return Err(Error::new(format!("the manifest is longer than {LONGEST_MANIFEST} bytes")));
    }
    let shape: Shape = json(bytes)?;
    match kind(&shape, declared)? {
        Kind::Index => {
            let index: ImageIndex = json(bytes)?;
            if index.manifests().len() > MOST_MANIFESTS {
                return Err(Error::new(format!("the index has more than {MOST_MANIFESTS} entries")));
            }
            // What an index merely lists may be of any kind (image-spec); what is followed is checked then.
            index.manifests().iter().try_for_each(|entry| check_size(entry, LONGEST_BLOB))?;
            Ok(Document::Index(index))
        }
        Kind::Manifest => {
            let manifest: ImageManifest = json(bytes)?;
            if manifest.layers().len() > MOST_LAYERS {
                return Err(Error::new(format!("the manifest has more than {MOST_LAYERS} layers")));
            }
            check(manifest.config(), LONGEST_CONFIG)?;
            manifest.layers().iter().try_for_each(|layer| check(layer, LONGEST_BLOB))?;
            Ok(Document::Manifest(manifest))
        }
    }
}

fn json<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::new(format!("the manifest is not one: {e}")))
}

fn check(descriptor: &Descriptor, longest: u64) -> Result<()> {
    known_algorithm(descriptor.digest())?;
    check_size(descriptor, longest)
}

fn check_size(descriptor: &Descriptor, longest: u64) -> Result<()> {
    if descriptor.size() > longest {
        let (digest, size) = (descriptor.digest(), descriptor.size());
        return Err(Error::new(format!(
            "{digest} says it is {size} bytes long, more than the {longest} allowed"
        )));
    }
    Ok(())
}

fn kind(shape: &Shape, declared: Option<&MediaType>) -> Result<Kind> {
    if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
        return Err(Error::new("the image has a manifest of schema 1, which is not supported")
            .next("push it again with a Docker of this decade"));
    }
    if shape.schema_version != Some(2) {
        return Err(Error::new("the manifest has no schemaVersion 2"));
    }
    let image = shape.layers.is_some() || shape.config.is_some();
    let looks = match (shape.manifests.is_some(), image) {
        (true, false) => Kind::Index,
        (false, true) => Kind::Manifest,
        (true, true) => {
            return Err(Error::new(
                "the manifest is ambiguous: it has manifests, and it has a config or layers",
            )
            .why("two readers could take it for two different images (CVE-2021-41190)"));
        }
        (false, false) => return Err(Error::new("the manifest has neither manifests nor layers")),
    };
    let own = shape.media_type.as_deref().map(|text| (text, "the document"));
    let told = declared
        .map(AsRef::as_ref)
        .filter(|text| named_kind(text).is_some())
        .map(|text| (text, "its source"));
    for (text, who) in own.into_iter().chain(told) {
        if named_kind(text) != Some(looks) {
            let what = if looks == Kind::Index { "an index" } else { "an image manifest" };
            return Err(Error::new(format!(
                "the manifest is ambiguous: {who} calls it {text:?}, but it is {what}"
            )));
        }
    }
    match (own, told) {
        (Some((own, _)), Some((told, _))) if own != told => Err(Error::new(format!(
            "the manifest is ambiguous: it calls itself {own:?}, its source {told:?}"
        ))),
        _ => Ok(looks),
    }
}

fn named_kind(media_type: &str) -> Option<Kind> {
    match MediaType::from(media_type) {
        MediaType::ImageManifest => Some(Kind::Manifest),
        MediaType::ImageIndex => Some(Kind::Index),
        MediaType::Other(other) if other == DOCKER_MANIFEST => Some(Kind::Manifest),
        MediaType::Other(other) if other == DOCKER_LIST => Some(Kind::Index),
        _ => None,
    }
}

/// Whether a descriptor points to an index; `None` where it is neither that nor a manifest.
pub fn is_index(media_type: &MediaType) -> Option<bool> {
    named_kind(media_type.as_ref()).map(|kind| kind == Kind::Index)
}

/// The media type of a document: its own word for itself, else what OCI calls its kind.
pub fn media_type(document: &Document) -> MediaType {
    let (own, default) = match document {
        Document::Index(index) => (index.media_type(), MediaType::ImageIndex),
        Document::Manifest(manifest) => (manifest.media_type(), MediaType::ImageManifest),
    };
    own.clone().unwrap_or(default)
}

/// A layer that others may not hand on: pulled, never pushed (image-spec, non-distributable layers).
pub fn is_foreign(media_type: &MediaType) -> bool {
    let text = media_type.as_ref();
    text.contains(".nondistributable.")
        || text.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

/// Refuses what is no image of layers that can be unpacked: artifacts, encrypted layers, file systems made elsewhere.
///
/// How a layer is compressed its first bytes say; registries mislabel that.
pub fn check_runnable(manifest: &ImageManifest) -> Result<()> {
    let config = manifest.config().media_type();
    if *config != MediaType::ImageConfig && config.as_ref() != DOCKER_CONFIG {
        return Err(Error::new(format!("this is an artifact ({config}), and no image that can run")));
    }
    for layer in manifest.layers() {
        let text = layer.media_type().as_ref();
        let tars = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            DOCKER_LAYER,
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        let packed = tars
            .iter()
            .filter_map(|tar| text.strip_prefix(tar))
            .any(|tail| matches!(tail, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"));
        if !packed {
            return Err(Error::new(format!(
                "layer {}: jug does not unpack layers of type {text:?}",
                layer.digest()
            )));
        }
    }
    Ok(())
}

/// JSON with its keys in order: the same document is the same bytes, though labels and annotations come from maps
/// without one.
pub fn sorted(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    use serde_json::Value;
    fn in_order(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let entries: BTreeMap<String, Value> = map.into_iter().collect();
                Value::Object(entries.into_iter().map(|(key, value)| (key, in_order(value))).collect())
            }
            Value::Array(list) => Value::Array(list.into_iter().map(in_order).collect()),
            other => other,
        }
    }
    let failed = |e: serde_json::Error| Error::new(format!("a document of an image: {e}"));
    let value = serde_json::to_value(document).map_err(failed)?;
    serde_json::to_vec(&in_order(value)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn descriptor(media_type: &str, digest: &str, size: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    }

    fn manifest(media_type: Option<&str>, more: &str) -> String {
        let own = media_type.map_or(String::new(), |m| format!(r#""mediaType":"{m}","#));
        let config = descriptor("application/vnd.oci.image.config.v1+json", &format!("sha256:{HEX}"), "7");
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &format!("sha256:{HEX}"), "8");
        format!(r#"{{"schemaVersion":2,{own}"config":{config},"layers":[{layer}]{more}}}"#)
    }

    fn refused(text: &str, declared: Option<&str>) -> String {
        let declared = declared.map(MediaType::from);
        let error = parse(text.as_bytes(), declared.as_ref()).expect_err(text);
        error.what().to_owned()
    }

    #[test]
    fn both_families_of_media_types() {
        for (own, declared) in [
            (None, None),
            (None, Some(OCI)),
            (Some(OCI), None),
            (Some(OCI), Some(OCI)),
            (Some(DOCKER_MANIFEST), Some(DOCKER_MANIFEST)),
            // Registries that serve files call everything so.
            (Some(OCI), Some("application/octet-stream")),
        ] {
            let declared = declared.map(MediaType::from);
            let parsed = parse(manifest(own, "").as_bytes(), declared.as_ref()).expect("a manifest");
            let Document::Manifest(image) = &parsed else { panic!("{parsed:?}") };
            check_runnable(image).expect("an image");
            assert_eq!(media_type(&parsed).as_ref(), own.unwrap_or(OCI));
        }
    }

    /// CVE-2021-41190: one digest must not be an image for one reader and an index for another.
    #[test]
    fn ambiguous_documents() {
        let both = manifest(None, r#","manifests":[]"#);
        for declared in [None, Some(OCI), Some(OCI_INDEX), Some(DOCKER_LIST), Some("text/plain")] {
            assert!(refused(&both, declared).contains("ambiguous"));
        }
        assert!(refused(&manifest(Some(OCI), ""), Some(OCI_INDEX)).contains("ambiguous"));
        assert!(refused(&manifest(Some(OCI), ""), Some(DOCKER_MANIFEST)).contains("ambiguous"));
        assert!(refused(&manifest(Some(OCI_INDEX), ""), None).contains("ambiguous"));
        assert!(refused(&manifest(Some("text/plain"), ""), None).contains("ambiguous"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(parse(index.as_bytes(), None), Ok(Document::Index(_))));
        assert!(refused(index, Some(OCI)).contains("ambiguous"));
    }

    #[test]
    fn members_that_stand_there_twice() {
        assert!(refused(&manifest(None, r#","layers":[]"#), None).contains("duplicate"));
        assert!(refused(&manifest(Some(OCI), r#","mediaType":"x""#), None).contains("duplicate"));
    }

    #[test]
    fn digests_and_sizes() {
        for (digest, size) in [
            (format!("sha256:{HEX}"), "-1"),
            (format!("sha256:{HEX}"), "9223372036854775808"),
            (format!("sha256:{HEX}"), "1e3"),
            (format!("sha256:{HEX}"), "\"7\""),
            ("sha256:../../../../etc/passwd".to_owned(), "7"),
            (format!("sha256:{}", HEX.to_uppercase()), "7"),
            (format!("sha256:{}", &HEX[1..]), "7"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), "7"),
            (String::new(), "7"),
        ] {
            let config =
                descriptor("application/vnd.oci.image.config.v1+json", &format!("sha256:{HEX}"), "7");
            let layer = descriptor("application/vnd.oci.image.layer.v1.tar", &digest, size);
            refused(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#), None);
        }
        let config = descriptor("x", &format!("sha256:{HEX}"), &(LONGEST_CONFIG + 1).to_string());
        refused(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#), None);
    }

    #[test]
    fn limits() {
        refused(&" ".repeat(LONGEST_MANIFEST + 1), None);
        refused(&"[".repeat(1 << 20), None);
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", &format!("sha256:{HEX}"), "7");
        let config = descriptor("application/vnd.oci.image.config.v1+json", &format!("sha256:{HEX}"), "7");
        let layers = vec![layer; MOST_LAYERS + 1].join(",");
        let many = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
        assert!(refused(&many, None).contains("more than"));
    }

    #[test]
    fn what_is_none() {
        for text in ["", "null", "{}", "[]", r#"{"schemaVersion":2}"#, r#"{"schemaVersion":1,"fsLayers":[]}"#]
        {
            refused(text, None);
        }
        assert!(refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, None).contains("schema 1"));
    }

    #[test]
    fn layers_that_are_not_unpacked() {
        let text = manifest(None, "");
        for other in ["+encrypted", "+gzip+encrypted", "+xz"] {
            let text = text.replace("v1.tar+gzip", &format!("v1.tar{other}"));
            let Ok(Document::Manifest(image)) = parse(text.as_bytes(), None) else { panic!("{text}") };
            assert!(check_runnable(&image).is_err(), "{other}");
        }
        assert!(is_foreign(&MediaType::ImageLayerNonDistributableGzip));
    }

    /// Damaged at any place, a document is refused, or it keeps to the limits.
    #[test]
    fn any_damage() {
        let good = manifest(Some(OCI), "");
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = b"{}[]\",:0123456789-aZ\\"[next(20)],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"{}[]\",:0123456789-aZ\\"[next(20)]),
                }
            }
            let Ok(Document::Manifest(image)) = parse(&bytes, None) else { continue };
            for blob in image.layers().iter().chain([image.config()]) {
                known_algorithm(blob.digest()).expect("only what we compute");
                assert!(blob.size() <= LONGEST_BLOB && !blob.digest().digest().contains(['/', '.']));
            }
            assert!(image.config().size() <= LONGEST_CONFIG);
        }
    }
}
