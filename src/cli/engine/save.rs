//! `jug save`: images to an archive or a directory, with the digests that they were pulled with.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::Global;
use super::transfer::shown_or;
use crate::error::{Error, Result};
use crate::image::push::push;
use crate::image::reference::{Reference, Transport};
use crate::image::source::{self, Access};

/// Write an image to an archive
#[derive(Debug, clap::Args)]
pub struct Save {
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to [default: the standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: Form,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// What `docker load` and `podman load` read
    DockerArchive,
    /// An OCI layout in a tar
    OciArchive,
    /// An OCI layout
    OciDir,
}

impl Save {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let (image, name) = store.find_named(&self.image)?;
        let name = name.map(|name| Reference::parse(&name.name)).transpose()?;
        let name = name.filter(|name| name.tag().is_some());
        let Some(output) = &self.output else { return self.to_stdout(&store, &image, name) };
        let to = source::destination(&self.transport(output, name), &Access::default())?;
        push(&store, &image, &*to, &*shown_or(self.quiet))?;
        to.finish()?;
        Ok(0)
    }

    fn transport(&self, path: &Path, name: Option<Reference>) -> Transport {
        let text = name.as_ref().map(ToString::to_string);
        match self.format {
            Form::DockerArchive => Transport::DockerArchive { file: path.into(), name },
            Form::OciArchive => Transport::LayoutArchive { file: path.into(), name: text },
            Form::OciDir => Transport::Layout { dir: path.into(), name: text },
        }
    }

    /// By way of a file in the store, since an archive's index is written when all else is known.
    fn to_stdout(
        &self,
        store: &crate::image::store::Store,
        image: &crate::image::store::Image,
        name: Option<Reference>,
    ) -> Result<u8> {
        if self.format == Form::OciDir {
            return Err(
                Error::new("a directory cannot go to the standard output").next("name it with --output")
            );
        }
        if std::io::stdout().is_terminal() {
            return Err(Error::new("the standard output is a terminal").next("use --output FILE, or a pipe"));
        }
        let spool = store.spool()?;
        let path = spool.path().to_owned();
        let to = source::destination(&self.transport(&path, name), &Access::default())?;
        push(store, image, &*to, &*shown_or(true))?;
        to.finish()?;
        let failed =
            |e: std::io::Error| Error::call("writing the archive", e.raw_os_error().unwrap_or(libc::EIO));
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        std::io::copy(&mut file, &mut std::io::stdout().lock()).map_err(failed)?;
        Ok(0)
    }
}
