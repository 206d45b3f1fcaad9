//! `jug save`: images to an archive or a directory, with the digests that they were pulled with.

use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use oci_spec::image::Descriptor;

use super::Global;
use super::transfer::shown_or;
use crate::error::{Error, Result};
use crate::image::push::push;
use crate::image::reference::Reference;
use crate::image::source::Destination;
use crate::image::source::layout::{LayoutDir, LayoutTar};
use crate::image::store::{Image, Store};

/// Write images to an archive
#[derive(Debug, clap::Args)]
pub struct Save {
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
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

/// An image of the store, and the names that it has in the archive.
type Named = (Image, Vec<String>);

impl Save {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let images = self.named(&store)?;
        match &self.output {
            Some(output) => self.write(&store, &images, output, self.quiet)?,
            None => self.to_stdout(&store, &images)?,
        }
        Ok(0)
    }

    /// Each image once, whatever it was called.
    fn named(&self, store: &Store) -> Result<Vec<Named>> {
        let mut images: Vec<Named> = Vec::new();
        for text in &self.images {
            let (image, name) = store.find_named(text)?;
            let name = name.map(|name| Reference::parse(&name.name)).transpose()?;
            let name = name.filter(|name| name.tag().is_some()).map(|name| name.to_string());
            match images.iter_mut().find(|(other, _)| other.id == image.id) {
                Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
                None => images.push((image, name.into_iter().collect())),
            }
        }
        Ok(images)
    }

    fn write(&self, store: &Store, images: &[Named], path: &Path, quiet: bool) -> Result<()> {
        let show = shown_or(quiet);
        let archive = match self.format {
            Form::DockerArchive => LayoutTar::for_docker(path, None)?,
            Form::OciArchive => LayoutTar::new(path, None)?,
            Form::OciDir => {
                for (image, names) in images {
                    for name in
                        names.iter().map(|name| Some(name.as_str())).chain(names.is_empty().then_some(None))
                    {
                        push(store, image, &LayoutDir::new(path, name)?, &*show)?;
                    }
                }
                return Ok(());
            }
        };
        for (image, names) in images {
            push(store, image, &InArchive { archive: &archive, names }, &*show)?;
        }
        archive.finish()
    }

    /// By way of a file in the store, since an archive's index is written when all else is known.
    fn to_stdout(&self, store: &Store, images: &[Named]) -> Result<()> {
        if self.format == Form::OciDir {
            return Err(
                Error::new("a directory cannot go to the standard output").next("name it with --output")
            );
        }
        if std::io::stdout().is_terminal() {
            return Err(Error::new("the standard output is a terminal").next("use --output FILE, or a pipe"));
        }
        let spool = store.spool()?;
        self.write(store, images, spool.path(), true)?;
        let failed = |e: std::io::Error| Error::io("writing the archive", &e);
        let mut file = std::fs::File::open(spool.path()).map_err(failed)?;
        std::io::copy(&mut file, &mut std::io::stdout().lock()).map_err(failed)?;
        Ok(())
    }
}

/// One image of an archive, under all its names.
struct InArchive<'a> {
    archive: &'a LayoutTar,
    names: &'a [String],
}

impl Destination for InArchive<'_> {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        self.archive.has_blob(descriptor)
    }

    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()> {
        self.archive.put_blob(descriptor, bytes)
    }

    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()> {
        match named {
            true => self.archive.add(descriptor, bytes, self.names),
            false => self.archive.put_manifest(descriptor, bytes, false),
        }
    }
}
