//! The names of a layer's entries: paths below a root, and what a name alone says (image-spec layer.md, "Whiteouts").

use super::pax::shown;
use crate::error::{Error, Result};

/// Deepest path, in components: a directory that is open for each fits into the least limit of descriptors.
pub const MAX_DEPTH: usize = 256;
/// NAME_MAX (limits.h).
const MAX_NAME: usize = 255;

pub const WHITEOUT: &[u8] = b".wh.";
/// What AUFS kept for itself in a layer begins so; all but the opaque mark means nothing to anybody else.
const AUFS: &[u8] = b".wh..wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's path says; paths are clean: plain components, a slash between them, empty for the root.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    Root,
    Plain {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    /// `name` in `parent` of the lower layers is gone.
    Whiteout {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    /// Nothing of the directory is seen from the lower layers.
    Opaque {
        dir: Vec<u8>,
    },
    Ignored,
}

pub fn parse(path: &[u8]) -> Result<Name> {
    let mut parts = components(path)?;
    let Some(name) = parts.pop() else { return Ok(Name::Root) };
    if parts.iter().any(|part| part.starts_with(AUFS)) {
        return Ok(Name::Ignored);
    }
    if parts.iter().any(|part| part.starts_with(WHITEOUT)) {
        return Err(Error::new("a whiteout has nothing below it"));
    }
    let parent = parts.join(&b'/');
    Ok(match name.strip_prefix(WHITEOUT) {
        None => Name::Plain { parent, name: name.to_vec() },
        Some(_) if name == OPAQUE => Name::Opaque { dir: parent },
        Some(_) if name.starts_with(AUFS) => Name::Ignored,
        Some(b"" | b"." | b"..") => return Err(Error::new("a whiteout of nothing")),
        Some(gone) => Name::Whiteout { parent, name: gone.to_vec() },
    })
}

/// The directory and the name that a hard link's target lies under; an absolute one is below the root as well.
pub fn target(path: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    match parse(path)? {
        Name::Plain { parent, name } => Ok((parent, name)),
        _ => Err(Error::new(format!("{} cannot be linked to", shown(path)))),
    }
}

/// The plain components of a path. `..` is an error: no honest layer has it, and readers disagree on what it means.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        match part {
            b".." => return Err(Error::new(format!("{} leaves the directory that it lies in", shown(path)))),
            _ if part.len() > MAX_NAME => return Err(Error::new("a name is longer than 255 bytes")),
            _ if part.contains(&0) => return Err(Error::new("a name with a NUL byte")),
            _ if parts.len() == MAX_DEPTH => {
                return Err(Error::new(format!("a path is deeper than {MAX_DEPTH} directories")));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        let plain = |parent: &str, name: &str| Name::Plain { parent: parent.into(), name: name.into() };
        for root in ["", "/", ".", "./", "//./"] {
            assert_eq!(parse(root.as_bytes()).unwrap(), Name::Root, "{root}");
        }
        for same in ["a/b", "/a/b", "./a//b/", "a/./b"] {
            assert_eq!(parse(same.as_bytes()).unwrap(), plain("a", "b"), "{same}");
        }
        assert_eq!(parse(b"...").unwrap(), plain("", "..."));
        for bad in ["..", "a/..", "../a", "a/../../b", "/..", "a\0b", &"x".repeat(256), &"a/".repeat(257)] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn whiteouts_are_told_by_their_name() {
        let gone = |parent: &str, name: &str| Name::Whiteout { parent: parent.into(), name: name.into() };
        assert_eq!(parse(b"a/.wh.b").unwrap(), gone("a", "b"));
        assert_eq!(parse(b".wh.b/").unwrap(), gone("", "b"));
        assert_eq!(parse(b"a/.wh..wh..opq").unwrap(), Name::Opaque { dir: b"a".to_vec() });
        assert_eq!(parse(b".wh..wh..opq").unwrap(), Name::Opaque { dir: vec![] });
        for aufs in [".wh..wh.plnk", "a/.wh..wh.plnk/93.2", ".wh..wh.aufs", ".wh..wh..opq/x"] {
            assert_eq!(parse(aufs.as_bytes()).unwrap(), Name::Ignored, "{aufs}");
        }
        for bad in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh../", ".wh.a/b"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
