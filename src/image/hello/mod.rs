//! The image that jug carries, so that a first container needs no registry: `localhost/jug/hello`, also called
//! `jug/hello` and `hello` where nothing of that name is in the store. One static program of ours, which build.rs
//! compiles; its layer is made here, and enters the store as any other.

use oci_spec::image::{Config, HistoryBuilder, ImageConfiguration};

use super::made::{Made, MadeLayer};
use super::platform;
use super::progress::Silent;
use super::pull::{Options, pull};
use super::reference::Reference;
use super::store::{Image, Store};
use crate::error::{Error, Result};

/// Its whole name.
pub const NAME: &str = "localhost/jug/hello:latest";

/// The program, compressed by nothing: it is a part of jug's own binary.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// The names that the program goes by.
const TOOLS: [&str; 14] = [
    "cat", "echo", "env", "false", "hostname", "id", "ls", "mount", "ps", "pwd", "sh", "sleep", "true",
    "uname",
];

/// Whether people mean this image by a text.
pub fn is_meant(text: &str) -> bool {
    let name = text.strip_suffix(":latest").unwrap_or(text);
    ["hello", "jug/hello", "localhost/jug/hello"].contains(&name)
}

/// Puts the image into the store.
pub fn bring(store: &Store) -> Result<Image> {
    let name = Reference::parse(NAME)?;
    let options = Options { missing_only: true, ..Options::default() };
    pull(store, &made()?, Some(&name), &options, &Silent)
}

fn made() -> Result<Made> {
    let host = platform::host();
    let mut own = Config::default();
    own.set_cmd(Some(vec!["/bin/hello".to_owned()]))
        .set_env(Some(vec!["PATH=/bin".to_owned()]))
        .set_working_dir(Some("/".to_owned()));
    let step = HistoryBuilder::default()
        .created("1970-01-01T00:00:00Z".to_owned())
        .created_by(format!("jug {}", env!("CARGO_PKG_VERSION")))
        .comment("the image that jug carries".to_owned())
        .build()
        .map_err(|e| Error::new(e.to_string()))?;
    let mut config = ImageConfiguration::default();
    config
        .set_architecture(host.architecture().clone())
        .set_os(host.os().clone())
        .set_variant(host.variant().clone())
        .set_created(Some("1970-01-01T00:00:00Z".to_owned()))
        .set_config(Some(own))
        .set_history(Some(vec![step]));
    let failed = |e: std::io::Error| Error::new(format!("the layer of {NAME}: {e}"));
    Made::new(config, vec![MadeLayer::of_bytes(layer().map_err(failed)?)])
}

/// The same bytes in every build of the same program: no time, no owner but root.
fn layer() -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for (dir, mode) in [
        ("./", 0o755),
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
    ] {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), dir, std::io::empty())?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let group = "root:x:0:\nnogroup:x:65534:\n";
    for (file, mode, content) in [
        ("bin/hello", 0o755, PROGRAM),
        ("etc/group", 0o644, group.as_bytes()),
        ("etc/passwd", 0o644, passwd.as_bytes()),
    ] {
        tar.append_data(&mut header(tar::EntryType::Regular, mode, content.len() as u64), file, content)?;
    }
    for tool in TOOLS {
        tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), format!("bin/{tool}"), "hello")?;
    }
    tar.into_inner()
}
