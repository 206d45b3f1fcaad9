//! `commit`: what a container wrote becomes a layer, and its image with that layer a new image.

use std::io::Write as _;
use std::os::fd::AsFd;

use clap::Args;
use oci_spec::image::HistoryBuilder;

use super::each::{find, place};
use super::{Global, changes};
use crate::cli::log;
use crate::container::record::rfc3339;
use crate::engine::{life, rootless, snapshot};
use crate::error::{Error, Result};
use crate::image::layer::write;
use crate::image::made::{Made, MadeLayer};
use crate::image::manifest::{self, Document};
use crate::image::progress::Silent;
use crate::image::pull::{Options, pull};
use crate::image::reference::Reference;
use crate::image::source::LONGEST_MANIFEST;
use crate::image::store::Store;
use crate::sys::process;

/// Make an image of a container and what it has written
#[derive(Debug, Args)]
pub struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// What was done
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Change the image as a line of a Dockerfile would: CMD, ENTRYPOINT, ENV, LABEL, USER, WORKDIR and so on
    #[arg(short, long, value_name = "LINE")]
    change: Vec<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set)]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pause: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

impl Commit {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let container = find(global, &self.container)?;
        if container.record.layers.is_empty() {
            return Err(Error::new("a container of --rootfs has no image to go on from")
                .next("use export and import"));
        }
        rootless::enter()?;
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        let store = Store::open(&place(global)?.root)?;
        let image = store.find(&container.record.image_id)?;
        let frozen = self.pause && life::pause(&container, true).is_ok();
        let spool = store.spool()?;
        let mut file = std::io::BufWriter::with_capacity(128 << 10, spool.file()?);
        let upper = snapshot::written(&container);
        let written = upper.and_then(|upper| {
            write::layer_of(upper.as_fd(), snapshot::owners(&container).as_ref(), &mut file)
        });
        if frozen {
            life::pause(&container, false)?;
        }
        written?;
        file.flush().map_err(crate::engine::place::io("write the layer"))?;
        drop(file);
        let tar = std::fs::File::open(spool.path()).map_err(crate::engine::place::io("open the layer"))?;
        let kept = store.spool()?;
        let layer = MadeLayer::of_stream(tar, kept.file()?)?;
        let made = self.made(&store, &image, layer, &container.record.args)?;
        let new = pull(&store, &made, name.as_ref(), &Options::default(), &Silent)?;
        log::print(&format!("{}\n", new.id));
        Ok(0)
    }

    /// The image's layers, which are in the store already, and the new one on top.
    fn made(
        &self,
        store: &Store,
        image: &crate::image::store::Image,
        layer: MadeLayer,
        args: &[String],
    ) -> Result<Made> {
        let bytes = store.read_blob(&image.manifest, LONGEST_MANIFEST)?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, Some(image.manifest.media_type()))? else {
            return Err(Error::new("the image's manifest is an index"));
        };
        let mut config = image.config.clone();
        let parse =
            |text: &String| text.parse().map_err(|e| Error::new(format!("the image's diff ID {text}: {e}")));
        let mut layers = Vec::new();
        for (blob, diff_id) in manifest.layers().iter().zip(config.rootfs().diff_ids()) {
            layers.push(MadeLayer::there(blob.clone(), parse(diff_id)?));
        }
        layers.push(layer);
        let now = rfc3339((process::now().0, 0));
        let step = HistoryBuilder::default()
            .created(now.clone())
            .created_by(args.join(" "))
            .author(self.author.clone().unwrap_or_default())
            .comment(self.message.clone().unwrap_or_default())
            .build()
            .map_err(|e| Error::new(e.to_string()))?;
        let mut history = config.history().clone().unwrap_or_default();
        history.push(step);
        let mut own = config.config().clone().unwrap_or_default();
        for change in &self.change {
            changes::apply(&mut own, change)?;
        }
        config
            .set_created(Some(now))
            .set_author(self.author.clone())
            .set_history(Some(history))
            .set_config(Some(own));
        Made::new(config, layers)
    }
}
