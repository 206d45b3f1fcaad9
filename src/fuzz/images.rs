//! What images, and registries, may say. Each function panics where an answer is not as it must be.

use oci_spec::image::MediaType;

use crate::image::layer::name::{self, Name};
use crate::image::layer::tar::{Entry, Kind, Reader};
use crate::image::manifest::{self, Document};
use crate::image::reference::{Reference, Transport};
use crate::image::source::registry::challenge;

/// A name of an image: what is read is written so that it is read again, as the same.
pub fn reference(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    if let Ok(first) = Reference::parse(&text) {
        let whole = first.to_string();
        let second = Reference::parse(&whole).unwrap_or_else(|e| panic!("{whole:?} of {text:?}: {e}"));
        assert_eq!(second, first, "{whole:?}");
        let short = Reference::parse(&first.familiar()).unwrap_or_else(|e| panic!("the short form: {e}"));
        assert_eq!(short.to_string(), whole, "{:?}", first.familiar());
        // It becomes a part of URLs.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]+".contains(c);
        assert!(whole.chars().all(plain) && whole.split(['/', ':']).all(|part| part != ".."), "{whole:?}");
    }
    if let Ok(transport) = Transport::parse(&text) {
        let shown = transport.to_string();
        let again = Transport::parse(&shown).unwrap_or_else(|e| panic!("{shown:?} of {text:?}: {e}"));
        assert_eq!(again.to_string(), shown);
    }
}

/// A manifest or an index, whatever it was announced as: never both, and what is taken is whole.
pub fn manifest(raw: &[u8]) {
    let kinds = [None, Some(MediaType::ImageManifest), Some(MediaType::ImageIndex)];
    let mut seen: Option<MediaType> = None;
    for declared in &kinds {
        let Ok(document) = manifest::parse(raw, declared.as_ref()) else { continue };
        let found = manifest::media_type(&document);
        let is_index = matches!(document, Document::Index(_));
        assert_eq!(manifest::is_index(&found), Some(is_index), "{found}");
        if let Some(declared) = declared {
            assert_eq!(manifest::is_index(declared), Some(is_index), "announced as {declared}");
        }
        assert!(seen.replace(found.clone()).is_none_or(|before| before == found), "two meanings");
        if let Document::Manifest(manifest) = &document {
            let _ = manifest::check_runnable(manifest);
            assert!(manifest.layers().iter().all(|layer| !layer.digest().digest().is_empty()));
        }
    }
}

/// What a registry asks for.
pub fn challenge(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    for found in challenge::parse(&text) {
        let token = |c: char| c.is_ascii_graphic() && !c.is_ascii_uppercase();
        assert!(!found.scheme.is_empty() && found.scheme.chars().all(token), "{found:?}");
        for name in ["realm", "service", "scope"] {
            assert!(found.get(name).is_none_or(|value| value.len() <= text.len()), "{found:?}");
        }
    }
}

/// A name of a layer's entry, and one that a hard link leads to: clean, and the same when read again.
pub fn whiteouts(raw: &[u8]) {
    let clean = |path: &[u8]| {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        assert!(parts.iter().all(|part| !matches!(*part, b"." | b"..") && part.len() <= 255), "{raw:?}");
        assert_eq!(parts.join(&b'/'), path, "{raw:?}");
        assert!(!path.contains(&0), "{raw:?}");
    };
    let again = |name: &Name| match name {
        Name::Root | Name::Ignored => {}
        Name::Plain { parent, name: file } => {
            clean(parent);
            assert!(!file.starts_with(name::WHITEOUT), "{raw:?}");
            assert_eq!(name::parse(&[parent, &b"/"[..], file].concat()).ok().as_ref(), Some(name), "{raw:?}");
        }
        Name::Whiteout { parent, name: gone } => {
            clean(parent);
            assert!(
                !gone.is_empty() && !gone.contains(&b'/') && !matches!(&gone[..], b"." | b".."),
                "{raw:?}"
            );
            let path = [parent, &b"/"[..], name::WHITEOUT, gone].concat();
            assert_eq!(name::parse(&path).ok().as_ref(), Some(name), "{raw:?}");
        }
        Name::Opaque { dir } => clean(dir),
    };
    if let Ok(found) = name::parse(raw) {
        again(&found);
    }
    if let Ok((parent, file)) = name::target(raw) {
        again(&Name::Plain { parent, name: file });
    }
}

/// An archive: what our reader takes whole, another reader (the tar crate) takes for the same files.
pub fn tar(raw: &[u8]) {
    let Some(ours) = entries(raw) else { return };
    assert!(ours.len() <= raw.len() / 512, "more entries than blocks");
    let Some(theirs) = of_the_tar_crate(raw) else { return };
    let sparse = |entry: &Entry| match &entry.kind {
        Kind::File { size, extents } => extents.iter().map(|(_, len)| len).sum::<u64>() != *size,
        _ => false,
    };
    // The other reader does not know sparse files of PAX.
    if ours.iter().any(sparse) {
        return;
    }
    let shown: Vec<_> = ours.iter().map(seen).collect();
    assert_eq!(shown, theirs);
}

/// Everything that our reader finds; `None`: it refuses the archive.
fn entries(raw: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader::new(raw);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        if let Kind::File { extents, .. } = &entry.kind {
            let stored = extents.iter().map(|(_, len)| len).sum();
            let mut got = 0;
            reader
                .read(stored, |piece| {
                    got += piece.len() as u64;
                    Ok(())
                })
                .ok()?;
            assert_eq!(got, stored);
        }
        all.push(entry);
    }
    reader.drain().ok()?;
    Some(all)
}

/// Path, link and size.
type Seen = (Vec<u8>, Option<Vec<u8>>, u64);

fn seen(entry: &Entry) -> Seen {
    let (link, size) = match &entry.kind {
        Kind::File { size, .. } => (None, *size),
        Kind::Symlink(target) | Kind::Link(target) => (Some(target.clone()), 0),
        _ => (None, 0),
    };
    (entry.path.clone(), link, size)
}

fn of_the_tar_crate(raw: &[u8]) -> Option<Vec<Seen>> {
    let mut archive = tar::Archive::new(raw);
    let mut all = Vec::new();
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        let kind = entry.header().entry_type();
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        let link = is_link.then(|| entry.link_name_bytes());
        // It takes one NUL byte off a long name; the rest of them ends it, too.
        let ended = |mut name: Vec<u8>| {
            name.truncate(name.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
            name
        };
        let link = link.map(|name| ended(name.map(|name| name.into_owned()).unwrap_or_default()));
        let is_file = matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous);
        all.push((ended(entry.path_bytes().into_owned()), link, if is_file { entry.size() } else { 0 }));
    }
    Some(all)
}
