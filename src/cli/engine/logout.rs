//! `jug logout`: credentials are forgotten.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::login::key;
use crate::error::{Error, Result};
use crate::image::source::{Access, credentials};

/// Forget the credentials of a registry
#[derive(Debug, Args)]
pub struct Logout {
    /// Forget those of all registries
    #[arg(short, long, conflicts_with = "registry")]
    all: bool,
    /// File of credentials [default: $REGISTRY_AUTH_FILE, then Podman's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// HOST[:PORT], or HOST/REPOSITORY [default: docker.io]
    registry: Option<String>,
}

impl Logout {
    pub fn perform(self, _global: &Global) -> Result<u8> {
        let access = Access { authfile: self.authfile, ..Access::default() };
        if self.all {
            credentials::forget(&access, None)?;
            let _ = writeln!(std::io::stdout(), "Removed login credentials for all registries");
            return Ok(0);
        }
        let key = key(self.registry.as_deref());
        if credentials::forget(&access, Some(&key))? == 0 {
            // They may be kept where only `docker login` or Podman puts them.
            let elsewhere = credentials::find(&access, &key)?.is_some();
            let error = Error::new(format!("not logged into {key}"));
            let place = credentials::own_file(&access);
            return Err(if elsewhere {
                error.why(format!("the credentials for it are not kept in {}", place.display()))
            } else {
                error
            });
        }
        let _ = writeln!(std::io::stdout(), "Removed login credentials for {key}");
        Ok(0)
    }
}
