//! The flags that every verb has which speaks to a registry.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::error::Result;
use crate::image::source::Access;
use crate::image::source::credentials::Credential;

#[derive(Debug, Clone, Default, Args)]
pub struct AccessFlags {
    /// File of credentials [default: $REGISTRY_AUTH_FILE, then those of Podman and Docker]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory of the registry's CA and our certificate: *.crt, *.cert, *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Refuse a registry without valid TLS [default: as registries.conf says, and not on this machine itself]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    tls_verify: Option<bool>,
}

impl AccessFlags {
    pub fn access(&self) -> Access {
        Access {
            authfile: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            tls_verify: self.tls_verify,
            ..Access::default()
        }
    }

    /// The same with `--creds USER:PASSWORD`.
    pub fn with(&self, creds: Option<&str>) -> Result<Access> {
        Ok(Access { credential: creds.map(Credential::parse).transpose()?, ..self.access() })
    }
}
