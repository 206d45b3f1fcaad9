//! `jug push`: an image of the store goes to a registry, a layout or an archive. Its digest is the last line on stdout.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::access::AccessFlags;
use super::transfer::Shown;
use crate::error::{Error, Result};
use crate::image::progress::{Progress, Silent};
use crate::image::push;
use crate::image::reference::{Reference, Transport};
use crate::image::source::{self, Access};

/// Push an image to a registry, or to oci:, oci-archive:, docker-archive:, dir:
#[derive(Debug, Args)]
pub struct Push {
    #[command(flatten)]
    access: AccessFlags,
    /// USER:PASSWORD for the registry
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// Write the digest of the pushed image there
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// The image: a name or an id
    image: String,
    /// Where it goes [default: what its name says]
    destination: Option<String>,
}

impl Push {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let image = store.find(&self.image)?;
        let transport = match &self.destination {
            Some(destination) => Transport::parse(destination)?,
            None => Transport::Registry(
                Reference::parse(&self.image)
                    .map_err(|e| e.next("name where it goes: jug push IMAGE REGISTRY/REPOSITORY:TAG"))?,
            ),
        };
        // What has the same image under another name in the same registry need not be sent its layers again.
        let also_in = image.names.iter().chain(&image.digests).filter_map(|name| Reference::parse(name).ok());
        let access = Access { also_in: also_in.collect(), ..self.access.with(self.creds.as_deref())? };
        let shown = Shown::new();
        let progress: &dyn Progress = if self.quiet { &Silent } else { &shown };
        progress.say(&format!("Pushing to {transport}"));
        let to = source::destination(&transport, &access)?;
        push::push(&store, &image, &*to, progress)?;
        to.finish()?;
        let digest = image.manifest.digest();
        if let Some(file) = &self.digestfile {
            std::fs::write(file, digest.as_ref())
                .map_err(|e| Error::new(format!("{}: {e}", file.display())))?;
        }
        let _ = writeln!(std::io::stdout(), "{digest}");
        Ok(0)
    }
}
