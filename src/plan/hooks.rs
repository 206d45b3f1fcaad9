//! Hooks: six lists, checked.

use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{Hook as SpecHook, Hooks as SpecHooks};

use crate::error::{Error, Result};

#[derive(Debug, Clone, Default)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Clone)]
pub struct Hook {
    /// Which hook this is, for errors: `prestart hook #0`.
    pub name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub timeout: Option<Duration>,
}

impl Hooks {
    pub fn new(hooks: Option<&SpecHooks>) -> Result<Self> {
        let Some(hooks) = hooks else { return Ok(Self::default()) };
        let prestart = hooks.prestart();
        Ok(Self {
            prestart: list(prestart, "prestart")?,
            create_runtime: list(hooks.create_runtime(), "createRuntime")?,
            create_container: list(hooks.create_container(), "createContainer")?,
            start_container: list(hooks.start_container(), "startContainer")?,
            poststart: list(hooks.poststart(), "poststart")?,
            poststop: list(hooks.poststop(), "poststop")?,
        })
    }
}

fn list(hooks: &Option<Vec<SpecHook>>, kind: &str) -> Result<Vec<Hook>> {
    hooks
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, hook)| {
            let at = format!("/hooks/{kind}/{i}");
            if !hook.path().is_absolute() {
                return Err(Error::new(format!("{at}/path: {} is not absolute", hook.path().display())));
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.unsigned_abs())),
                Some(seconds) => {
                    return Err(Error::new(format!("{at}/timeout: {seconds} is not greater than zero")));
                }
            };
            let env = hook.env().clone().unwrap_or_default();
            if let Some(bad) = env.iter().find(|e| !e.contains('=')) {
                return Err(Error::new(format!("{at}/env: {bad:?} has no '='")));
            }
            let args = match hook.args() {
                Some(args) if !args.is_empty() => args.clone(),
                _ => vec![hook.path().to_string_lossy().into_owned()],
            };
            Ok(Hook { name: format!("{kind} hook #{i}"), path: hook.path().clone(), args, env, timeout })
        })
        .collect()
}
