//! policy.json: which images may be used at all (containers-policy.json(5)).
//!
//! `insecureAcceptAnything` and `reject` are honoured, for each transport and scope. A rule that wants signatures
//! refuses the image, aloud: what cannot be verified is not taken for verified. Without any policy.json everything is
//! accepted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::reference::Transport;
use super::source::registries::config_home;
use crate::error::{Error, Result};

const LONGEST: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

#[derive(Debug, Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
}

/// Says no where the policy does. `file` is the caller's own, which then must be there.
pub fn check(transport: &Transport, file: Option<&Path>) -> Result<()> {
    let own = config_home().map(|home| home.join("containers/policy.json"));
    let system = PathBuf::from("/etc/containers/policy.json");
    let files = match file {
        Some(file) => vec![file.to_owned()],
        None => own.into_iter().chain([system]).collect(),
    };
    for path in files {
        let failed = |e: std::io::Error| Error::io(path.display(), &e);
        let text = match std::fs::File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => continue,
            opened => read(opened.map_err(failed)?).map_err(failed)?,
        };
        return decide(&text, transport).map_err(|e| e.context(path.display()));
    }
    Ok(())
}

fn read(file: std::fs::File) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// What a policy says about an image.
fn decide(text: &str, transport: &Transport) -> Result<()> {
    let policy: Policy = serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))?;
    let scopes = policy.transports.get(transport.kind());
    let found = scopes.and_then(|rules| {
        let scope = scopes_of(transport)
            .into_iter()
            .chain([String::new()])
            .find(|scope| rules.contains_key(scope))?;
        let rule = rules.get(&scope)?;
        Some((format!("{}:{scope}", transport.kind()), rule))
    });
    let (scope, rule) = found.unwrap_or(("default".to_owned(), &policy.default));
    if rule.is_empty() {
        return Err(Error::new(format!("the rule {scope:?} has no requirement")));
    }
    for requirement in rule {
        match requirement.kind.as_str() {
            "insecureAcceptAnything" => {}
            "reject" => {
                return Err(Error::new(format!("{transport} is refused"))
                    .why(format!("the rule {scope:?} of the policy rejects it")));
            }
            other => {
                return Err(Error::new(format!("{transport} is refused: the rule {scope:?} wants {other}"))
                    .why("jug cannot verify signatures yet, and takes nothing unverified where the policy wants more")
                    .next("pull it with a program that verifies (podman, skopeo) into oci:DIR, and that with jug"));
            }
        }
    }
    Ok(())
}

/// The scopes that a rule for an image may have, the narrowest first.
fn scopes_of(transport: &Transport) -> Vec<String> {
    match transport {
        Transport::Registry(reference) => {
            let mut scopes = vec![reference.to_string()];
            let name = reference.name();
            let cuts = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
            let mut prefixes: Vec<String> = cuts.map(|at| name[..at].to_owned()).collect();
            prefixes.reverse();
            scopes.extend(prefixes);
            let host = reference.host().split(':').next().unwrap_or_default();
            scopes.extend(host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..])));
            scopes
        }
        Transport::Layout { dir, name } => paths(dir, name.as_deref()),
        Transport::LayoutArchive { file, name } => paths(file, name.as_deref()),
        Transport::DockerArchive { file, .. } => paths(file, None),
        Transport::Dir(dir) => paths(dir, None),
    }
}

/// A path with a name, the path, and all that it is below.
fn paths(path: &Path, name: Option<&str>) -> Vec<String> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let named = name.map(|name| format!("{}:{name}", whole.display()));
    named.into_iter().chain(whole.ancestors().map(|path| path.display().to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"{
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "quay.io": [{"type": "insecureAcceptAnything"}],
                "quay.io/bad": [{"type": "reject"}],
                "quay.io/bad/good:1": [{"type": "insecureAcceptAnything"}],
                "*.corp.org": [{"type": "insecureAcceptAnything"}],
                "signed.io": [{"type": "insecureAcceptAnything"}, {"type": "signedBy", "keyType": "GPGKeys"}],
                "store.io": [{"type": "sigstoreSigned", "keyPath": "/k"}]
            },
            "oci": {"/srv/images": [{"type": "insecureAcceptAnything"}]},
            "dir": {"": [{"type": "insecureAcceptAnything"}]}
        }
    }"#;

    fn accepts(text: &str) -> bool {
        decide(POLICY, &Transport::parse(text).expect(text)).is_ok()
    }

    #[test]
    fn the_narrowest_scope_decides() {
        assert!(accepts("quay.io/a/b") && accepts("quay.io/bad/good:1") && accepts("x.y.corp.org:5000/a"));
        assert!(!accepts("quay.io/bad/x") && !accepts("quay.io/bad/good:2") && !accepts("alpine"));
        assert!(!accepts("corp.org/a") && !accepts("quay.io.evil.com/a"));
        assert!(accepts("oci:/srv/images/a:t") && !accepts("oci:/srv/images2") && accepts("dir:/x"));
        assert!(!accepts("docker-archive:/x.tar"));
    }

    /// What cannot be verified is refused, and the sentence says so.
    #[test]
    fn signatures_are_not_taken_for_granted() {
        for image in ["signed.io/a", "store.io/a"] {
            let error = decide(POLICY, &Transport::parse(image).expect(image)).expect_err(image).to_string();
            assert!(error.contains("cannot verify"), "{error}");
        }
    }

    #[test]
    fn damaged_policies_refuse() {
        let transport = Transport::parse("alpine").expect("parses");
        for text in
            ["", "{}", r#"{"default":[]}"#, r#"{"default":[{}]}"#, r#"{"default":[{"type":"reject"}],"x":1}"#]
        {
            assert!(decide(text, &transport).is_err(), "{text}");
        }
    }
}
