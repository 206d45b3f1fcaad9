//! `jug rmi`: names and images go.

use super::Global;
use super::shown::{print, size, tell};
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::image::store::{Collected, Image, Name, Store};

/// Remove names of images, and images that have none left
#[derive(Debug, clap::Args)]
pub struct Rmi {
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
    /// All of them
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// All names of an image, also when a container uses it
    #[arg(short, long)]
    force: bool,
    /// An image that is not there is no error
    #[arg(short, long)]
    ignore: bool,
    /// Keep nothing back (Docker's flag; untagged parents are never kept here)
    #[arg(long, hide = true)]
    no_prune: bool,
}

impl Rmi {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let wanted = match self.all {
            true => store.images()?.iter().map(|image| image.id.to_string()).collect(),
            false => self.images.clone(),
        };
        let mut failed = None;
        for text in &wanted {
            let removed = match store.find_named(text) {
                Err(_) if self.ignore => continue,
                found => found.and_then(|(image, name)| self.remove(&store, text, &image, name.as_ref())),
            };
            if let Err(error) = removed {
                tell(&format!("Error: {error}"));
                failed = Some(error);
            }
        }
        Ok(u8::from(failed.is_some()))
    }

    fn remove(&self, store: &Store, text: &str, image: &Image, name: Option<&Name>) -> Result<()> {
        let names: Vec<Name> = store.names()?.into_iter().filter(|name| name.image == image.id).collect();
        if let Some(name) = name.filter(|_| names.len() > 1) {
            store.remove(std::slice::from_ref(&name.name), &[], false)?;
            return print(&untagged(name));
        }
        if name.is_none() && names.len() > 1 && !self.force && !self.all {
            let names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
            return Err(Error::new(format!("image {text} has several names: {}", names.join(", ")))
                .next("remove them by name, or all with --force"));
        }
        let users: Vec<String> =
            store.pins()?.into_iter().filter(|pin| pin.image == image.id).map(|pin| pin.owner).collect();
        if !users.is_empty() && !self.force {
            return Err(Error::new(format!("image {text} is used by container {}", users.join(", ")))
                .next("remove the container first, or only the names with --force"));
        }
        let known: Vec<String> = names.iter().map(|name| name.name.clone()).collect();
        store.remove(&known, std::slice::from_ref(&image.id), self.force || self.all)?;
        print(&names.iter().map(untagged).collect::<String>())?;
        if users.is_empty() { print(&format!("Deleted: {}\n", image.id)) } else { Ok(()) }
    }
}

fn untagged(name: &Name) -> String {
    let shown = Reference::parse(&name.name).map_or_else(|_| name.name.clone(), |name| name.familiar());
    format!("Untagged: {shown}\n")
}

/// Remove images that have no name and no container
#[derive(Debug, clap::Args)]
pub struct ImagePrune {
    #[command(flatten)]
    flags: PruneFlags,
}

impl ImagePrune {
    pub fn perform(self, global: &Global) -> Result<u8> {
        self.flags.perform(&global.store()?, "", || Ok(0))
    }
}

/// The flags of `image prune` and of `system prune`.
#[derive(Debug, clap::Args)]
pub struct PruneFlags {
    /// Also images that have a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=KEY[=VALUE], until=TIME
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

impl PruneFlags {
    /// `more`: what goes beside the images, for the question; `before` makes it go, and says how many bytes that were.
    pub fn perform(self, store: &Store, more: &str, before: impl FnOnce() -> Result<u64>) -> Result<u8> {
        let images = if self.all { "images that no container uses" } else { "images without a name" };
        if !self.force && !super::system::agreed(&format!("This removes all {images}{more}."))? {
            return Ok(0);
        }
        let bytes = before()?;
        let collected = prune(store, self.all, &self.filter)?;
        print(&format!("Total reclaimed space: {}\n", size(bytes + collected.bytes)))?;
        Ok(0)
    }
}

/// Removes what nobody uses, and says the ids.
fn prune(store: &Store, all: bool, filters: &[String]) -> Result<Collected> {
    let filters = filters.iter().map(|text| super::images::Filter::parse(text, store));
    let filters = filters.collect::<Result<Vec<_>>>()?;
    let (ids, collected) = store.prune(all, &|image| filters.iter().all(|filter| filter.keeps(image)))?;
    if !ids.is_empty() {
        print(&ids.iter().fold("Deleted Images:\n".to_owned(), |text, id| text + &format!("{id}\n")))?;
    }
    Ok(collected)
}
