//! Whom TLS trusts: the system's roots, and for one registry what `certs.d` holds (containers-certs.d(5)).

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};
use crate::image::source::Access;
use crate::image::source::registries::config_home;

/// The longest file of certificates that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// TLS for hosts that are no registry of ours: storage that a registry redirects to.
pub fn plain(insecure: bool) -> TlsConfig {
    TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).disable_verification(insecure).build()
}

/// TLS for a registry `HOST[:PORT]`.
pub fn of(host: &str, insecure: bool, access: &Access) -> Result<TlsConfig> {
    let mut extra = Vec::new();
    let mut client = None;
    for dir in dirs(host, access) {
        for file in listing(&dir) {
            match file.extension().and_then(|end| end.to_str()) {
                Some("crt") => extra.extend(certificates(&file)?),
                Some("cert") if client.is_none() => {
                    let key = file.with_extension("key");
                    client = Some(ClientCert::new_with_certs(&certificates(&file)?, private_key(&key)?));
                }
                _ => {}
            }
        }
    }
    let roots = if extra.is_empty() { RootCerts::PlatformVerifier } else { with_system(extra) };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).disable_verification(insecure).build())
}

fn dirs(host: &str, access: &Access) -> Vec<PathBuf> {
    if let Some(dir) = &access.cert_dir {
        return vec![dir.clone()];
    }
    let own = config_home().map(|home| home.join("containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(system).map(|dir| dir.join(host)).collect()
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files
}

/// A registry's own CA is trusted beside the system's, not instead of them.
fn with_system(mut extra: Vec<Certificate<'static>>) -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    extra.extend(system.iter().map(|certificate| Certificate::from_der(certificate).to_owned()));
    RootCerts::new_with_certs(&extra)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| Error::io(file.display(), &e);
    let mut bytes = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = read(file)?;
    let items: std::result::Result<Vec<_>, _> = parse_pem(&bytes).collect();
    let items = items.map_err(|e| Error::new(format!("{}: {e}", file.display())))?;
    let found: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::new(format!("{} holds no certificate in PEM", file.display())));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>> {
    PrivateKey::from_pem(&read(file)?).map_err(|e| Error::new(format!("{}: {e}", file.display())))
}
