//! The recipe: what the image is made of and what its configuration says, as TOML or flags give it.
//!
//! Reading only: no file named in a recipe is opened here. An unknown key is an error that names it and its line.

mod file;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use file::{Content, FileRecipe};
pub use source::{Debian, Source, Variant};

use crate::error::{Doing, Error, Result};

/// A whole image. `dir` is where the relative paths of the recipe start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    #[serde(skip)]
    pub dir: PathBuf,
    pub tag: Option<String>,
    /// As Go names it: amd64, arm64. The host's when not given.
    pub arch: Option<String>,
    pub compression: Option<String>,
    #[serde(default)]
    pub config: ConfigRecipe,
    #[serde(default, rename = "layer")]
    pub layers: Vec<LayerRecipe>,
}

/// The execution parameters of the image (image-spec config.md#properties).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigRecipe {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub volumes: Vec<String>,
    pub exposed_ports: Vec<String>,
    pub stop_signal: Option<String>,
}

/// One layer: a source, then files on top of it, then the names of lower layers that it hides.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerRecipe {
    pub from: Option<Source>,
    pub files: Vec<FileRecipe>,
    pub whiteouts: Vec<String>,
    pub opaque: Vec<String>,
}

impl Recipe {
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).doing(|| format!("read the recipe {}", path.display()))?;
        let mut recipe = Self::parse(&text, &path.display().to_string())?;
        recipe.dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(recipe)
    }

    /// `name` is what errors call the recipe.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let number = text[..start].matches('\n').count() + 1;
            // The line itself names the key where the message only names a type.
            let line: String = text.lines().nth(number - 1).unwrap_or("").trim().chars().take(60).collect();
            Error::new(format!("{name}, line {number} `{line}`: {}", error.message().trim()))
        })
    }
}
