//! Credentials: found in the files and programs of Docker and Podman, and kept there by `login`.
//!
//! A secret is never printed, is no part of an error, and leaves this room only for the host that it was kept for.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::Access;
use super::registries::{Registries, config_home};
use crate::error::{Error, Result};
use crate::image::reference::DOCKER_HUB;
use crate::sys;

/// No file of credentials and no answer of a program is longer, in bytes.
const LONGEST: u64 = 1 << 20;
/// What Docker calls its own registry in config.json.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, as some registries give instead of a password.
    Identity(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Identity(_) => f.write_str("Identity"),
        }
    }
}

impl Credential {
    /// `USER:PASSWORD`.
    pub fn parse(text: &str) -> Result<Self> {
        let (user, password) = text
            .split_once(':')
            .ok_or_else(|| Error::new("credentials have no password").next("write USER:PASSWORD"))?;
        Ok(Self::new(user, password))
    }

    /// Helpers hand out a refresh token under the user's name `<token>`.
    pub fn new(user: &str, password: &str) -> Self {
        match user {
            "<token>" => Self::Identity(password.to_owned()),
            user => Self::Password { user: user.to_owned(), password: password.to_owned() },
        }
    }

    pub fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::Identity(_) => "<token>",
        }
    }

    /// The value of `Authorization: Basic`.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => Some(BASE64.encode(format!("{user}:{password}"))),
            Self::Identity(_) => None,
        }
    }
}

/// The credential for `HOST[/REPOSITORY]`: of all that are kept the one for the longest part of the name.
pub fn find(access: &Access, name: &str) -> Result<Option<Credential>> {
    if let Some(given) = &access.credential {
        return Ok(Some(given.clone()));
    }
    for file in files(access) {
        if let Some(found) = read(&file)?.map(|kept| kept.find(name)).transpose()?.flatten() {
            return Ok(Some(found));
        }
    }
    let host = name.split('/').next().unwrap_or_default();
    for helper in
        Registries::load()?.credential_helpers().iter().filter(|name| *name != "containers-auth.json")
    {
        if let Some(found) = ask(helper, host)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files in which credentials are looked for, the first wins (containers-auth.json(5), `docker login`).
fn files(access: &Access) -> Vec<PathBuf> {
    let own = access.authfile.clone().or_else(|| set("REGISTRY_AUTH_FILE"));
    if let Some(own) = own {
        return vec![own];
    }
    let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    let config = config_home().map(|home| home.join("containers/auth.json"));
    let docker = docker.map(|dir| dir.join("config.json"));
    [Some(runtime_file()), config, docker].into_iter().flatten().collect()
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
}

/// Podman's file, which does not outlive a boot.
fn runtime_file() -> PathBuf {
    set("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| PathBuf::from(format!("/run/containers/{}", crate::host::caller())))
        .join(if set("XDG_RUNTIME_DIR").is_some() { "containers/auth.json" } else { "auth.json" })
}

/// Where `login` keeps what it was told.
pub fn own_file(access: &Access) -> PathBuf {
    access.authfile.clone().or_else(|| set("REGISTRY_AUTH_FILE")).unwrap_or_else(runtime_file)
}

/// One file of credentials as it stands there: members that we do not know stay in it.
#[derive(Debug, Default)]
struct Kept(Map<String, Value>);

fn read(file: &Path) -> Result<Option<Kept>> {
    let failed = |e: std::io::Error| Error::io(file.display(), &e);
    let opened = match File::open(file) {
        Err(e) if [libc::ENOENT, libc::ENOTDIR, libc::EACCES].contains(&e.raw_os_error().unwrap_or(0)) => {
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    opened.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    if text.trim().is_empty() {
        return Ok(Some(Kept::default()));
    }
    // The text is secret: serde's words name a place in it and nothing of it.
    let read = serde_json::from_str(&text);
    let place =
        |e: serde_json::Error| format!("{}: line {}: this is no JSON object", file.display(), e.line());
    Ok(Some(Kept(read.map_err(|e| Error::new(place(e)))?)))
}

impl Kept {
    fn find(&self, name: &str) -> Result<Option<Credential>> {
        for key in keys(name) {
            if let Some(program) = self.helper(&key) {
                return ask(program, &key);
            }
            if let Some(found) = self.entry(&key).and_then(decode) {
                return Ok(Some(found));
            }
        }
        let host = name.split('/').next().unwrap_or_default();
        match self.0.get("credsStore").and_then(Value::as_str) {
            Some(program) => ask(program, host),
            None => Ok(None),
        }
    }

    fn helper(&self, key: &str) -> Option<&str> {
        let helpers = self.0.get("credHelpers")?;
        helpers.get(key).or_else(|| helpers.get(helper_key(key)))?.as_str()
    }

    /// The entry of a key, in whichever of its spellings it stands there.
    fn entry(&self, key: &str) -> Option<&Value> {
        let all = self.0.get("auths")?.as_object()?;
        all.get(key).or_else(|| all.iter().find(|(its, _)| plain(its) == key).map(|(_, entry)| entry))
    }
}

/// `quay.io/a/b`, `quay.io/a`, `quay.io`.
fn keys(name: &str) -> Vec<String> {
    let cuts = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
    let mut keys: Vec<String> = cuts.map(|at| name[..at].to_owned()).collect();
    keys.reverse();
    keys
}

/// A key without a scheme and the API's version, as Docker writes some of them.
fn plain(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match bare {
        // With a scheme it is a URL, and only its host counts.
        Some(url) => url.split('/').next().unwrap_or_default(),
        None => key,
    };
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host }
}

fn decode(entry: &Value) -> Option<Credential> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Credential::Identity(token.to_owned()));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some(Credential::new(user, password));
    }
    let decoded = String::from_utf8(BASE64.decode(text("auth")?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credential::new(user, password.trim_end_matches('\0')))
}

/// The program of a helper's name, which is looked for in PATH: docker-credential-helpers' protocol.
fn program(name: &str) -> Result<Command> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Error::new(format!("{name:?} is no name of a credential helper")));
    }
    Ok(Command::new(format!("docker-credential-{name}")))
}

/// What a helper says to a word (`get`, `store`, `erase`): its output, or `None` when it failed.
fn run(name: &str, word: &str, input: &str) -> Result<(bool, String)> {
    let failed = |e: std::io::Error| {
        Error::io(format_args!("docker-credential-{name} {word}"), &e)
            .next("install it, or run `jug login` anew")
    };
    let mut child = program(name)?
        .arg(word)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has still to say why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut said = String::new();
    let read = child.stdout.take().map(|out| out.take(LONGEST).read_to_string(&mut said)).transpose();
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    Ok((status.success(), said))
}

fn helper_key(host: &str) -> &str {
    if host == DOCKER_HUB { DOCKER_KEY } else { host }
}

fn ask(helper: &str, host: &str) -> Result<Option<Credential>> {
    let (worked, said) = run(helper, "get", helper_key(host))?;
    if !worked {
        // The one sentence of the protocol that is no fault.
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => {
                Err(Error::new(format!("docker-credential-{helper} get {host} failed: {}", line(&said))))
            }
        };
    }
    let answer: Value = serde_json::from_str(&said)
        .map_err(|_| Error::new(format!("docker-credential-{helper} get {host}: this is no JSON object")))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(Some(Credential::new(text("Username"), text("Secret"))).filter(|_| !text("Secret").is_empty()))
}

fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Keeps a credential for `HOST[/REPOSITORY]`: in the helper that the file names for it, else in the file. Returns
/// where it is now.
pub fn keep(access: &Access, key: &str, credential: &Credential) -> Result<String> {
    let file = own_file(access);
    let secret = match credential {
        Credential::Password { password, .. } => password,
        Credential::Identity(token) => token,
    };
    change(&file, |kept| {
        let store = kept.0.get("credsStore").and_then(Value::as_str);
        if let Some(helper) = kept.helper(key).or(store).map(str::to_owned) {
            let entry =
                json!({ "ServerURL": helper_key(key), "Username": credential.user(), "Secret": secret });
            return match run(&helper, "store", &entry.to_string())? {
                (true, _) => Ok(format!("docker-credential-{helper}")),
                (false, said) => {
                    Err(Error::new(format!("docker-credential-{helper} store: {}", line(&said))))
                }
            };
        }
        let entry = match credential {
            Credential::Password { .. } => json!({ "auth": credential.basic() }),
            Credential::Identity(token) => {
                json!({ "auth": BASE64.encode("<token>:"), "identitytoken": token })
            }
        };
        let auths = kept.0.entry("auths").or_insert_with(|| json!({}));
        let auths = auths.as_object_mut().ok_or_else(|| Error::new("auths is no object"))?;
        auths.retain(|its, _| plain(its) != key);
        auths.insert(key.to_owned(), entry);
        Ok(file.display().to_string())
    })
}

/// Forgets what is kept for a key, or for all. How many there were.
pub fn forget(access: &Access, key: Option<&str>) -> Result<usize> {
    let file = own_file(access);
    if read(&file)?.is_none() {
        return Ok(0);
    }
    change(&file, |kept| {
        let mut gone = 0;
        let helper = key.and_then(|key| kept.helper(key)).map(str::to_owned);
        let helper = helper.or_else(|| kept.0.get("credsStore").and_then(Value::as_str).map(str::to_owned));
        if let (Some(helper), Some(key)) = (helper, key) {
            gone += usize::from(run(&helper, "erase", helper_key(key))?.0);
        }
        if let Some(auths) = kept.0.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|its, _| key.is_some_and(|key| plain(its) != key));
            gone += before - auths.len();
        }
        Ok(gone)
    })
}

/// Changes a file of credentials under its lock, and replaces it whole, readable by its owner only.
fn change<T>(file: &Path, edit: impl FnOnce(&mut Kept) -> Result<T>) -> Result<T> {
    let failed = |e: std::io::Error| Error::io(file.display(), &e);
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| failed(e).next("set XDG_RUNTIME_DIR, or give --authfile"))?;
    let lock = File::open(dir).map_err(failed)?;
    sys::fd::flock(lock.as_fd(), libc::LOCK_EX)?;
    let mut kept = read(file)?.unwrap_or_default();
    let done = edit(&mut kept)?;
    let text = serde_json::to_string_pretty(&kept.0).map_err(|_| Error::new("credentials are no JSON"))?;
    let name = file.file_name().ok_or_else(|| Error::new(format!("{} is no file", file.display())))?;
    let partial = file.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
    let mut options = OpenOptions::new();
    let mut new =
        options.write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
    new.write_all(text.as_bytes()).and_then(|()| new.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, file).map_err(failed)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Kept {
        Kept(serde_json::from_str(text).expect("JSON"))
    }

    fn user(kept: &Kept, name: &str) -> Option<String> {
        kept.find(name).expect("no helper").map(|found| found.user().to_owned())
    }

    #[test]
    fn the_longest_part_of_the_name() {
        let auth = |user: &str| json!({ "auth": BASE64.encode(format!("{user}:p:w")) }).to_string();
        let text = format!(
            r#"{{"auths":{{"quay.io":{},"quay.io/a/b":{},"https://index.docker.io/v1/":{},"https://h:5000/v2/":{}}}}}"#,
            auth("host"),
            auth("deep"),
            auth("hub"),
            auth("port")
        );
        let kept = kept(&text);
        assert_eq!(user(&kept, "quay.io/a/b/c").as_deref(), Some("deep"));
        assert_eq!(user(&kept, "quay.io/a/bc").as_deref(), Some("host"));
        assert_eq!(user(&kept, "docker.io/library/x").as_deref(), Some("hub"));
        assert_eq!(user(&kept, "h:5000/x").as_deref(), Some("port"));
        assert_eq!(user(&kept, "h/x"), None);
        assert_eq!(user(&kept, "evil.quay.io/x"), None);
        let found = kept.find("quay.io/x").expect("no helper").expect("kept");
        assert_eq!(found, Credential::Password { user: "host".into(), password: "p:w".into() });
        assert!(!format!("{found:?}").contains("p:w"), "a secret is not shown");
    }

    #[test]
    fn identity_tokens() {
        let kept = kept(r#"{"auths":{"a.io":{"auth":"PHRva2VuPjo=","identitytoken":"T"}}}"#);
        assert_eq!(kept.find("a.io/x").expect("no helper"), Some(Credential::Identity("T".into())));
    }

    #[test]
    fn helpers_have_plain_names() {
        for name in ["", "../x", "a/b", "a b", "a;b"] {
            assert!(program(name).is_err(), "{name:?}");
        }
    }
}
