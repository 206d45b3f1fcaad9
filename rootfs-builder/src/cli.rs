//! The command line: flags over the recipe, then one build.

use std::env;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::blob::Compression;
use crate::error::{Error, Result};
use crate::layer;
use crate::output::{Build, Output};
use crate::recipe::{ConfigRecipe, LayerRecipe, Recipe, Source};
use crate::source::{Workshop, go_arch, probe};

/// Makes small reproducible root file systems, OCI layouts and archives.
#[derive(Debug, Parser)]
#[command(name = "rootfs-builder", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what a recipe or --from describes.
    ///
    /// All times are SOURCE_DATE_EPOCH, or 0 when it is not set.
    Build(Box<BuildArgs>),
    /// Write the static probe binary.
    Probe {
        #[arg(long, value_name = "PATH")]
        output: PathBuf,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The recipe (TOML).
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    recipe: Option<PathBuf>,
    /// A layer without a recipe: busybox, probe, dir:PATH, tar:PATH or debian:SUITE[:PACKAGE,PACKAGE]. Repeatable.
    #[arg(long, value_name = "SOURCE")]
    from: Vec<Source>,
    /// tree:PATH, tar:PATH, oci:PATH, oci-archive:PATH, docker-archive:PATH, initramfs:PATH or ext4:PATH. Repeatable;
    /// PATH - is stdout.
    #[arg(long, value_name = "KIND:PATH", required = true)]
    output: Vec<Output>,
    /// One word of the entrypoint. Repeatable; replaces the recipe's entrypoint and its cmd.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// One word of the default arguments. Repeatable; replaces the recipe's.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// An environment variable. Repeatable; replaces the recipe's of the same name.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// Repeatable; replaces the recipe's of the same name.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// The image's name, such as jug/hello:latest.
    #[arg(long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// As Go names it [default: the host's].
    #[arg(long)]
    arch: Option<String>,
    /// Of the layers in OCI layouts: none, gzip or zstd [default: gzip]. A tar follows its own name (.gz, .tgz, .zst).
    #[arg(long)]
    compression: Option<String>,
    /// Where fetched packages are kept [default: $XDG_CACHE_HOME/jug, /var/cache/jug for root, ~/.cache/jug].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Fail rather than fetch what the cache lacks.
    #[arg(long)]
    offline: bool,
    /// Leave everything in a tree to the caller instead of the recorded owners.
    #[arg(long)]
    no_chown: bool,
}

impl Cli {
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Probe { output } => probe::write(&output),
            Command::Build(args) => build(*args),
        }
    }
}

fn build(args: BuildArgs) -> Result<()> {
    let recipe = recipe(&args)?;
    let compression = recipe.compression.as_deref().map_or(Ok(Compression::Gzip), str::parse)?;
    let shop = Workshop {
        dir: recipe.dir.clone(),
        epoch: epoch()?,
        arch: recipe.arch.clone().unwrap_or_else(|| go_arch(env::consts::ARCH).into()),
        cache: args.cache.unwrap_or_else(default_cache),
        offline: args.offline,
    };
    let mut layers = Vec::new();
    for (index, layer) in recipe.layers.iter().enumerate() {
        let about = |error: Error| error.context(format!("layer {}", index + 1));
        layers.push(layer::make(layer, &shop).map_err(about)?);
    }
    Build { recipe: &recipe, layers, shop: &shop, compression, chown: !args.no_chown }.write(&args.output)
}

/// The recipe file, or one layer for each --from; then the flags over it.
fn recipe(args: &BuildArgs) -> Result<Recipe> {
    let mut recipe = match &args.recipe {
        Some(path) => Recipe::load(path)?,
        None => flags_alone(&args.from),
    };
    let config = &mut recipe.config;
    if !args.entrypoint.is_empty() {
        config.entrypoint = args.entrypoint.clone();
        config.cmd.clear(); // the arguments of another program
    }
    if !args.cmd.is_empty() {
        config.cmd = args.cmd.clone();
    }
    for variable in &args.env {
        let (name, _) = name_value("env", variable)?;
        config.env.retain(|old| old.split('=').next() != Some(name));
        config.env.push(variable.clone());
    }
    for label in &args.label {
        let (name, value) = name_value("label", label)?;
        config.labels.insert(name.into(), value.into());
    }
    let over = |new: &Option<String>, old: &mut Option<String>| {
        if new.is_some() {
            old.clone_from(new);
        }
    };
    over(&args.user, &mut config.user);
    over(&args.workdir, &mut config.workdir);
    over(&args.tag, &mut recipe.tag);
    over(&args.arch, &mut recipe.arch);
    over(&args.compression, &mut recipe.compression);
    Ok(recipe)
}

/// Without a recipe nobody says what to run, so the first source does.
fn flags_alone(from: &[Source]) -> Recipe {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut config = ConfigRecipe { env: vec![path.into()], ..ConfigRecipe::default() };
    match from.first() {
        Some(Source::Busybox { .. } | Source::Debian(_)) => config.cmd = vec!["/bin/sh".into()],
        Some(Source::Probe) => config.entrypoint = vec!["/bin/probe".into()],
        _ => {}
    }
    let layer = |source: &Source| LayerRecipe { from: Some(source.clone()), ..LayerRecipe::default() };
    Recipe { config, layers: from.iter().map(layer).collect(), ..Recipe::default() }
}

fn name_value<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str)> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.ok_or_else(|| Error::new(format!("--{flag} `{text}` is not NAME=VALUE")))
}

/// reproducible-builds.org/specs/source-date-epoch: seconds in decimal; anything else must be refused.
fn epoch() -> Result<Option<i64>> {
    let Some(text) = env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    let secs = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let error = || Error::new(format!("SOURCE_DATE_EPOCH `{text}` is not a number of seconds"));
    secs.map(Some).ok_or_else(error)
}

fn default_cache() -> PathBuf {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        return Path::new(&dir).join("jug");
    }
    match env::var_os("HOME") {
        Some(home) if !rustix::process::geteuid().is_root() => Path::new(&home).join(".cache/jug"),
        _ => "/var/cache/jug".into(),
    }
}
