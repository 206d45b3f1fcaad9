//! The tarball source: plain, gzip or zstd, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::archive;
use crate::entry::{Entry, Kind, clean_path, shown};
use crate::error::{Doing, Error, Result};
use crate::layer::Layer;

/// The entries with clean paths. Their times are inputs and are kept, but none is later than SOURCE_DATE_EPOCH where it
/// is set, as reproducible-builds.org asks.
pub fn read(path: &Path, epoch: Option<i64>) -> Result<Vec<Entry>> {
    let about = |error: Error| error.context(format!("cannot read the tarball {}", path.display()));
    let mut entries = archive::read(&open(path)?).map_err(about)?;
    for entry in &mut entries {
        clean(entry).map_err(|error| {
            about(error)
                .next("`verbatim = true` takes the tarball as it is, for oci and docker-archive outputs")
        })?;
        if let Some(epoch) = epoch
            && entry.meta.mtime.secs >= epoch
        {
            entry.meta.mtime = crate::entry::Mtime::from_secs(epoch);
        }
    }
    Ok(entries)
}

/// The bytes as they are: what a layer made elsewhere looks like, hostile ones included.
///
/// Its entries are still read, so that `tree` and `tar` outputs work where it is honest.
pub fn read_verbatim(path: &Path) -> Result<Layer> {
    let file = open(path)?;
    let entries = archive::read(&file)
        .map_err(|error| error.context(format!("cannot read the tarball {}", path.display())))?;
    Ok(Layer { entries, verbatim: Some(file) })
}

fn clean(entry: &mut Entry) -> Result<()> {
    entry.path = clean_path(&entry.path)?;
    if let Kind::Hardlink(target) = &entry.kind {
        let about = |error: Error| error.context(format!("the hard link {}", shown(&entry.path)));
        entry.kind = Kind::Hardlink(clean_path(target).map_err(about)?);
    }
    Ok(())
}

/// The file itself when it is not compressed, else its content in a file without a name.
fn open(path: &Path) -> Result<Arc<File>> {
    let file = File::open(path).doing(|| format!("open {}", path.display()))?;
    let mut magic = [0; 4];
    let n = file.read_at(&mut magic, 0).doing(|| format!("read {}", path.display()))?;
    let input = BufReader::with_capacity(128 * 1024, &file);
    let mut plain: Box<dyn io::Read> = match &magic[..n] {
        // Several gzip members one after another are one stream.
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::Decoder::with_buffer(input).doing(|| format!("decompress {}", path.display()))?)
        }
        [b'B', b'Z', b'h', _] | [0xfd, b'7', b'z', b'X'] => {
            return Err(Error::new(format!("{} is compressed with bzip2 or xz", path.display()))
                .next("decompress it first; gzip and zstd are read as they are"));
        }
        _ => return Ok(Arc::new(file)),
    };
    let mut spool = tempfile::tempfile().doing(|| "make a temporary file".into())?;
    io::copy(&mut plain, &mut spool).doing(|| format!("decompress {}", path.display()))?;
    Ok(Arc::new(spool))
}
