//! Outputs: what `--output KIND:PATH` writes.
//!
//! Files and layouts appear whole under their name or not at all; a tree is written in place, since only an empty
//! directory is taken for it.

use std::cell::OnceCell;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::archive;
use crate::blob::Compression;
use crate::disk;
use crate::docker_archive;
use crate::entry::Entry;
use crate::error::{Doing, Error, Result};
use crate::image::{self, Image};
use crate::initramfs;
use crate::layer::Layer;
use crate::oci;
use crate::recipe::Recipe;
use crate::rootfs::Rootfs;
use crate::source::Workshop;
use crate::tree;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Tree,
    Tar,
    Oci,
    OciArchive,
    DockerArchive,
    Initramfs,
    Ext4,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub form: Form,
    pub path: PathBuf,
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = |kind| match kind {
            "tree" => Some(Form::Tree),
            "tar" => Some(Form::Tar),
            "oci" => Some(Form::Oci),
            "oci-archive" => Some(Form::OciArchive),
            "docker-archive" => Some(Form::DockerArchive),
            "initramfs" => Some(Form::Initramfs),
            "ext4" => Some(Form::Ext4),
            _ => None,
        };
        let parsed = text.split_once(':').filter(|(_, path)| !path.is_empty());
        let parsed = parsed.and_then(|(kind, path)| Some(Self { form: form(kind)?, path: path.into() }));
        parsed.ok_or_else(|| {
            let kinds = "tree, tar, oci, oci-archive, docker-archive, initramfs, ext4";
            Error::new(format!("`{text}` is not KIND:PATH with KIND one of {kinds}"))
        })
    }
}

/// What the outputs share.
pub struct Build<'a> {
    pub recipe: &'a Recipe,
    pub layers: Vec<Layer>,
    pub shop: &'a Workshop,
    /// Of the layers in OCI layouts; a tar follows its own name.
    pub compression: Compression,
    pub chown: bool,
}

impl Build<'_> {
    /// The merge, the image and the layout are each made once, and only for outputs that want them.
    pub fn write(&self, outputs: &[Output]) -> Result<()> {
        let (rootfs, image, layout) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let rootfs = || once(&rootfs, || Ok(Rootfs::of(&self.layers, self.shop.mtime())?.into_entries()));
        let image = || once(&image, || self.image());
        let layout = || once(&layout, || oci::layout(image()?, self.compression));
        let write = |Output { form, path }: &Output| match form {
            Form::Tree => tree::write(rootfs()?, path, self.chown),
            Form::Tar => write_tar(rootfs()?, path, compression_of(path)),
            Form::Oci => write_layout(layout()?, path),
            Form::OciArchive => write_tar(layout()?, path, Compression::None),
            Form::DockerArchive => write_tar(&docker_archive::layout(image()?)?, path, Compression::None),
            Form::Initramfs => {
                let (entries, compression) = (rootfs()?, compression_of(path));
                write_file(path, |out| compression.write(out, |mut to| initramfs::write(entries, &mut to)))
            }
            Form::Ext4 => write_disk(rootfs()?, path, self.chown),
        };
        for output in outputs {
            let about = |error: Error| error.context(format!("cannot write {}", output.path.display()));
            write(output).map_err(about)?;
        }
        Ok(())
    }

    fn image(&self) -> Result<Image> {
        image::make(self.recipe, &self.layers, &self.shop.arch, self.shop.mtime())
    }
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}

/// What the name of a tar asks for.
fn compression_of(path: &Path) -> Compression {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz" | "tgz") => Compression::Gzip,
        Some("zst" | "tzst") => Compression::Zstd,
        _ => Compression::None,
    }
}

fn write_tar(entries: &[Entry], path: &Path, compression: Compression) -> Result<()> {
    write_file(path, |out| compression.write(out, |mut to| archive::write(entries, &mut to)))
}

/// Beside its final name first. `-` is the standard output.
fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        write(&mut out)?;
        return out.flush().doing(|| "write to the standard output".into());
    }
    may_be_replaced(path)?;
    let dir = parent(path);
    let temporary = tempfile::Builder::new().prefix(".rootfs-builder-").tempfile_in(dir);
    let temporary = temporary.doing(|| format!("make a file in {}", dir.display()))?;
    let mut out = BufWriter::with_capacity(128 * 1024, temporary);
    write(&mut out)?;
    let temporary = out.into_inner().doing(|| "write the file".into())?;
    set_mode(temporary.path(), 0o644)?;
    temporary.persist(path).doing(|| "give the file its name".into())?;
    Ok(())
}

/// A rename would put a file in the place of a device, /dev/null for one.
fn may_be_replaced(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(stat) if !stat.is_file() => {
            Err(Error::new("it exists and is no regular file").next("remove it or name another path"))
        }
        _ => Ok(()),
    }
}

/// By way of a tree, whose owners the disk has.
fn write_disk(entries: &[Entry], path: &Path, chown: bool) -> Result<()> {
    may_be_replaced(path)?;
    let temporary = beside(path)?;
    let (tree, disk) = (temporary.path().join("tree"), temporary.path().join("disk"));
    tree::write(entries, &tree, chown)?;
    disk::ext4_of(&tree, &disk)?;
    set_mode(&disk, 0o644)?;
    fs::rename(&disk, path).doing(|| "give the file its name".into())
}

/// A directory with plain files in the caller's name: times and owners of a layout mean nothing.
fn write_layout(entries: &[Entry], path: &Path) -> Result<()> {
    if path.read_dir().is_ok_and(|mut items| items.next().is_some()) {
        return Err(Error::new("it is not empty").next("remove it or name another path"));
    }
    let temporary = beside(path)?;
    let inside = temporary.path().join("layout");
    tree::write(entries, &inside, false)?;
    set_mode(&inside, 0o755)?;
    fs::rename(&inside, path).doing(|| "give the directory its name".into())
}

/// A directory where what is to have that name can be made first.
fn beside(path: &Path) -> Result<tempfile::TempDir> {
    let dir = parent(path);
    let temporary = tempfile::Builder::new().prefix(".rootfs-builder-").tempdir_in(dir);
    temporary.doing(|| format!("make a directory in {}", dir.display()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let file = File::open(path).doing(|| format!("open {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(mode)).doing(|| "set the mode".into())
}
