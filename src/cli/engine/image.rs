//! `jug image`: what is done to images, as a family of verbs. Most are the plain verbs under a longer name.

use clap::Subcommand;

use super::Global;
use crate::error::Result;

/// Images: list, inspect, remove, save, load
#[derive(Debug, clap::Args)]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    History(super::history::History),
    Import(super::import::Import),
    Inspect(super::image_inspect::ImageInspect),
    Load(super::load::Load),
    #[command(alias = "list")]
    Ls(super::images::Images),
    Prune(super::rmi::ImagePrune),
    #[command(alias = "remove")]
    Rm(super::rmi::Rmi),
    Save(super::save::Save),
    Tag(super::tag::Tag),
}

impl Image {
    pub fn perform(self, global: &Global) -> Result<u8> {
        match self.verb {
            Verb::History(verb) => verb.perform(global),
            Verb::Import(verb) => verb.perform(global),
            Verb::Inspect(verb) => verb.perform(global),
            Verb::Load(verb) => verb.perform(global),
            Verb::Ls(verb) => verb.perform(global),
            Verb::Prune(verb) => verb.perform(global),
            Verb::Rm(verb) => verb.perform(global),
            Verb::Save(verb) => verb.perform(global),
            Verb::Tag(verb) => verb.perform(global),
        }
    }
}
