//! Proxies, as every other program of the net reads them from the environment: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
//!
//! curl and Go agree on this: the small spelling wins, `NO_PROXY=example.com` covers its subdomains, and this machine's
//! own addresses never go through a proxy.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

use crate::error::{Error, Result};

/// The proxy for a URL, or none.
pub fn of(url: &Uri) -> Result<Option<Proxy>> {
    // CGI hands a request's `Proxy:` header on as HTTP_PROXY (CVE-2016-5385).
    let cgi = std::env::var_os("REQUEST_METHOD").is_some();
    let names: &[&str] = match url.scheme_str() {
        Some("https") => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        _ if cgi => &["http_proxy"],
        _ => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let set = |name: &&str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let Some(proxy) = names.iter().find_map(set) else { return Ok(None) };
    let spared = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
    if spares(&spared, url.host().unwrap_or_default(), url.port_u16()) {
        return Ok(None);
    }
    let known = Proxy::new(&proxy);
    known
        .map(Some)
        .map_err(|_| Error::new("the proxy that the environment names has no URL that can be used"))
}

/// Whether NO_PROXY's list (or the host being this machine) spares a host the proxy.
fn spares(list: &str, host: &str, port: Option<u16>) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let (Some(address), Some((net, bits))) = (address, entry.split_once('/')) {
            return net.parse().is_ok_and(|net| bits.parse().is_ok_and(|bits| contains(net, bits, address)));
        }
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') => (name, digits.parse::<u16>().ok()),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_start_matches('*').trim_start_matches('.');
        let covers = host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        !name.is_empty() && covers && (only.is_none() || only == port)
    })
}

fn contains(net: IpAddr, bits: u32, address: IpAddr) -> bool {
    let whole = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((net, width), (address, other)) = (whole(net), whole(address));
    width == other && bits <= width && (bits == 0 || (net ^ address) >> (128 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy() {
        let list = "example.com,.dot.org, 10.0.0.0/8,*.star.net,h.io:5000,fd00::/8";
        for host in [
            "example.com",
            "a.example.com",
            "x.dot.org",
            "10.1.2.3",
            "a.star.net",
            "localhost",
            "127.9.9.9",
            "::1",
            "fd00::1",
        ] {
            assert!(spares(list, host, None), "{host}");
        }
        for host in ["notexample.com", "11.1.2.3", "h.io", "com", "fe00::1"] {
            assert!(!spares(list, host, None), "{host}");
        }
        assert!(spares(list, "h.io", Some(5000)) && !spares(list, "h.io", Some(443)));
        assert!(spares("*", "any.where", None) && !spares("", "any.where", None));
    }
}
