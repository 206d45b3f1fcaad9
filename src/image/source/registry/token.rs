//! The answer to a challenge: Basic, or a bearer token from the server that the registry names (distribution-spec's
//! token authentication: GET with Basic, or OAuth2 with a refresh token).
//!
//! A credential goes to the registry's own site and to nobody else (CVE-2020-15157): another token server gets what is
//! kept for that server, or asks an unknown caller for nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::Uri;

use super::address;
use super::challenge::Challenge;
use crate::error::{Error, Result};
use crate::image::source::credentials::Credential;

/// How long a token is good for when its server does not say, and at least (both are the specification's).
const DEFAULT_LIFE: u64 = 60;

/// A value of `Authorization`, and until when it is worth sending.
#[derive(Clone)]
pub struct Authorization {
    pub value: String,
    pub until: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// What the token server is sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    Get { url: String, basic: Option<String> },
    Post { url: String, form: Vec<(&'static str, String)> },
}

/// How to ask for a token of some scopes.
pub fn question(
    challenge: &Challenge,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<Question> {
    let realm = challenge.get("realm").unwrap_or_default();
    let service = challenge.get("service").unwrap_or_default();
    if let Some(Credential::Identity(token)) = credential {
        let mut form = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("service", service.to_owned()),
            ("client_id", "jug".to_owned()),
            ("refresh_token", token.clone()),
        ];
        form.push(("scope", scopes.join(" ")));
        return Ok(Question::Post { url: realm.to_owned(), form });
    }
    let mut query: Vec<String> = Vec::new();
    if !service.is_empty() {
        query.push(format!("service={}", escape(service)));
    }
    query.extend(scopes.iter().map(|scope| format!("scope={}", escape(scope))));
    if let Some(credential) = credential {
        query.push(format!("account={}", escape(credential.user())));
    }
    let joint = match (realm.contains('?'), query.is_empty()) {
        (_, true) => "",
        (true, _) => "&",
        (false, _) => "?",
    };
    let url = format!("{realm}{joint}{}", query.join("&"));
    Ok(Question::Get { url, basic: credential.and_then(Credential::basic) })
}

/// The token in a token server's answer.
pub fn answer(bytes: &[u8]) -> Result<Authorization> {
    // The text is secret: serde's words are not repeated.
    let answer: Answer =
        serde_json::from_slice(bytes).map_err(|_| Error::new("its answer is no JSON with a token"))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Error::new("its answer has no token"))?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new("its token has bytes that no header may have"));
    }
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 24 * 3600);
    // Not to the last second: the clocks of two machines differ, and a request takes its time.
    let until = Instant::now() + Duration::from_secs(life) * 4 / 5;
    Ok(Authorization { value: format!("Bearer {token}"), until: Some(until) })
}

/// Percent-encoding for a value in a query (RFC 3986, section 2.3).
pub fn escape(text: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Refuses token servers that no credential and no request should go to.
pub fn check_realm(realm: &str, registry: &Uri) -> Result<Uri> {
    let url: Uri = realm.parse().map_err(|_| Error::new(format!("its token server {realm:?} is no URL")))?;
    if url.host().is_none() || !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err(Error::new(format!("its token server {realm:?} is no URL")));
    }
    if url.scheme_str() == Some("http") && registry.scheme_str() == Some("https") {
        return Err(Error::new(format!("its token server {realm} has no TLS, though the registry has")));
    }
    address::check_url(&url, registry)?;
    Ok(url)
}

/// Whether two hosts are of one site, so that one may see the other's credentials: the same host, or names below the
/// same registrable domain (`auth.docker.io` and `registry-1.docker.io`).
pub fn same_site(one: &str, other: &str) -> bool {
    fn site(host: &str) -> Option<String> {
        let labels: Vec<&str> = host.rsplit('.').collect();
        if labels.len() < 2 || labels.contains(&"") || host.parse::<IpAddr>().is_ok() || host.starts_with('[')
        {
            return None;
        }
        // `co.uk` and its like: a short label below a country's.
        let deep = labels[0].len() == 2 && labels[1].len() <= 3;
        let take = if deep { 3 } else { 2 };
        (labels.len() >= take).then(|| labels[..take].join(".").to_ascii_lowercase())
    }
    one.eq_ignore_ascii_case(other) || site(one).is_some_and(|its| site(other) == Some(its))
}

#[cfg(test)]
mod tests {
    use super::super::challenge;
    use super::*;

    fn bearer(realm: &str) -> Challenge {
        challenge::parse(&format!("Bearer realm=\"{realm}\",service=\"s v\"")).remove(0)
    }

    #[test]
    fn questions() {
        let scopes = ["repository:a/b:pull".to_owned(), "repository:c:pull".to_owned()];
        let anonymous = question(&bearer("https://a.io/t"), &scopes, None).expect("a question");
        let url = "https://a.io/t?service=s%20v&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull";
        assert_eq!(anonymous, Question::Get { url: url.into(), basic: None });
        let password = Credential::new("u", "p");
        let Question::Get { url, basic } =
            question(&bearer("https://a.io/t?x=1"), &[], Some(&password)).expect("one")
        else {
            panic!("a password is sent by GET");
        };
        assert_eq!(
            (url.as_str(), basic.as_deref()),
            ("https://a.io/t?x=1&service=s%20v&account=u", Some("dTpw"))
        );
        let identity = Credential::Identity("T".into());
        let Question::Post { form, .. } =
            question(&bearer("https://a.io/t"), &scopes, Some(&identity)).expect("one")
        else {
            panic!("a refresh token is sent by POST");
        };
        assert!(form.contains(&("refresh_token", "T".into())));
    }

    #[test]
    fn answers() {
        assert_eq!(answer(br#"{"token":"a"}"#).expect("a token").value, "Bearer a");
        assert_eq!(answer(br#"{"access_token":"b","expires_in":1}"#).expect("a token").value, "Bearer b");
        for text in ["", "{}", r#"{"token":""}"#, "{\"token\":\"a\\r\\nX: y\"}", r#"{"token":1}"#] {
            assert!(answer(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn sites() {
        assert!(same_site("registry-1.docker.io", "auth.docker.io"));
        assert!(same_site("a.example.co.uk", "b.example.co.uk") && !same_site("a.co.uk", "b.co.uk"));
        assert!(same_site("127.0.0.1", "127.0.0.1") && !same_site("127.0.0.1", "128.0.0.1"));
        assert!(same_site("localhost", "localhost") && !same_site("localhost", "evil"));
        assert!(!same_site("docker.io.evil.com", "docker.io") && !same_site("10.0.0.1", "11.0.0.1"));
        assert!(!same_site("evildocker.io", "docker.io"));
    }

    #[test]
    fn realms() {
        let registry: Uri = "https://r.io".parse().expect("a URL");
        for bad in [
            "",
            "x",
            "ftp://r.io/",
            "http://r.io/t",
            "https://169.254.169.254/t",
            "https://[fe80::1]/",
            "file:///etc",
        ] {
            assert!(check_realm(bad, &registry).is_err(), "{bad}");
        }
        assert!(check_realm("https://auth.r.io/t", &registry).is_ok());
    }
}
