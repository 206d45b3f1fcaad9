//! Where the bulk of a layer comes from: `from = "busybox"` or a table with exactly one of its keys.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A static busybox with its applets and a small /etc; the host's when no path is given.
    Busybox {
        path: Option<PathBuf>,
    },
    /// The static probe with the same /etc.
    Probe,
    /// A directory; `owner` is given to everything where set, else the owners are kept.
    Dir {
        path: PathBuf,
        owner: Option<(u32, u32)>,
    },
    /// A tarball; `verbatim` makes its bytes the layer as they are, however hostile.
    Tar {
        path: PathBuf,
        verbatim: bool,
    },
    Debian(Debian),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    pub suite: String,
    pub include: Vec<String>,
    pub variant: Variant,
    pub mirror: Option<String>,
}

/// mmdebstrap(1) `--variant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    Extract,
    Custom,
    #[default]
    Minbase,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Custom => "custom",
            Self::Minbase => "minbase",
        }
    }
}

const FORMS: &str = "busybox, probe, dir:PATH, tar:PATH or debian:SUITE[:PACKAGE,PACKAGE]";

/// The short form, as `--from` takes it.
impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("busybox", "") => Ok(Self::Busybox { path: None }),
            ("busybox", path) => Ok(Self::Busybox { path: Some(path.into()) }),
            ("probe", "") => Ok(Self::Probe),
            ("dir", path) if !path.is_empty() => Ok(Self::Dir { path: path.into(), owner: None }),
            ("tar", path) if !path.is_empty() => Ok(Self::Tar { path: path.into(), verbatim: false }),
            ("debian", rest) if !rest.is_empty() => {
                let (suite, packages) = rest.split_once(':').unwrap_or((rest, ""));
                let include = packages.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect();
                Debian::new(suite.to_owned(), include, Variant::default(), None).map(Self::Debian)
            }
            _ => Err(format!("`{text}` is no source: it must be {FORMS}")),
        }
    }
}

impl Debian {
    /// The words end in file names and on mmdebstrap's command line, so they are held to what Debian allows in them.
    fn new(
        suite: String,
        mut include: Vec<String>,
        variant: Variant,
        mirror: Option<String>,
    ) -> Result<Self, String> {
        let plain = |word: &String| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:_=~/".contains(c))
        };
        if let Some(word) = [&suite].into_iter().chain(&include).find(|word| !plain(word)) {
            return Err(format!("`{word}` is neither a Debian suite nor a package name"));
        }
        // It becomes an argument of its own, which must not be taken for an option.
        if let Some(mirror) =
            mirror.as_ref().filter(|mirror| !mirror.contains("://") || mirror.starts_with('-'))
        {
            return Err(format!("mirror `{mirror}` is not a URL"));
        }
        include.sort();
        include.dedup();
        Ok(Self { suite, include, variant, mirror })
    }
}

/// The long form; every key is optional so that the error can say which are missing or too many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    busybox: Option<PathBuf>,
    dir: Option<PathBuf>,
    owner: Option<String>,
    tar: Option<PathBuf>,
    verbatim: Option<bool>,
    debian: Option<String>,
    include: Option<Vec<String>>,
    variant: Option<Variant>,
    mirror: Option<String>,
}

impl Table {
    fn into_source(self) -> Result<Source, String> {
        let Self { busybox, dir, owner, tar, verbatim, debian, include, variant, mirror } = self;
        let sources = [busybox.is_some(), dir.is_some(), tar.is_some(), debian.is_some()];
        if sources.iter().filter(|&&set| set).count() != 1 {
            return Err("`from` needs exactly one of `busybox`, `dir`, `tar` and `debian`".into());
        }
        let stray = |set: bool, key: &str, of: &str| match set {
            true => Err(format!("`{key}` only goes with `{of}`")),
            false => Ok(()),
        };
        stray(owner.is_some() && dir.is_none(), "owner", "dir")?;
        stray(verbatim.is_some() && tar.is_none(), "verbatim", "tar")?;
        stray(include.is_some() && debian.is_none(), "include", "debian")?;
        stray(variant.is_some() && debian.is_none(), "variant", "debian")?;
        stray(mirror.is_some() && debian.is_none(), "mirror", "debian")?;
        if let Some(path) = dir {
            return Ok(Source::Dir { path, owner: owner.as_deref().map(parse_owner).transpose()? });
        }
        if let Some(path) = tar {
            return Ok(Source::Tar { path, verbatim: verbatim.unwrap_or(false) });
        }
        if let Some(suite) = debian {
            let include = include.unwrap_or_default();
            return Debian::new(suite, include, variant.unwrap_or_default(), mirror).map(Source::Debian);
        }
        Ok(Source::Busybox { path: busybox })
    }
}

fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| format!("owner `{text}` is not UID:GID in numbers"))
}

/// By hand, because serde's untagged enums would answer a misspelt key with "did not match any variant".
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "{FORMS}, or a table")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Source, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Source, M::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                table.into_source().map_err(M::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
