//! Outputs: what `--output KIND:PATH` writes.
//!
//! Files and layouts appear whole under their name or not at all; a tree is written in place, since only an empty
//! directory is taken for it.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::archive;
use crate::blob::Compression;
use crate::docker_archive;
use crate::entry::Entry;
use crate::error::{Doing, Error, Result};
use crate::image::{self, Image};
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
            _ => None,
        };
        let parsed = text.split_once(':').filter(|(_, path)| !path.is_empty());
        let parsed = parsed.and_then(|(kind, path)| Some(Self { form: form(kind)?, path: path.into() }));
        parsed.ok_or_else(|| {
            let kinds = "tree, tar, oci, oci-archive, docker-archive";
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
    pub fn write(&self, outputs: &[Output]) -> Result<()> {
        let merges = |form| matches!(form, Form::Tree | Form::Tar);
        let mut rootfs = None;
        let mut image = None;
        for output in outputs {
            let about = |error: Error| error.context(format!("cannot write {}", output.path.display()));
            if merges(output.form) && rootfs.is_none() {
                rootfs = Some(Rootfs::of(&self.layers, self.shop.mtime())?.into_entries());
            } else if !merges(output.form) && image.is_none() {
                let Workshop { arch, .. } = self.shop;
                image = Some(image::make(self.recipe, &self.layers, arch, self.shop.mtime())?);
            }
            match (&rootfs, &image) {
                (Some(rootfs), _) if merges(output.form) => {
                    self.write_rootfs(rootfs, output).map_err(about)?
                }
                (_, Some(image)) => self.write_image(image, output).map_err(about)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn write_rootfs(&self, entries: &[Entry], output: &Output) -> Result<()> {
        if output.form == Form::Tree {
            return tree::write(entries, &output.path, self.chown);
        }
        let compression = match output.path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => Compression::Gzip,
            _ => Compression::None,
        };
        write_file(&output.path, |out| compression.write(out, |mut to| archive::write(entries, &mut to)))
    }

    fn write_image(&self, image: &Image, output: &Output) -> Result<()> {
        match output.form {
            Form::DockerArchive => write_tar(&docker_archive::layout(image)?, &output.path),
            Form::OciArchive => write_tar(&oci::layout(image, self.compression)?, &output.path),
            _ => write_layout(&oci::layout(image, self.compression)?, &output.path),
        }
    }
}

fn write_tar(entries: &[Entry], path: &Path) -> Result<()> {
    write_file(path, |mut out| archive::write(entries, &mut out))
}

/// Beside its final name first. `-` is the standard output.
fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        write(&mut out)?;
        return out.flush().doing(|| "write to the standard output".into());
    }
    // A rename would put a file in the place of a device, /dev/null for one.
    if fs::symlink_metadata(path).is_ok_and(|stat| !stat.is_file()) {
        return Err(Error::new("it exists and is no regular file").next("remove it or name another path"));
    }
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

/// A directory with plain files in the caller's name: times and owners of a layout mean nothing.
fn write_layout(entries: &[Entry], path: &Path) -> Result<()> {
    if path.read_dir().is_ok_and(|mut items| items.next().is_some()) {
        return Err(Error::new("it is not empty").next("remove it or name another path"));
    }
    let dir = parent(path);
    let temporary = tempfile::Builder::new().prefix(".rootfs-builder-").tempdir_in(dir);
    let temporary = temporary.doing(|| format!("make a directory in {}", dir.display()))?;
    let inside = temporary.path().join("layout");
    tree::write(entries, &inside, false)?;
    set_mode(&inside, 0o755)?;
    fs::rename(&inside, path).doing(|| "give the directory its name".into())
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
