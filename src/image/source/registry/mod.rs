//! A registry as distribution-spec 1.1 has it: what is asked, and what its answers mean.
//!
//! No ping: the first request is the one for the image, and a challenge is answered when it comes.

mod address;
mod answer;
mod body;
pub(crate) mod challenge;
mod client;
mod proxy;
mod stop;
mod tls;
mod token;
mod upload;
mod wide;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest, MediaType};
use ureq::Body;
use ureq::http::{Method, Response};

use super::registries::{Place, Registries};
use super::{Access, LONGEST_MANIFEST, Source};
use crate::error::{Error, Result};
use crate::image::digest;
use crate::image::manifest::{DOCKER_LIST, DOCKER_MANIFEST};
use crate::image::reference::Reference;
use client::{Ask, Client, Payload};
pub use upload::Upload;

/// A repository with all the places that it may be read from: mirrors first.
pub struct Registry {
    reference: Reference,
    places: Vec<Client>,
    /// The place that answered last.
    best: AtomicUsize,
    /// For what comes ahead of its turn.
    room: wide::Room,
}

impl Registry {
    /// What a pull reads from.
    pub fn for_pull(reference: &Reference, access: &Access) -> Result<Handle> {
        let places = Registries::load()?.places(reference)?;
        let places = places.into_iter().map(|place| Client::new(place, access)).collect::<Result<_>>()?;
        let (reference, best) = (reference.clone(), AtomicUsize::new(0));
        Ok(Handle(Arc::new(Self { reference, places, best, room: wide::Room::default() })))
    }

    /// What a push writes to: never a mirror.
    pub fn for_push(reference: &Reference, access: &Access) -> Result<Upload> {
        let place = Registries::load()?.place(reference)?;
        Upload::new(Client::new(place, access)?, access)
    }

    pub(super) fn name(&self) -> String {
        self.reference.name()
    }

    fn stall(&self) -> Duration {
        self.places.iter().map(|place| place.stall).min().unwrap_or_default()
    }

    /// Asks one place after the other, the last good one first. The error is that of the last, which is the registry.
    fn first<T>(&self, ask: impl Fn(&Client) -> Result<T>) -> Result<T> {
        let best = self.best.load(Ordering::Relaxed);
        let mut failed = None;
        let order = std::iter::once(best).chain((0..self.places.len()).filter(|i| *i != best));
        for (i, place) in order.filter_map(|i| Some((i, self.places.get(i)?))) {
            match ask(place) {
                Ok(answer) => {
                    self.best.store(i, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if failed.is_none() || i + 1 == self.places.len() => failed = Some(error),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(format!("{}: no place to ask", self.name()))))
    }

    /// Asks for the bytes of a blob from `first` on, up to `end` where that is given. The answer says what comes.
    fn ask_blob(&self, digest: &str, first: u64, end: Option<u64>) -> Result<Response<Body>> {
        self.first(|client| {
            let mut ask = pull(client, &format!("blobs/{digest}"));
            match end {
                Some(end) => ask.headers.push(("range", format!("bytes={first}-{}", end - 1))),
                None if first > 0 => ask.headers.push(("range", format!("bytes={first}-"))),
                None => {}
            }
            let response = client.send(&ask, Payload::None)?;
            match response.status().as_u16() {
                200 | 206 => Ok(response),
                // What some say to whatever has a range: they may know the blob.
                400 | 416 if end.is_some() => Ok(response),
                _ => Err(client.refusal(&format!("blob {digest}"), response)),
            }
        })
    }
}

/// A request that reads from the repository.
fn pull(client: &Client, path: &str) -> Ask {
    let repository = client.place.reference.repository();
    Ask {
        method: Method::GET,
        to: format!("/v2/{repository}/{path}"),
        headers: Vec::new(),
        scopes: vec![format!("repository:{repository}:pull")],
    }
}

/// The manifests that we understand; a registry converts, or answers 404, for a client that does not say so.
fn accepted() -> String {
    [MediaType::ImageIndex.as_ref(), DOCKER_LIST, MediaType::ImageManifest.as_ref(), DOCKER_MANIFEST]
        .join(", ")
}

fn ask_manifest(client: &Client, wanted: &str) -> Result<(Descriptor, Vec<u8>)> {
    let mut ask = pull(client, &format!("manifests/{wanted}"));
    ask.headers.push(("accept", accepted()));
    let response = client.send(&ask, Payload::None)?;
    if response.status().as_u16() != 200 {
        return Err(client.refusal(&format!("manifest {wanted}"), response));
    }
    let text =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (media_type, stated) = (text("content-type"), text("docker-content-digest"));
    // A parameter (`; charset=utf-8`) is no part of the type.
    let media_type = media_type.unwrap_or_default();
    let media_type = MediaType::from(media_type.split(';').next().unwrap_or_default().trim());
    let name = client.place.reference.name();
    let mut bytes = Vec::new();
    let limit = LONGEST_MANIFEST as u64 + 1;
    let mut body = response.into_body().into_with_config().limit(limit + 1).reader().take(limit);
    let failed = |why: &dyn std::fmt::Display| Error::new(format!("{name}: manifest {wanted}: {why}"));
    body.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() > LONGEST_MANIFEST {
        return Err(failed(&format_args!("longer than {LONGEST_MANIFEST} bytes")));
    }
    let digest = digest::of(&bytes);
    match stated {
        Some(stated) if stated.starts_with("sha256:") && stated != digest.as_ref() => {
            Err(failed(&format_args!("the registry says {stated}, but its bytes are {digest}")))
        }
        _ => Ok((Descriptor::new(media_type, bytes.len() as u64, digest), bytes)),
    }
}

/// A registry that is read from.
pub struct Handle(Arc<Registry>);

impl Source for Handle {
    fn manifest(&self, digest: Option<&Digest>) -> Result<(Descriptor, Vec<u8>)> {
        let named = self.0.reference.digest();
        let wanted = digest.or(named).map(ToString::to_string);
        let (mut descriptor, bytes) = self.0.first(|client| {
            let wanted = wanted.as_deref().unwrap_or(client.place.reference.wanted());
            ask_manifest(client, wanted)
        })?;
        if let Some(wanted) = digest.or(named) {
            if wanted.as_ref().starts_with("sha256:") && wanted != descriptor.digest() {
                let (name, found) = (self.0.name(), descriptor.digest());
                return Err(Error::new(format!(
                    "{name}: manifest {wanted}: the registry sent {found} instead"
                )));
            }
            descriptor.set_digest(wanted.clone());
        }
        Ok((descriptor, bytes))
    }

    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        wide::open(self.0.clone(), descriptor, offset)
    }
}

/// The tags of a repository, all pages, at most 10,000.
pub fn tags(reference: &Reference, access: &Access) -> Result<Vec<String>> {
    const MOST: usize = 10_000;
    let handle = Registry::for_pull(reference, access)?;
    handle.0.first(|client| {
        let (mut found, mut ask) = (Vec::new(), pull(client, "tags/list"));
        loop {
            let response = client.send(&ask, Payload::None)?;
            if response.status().as_u16() != 200 {
                return Err(client.refusal("tags", response));
            }
            let next =
                response.headers().get("link").and_then(|value| value.to_str().ok()).and_then(next_page);
            let read = response.into_body().into_with_config().limit(LONGEST_MANIFEST as u64).read_to_vec();
            let failed =
                |why: &dyn std::fmt::Display| Error::new(format!("{}: tags: {why}", reference.name()));
            let page: Page =
                serde_json::from_slice(&read.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
            let tags = page.tags.unwrap_or_default();
            let stands_still = tags.is_empty();
            found.extend(tags.into_iter().filter(|tag| reference.with_tag(tag).is_ok()));
            match next {
                Some(path) if !stands_still && found.len() < MOST => ask.to = path,
                _ => return Ok(found),
            }
        }
    })
}

#[derive(serde::Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

/// `Link: </v2/...>; rel="next"`: only a path of the same registry is followed.
fn next_page(link: &str) -> Option<String> {
    let path = link.strip_prefix('<')?.split_once('>')?.0;
    (path.starts_with("/v2/") && link.contains("next")).then(|| path.to_owned())
}

/// Whether a registry takes the credential for `HOST[/REPOSITORY]`: `jug login` asks before it keeps anything.
pub fn check_login(key: &str, access: &Access) -> Result<()> {
    // What stands first is the host here, dot or no dot, and no other location of registries.conf takes its place: the
    // password is for this host.
    let (host, repository) = key.split_once('/').unwrap_or((key, "login"));
    let reference = Reference::new(host, repository, None, None)?;
    let insecure = Registries::load()?.place(&reference)?.insecure;
    let place = Place { reference, insecure };
    let client = Client::new(place, access)?;
    let ask = Ask { method: Method::GET, to: "/v2/".to_owned(), headers: Vec::new(), scopes: Vec::new() };
    let response = client.send(&ask, Payload::None)?;
    match response.status().as_u16() {
        200..300 => Ok(()),
        401 | 403 => Err(Error::new(format!("{key}: {}: invalid user name or password", response.status()))
            .next("try again; some registries want an access token in the password's place")),
        _ => Err(client.refusal("login", response)),
    }
}
