//! What an answer of a registry says beside its body: where to go on, when to ask again, and the registry's own words,
//! made harmless. It asks for nothing.

use std::io::Read as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Body;
use ureq::http::{Response, Uri, header};

use crate::error::{Error, Result};

/// The longest answer that is no manifest and no blob, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;
/// A registry that wants us to wait longer is told to the user instead.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Scheme, host and port.
pub fn origin_of(url: &Uri) -> (String, String, u16) {
    let scheme = url.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let port = url.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    (scheme, url.host().unwrap_or_default().to_ascii_lowercase(), port)
}

/// Whether one scope asks for all that another does.
pub fn covers(ours: &str, theirs: &str) -> bool {
    let (Some((name, actions)), Some((their, wanted))) = (ours.rsplit_once(':'), theirs.rsplit_once(':'))
    else {
        return ours == theirs;
    };
    name == their && wanted.split(',').all(|action| actions.split(',').any(|own| own == action))
}

/// The URL that a `Location` means, seen from where it was said (RFC 3986, section 5.2).
pub fn location(response: &Response<Body>, from: &Uri) -> Result<String> {
    let said = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let said = said.ok_or_else(|| Error::new(format!("{from}: a redirect to nowhere")))?;
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    Ok(match said {
        _ if said.contains("://") => said.to_owned(),
        _ if said.starts_with("//") => format!("{scheme}:{said}"),
        _ if said.starts_with('/') => format!("{scheme}://{authority}{said}"),
        _ => {
            let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{scheme}://{authority}{dir}/{said}")
        }
    })
}

/// Whether a registry that is busy is to be asked again, and when: as it says itself, else a little later each time.
pub fn pause(response: &Response<Body>, tries: u32) -> Option<Duration> {
    if !matches!(response.status().as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
        return None;
    }
    let header = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    match header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs) {
        Some(wait) => Some(wait).filter(|wait| *wait <= LONGEST_WAIT),
        None => Some(backoff(tries)),
    }
}

/// A quarter of a second, doubled each time, and a part of it by chance, so that many pulls do not come back at once.
pub fn backoff(tries: u32) -> Duration {
    let base = 250_u64 << tries.saturating_sub(1).min(6);
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos()));
    Duration::from_millis(base + chance % (base / 2))
}

/// The beginning of an answer. The rest, if there is more, stays where it is.
pub fn drain(response: Response<Body>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = response.into_body().into_reader().take(LONGEST_ANSWER).read_to_end(&mut bytes);
    bytes
}

/// The registry's own words (distribution-spec, error codes), made harmless for a terminal.
pub fn message(bytes: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(bytes) else { return String::new() };
    let first = &answer["errors"][0];
    let text = |value: &serde_json::Value| value.as_str().map(clean).unwrap_or_default();
    let said = [
        text(&first["code"]),
        text(&first["message"]),
        text(&answer["error_description"]),
        text(&answer["details"]),
    ];
    let said: Vec<String> = said.into_iter().filter(|text| !text.is_empty()).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(": ")) }
}

/// Text of somebody else's, short and without control characters.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_redirect_leads() {
        let from: Uri = "https://r.io:5000/v2/a/blobs/x?y=1".parse().expect("a URL");
        let to = |said: &str| {
            let response =
                Response::builder().header("location", said).body(Body::builder().data("")).expect("one");
            location(&response, &from).expect("a URL")
        };
        assert_eq!(to("http://b/c"), "http://b/c");
        assert_eq!(to("//cdn/c?d"), "https://cdn/c?d");
        assert_eq!(to("/c"), "https://r.io:5000/c");
        assert_eq!(to("c"), "https://r.io:5000/v2/a/blobs/c");
    }

    #[test]
    fn words_of_others_are_harmless() {
        let said = message(br#"{"errors":[{"code":"DENIED","message":"\u001b[31mno\n"}]}"#);
        assert_eq!(said, " (DENIED: [31mno)");
        assert_eq!(message(b"<html>"), "");
    }

    #[test]
    fn scopes() {
        assert!(covers("repository:a:pull,push", "repository:a:pull"));
        assert!(
            !covers("repository:a:pull", "repository:a:pull,push")
                && !covers("repository:a:pull", "repository:b:pull")
        );
    }

    #[test]
    fn this_machine() {
        assert!(["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000"].into_iter().all(is_loopback));
        assert!(!["localhost.evil.com", "128.0.0.1", "127.0.0.1.evil.com"].into_iter().any(is_loopback));
    }
}
