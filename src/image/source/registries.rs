//! registries.conf, version 2, and the drop-ins beside it: containers-registries.conf(5).
//!
//! It says where a short name is looked for, and what a name means in the end: which mirrors are asked first, which
//! host it is really on, whether that may be reached without TLS, or at all. This room reads files and decides; it
//! connects to nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::image::reference::{self, DOCKER_HUB, Reference};

/// No configuration of registries is longer, in bytes.
const LONGEST: u64 = 4 << 20;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Registries {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Entry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1's tables, which are refused by name.
    registries: Option<toml::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: Option<bool>,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: Option<bool>,
    pull_from_mirror: String,
}

/// A place to ask for an image: where the name really is, and whether its TLS may be missing or not be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub reference: Reference,
    pub insecure: Option<bool>,
}

impl Entry {
    fn prefix(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }

    /// How much of a name the prefix covers, in bytes. It ends where a part of the name does.
    fn matches(&self, name: &str) -> Option<usize> {
        let prefix = self.prefix();
        if let Some(domain) = prefix.strip_prefix('*') {
            // `*.example.com`: any host below it, whole.
            let host = name.split(['/', '@']).next().unwrap_or_default();
            let bare = host.split(':').next().unwrap_or_default();
            return (domain.starts_with('.') && bare.ends_with(domain)).then_some(host.len());
        }
        let rest = name.strip_prefix(prefix)?;
        (!prefix.is_empty() && (rest.is_empty() || rest.starts_with(['/', ':', '@']))).then_some(prefix.len())
    }

    /// The name at another location.
    fn moved(&self, reference: &Reference, covered: usize, location: &str) -> Result<Reference> {
        if location.is_empty() {
            return Ok(reference.clone());
        }
        let moved = format!("{location}{}", &reference.to_string()[covered..]);
        let moved = if moved.split('/').count() > 1 { moved } else { format!("{moved}/") };
        Reference::parse(&moved).map_err(|e| e.context("registries.conf"))
    }
}

impl Registries {
    /// Reads what this caller's configuration says: `$CONTAINERS_REGISTRIES_CONF` alone, else the caller's file in
    /// place of the system's, and the drop-ins of all in alphabetical order.
    pub fn load() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
        };
        let own = config_home().map(|home| home.join("containers"));
        let mut found = match variable("CONTAINERS_REGISTRIES_CONF") {
            Some(file) => Self::parse(&file, true)?,
            None => {
                let dirs = own.iter().map(PathBuf::as_path);
                let system = ["/etc/containers", "/usr/share/containers"].map(Path::new);
                let mut files = dirs.chain(system).map(|dir| dir.join("registries.conf"));
                files.find_map(|file| Self::read(&file).transpose()).transpose()?.unwrap_or_default()
            }
        };
        let dirs = match variable("CONTAINERS_REGISTRIES_CONF_DIR") {
            Some(dir) => vec![dir],
            None if variable("CONTAINERS_REGISTRIES_CONF").is_some() => Vec::new(),
            None => {
                let own = own.map(|dir| dir.join("registries.conf.d"));
                [Some(PathBuf::from("/etc/containers/registries.conf.d")), own]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        };
        for dir in dirs {
            found.add_drop_ins(&dir)?;
        }
        Ok(found)
    }

    fn add_drop_ins(&mut self, dir: &Path) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "conf"));
        files.sort();
        for file in files {
            if let Some(more) = Self::read(&file)? {
                self.add(more);
            }
        }
        Ok(())
    }

    /// A later file adds registries and aliases, and replaces those of the same name.
    fn add(&mut self, more: Self) {
        self.unqualified_search_registries =
            more.unqualified_search_registries.or(self.unqualified_search_registries.take());
        self.short_name_mode = more.short_name_mode.or(self.short_name_mode.take());
        self.credential_helpers = more.credential_helpers.or(self.credential_helpers.take());
        for entry in more.registry {
            self.registry.retain(|old| old.prefix() != entry.prefix());
            self.registry.push(entry);
        }
        self.aliases.extend(more.aliases);
    }

    fn read(file: &Path) -> Result<Option<Self>> {
        match std::fs::metadata(file) {
            Ok(_) => Self::parse(file, false).map(Some),
            Err(e)
                if [libc::ENOENT, libc::ENOTDIR, libc::EACCES].contains(&e.raw_os_error().unwrap_or(0)) =>
            {
                Ok(None)
            }
            Err(e) => Err(Error::new(format!("{}: {e}", file.display()))),
        }
    }

    /// `must`: whoever named the file means it to be there.
    fn parse(file: &Path, must: bool) -> Result<Self> {
        use std::io::Read as _;
        let failed = |e: std::io::Error| Error::io(file.display(), &e);
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(failed)?;
        if must && opened.metadata().is_ok_and(|found| found.len() == 0) {
            return Ok(Self::default());
        }
        opened.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
        Self::of(&text).map_err(|e| e.context(file.display()))
    }

    /// Reads the text of one file.
    pub fn of(text: &str) -> Result<Self> {
        let read: Self =
            toml::from_str(text).map_err(|e| Error::new(e.to_string().trim().replace('\n', " ")))?;
        if read.registries.is_some() {
            return Err(Error::new("this is registries.conf version 1, which is not supported")
                .next("write [[registry]] tables: containers-registries.conf(5)"));
        }
        for entry in &read.registry {
            if entry.prefix().is_empty() {
                return Err(Error::new("a [[registry]] has neither a prefix nor a location"));
            }
            if entry.mirror.iter().any(|mirror| mirror.location.is_empty()) {
                return Err(Error::new(format!("a mirror of {} has no location", entry.prefix())));
            }
            for mirror in &entry.mirror {
                if !["", "all", "digest-only", "tag-only"].contains(&mirror.pull_from_mirror.as_str()) {
                    let word = &mirror.pull_from_mirror;
                    return Err(Error::new(format!(
                        "pull-from-mirror = {word:?} is not all, digest-only or tag-only"
                    )));
                }
            }
        }
        Ok(read)
    }

    /// The names that a text may mean, in the order in which they are tried. A name with a registry means itself; a
    /// short one its alias, else itself in each of the unqualified-search registries; with none, Docker's.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>> {
        let whole = Reference::parse(text)?;
        if !reference::is_short(text) {
            return Ok(vec![whole]);
        }
        let tail = &text[text.find(['@']).unwrap_or(text.len()).min(colon(text))..];
        let short = &text[..text.len() - tail.len()];
        if let Some(alias) = self.aliases.get(short).filter(|alias| !alias.is_empty()) {
            return Ok(vec![Reference::parse(&format!("{alias}{tail}")).map_err(|e| e.context("alias"))?]);
        }
        match self.unqualified_search_registries.as_deref() {
            None | Some([]) => Ok(vec![whole]),
            Some(hosts) => hosts.iter().map(|host| Reference::parse(&format!("{host}/{text}"))).collect(),
        }
    }

    /// Where an image is asked for: the mirrors that serve such a name, and the registry last.
    pub fn places(&self, reference: &Reference) -> Result<Vec<Place>> {
        let Some((entry, covered)) = self.entry(reference) else {
            return Ok(vec![Place { reference: reference.clone(), insecure: None }]);
        };
        if entry.blocked {
            return Err(Error::new(format!("{reference} is blocked by registries.conf"))
                .why(format!("[[registry]] {:?} has blocked = true", entry.prefix())));
        }
        let by_digest = reference.digest().is_some();
        let mut places = Vec::new();
        for mirror in &entry.mirror {
            let serves = match mirror.pull_from_mirror.as_str() {
                "digest-only" => by_digest,
                "tag-only" => !by_digest,
                _ => by_digest || !entry.mirror_by_digest_only,
            };
            if serves {
                let reference = entry.moved(reference, covered, &mirror.location)?;
                places.push(Place { reference, insecure: mirror.insecure });
            }
        }
        places.push(self.place(reference)?);
        Ok(places)
    }

    /// Where an image is pushed to: never a mirror.
    pub fn place(&self, reference: &Reference) -> Result<Place> {
        let Some((entry, covered)) = self.entry(reference) else {
            return Ok(Place { reference: reference.clone(), insecure: None });
        };
        if entry.blocked {
            return Err(Error::new(format!("{reference} is blocked by registries.conf")));
        }
        Ok(Place { reference: entry.moved(reference, covered, &entry.location)?, insecure: entry.insecure })
    }

    /// `credential-helpers`, in their order.
    pub fn credential_helpers(&self) -> &[String] {
        self.credential_helpers.as_deref().unwrap_or_default()
    }

    fn entry(&self, reference: &Reference) -> Option<(&Entry, usize)> {
        let name = reference.to_string();
        let found = self.registry.iter().filter_map(|entry| Some((entry, entry.matches(&name)?)));
        found.max_by_key(|(entry, _)| (!entry.prefix().starts_with('*'), entry.prefix().len()))
    }
}

/// Where the tag of a short name begins.
fn colon(text: &str) -> usize {
    let name = text.split('@').next().unwrap_or_default();
    name.rfind(':').unwrap_or(text.len())
}

/// `$XDG_CONFIG_HOME`, else `~/.config`.
pub fn config_home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))
}

/// The host that Docker Hub's API is on.
pub fn api_host(host: &str) -> &str {
    if host == DOCKER_HUB { "registry-1.docker.io" } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    fn at(conf: &Registries, name: &str) -> Vec<String> {
        let places = conf.places(&Reference::parse(name).expect(name)).expect(name);
        places.into_iter().map(|place| place.reference.to_string()).collect()
    }

    #[test]
    fn short_names() {
        let conf = Registries::of(
            "unqualified-search-registries = [\"a.io\", \"b.io:5000\"]\n[aliases]\n\"fedora\" = \"r.org/fedora\"\n",
        )
        .expect("parses");
        let all = |text: &str| {
            let found = conf.candidates(text).expect(text);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(all("x/y:1"), ["a.io/x/y:1", "b.io:5000/x/y:1"]);
        assert_eq!(all("fedora"), ["r.org/fedora:latest"]);
        assert_eq!(all("fedora:40"), ["r.org/fedora:40"]);
        assert_eq!(all(&format!("fedora@sha256:{HEX}")), [format!("r.org/fedora@sha256:{HEX}")]);
        assert_eq!(all("q.io/fedora"), ["q.io/fedora:latest"]);
        let none = Registries::default().candidates("alpine").expect("Docker's");
        assert_eq!(none[0].to_string(), "docker.io/library/alpine:latest");
    }

    #[test]
    fn mirrors_and_other_locations() {
        let conf = Registries::of(
            r#"
            [[registry]]
            prefix = "example.com/ns"
            location = "inner.example.com:5000/other"
            insecure = true
            [[registry.mirror]]
            location = "m1.local/x"
            [[registry.mirror]]
            location = "m2.local"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "example.com/ns/deep"
            location = "deep.example.com"
            [[registry]]
            prefix = "*.wild.org"
            blocked = true
            "#,
        )
        .expect("parses");
        assert_eq!(at(&conf, "example.com/ns/a:1"), ["m1.local/x/a:1", "inner.example.com:5000/other/a:1"]);
        let digest = format!("@sha256:{HEX}");
        assert_eq!(at(&conf, &format!("example.com/ns/a{digest}"))[1], format!("m2.local/a{digest}"));
        assert_eq!(at(&conf, "example.com/ns/deep/a:1"), ["deep.example.com/a:1"]);
        assert_eq!(
            at(&conf, "example.com/nsx/a:1"),
            ["example.com/nsx/a:1"],
            "a prefix ends where a part does"
        );
        let place = conf.place(&Reference::parse("example.com/ns/a").expect("parses")).expect("a place");
        assert_eq!(place.insecure, Some(true));
        let blocked = Reference::parse("a.b.wild.org/x").expect("parses");
        assert!(conf.places(&blocked).is_err() && conf.place(&blocked).is_err());
        assert!(conf.places(&Reference::parse("wild.org/x").expect("parses")).is_ok());
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "[registries.search]\nregistries=[]",
            "[[registry]]\nblocked = true",
            "=",
            "[[registry]]\nprefix = 1",
        ] {
            assert!(Registries::of(text).is_err(), "{text}");
        }
    }
}
