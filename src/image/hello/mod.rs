//! The image that jug carries, so that a first container needs no registry: `localhost/jug/hello`, also called
//! `jug/hello` and `hello` where nothing of that name is in the store. One static program of ours; build.rs compiles it
//! and has rootfs-builder make the image after `image.toml`. It enters the store as any other.

use oci_spec::image::ImageConfiguration;

use super::made::{Made, MadeLayer};
use super::progress::Silent;
use super::pull::{Options, pull};
use super::reference::Reference;
use super::store::{Image, Store};
use crate::error::{Error, Result};

/// Its whole name.
pub const NAME: &str = "localhost/jug/hello:latest";

/// Its configuration, and its layer, which nothing compresses: both are a part of jug's own binary.
const CONFIG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello.json"));
const LAYER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello.tar"));

/// Whether people mean this image by a text.
pub fn is_meant(text: &str) -> bool {
    let name = text.strip_suffix(":latest").unwrap_or(text);
    ["hello", "jug/hello", "localhost/jug/hello"].contains(&name)
}

/// Puts the image into the store.
pub fn bring(store: &Store) -> Result<Image> {
    let name = Reference::parse(NAME)?;
    let options = Options { missing_only: true, ..Options::default() };
    pull(store, &made()?, Some(&name), &options, &Silent)
}

fn made() -> Result<Made> {
    let config = ImageConfiguration::from_reader(CONFIG).map_err(|e| Error::new(format!("{NAME}: {e}")))?;
    Made::new(config, vec![MadeLayer::of_bytes(LAYER.to_vec())])
}
