//! Images that are made here and not received: of a tarball (`import`), of a container's changes (`commit`), and the
//! one that jug carries. They enter the store as a source like any other, so by the one way that checks everything.

use std::fs::File;
use std::io::{Cursor, Read, Seek as _, SeekFrom, Write};

use oci_spec::image::{
    Descriptor, Digest, ImageConfiguration, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
};

use super::digest::{self, Hasher};
use super::source::Source;
use crate::error::{Error, Result};

/// An image in memory, but for layers, which are files.
pub struct Made {
    manifest: (Descriptor, Vec<u8>),
    blobs: Vec<(Descriptor, Content)>,
}

enum Content {
    Bytes(Vec<u8>),
    File(File),
}

/// A layer for [`Made`]: the blob, and the digest of its uncompressed tar.
pub struct MadeLayer {
    pub blob: Descriptor,
    pub diff_id: Digest,
    content: Content,
}

impl MadeLayer {
    /// A tar in memory, which is not compressed.
    pub fn of_bytes(tar: Vec<u8>) -> Self {
        let digest = digest::of(&tar);
        Self {
            blob: Descriptor::new(MediaType::ImageLayer, tar.len() as u64, digest.clone()),
            diff_id: digest,
            content: Content::Bytes(tar),
        }
    }

    /// A layer of a lower image, which is in the store: nobody will ask for its bytes.
    pub fn there(blob: Descriptor, diff_id: Digest) -> Self {
        Self { blob, diff_id, content: Content::Bytes(Vec::new()) }
    }

    /// A tar that comes from a stream, plain or compressed with gzip or zstd. It is kept as it is, in `spool`, an empty
    /// file open for reading and writing.
    pub fn of_stream(mut stream: impl Read, mut spool: File) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io("reading the layer", &e);
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 128 << 10];
        let mut size = 0;
        loop {
            let n = stream.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            spool.write_all(&buffer[..n]).map_err(failed)?;
            size += n as u64;
        }
        let (media_type, diff_id) = uncompressed(&spool)?;
        Ok(Self {
            blob: Descriptor::new(media_type, size, hasher.finish()),
            diff_id,
            content: Content::File(spool),
        })
    }
}

/// The media type of a layer that begins with these bytes.
pub(super) fn layer_type(magic: &[u8]) -> MediaType {
    match magic {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    }
}

/// The media type by the first bytes, and the digest of what they unpack to.
fn uncompressed(file: &File) -> Result<(MediaType, Digest)> {
    let failed = |e: std::io::Error| Error::io("the layer cannot be read", &e);
    let mut file = file.try_clone().map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut magic = [0; 4];
    let n = file.read(&mut magic).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let buffered = std::io::BufReader::with_capacity(128 << 10, file);
    let media_type = layer_type(&magic[..n]);
    let mut stream: Box<dyn Read> = match media_type {
        MediaType::ImageLayerGzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        MediaType::ImageLayerZstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed)?;
            // No more memory than a hostile archive may ask for (128 MiB, as zstd itself limits it).
            decoder.window_log_max(27).map_err(failed)?;
            Box::new(decoder)
        }
        _ => Box::new(buffered),
    };
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match stream.read(&mut buffer).map_err(failed)? {
            0 => return Ok((media_type, hasher.finish())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

impl Made {
    /// An image of these layers, bottom first. The config's diff IDs are set from them.
    pub fn new(mut config: ImageConfiguration, layers: Vec<MadeLayer>) -> Result<Self> {
        let diff_ids = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        config.rootfs_mut().set_typ("layers".to_owned()).set_diff_ids(diff_ids);
        let config = super::manifest::sorted(&config)?;
        let config_blob = Descriptor::new(MediaType::ImageConfig, config.len() as u64, digest::of(&config));
        let manifest: ImageManifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config_blob.clone())
            .layers(layers.iter().map(|layer| layer.blob.clone()).collect::<Vec<_>>())
            .build()
            .map_err(|e| Error::new(format!("the manifest: {e}")))?;
        let bytes = super::manifest::sorted(&manifest)?;
        let described = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest::of(&bytes));
        let mut blobs = vec![(config_blob, Content::Bytes(config))];
        blobs.extend(layers.into_iter().map(|layer| (layer.blob, layer.content)));
        Ok(Self { manifest: (described, bytes), blobs })
    }
}

impl Source for Made {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        match digest {
            Some(other) if other != self.manifest.0.digest() => {
                Err(Error::new(format!("there is no manifest {other}")))
            }
            _ => Ok(self.manifest.clone()),
        }
    }

    fn blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        let mut blobs = self.blobs.iter();
        let found = blobs.find(|(blob, _)| blob.digest() == wanted.digest());
        match found.map(|(_, content)| content) {
            None => Err(Error::new(format!("there is no blob {}", wanted.digest()))),
            Some(Content::Bytes(bytes)) => {
                let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                Ok(Box::new(Cursor::new(rest.to_vec())))
            }
            Some(Content::File(file)) => {
                let failed = |e: std::io::Error| Error::io(format_args!("blob {}", wanted.digest()), &e);
                let mut file = file.try_clone().map_err(failed)?;
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                Ok(Box::new(file))
            }
        }
    }
}
