//! Addresses of the link that nobody named (RFC 3927, RFC 4291): clouds give their machines' secrets away there.

use std::net::IpAddr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::error::{Error, Result};

fn named(url: &Uri) -> Option<IpAddr> {
    url.host().and_then(|host| host.trim_matches(['[', ']']).parse().ok())
}

fn check(found: IpAddr, registry: Option<IpAddr>) -> std::result::Result<(), String> {
    let of_the_link = match found {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_link_local())
        }
    };
    match of_the_link && registry != Some(found) {
        true => Err(format!("it sends us to {found}, an address of the link that nobody named")),
        false => Ok(()),
    }
}

/// Refuses a URL with such an address.
pub fn check_url(url: &Uri, registry: &Uri) -> Result<()> {
    named(url).map_or(Ok(()), |found| check(found, named(registry)).map_err(Error::new))
}

/// Refuses names that mean such an address, also when it is one in disguise (`http://2852039166/`).
#[derive(Debug)]
pub struct Guard {
    inner: DefaultResolver,
    registry: Option<IpAddr>,
}

impl Guard {
    /// For whatever the registry `host` sends us to.
    pub fn new(host: &str) -> Self {
        Self {
            inner: DefaultResolver::default(),
            registry: format!("http://{host}").parse().ok().as_ref().and_then(named),
        }
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        url: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(url, config, timeout)?;
        for address in found.iter() {
            check(address.ip(), self.registry)
                .map_err(|said| ureq::Error::Io(std::io::Error::other(said)))?;
        }
        Ok(found)
    }
}
