//! `jug import`: a tarball of a root file system becomes an image of one layer.

use std::io::Read;

use oci_spec::image::{Config, HistoryBuilder, ImageConfiguration};

use super::Global;
use super::changes;
use super::pull::Layers;
use super::shown::print;
use super::transfer::shown_or;
use crate::container::record::rfc3339;
use crate::error::{Error, Result};
use crate::image::made::{Made, MadeLayer};
use crate::image::platform;
use crate::image::pull::{Options, pull};
use crate::image::reference::Reference;
use crate::sys::process;

/// Make an image of a tarball of a root file system
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The tarball, plain or compressed with gzip or zstd; - is the standard input
    tarball: String,
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// A line of a Dockerfile that sets something: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME,
    /// WORKDIR
    #[arg(short, long, value_name = "LINE")]
    change: Vec<String>,
    /// What the layer is unpacked to
    #[arg(long, value_name = "FORM", default_value = "directories")]
    layers: Layers,
    /// The comment of the image's history
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    message: String,
    /// OS/ARCH[/VARIANT] of what is in the tarball [default: the host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Only the id
    #[arg(short, long)]
    quiet: bool,
}

impl Import {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let name = self.name.as_deref().map(Reference::parse).transpose()?;
        let platform = self.platform.as_deref().map_or_else(|| Ok(platform::host()), platform::parse)?;
        let stream: Box<dyn Read> = match self.tarball.as_str() {
            "-" => Box::new(std::io::stdin()),
            path => Box::new(std::fs::File::open(path).map_err(|e| {
                Error::call(format_args!("open({path:?})"), e.raw_os_error().unwrap_or(libc::EIO))
            })?),
        };
        let mut own = Config::default();
        for change in &self.change {
            changes::apply(&mut own, change)?;
        }
        let spool = store.spool()?;
        let layer = MadeLayer::of_stream(stream, spool.file()?)?;
        let now = rfc3339((process::now().0, 0));
        let step = HistoryBuilder::default()
            .created(now.clone())
            .created_by(format!("jug import {}", self.tarball))
            .comment(if self.message.is_empty() {
                "imported from a tarball".to_owned()
            } else {
                self.message.clone()
            })
            .build()
            .map_err(|e| Error::new(e.to_string()))?;
        let mut config = ImageConfiguration::default();
        config
            .set_architecture(platform.architecture().clone())
            .set_os(platform.os().clone())
            .set_variant(platform.variant().clone())
            .set_created(Some(now))
            .set_config(Some(own))
            .set_history(Some(vec![step]));
        let made = Made::new(config, vec![layer])?;
        let options = Options { platform, form: self.layers.into(), ..Options::default() };
        let image = pull(&store, &made, name.as_ref(), &options, &*shown_or(self.quiet))?;
        print(&format!("{}\n", image.id))?;
        Ok(0)
    }
}
