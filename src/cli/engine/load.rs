//! `jug load`: every image of an archive comes into the store, as a pull does.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use super::Global;
use super::pull::Layers;
use super::shown::print;
use super::transfer::shown_or;
use crate::error::{Error, Result};
use crate::image::platform;
use crate::image::pull::{Options, pull};
use crate::image::reference::Transport;
use crate::image::source::{self, Access};
use crate::image::store::Store;

/// Read images from an archive of `save`, Docker, Podman or skopeo
#[derive(Debug, clap::Args)]
pub struct Load {
    /// The archive, also compressed with gzip or zstd; or an OCI layout [default: the standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// What layers are unpacked to
    #[arg(long, value_name = "FORM", default_value = "directories")]
    layers: Layers,
    /// OS/ARCH[/VARIANT] of images that have several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Say nothing but the names
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let Some(input) = &self.input else {
            if std::io::stdin().is_terminal() {
                return Err(
                    Error::new("the standard input is a terminal").next("use --input FILE, or a pipe")
                );
            }
            // An archive is read in any order, so it has to be a file.
            let spool = store.spool()?;
            let failed = |e: std::io::Error| Error::io("reading the archive", &e);
            let mut file = std::fs::File::create(spool.path()).map_err(failed)?;
            std::io::copy(&mut std::io::stdin().lock().by_ref(), &mut file).map_err(failed)?;
            return self.load(&store, spool.path()).map_err(|e| e.context("the standard input"));
        };
        self.load(&store, input)
    }

    fn load(&self, store: &Store, file: &std::path::Path) -> Result<u8> {
        let mut options = Options { form: self.layers.into(), ..Options::default() };
        if let Some(platform) = &self.platform {
            options.platform = platform::parse(platform)?;
        }
        let is_dir = crate::sys::path::open(file, libc::O_PATH | libc::O_DIRECTORY).is_ok();
        let images = if is_dir {
            let layout = Transport::Layout { dir: file.into(), name: None };
            vec![(Vec::new(), source::open(&layout, &Access::default())?)]
        } else {
            source::images_in(file, &Access::default())?
        };
        for (names, source) in images {
            let image = pull(store, &*source, names.first(), &options, &*shown_or(self.quiet))?;
            for name in names.iter().skip(1) {
                store.tag(&image, &name.to_string())?;
            }
            for name in &names {
                print(&format!("Loaded image: {}\n", name.familiar()))?;
            }
            if names.is_empty() {
                print(&format!("Loaded image ID: {}\n", image.id))?;
            }
        }
        Ok(0)
    }
}
