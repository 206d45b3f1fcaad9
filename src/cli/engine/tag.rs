//! `jug tag`: another name for an image.

use super::Global;
use crate::error::{Error, Result};
use crate::image::reference::Reference;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub struct Tag {
    image: String,
    #[arg(required = true, value_name = "NAME[:TAG]")]
    names: Vec<String>,
}

impl Tag {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let image = store.find(&self.image)?;
        let names = self.names.iter().map(|name| Reference::parse(name));
        for name in names.collect::<Result<Vec<_>>>()? {
            if name.digest().is_some() {
                return Err(Error::new(format!("{name}: a digest is no name to give")));
            }
            store.tag(&image, &name.to_string())?;
        }
        Ok(0)
    }
}
