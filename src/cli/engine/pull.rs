//! `jug pull`: an image comes into the store. Its id is the last line on stdout.

use std::io::Write as _;

use clap::{Args, ValueEnum};

use super::Global;
use super::access::AccessFlags;
use super::transfer::Shown;
use crate::error::{Error, Result};
use crate::image::hello;
use crate::image::layer::Form;
use crate::image::platform;
use crate::image::progress::{Progress, Silent};
use crate::image::pull;
use crate::image::reference::{Reference, Transport};
use crate::image::source::registries::Registries;
use crate::image::source::{self, Access, Source, registry};
use crate::image::store::{Image, Store};

/// Pull images: NAME[:TAG][@DIGEST], or docker://, oci:, oci-archive:, docker-archive:, dir:
#[derive(Debug, Args)]
pub struct Pull {
    #[command(flatten)]
    access: AccessFlags,
    /// Pull every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// USER:PASSWORD for the registry
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// What layers are unpacked to
    #[arg(long, value_name = "FORM", default_value = "directories")]
    layers: Layers,
    /// OS/ARCH[/VARIANT] of the image [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// When a registry is asked
    #[arg(long, value_name = "WHEN", default_value = "always")]
    policy: When,
    /// Print only the image's id
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// What a layer becomes in the store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layers {
    /// A directory with its files
    #[default]
    Directories,
    /// One file, an EROFS image, which the kernel mounts
    Erofs,
}

impl From<Layers> for Form {
    fn from(layers: Layers) -> Self {
        match layers {
            Layers::Directories => Form::Directory,
            Layers::Erofs => Form::Erofs,
        }
    }
}

/// When the source of an image is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Always; nothing is downloaded twice
    Always,
    /// Only where the image is not there
    Missing,
    /// Never
    Never,
    /// Where it can be reached; what is there will do otherwise
    Newer,
}

/// What a pull needs to know beside the name.
pub struct Wanted<'w> {
    pub access: &'w Access,
    pub platform: Option<&'w str>,
    pub when: When,
    pub layers: Layers,
}

impl Pull {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let store = global.store()?;
        let access = self.access.with(self.creds.as_deref())?;
        let shown = Shown::new();
        let progress: &dyn Progress = if self.quiet { &Silent } else { &shown };
        let platform = self.platform.as_deref();
        let wanted = Wanted { access: &access, platform, when: self.policy, layers: self.layers };
        for text in &self.images {
            for name in self.names(text, &access)? {
                let image = image(&store, &name, &wanted, progress)?;
                let _ = writeln!(std::io::stdout(), "{}", image.id.digest());
            }
        }
        Ok(0)
    }

    /// The images that a text means: more than one only with `--all-tags`.
    fn names(&self, text: &str, access: &Access) -> Result<Vec<String>> {
        if !self.all_tags {
            return Ok(vec![text.to_owned()]);
        }
        let reference = Reference::parse(text.strip_prefix("docker://").unwrap_or(text))?;
        if reference.to_string() != format!("{}:latest", reference.name()) || text.ends_with(":latest") {
            return Err(Error::new(format!("--all-tags takes a name without a tag, not {text}")));
        }
        let tags = registry::tags(&reference, access)?;
        tags.iter().map(|tag| Ok(reference.with_tag(tag)?.to_string())).collect()
    }
}

/// Brings an image into the store, or finds it there, as `when` says.
pub fn image(store: &Store, text: &str, wanted: &Wanted<'_>, progress: &dyn Progress) -> Result<Image> {
    let platform = wanted.platform.map_or_else(|| Ok(platform::host()), platform::parse)?;
    let missing_only = wanted.when == When::Missing;
    let form = wanted.layers.into();
    let options = pull::Options { platform, missing_only, form, ..pull::Options::default() };
    if wanted.when == When::Never {
        return store.find(text).map_err(|e| e.next("jug pull fetches it"));
    }
    if hello::is_meant(text) {
        return store.find(text);
    }
    let pulled = match Transport::parse(text)? {
        Transport::Registry(exact) => {
            let short = !text.starts_with("docker://");
            let names = if short { Registries::load()?.candidates(text)? } else { vec![exact] };
            from_registries(store, &names, wanted, &options, progress)
        }
        other => from_files(store, &other, wanted.access, &options, progress),
    };
    match (pulled, wanted.when) {
        (Err(error), When::Newer) => store.find(text).map_err(|_| error),
        (pulled, _) => pulled,
    }
}

/// The first of several names that some registry has.
fn from_registries(
    store: &Store,
    names: &[Reference],
    wanted: &Wanted<'_>,
    options: &pull::Options,
    progress: &dyn Progress,
) -> Result<Image> {
    let mut failed: Option<Error> = None;
    for name in names {
        let transport = Transport::Registry(name.clone());
        progress.say(&format!("Pulling {name}"));
        let options = pull::Options { source: Some(transport.to_string()), ..options.clone() };
        let pulled = source::open(&transport, wanted.access)
            .and_then(|source| pull::pull(store, &*source, Some(name), &options, progress));
        match (pulled, failed.take()) {
            (Ok(image), _) => return Ok(image),
            (Err(error), None) => failed = Some(error),
            (Err(error), Some(before)) => failed = Some(error.why(before.what())),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new("registries.conf names no registry to ask")))
}

/// From a directory or an archive: under the name that stands there, if one does.
fn from_files(
    store: &Store,
    transport: &Transport,
    access: &Access,
    options: &pull::Options,
    progress: &dyn Progress,
) -> Result<Image> {
    let (names, source): (Vec<Reference>, Box<dyn Source>) = match transport {
        Transport::DockerArchive { name: Some(name), .. } => {
            (vec![name.clone()], source::open(transport, access)?)
        }
        Transport::DockerArchive { file, name: None } => match source::docker_images_in(file, access)? {
            mut found if found.len() == 1 => found.remove(0),
            // It says that there are several, and which.
            _ => (Vec::new(), source::open(transport, access)?),
        },
        Transport::Layout { name, .. } | Transport::LayoutArchive { name, .. } => {
            let whole = name.as_ref().filter(|name| name.contains(['/', ':']));
            let named = whole.and_then(|name| Reference::parse(name).ok());
            (named.into_iter().collect(), source::open(transport, access)?)
        }
        _ => (Vec::new(), source::open(transport, access)?),
    };
    progress.say(&format!("Pulling {transport}"));
    let options = pull::Options { source: Some(transport.to_string()), ..options.clone() };
    let image = pull::pull(store, &*source, names.first(), &options, progress)?;
    for name in names.iter().skip(1) {
        store.tag(&image, &name.to_string())?;
    }
    Ok(image)
}
