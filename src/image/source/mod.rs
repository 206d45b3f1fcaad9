//! Where images come from and go to: registries, layouts and archives, behind two faces.
//!
//! A source only fetches: digests and sizes are checked by who receives (the store), while the bytes stream.

pub mod archive;
pub mod credentials;
pub mod dir;
pub mod docker_archive;
pub mod layout;
pub mod registries;
pub mod registry;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest};

use crate::error::Result;
use crate::image::policy;
use crate::image::reference::{Reference, Transport};
use credentials::Credential;

/// The longest manifest or index that is read, in bytes; the distribution specification's own limit.
pub const LONGEST_MANIFEST: usize = 4 << 20;

/// One repository of a transport, from which manifests and blobs are read.
pub trait Source: Sync {
    /// The manifest or index of `digest`, or, without one, of the image that the reference names: what describes it
    /// (its media type as the source says it, the digest and the size of the bytes), and the bytes, at most
    /// [`LONGEST_MANIFEST`].
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)>;

    /// The bytes of a blob from `offset` on. A source that cannot begin there skips what comes before.
    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>>;
}

/// One repository of a transport, to which an image is written: blobs first, then manifests, the named one last.
pub trait Destination: Sync {
    /// Whether the blob is there already, or can be had from elsewhere in the same place.
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Takes the bytes of a blob, as long as the descriptor says.
    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()>;

    /// Takes a manifest or an index. `named`: it is what the reference of the destination names from now on.
    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()>;

    /// How many blobs it takes at the same time; one: they come in their order, and an archive has the same bytes each
    /// time.
    fn at_once(&self) -> usize {
        1
    }

    /// Says that nothing more comes. An archive appears under its name now, whole, or never.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// What the caller says about access, beside the name.
#[derive(Debug, Clone)]
pub struct Access {
    /// `--authfile`: the only file that credentials are looked for in.
    pub authfile: Option<PathBuf>,
    /// `--creds USER:PASSWORD`: these, whatever files say.
    pub credential: Option<Credential>,
    /// `--tls-verify`: `None` leaves it to registries.conf, and trusts this machine's own addresses.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`: instead of `certs.d/HOST`.
    pub cert_dir: Option<PathBuf>,
    /// `--signature-policy`: instead of the files of [`crate::image::policy`].
    pub policy: Option<PathBuf>,
    /// Other repositories of the same registry that may hold the blobs that are pushed.
    pub also_in: Vec<Reference>,
    /// How long nothing may come or go before a connection counts as dead.
    pub stall: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            authfile: None,
            credential: None,
            tls_verify: None,
            cert_dir: None,
            policy: None,
            also_in: Vec::new(),
            stall: Duration::from_secs(30),
        }
    }
}

/// Opens what an image is read from, if policy.json lets us. Archives are read through here; a registry is not asked
/// before the first manifest.
pub fn open(transport: &Transport, access: &Access) -> Result<Box<dyn Source>> {
    policy::check(transport, access.policy.as_deref())?;
    Ok(match transport {
        Transport::Registry(reference) => Box::new(registry::Registry::for_pull(reference, access)?),
        Transport::Layout { dir, name } => Box::new(layout::Layout::open_dir(dir, name.as_deref())?),
        Transport::LayoutArchive { file, name } => {
            Box::new(layout::Layout::open_archive(file, name.as_deref())?)
        }
        Transport::DockerArchive { file, name } => {
            Box::new(docker_archive::DockerArchive::open(file, name.as_ref())?)
        }
        Transport::Dir(dir) => Box::new(dir::Dir::open(dir)?),
    })
}

/// Opens what an image is written to. [`Destination::finish`] must follow.
pub fn destination(transport: &Transport, access: &Access) -> Result<Box<dyn Destination>> {
    Ok(match transport {
        Transport::Registry(reference) => Box::new(registry::Registry::for_push(reference, access)?),
        Transport::Layout { dir, name } => Box::new(layout::LayoutDir::new(dir, name.as_deref())?),
        Transport::LayoutArchive { file, name } => Box::new(layout::LayoutTar::new(file, name.as_deref())?),
        Transport::DockerArchive { file, name } => {
            Box::new(layout::LayoutTar::for_docker(file, name.as_ref())?)
        }
        Transport::Dir(dir) => Box::new(dir::Dir::create(dir)?),
    })
}

/// An image of an archive: its names, and what it is read from.
pub type Found = (Vec<Reference>, Box<dyn Source>);

/// Every image of an archive, of whichever kind: a layout in a tar, or what `docker save` writes.
///
/// An archive that is both (Docker's own, since version 25) is read as a layout, since only that keeps the manifests.
pub fn images_in(file: &Path, access: &Access) -> Result<Vec<Found>> {
    let found = archive::Archive::open(file)?;
    let layout = found.has("index.json");
    let transport = match layout {
        true => Transport::LayoutArchive { file: file.to_owned(), name: None },
        false => Transport::DockerArchive { file: file.to_owned(), name: None },
    };
    policy::check(&transport, access.policy.as_deref())?;
    if !layout {
        let images = docker_archive::images(found).map_err(|e| e.context(file.display()))?;
        return Ok(images
            .into_iter()
            .map(|(names, image)| (names, Box::new(image) as Box<dyn Source>))
            .collect());
    }
    let archive = std::sync::Arc::new(found);
    let mut images: Vec<(Digest, Vec<Reference>)> = Vec::new();
    for (name, digest) in layout::names_in_archive(&archive).map_err(|e| e.context(file.display()))? {
        match images.iter_mut().find(|(known, _)| *known == digest) {
            Some((_, names)) => names.extend(name),
            None => images.push((digest, name.into_iter().collect())),
        }
    }
    let open = |(digest, names): (Digest, Vec<Reference>)| -> Result<Found> {
        let image =
            layout::Layout::in_archive(archive.clone(), &digest).map_err(|e| e.context(file.display()))?;
        Ok((names, Box::new(image)))
    };
    images.into_iter().map(open).collect()
}

/// Every image of what `docker save` wrote, with its names.
pub fn docker_images_in(file: &Path, access: &Access) -> Result<Vec<Found>> {
    policy::check(&Transport::DockerArchive { file: file.to_owned(), name: None }, access.policy.as_deref())?;
    let images =
        docker_archive::images(archive::Archive::open(file)?).map_err(|e| e.context(file.display()))?;
    Ok(images.into_iter().map(|(names, image)| (names, Box::new(image) as Box<dyn Source>)).collect())
}

/// Where a blob is in a layout (image-layout.md). The digest was checked when it was read: no part of it is a path.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}
