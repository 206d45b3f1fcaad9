//! `jug image inspect`: everything that is known of images, with Docker's field names.

use serde_json::{Value, json};

use super::Global;
use super::shown::{inspected, print};
use crate::container::record::rfc3339;
use crate::error::Result;
use crate::image::reference::Reference;
use crate::image::store::{Image, Store};

/// Show everything that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub struct ImageInspect {
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// `json`, or a Go template such as '{{json .Config.Env}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl ImageInspect {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let found = self.images.iter().map(|name| inspect(&store, &store.find(name)?));
        let found = found.collect::<Result<Vec<Value>>>()?;
        print(&inspected(&found, self.format.as_deref())?)?;
        Ok(0)
    }
}

/// An image as Docker's API shows it.
pub fn inspect(store: &Store, image: &Image) -> Result<Value> {
    let familiar =
        |name: &String| Reference::parse(name).map_or_else(|_| name.clone(), |name| name.familiar());
    let config = &image.config;
    let bytes = store.blob(&image.id)?.map(serde_json::from_reader::<_, Value>);
    let own =
        bytes.and_then(std::result::Result::ok).map_or(Value::Null, |mut config| config["config"].take());
    let tops = image.layers.iter().rev().map(|path| path.to_string_lossy()).collect::<Vec<_>>();
    let comment = config.history().iter().flatten().next_back().and_then(|last| last.comment().clone());
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": image.names.iter().map(familiar).collect::<Vec<_>>(),
        "RepoDigests": image.digests.iter().map(familiar).collect::<Vec<_>>(),
        "Digest": image.manifest.digest().to_string(),
        "Descriptor": image.manifest,
        "Comment": comment.unwrap_or_default(),
        "Created": config.created().clone().unwrap_or_else(|| rfc3339((image.since, 0))),
        "Author": config.author().clone().unwrap_or_default(),
        "Architecture": config.architecture().to_string(),
        "Variant": config.variant().clone().unwrap_or_default(),
        "Os": config.os().to_string(),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": { "Name": "overlay", "Data": { "LowerDir": tops.join(":") } },
        "RootFS": { "Type": "layers", "Layers": config.rootfs().diff_ids() },
        "Metadata": { "LastTagTime": rfc3339((image.since, 0)) },
        "Source": image.source,
        "Config": own,
    }))
}
