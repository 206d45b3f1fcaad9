//! `jug login`: credentials are tried at the registry, and only then kept.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use clap::Args;

use super::Global;
use super::access::AccessFlags;
use crate::error::{Error, Result};
use crate::image::reference::DOCKER_HUB;
use crate::image::source::credentials::{self, Credential};
use crate::image::source::{Access, registry};
use crate::sys::tty::Quiet;

/// The longest user name or password, in bytes.
const LONGEST: u64 = 64 << 10;

/// Log in to a registry
#[derive(Debug, Args)]
pub struct Login {
    #[command(flatten)]
    access: AccessFlags,
    /// Print the user who is logged in, and do nothing else
    #[arg(long)]
    get_login: bool,
    /// The password: other users of this machine can see it there, --password-stdin is better
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// The user
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// HOST[:PORT], or HOST/REPOSITORY for a part of it [default: docker.io]
    registry: Option<String>,
}

impl Login {
    pub fn perform(self, _global: &Global) -> Result<u8> {
        let key = key(self.registry.as_deref());
        let access = self.access.access();
        if self.get_login {
            let found = credentials::find(&access, &key)?;
            let found = found.ok_or_else(|| Error::new(format!("not logged into {key}")))?;
            let _ = writeln!(std::io::stdout(), "{}", found.user());
            return Ok(0);
        }
        let credential = self.credential(&key)?;
        let trying = Access { credential: Some(credential.clone()), ..access.clone() };
        registry::check_login(&key, &trying).map_err(|e| e.context("login failed"))?;
        let place = credentials::keep(&access, &key, &credential)?;
        let _ = writeln!(std::io::stderr(), "Kept in {place}");
        let _ = writeln!(std::io::stdout(), "Login Succeeded!");
        Ok(0)
    }

    fn credential(&self, key: &str) -> Result<Credential> {
        let user = match &self.username {
            Some(user) => user.clone(),
            None if self.password_stdin => {
                return Err(Error::new("--password-stdin needs --username"));
            }
            None => ask(&format!("Username for {key}: "), false)?,
        };
        let password = match &self.password {
            Some(password) => password.clone(),
            None if self.password_stdin => {
                let mut text = String::new();
                let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
                read.map_err(|e| Error::new(format!("reading the password: {e}")))?;
                text.trim_end_matches(['\n', '\r']).to_owned()
            }
            None => ask("Password: ", true)?,
        };
        if user.is_empty() || password.is_empty() {
            return Err(Error::new("a user and a password are needed"));
        }
        Ok(Credential::new(&user, &password))
    }
}

/// What credentials are kept under: a name without a scheme, Docker's by default.
pub fn key(registry: Option<&str>) -> String {
    let text = registry.unwrap_or(DOCKER_HUB);
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    // What was given as a URL is its host.
    let host = bare.map_or(text, |url| url.split('/').next().unwrap_or_default());
    match host.trim_end_matches('/') {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// One line from the terminal; `secret` is not shown while it is typed.
fn ask(question: &str, secret: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new("stdin is no terminal to ask at")
            .next("give --username, and the password with --password-stdin"));
    }
    let _ = std::io::stderr().write_all(question.as_bytes());
    let quiet = if secret { Quiet::enter(stdin.as_fd()) } else { None };
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|e| Error::new(format!("reading from the terminal: {e}")))?;
    if quiet.is_some() {
        let _ = std::io::stderr().write_all(b"\n");
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
