//! The names of images, as distribution-spec and Docker write them, and the transports in front of them.
//!
//! A name is checked whole before anything is done with it. No part of one is ever a path below a directory: the store
//! and the layouts know digests only.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use oci_spec::image::{Digest, DigestAlgorithm};

use crate::error::{Error, Result};

/// Docker's own registry, as names say it. Its host is another one (`registry::endpoint`).
pub const DOCKER_HUB: &str = "docker.io";

/// Longest `HOST/REPOSITORY`, in bytes (distribution's `NameTotalLengthMax`).
const LONGEST_NAME: usize = 255;
/// Longest tag, in bytes.
const LONGEST_TAG: usize = 128;

/// An image in a registry: `HOST/REPOSITORY[:TAG][@DIGEST]`. Where both are there, the digest says which image it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name with Docker's defaults: `alpine` is `docker.io/library/alpine:latest`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, tag, digest) = split(text)?;
        let (host, repository) = match domain(name) {
            Some((host, path)) => (host, path.to_owned()),
            None => (DOCKER_HUB, name.to_owned()),
        };
        let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
        let repository = if host == DOCKER_HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        Self::new(host, &repository, tag, digest).map_err(|e| e.context(format_args!("image {text:?}")))
    }

    /// A reference of parts that are checked. Without a tag and a digest the tag is `latest`.
    pub fn new(host: &str, repository: &str, tag: Option<&str>, digest: Option<Digest>) -> Result<Self> {
        check_host(host)?;
        check_repository(repository)?;
        if host.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(Error::new(format!("the name is longer than {LONGEST_NAME} bytes")));
        }
        tag.map_or(Ok(()), check_tag)?;
        let tag = if digest.is_none() { Some(tag.unwrap_or("latest")) } else { tag };
        Ok(Self { host: host.into(), repository: repository.into(), tag: tag.map(Into::into), digest })
    }

    /// The registry's name with its port: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `HOST/REPOSITORY`, which is what credentials and registries.conf are about.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// What the registry is asked for: the digest, else the tag.
    pub fn wanted(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag.as_deref().unwrap_or("latest"), AsRef::as_ref)
    }

    /// The same repository with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// As people write it: without `docker.io/` and `library/`, where that still means the same.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        let same = |text: &&str| Self::parse(text).as_ref() == Ok(self);
        let shortest = [short.strip_prefix("library/").unwrap_or(short), short].into_iter().find(same);
        shortest.unwrap_or(&full).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the name has no registry in it, so that registries.conf may say where it is looked for.
pub fn is_short(text: &str) -> bool {
    split(text).is_ok_and(|(name, ..)| domain(name).is_none())
}

/// A digest of an algorithm that we compute, in its one form: 64 or 128 lower-case hexadecimal digits.
pub fn digest(text: &str) -> Result<Digest> {
    let parsed = Digest::from_str(text).map_err(|e| Error::new(format!("digest {text:?}: {e}")))?;
    known_algorithm(&parsed)?;
    Ok(parsed)
}

/// Refuses digests that prove nothing here: only sha256 and sha512 are computed.
pub fn known_algorithm(digest: &Digest) -> Result<()> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512 => Ok(()),
        other => {
            Err(Error::new(format!("digest {digest}: the algorithm {other} is not one of sha256 and sha512")))
        }
    }
}

/// Name, tag and digest of a text, of which only the digest is checked.
fn split(text: &str) -> Result<(&str, Option<&str>, Option<Digest>)> {
    let (rest, hash) = match text.split_once('@') {
        Some((rest, hash)) => (rest, Some(digest(hash)?)),
        None => (text, None),
    };
    // A colon after the last slash begins a tag; one before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if name.len() == 64 && name.bytes().all(is_hex) {
        return Err(Error::new(format!("{name} is the id of an image, and no name of one in a registry")));
    }
    Ok((name, tag, hash))
}

/// The registry in a name and the rest. Docker's rule: what stands before the first slash is one if it has a dot, a
/// colon or a capital, or is `localhost`.
fn domain(name: &str) -> Option<(&str, &str)> {
    let (first, rest) = name.split_once('/')?;
    let host =
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase());
    host.then_some((first, rest))
}

fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// `host[:port]`: labels of letters, digits and inner hyphens, or an IPv6 address in brackets.
fn check_host(host: &str) -> Result<()> {
    let wrong = || Error::new(format!("{host:?} is no name of a registry"));
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(wrong)?;
            std::net::Ipv6Addr::from_str(address).map_err(|_| wrong())?;
            ("", if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
    }
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if !host.starts_with('[') && !name.split('.').all(label) {
        return Err(wrong());
    }
    Ok(())
}

/// Components of lower-case letters and digits, which `.`, `_`, `__` or hyphens may separate.
fn check_repository(path: &str) -> Result<()> {
    let component = |text: &str| {
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let mut rest = text.as_bytes();
        loop {
            let word = rest.iter().take_while(|b| plain(b)).count();
            rest = &rest[word..];
            let gap = rest.iter().take_while(|b| !plain(b)).count();
            let separator = &rest[..gap];
            rest = &rest[gap..];
            let fits =
                matches!(separator, b"." | b"_" | b"__") || (gap > 0 && separator.iter().all(|b| *b == b'-'));
            match (word, gap) {
                (0, _) => return false,
                (_, 0) => return true,
                _ if !fits || rest.is_empty() => return false,
                _ => {}
            }
        }
    };
    if path.split('/').all(component) {
        return Ok(());
    }
    let error = Error::new(format!("{path:?} is no name of a repository"));
    Err(if path.bytes().any(|b| b.is_ascii_uppercase()) {
        error.why("a repository's name has lower-case letters only")
    } else {
        error
    })
}

fn check_tag(tag: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if fits { Ok(()) } else { Err(Error::new(format!("{tag:?} is no tag"))) }
}

/// Where an image is: a transport and what it needs to know (containers-transports(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `docker://NAME`, or only the name: a registry.
    Registry(Reference),
    /// `oci:DIR[:NAME]`: an image layout. The name is an `org.opencontainers.image.ref.name`.
    Layout { dir: PathBuf, name: Option<String> },
    /// `oci-archive:FILE[:NAME]`: the same in a tar.
    LayoutArchive { file: PathBuf, name: Option<String> },
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive { file: PathBuf, name: Option<Reference> },
    /// `dir:DIR`: a manifest and blobs, flat.
    Dir(PathBuf),
}

impl Transport {
    /// Reads `TRANSPORT:...`, or a name, which is then one in a registry.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(Reference::parse(name)?));
        }
        let Some((transport, rest)) = text.split_once(':').filter(|(word, _)| is_transport(word)) else {
            return Ok(Self::Registry(Reference::parse(text)?));
        };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if transport != "dir" => (path, Some(name).filter(|name| !name.is_empty())),
            _ => (rest, None),
        };
        if path.is_empty() || path.contains('\0') {
            return Err(Error::new(format!("{text:?} names no file")).next(format!("write {transport}:PATH")));
        }
        let (path, named) = (PathBuf::from(path), name.map(str::to_owned));
        match transport {
            "oci" => Ok(Self::Layout { dir: path, name: named }),
            "oci-archive" => Ok(Self::LayoutArchive { file: path, name: named }),
            "docker-archive" => {
                Ok(Self::DockerArchive { file: path, name: name.map(Reference::parse).transpose()? })
            }
            "dir" => Ok(Self::Dir(path)),
            other => Err(Error::new(format!("the transport {other}: is not one that jug knows"))
                .next("use docker://, oci:, oci-archive:, docker-archive: or dir:")),
        }
    }

    /// The name for policy.json: `docker`, `oci`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Registry(_) => "docker",
            Self::Layout { .. } => "oci",
            Self::LayoutArchive { .. } => "oci-archive",
            Self::DockerArchive { .. } => "docker-archive",
            Self::Dir(_) => "dir",
        }
    }
}

/// The words before a colon that are transports and no repository: ours, and those of others, which are refused.
fn is_transport(word: &str) -> bool {
    let others = ["containers-storage", "docker-daemon", "sif", "tarball", "ostree", "atomic"];
    ["oci", "oci-archive", "docker-archive", "dir"].contains(&word) || others.contains(&word)
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |name: &Option<String>| name.as_ref().map_or(String::new(), |name| format!(":{name}"));
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Layout { dir, name } => write!(f, "oci:{}{}", dir.display(), tail(name)),
            Self::LayoutArchive { file, name } => write!(f, "oci-archive:{}{}", file.display(), tail(name)),
            Self::DockerArchive { file, name } => {
                write!(
                    f,
                    "docker-archive:{}{}",
                    file.display(),
                    tail(&name.as_ref().map(ToString::to_string))
                )
            }
            Self::Dir(dir) => write!(f, "dir:{}", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn docker_s_defaults() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("host:5000/a/b/c", "host:5000/a/b/c:latest"),
            ("quay.io/ns/img:v1.0-rc_2", "quay.io/ns/img:v1.0-rc_2"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest"),
            ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest"),
            ("a--b", "docker.io/library/a--b:latest"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(Reference::parse(full).expect(full), reference, "the full name names the same");
        }
    }

    #[test]
    fn the_digest_wins_over_the_tag() {
        let both = Reference::parse(&format!("alpine:3@sha256:{HEX}")).expect("parses");
        assert_eq!((both.tag(), both.wanted()), (Some("3"), format!("sha256:{HEX}").as_str()));
        let only = Reference::parse(&format!("alpine@sha256:{HEX}")).expect("parses");
        assert_eq!((only.tag(), only.familiar()), (None, format!("alpine@sha256:{HEX}")));
    }

    #[test]
    fn what_is_no_name() {
        let long = "a/".repeat(127) + "ab";
        let tag = format!("a:{}", "t".repeat(129));
        let id = HEX.to_owned();
        let upper = format!("a@sha256:{}", HEX.to_uppercase());
        let path = "a@sha256:../../../etc/passwd".to_owned();
        let odd = [long, tag, id, upper, path];
        let plain = [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:b:c",
            "..",
            "a/..",
            "../a",
            "a/../b",
            ".",
            "a/.b",
            "a._b",
            "a___b",
            "Alpine",
            "a b",
            "a\n",
            "ä",
            "a@",
            "a@sha256:12",
            "a@md5:0123456789abcdef",
            "a:-b",
            "a:.b",
            "host:/a",
            "host:99999/a",
            "host:0x1/a",
            "-h.io/a",
            "h..io/a",
            "[::1/a",
            "[zz]:1/a",
            "a\0b",
            "a@b@c",
        ];
        for text in odd.iter().map(String::as_str).chain(plain) {
            assert!(Reference::parse(text).is_err(), "{text:?} is no name");
        }
    }

    #[test]
    fn short_names_have_no_registry() {
        assert!(is_short("alpine:3") && is_short("user/app"));
        assert!(!is_short("quay.io/a") && !is_short("localhost/a") && !is_short("h:1/a"));
    }

    #[test]
    fn transports() {
        let of = |text: &str| Transport::parse(text).expect(text);
        assert_eq!(of("docker://alpine"), of("alpine"));
        assert_eq!(of("oci:/a/b:t:1"), Transport::Layout { dir: "/a/b".into(), name: Some("t:1".into()) });
        assert_eq!(of("oci-archive:x.tar"), Transport::LayoutArchive { file: "x.tar".into(), name: None });
        assert_eq!(of("dir:/a:b"), Transport::Dir("/a:b".into()));
        let archive = of("docker-archive:/x.tar:alpine");
        assert_eq!(archive.to_string(), "docker-archive:/x.tar:docker.io/library/alpine:latest");
        assert_eq!(of(&archive.to_string()), archive);
        for text in ["oci:", "dir:", "docker-daemon:alpine", "docker://", "docker-archive:x:A"] {
            assert!(Transport::parse(text).is_err(), "{text}");
        }
    }

    /// Whatever the text: what is taken for a name is one, and means the same when it is written out.
    #[test]
    fn any_text() {
        let parts = [
            "a",
            "Z",
            "0",
            "-",
            "_",
            ".",
            "..",
            "/",
            "//",
            ":",
            "@",
            "5000",
            "localhost",
            "sha256:",
            HEX,
            "[::1]",
            "ä",
        ];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut named = 0;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..=seed % 6 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(parts[(seed % parts.len() as u64) as usize]);
            }
            let Ok(reference) = Reference::parse(&text) else { continue };
            named += 1;
            assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference), "{text}");
            assert_eq!(Reference::parse(&reference.familiar()).as_ref(), Ok(&reference), "{text}");
            let plain = |part: &str| !matches!(part, "" | "." | "..") && part.is_ascii();
            assert!(reference.repository().split('/').all(plain) && plain(reference.host()), "{text}");
        }
        assert!(named > 1000, "{named} names");
    }
}
