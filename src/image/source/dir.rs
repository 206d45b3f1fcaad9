//! `dir:`, a manifest and its blobs as plain files in one directory: containers-transports(5). For looking at images.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::image::{Descriptor, Digest};

use super::archive::copy_exactly;
use super::layout::regular;
use super::{Destination, LONGEST_MANIFEST, Source};
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::image::{digest, manifest};
use crate::sys::path;

const MANIFEST: &str = "manifest.json";

#[derive(Debug)]
pub struct Dir(RootDir);

impl Dir {
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self(RootDir::new(path::open(dir, libc::O_PATH | libc::O_DIRECTORY)?)))
    }

    /// Makes the directory, which must be missing, empty, or one of these.
    pub fn create(dir: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(dir.display(), &e);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let made = Self::open(dir)?;
        if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
            regular(&made.0, "version").map_err(|_| Error::new(format!("{} is not empty", dir.display())))?;
        }
        made.write("version", |file| {
            file.write_all(b"Directory Transport Version: 1.1\n")
                .map_err(|e| Error::new(format!("version: {e}")))
        })?;
        Ok(made)
    }

    fn write(&self, name: &str, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let partial = format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id());
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
        let mut file = File::from(path::openat(self.0.fd(), Path::new(&partial), flags, 0o644)?);
        let done = fill(&mut file)
            .and_then(|()| path::renameat(self.0.fd().as_fd(), Path::new(&partial), Path::new(name), 0));
        if done.is_err() {
            let _ = path::remove_if_there(self.0.fd(), Path::new(&partial), 0);
        }
        done
    }
}

impl Source for Dir {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        let name = digest.map_or(MANIFEST.to_owned(), |digest| format!("{}.{MANIFEST}", digest.digest()));
        let mut bytes = Vec::new();
        let file = regular(&self.0, &name)?.take(LONGEST_MANIFEST as u64 + 1);
        { file }.read_to_end(&mut bytes).map_err(|e| Error::new(format!("{name}: {e}")))?;
        let media_type = manifest::media_type(&manifest::parse(&bytes, None)?);
        let digest = digest.cloned().unwrap_or_else(|| digest::of(&bytes));
        Ok((Descriptor::new(media_type, bytes.len() as u64, digest), bytes))
    }

    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        let digest = descriptor.digest();
        let mut file = regular(&self.0, digest.digest())?;
        file.seek(SeekFrom::Start(offset)).map_err(|e| Error::new(format!("blob {digest}: {e}")))?;
        Ok(Box::new(file))
    }
}

impl Destination for Dir {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let found = regular(&self.0, descriptor.digest().digest())
            .and_then(|file| file.metadata().map_err(|e| Error::new(format!("fstat: {e}"))));
        Ok(found.is_ok_and(|found| found.len() == descriptor.size()))
    }

    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()> {
        let digest = descriptor.digest();
        self.write(digest.digest(), |file| copy_exactly(bytes, file, descriptor.size(), Some(digest)))
    }

    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()> {
        let digest = descriptor.digest();
        let name = if named { MANIFEST.to_owned() } else { format!("{}.{MANIFEST}", digest.digest()) };
        self.write(&name, |file| copy_exactly(&mut &bytes[..], file, descriptor.size(), Some(digest)))
    }
}
