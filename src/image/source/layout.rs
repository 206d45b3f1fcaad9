//! `oci:` and `oci-archive:`, image layouts as image-layout.md says: read and written.
//!
//! A layout is somebody else's. Its files are opened below one descriptor that nothing can lead out of, and their names
//! come from checked digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde_json::json;

use super::archive::{Archive, Writer, copy_exactly, kind};
use super::{Destination, LONGEST_MANIFEST, Source, blob_path};
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::image::manifest;
use crate::image::reference::Reference;
use crate::sys::path;

/// The annotation that names an image of a layout (annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and Docker's, with the whole name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Where the files of a layout are.
#[derive(Debug)]
enum Files {
    Dir(RootDir),
    Tar(Arc<Archive>),
}

impl Files {
    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Tar(archive) => archive.bytes(name, LONGEST_MANIFEST),
            Self::Dir(root) => {
                let mut bytes = Vec::new();
                let file = regular(root, name)?;
                let read = file.take(LONGEST_MANIFEST as u64 + 1).read_to_end(&mut bytes);
                read.map_err(|e| Error::new(format!("reading {name}: {e}")))?;
                if bytes.len() > LONGEST_MANIFEST {
                    return Err(Error::new(format!("{name} is longer than {LONGEST_MANIFEST} bytes")));
                }
                Ok(bytes)
            }
        }
    }

    fn blob(&self, digest: &Digest, offset: u64) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Tar(archive) => archive.read(&blob_path(digest), offset),
            Self::Dir(root) => {
                let mut file = regular(root, &blob_path(digest))?;
                file.seek(SeekFrom::Start(offset)).map_err(|e| Error::new(format!("blob {digest}: {e}")))?;
                Ok(Box::new(file))
            }
        }
    }
}

/// Opens a file below a root; a FIFO or a device there is none, and is not waited for.
pub fn regular(root: &RootDir, name: &str) -> Result<File> {
    let file = File::from(root.open(Path::new(name), libc::O_RDONLY | libc::O_NONBLOCK)?);
    match file.metadata() {
        Ok(found) if kind(&found) == libc::S_IFREG => Ok(file),
        _ => Err(Error::new(format!("{name} is not a regular file"))),
    }
}

/// One image of a layout.
#[derive(Debug)]
pub struct Layout {
    files: Files,
    named: Descriptor,
}

impl Layout {
    pub fn open_dir(dir: &Path, name: Option<&str>) -> Result<Self> {
        let root = RootDir::new(path::open(dir, libc::O_PATH | libc::O_DIRECTORY)?);
        Self::new(Files::Dir(root), name).map_err(|e| e.context(dir.display()))
    }

    pub fn open_archive(file: &Path, name: Option<&str>) -> Result<Self> {
        Self::new(Files::Tar(Arc::new(Archive::open(file)?)), name).map_err(|e| e.context(file.display()))
    }

    /// The image of a digest in an archive that is open already.
    pub fn in_archive(archive: Arc<Archive>, digest: &Digest) -> Result<Self> {
        Self::new(Files::Tar(archive), Some(&format!("@{digest}")))
    }

    fn new(files: Files, name: Option<&str>) -> Result<Self> {
        check_version(&files)?;
        let index = index(&files)?;
        let named = select(&index, name)?.clone();
        Ok(Self { files, named })
    }
}

/// The name of every image of a layout in a tar, where it has one, and its digest.
pub fn names_in_archive(archive: &Archive) -> Result<Vec<(Option<Reference>, Digest)>> {
    let bytes = archive.bytes("index.json", LONGEST_MANIFEST)?;
    let manifest::Document::Index(index) = manifest::parse(&bytes, None)? else {
        return Err(Error::new("index.json is no index"));
    };
    Ok(index.manifests().iter().map(|entry| (name_of(entry), entry.digest().clone())).collect())
}

fn name_of(entry: &Descriptor) -> Option<Reference> {
    let notes = entry.annotations().as_ref()?;
    let whole = notes.get(IMAGE_NAME).and_then(|name| Reference::parse(name).ok());
    // A bare tag is no name of an image; a name with a registry or a repository in it is.
    let named = notes.get(REF_NAME).filter(|name| name.contains(['/', ':']));
    whole.or_else(|| named.and_then(|name| Reference::parse(name).ok()))
}

fn check_version(files: &Files) -> Result<()> {
    let bytes = files.bytes("oci-layout").map_err(|e| e.why("an image layout has a file oci-layout"))?;
    let said: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("oci-layout: {e}")))?;
    match said["imageLayoutVersion"].as_str() {
        Some(version) if version.starts_with("1.") => Ok(()),
        other => Err(Error::new(format!("oci-layout: the version {other:?} is not supported"))),
    }
}

fn index(files: &Files) -> Result<ImageIndex> {
    match manifest::parse(&files.bytes("index.json")?, None).map_err(|e| e.context("index.json"))? {
        manifest::Document::Index(index) => Ok(index),
        manifest::Document::Manifest(_) => Err(Error::new("index.json is no index")),
    }
}

/// The entry with a name (`@DIGEST` is the one with that digest); without one the only entry.
fn select<'i>(index: &'i ImageIndex, name: Option<&str>) -> Result<&'i Descriptor> {
    let entries = index.manifests();
    let Some(name) = name else {
        return match &entries[..] {
            [only] => Ok(only),
            [] => Err(Error::new("the layout holds no image")),
            _ => Err(Error::new("the layout holds several images")
                .next(format!("name one of them: {}", list(entries)))),
        };
    };
    let is = |entry: &&Descriptor| {
        let noted = entry.annotations().as_ref().is_some_and(|notes| {
            notes.get(REF_NAME).is_some_and(|its| its == name)
                || notes.get(IMAGE_NAME).is_some_and(|its| its == name)
        });
        noted || name.strip_prefix('@') == Some(entry.digest().as_ref())
    };
    entries.iter().find(is).ok_or_else(|| {
        Error::new(format!("the layout holds no image {name:?}")).next(format!("it has: {}", list(entries)))
    })
}

fn list(entries: &[Descriptor]) -> String {
    let name = |entry: &Descriptor| {
        let noted = entry.annotations().as_ref().and_then(|notes| notes.get(REF_NAME).cloned());
        noted.unwrap_or_else(|| format!("@{}", entry.digest()))
    };
    entries.iter().take(10).map(name).collect::<Vec<_>>().join(", ")
}

impl Source for Layout {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        let wanted = digest.unwrap_or(self.named.digest());
        crate::image::reference::known_algorithm(wanted)?;
        let bytes = self.files.bytes(&blob_path(wanted))?;
        if wanted == self.named.digest() {
            return Ok((self.named.clone(), bytes));
        }
        let media_type = manifest::media_type(&manifest::parse(&bytes, None)?);
        Ok((Descriptor::new(media_type, bytes.len() as u64, wanted.clone()), bytes))
    }

    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        self.files.blob(descriptor.digest(), offset)
    }
}

/// A layout in a directory that an image is added to.
#[derive(Debug)]
pub struct LayoutDir {
    dir: PathBuf,
    root: RootDir,
    name: Option<String>,
}

impl LayoutDir {
    /// Opens a layout, or makes one in a directory that is empty or missing.
    pub fn new(dir: &Path, name: Option<&str>) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(dir.display(), &e);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let empty = std::fs::read_dir(dir).map_err(failed)?.next().is_none();
        let root = RootDir::new(path::open(dir, libc::O_PATH | libc::O_DIRECTORY)?);
        let made = Self { dir: dir.to_owned(), root, name: name.map(str::to_owned) };
        if empty {
            made.replace("", "oci-layout", |file| write(file, LAYOUT.as_bytes()))?;
            made.replace("", "index.json", |file| write(file, br#"{"schemaVersion":2,"manifests":[]}"#))?;
        }
        let files = Files::Dir(RootDir::new(path::open(dir, libc::O_PATH | libc::O_DIRECTORY)?));
        check_version(&files).and_then(|()| index(&files)).map_err(|e| e.context(dir.display()))?;
        Ok(made)
    }

    /// Writes a file under another name, makes it durable and gives it its name.
    fn replace(&self, below: &str, name: &str, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let parent: OwnedFd = self.root.make_dir(Path::new(below))?;
        let partial = format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id());
        let partial = Path::new(&partial);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let mut file = File::from(path::openat(parent.as_fd(), partial, flags, 0o644)?);
        let done = fill(&mut file).and_then(|()| {
            file.sync_all().map_err(|e| Error::new(format!("fsync({name}): {e}")))?;
            path::renameat(parent.as_fd(), partial, Path::new(name), 0)
        });
        if done.is_err() {
            let _ = path::remove_if_there(parent.as_fd(), partial, 0);
        }
        done
    }

    fn put(&self, digest: &Digest, size: u64, bytes: &mut dyn Read) -> Result<()> {
        let below = format!("blobs/{}", digest.algorithm());
        self.replace(&below, digest.digest(), |file| copy_exactly(bytes, file, size, Some(digest)))
    }
}

fn write(file: &mut File, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(|e| Error::new(format!("writing a layout: {e}")))
}

/// A descriptor with the annotation of its name.
fn with_name(descriptor: &Descriptor, name: Option<&str>) -> Descriptor {
    let mut named = descriptor.clone();
    let mut notes: HashMap<String, String> = named.annotations().clone().unwrap_or_default();
    notes.remove(REF_NAME);
    if let Some(name) = name {
        notes.insert(REF_NAME.to_owned(), name.to_owned());
    }
    named.set_annotations(Some(notes).filter(|notes| !notes.is_empty()));
    named
}

/// As Docker and containerd name an image of a layout: the whole name, and beside it only the tag.
fn for_docker(descriptor: &Descriptor, name: &str) -> Descriptor {
    let reference = Reference::parse(name).ok();
    let mut named = with_name(descriptor, reference.as_ref().and_then(Reference::tag));
    let mut notes = named.annotations().clone().unwrap_or_default();
    notes.insert(IMAGE_NAME.to_owned(), name.to_owned());
    named.set_annotations(Some(notes));
    named
}

impl Destination for LayoutDir {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let name = blob_path(descriptor.digest());
        let Ok(file) = regular(&self.root, &name) else { return Ok(false) };
        Ok(file.metadata().is_ok_and(|found| found.len() == descriptor.size()))
    }

    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()> {
        self.put(descriptor.digest(), descriptor.size(), bytes)
    }

    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()> {
        self.put(descriptor.digest(), descriptor.size(), &mut &bytes[..])?;
        if !named {
            return Ok(());
        }
        // Somebody else may add to the same layout: the directory is the lock.
        let lock = path::open(&self.dir, libc::O_RDONLY | libc::O_DIRECTORY)?;
        crate::sys::fd::flock(lock.as_fd(), libc::LOCK_EX)?;
        let files = Files::Dir(RootDir::new(path::open(&self.dir, libc::O_PATH | libc::O_DIRECTORY)?));
        let mut index = index(&files)?;
        let entry = with_name(descriptor, self.name.as_deref());
        let note =
            |entry: &Descriptor| entry.annotations().as_ref().and_then(|notes| notes.get(REF_NAME).cloned());
        let mut entries = index.manifests().clone();
        entries.retain(|old| match note(&entry) {
            Some(name) => note(old).as_ref() != Some(&name),
            None => note(old).is_some() || old.digest() != entry.digest(),
        });
        entries.push(entry);
        index.set_manifests(entries);
        let text = manifest::sorted(&index)?;
        self.replace("", "index.json", |file| write(file, &text))
    }
}

/// A layout in a tar, with Docker's `manifest.json` beside it where Docker is to read it, as Docker itself has written
/// it since version 25.
#[derive(Debug)]
pub struct LayoutTar {
    inner: Mutex<Writing>,
    name: Option<String>,
    for_docker: bool,
}

#[derive(Debug)]
struct Writing {
    tar: Writer,
    named: Vec<Descriptor>,
    docker: Vec<serde_json::Value>,
}

impl LayoutTar {
    pub fn new(file: &Path, name: Option<&str>) -> Result<Self> {
        let inner = Mutex::new(Writing { tar: Writer::new(file)?, named: Vec::new(), docker: Vec::new() });
        Ok(Self { inner, name: name.map(str::to_owned), for_docker: false })
    }

    /// `docker-archive:`; the name is the image's full one.
    pub fn for_docker(file: &Path, name: Option<&Reference>) -> Result<Self> {
        Ok(Self { for_docker: true, ..Self::new(file, name.map(ToString::to_string).as_deref())? })
    }

    /// Adds an image whose blobs are in the archive, under any number of names.
    pub fn add(&self, descriptor: &Descriptor, bytes: &[u8], names: &[String]) -> Result<()> {
        let mut inner = self.inner();
        inner.tar.blob(descriptor.digest(), descriptor.size(), &mut &bytes[..])?;
        if names.is_empty() {
            inner.named.push(with_name(descriptor, None));
        }
        let named = |name: &String| {
            if self.for_docker { for_docker(descriptor, name) } else { with_name(descriptor, Some(name)) }
        };
        inner.named.extend(names.iter().map(named));
        if self.for_docker {
            let manifest::Document::Manifest(image) = manifest::parse(bytes, Some(descriptor.media_type()))?
            else {
                return Err(Error::new("docker-archive: takes one image, not an index of several")
                    .next("choose one with --platform, or write oci-archive:"));
            };
            let layers: Vec<String> = image.layers().iter().map(|layer| blob_path(layer.digest())).collect();
            let config = blob_path(image.config().digest());
            let short =
                |name: &String| Reference::parse(name).map_or_else(|_| name.clone(), |name| name.familiar());
            let tags: Vec<String> = names.iter().map(short).collect();
            inner.docker.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
        }
        Ok(())
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Writing> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Destination for LayoutTar {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.inner().tar.has(descriptor.digest()))
    }

    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()> {
        self.inner().tar.blob(descriptor.digest(), descriptor.size(), bytes)
    }

    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()> {
        if named {
            return self.add(descriptor, bytes, self.name.as_slice());
        }
        self.inner().tar.blob(descriptor.digest(), descriptor.size(), &mut &bytes[..])
    }

    fn finish(&self) -> Result<()> {
        let mut inner = self.inner();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": inner.named,
        });
        inner.tar.entry("index.json", &manifest::sorted(&index)?)?;
        inner.tar.entry("oci-layout", LAYOUT.as_bytes())?;
        if self.for_docker {
            let list = serde_json::Value::from(inner.docker.clone()).to_string();
            inner.tar.entry("manifest.json", list.as_bytes())?;
        }
        inner.tar.finish()
    }
}
