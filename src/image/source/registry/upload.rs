//! A push: blobs are mounted from a neighbour or uploaded in one stream, manifests are put (distribution-spec, "Push").

use std::io::Read;

use oci_spec::image::Descriptor;
use ureq::Body;
use ureq::http::{Method, Response, Uri};

use super::answer::location;
use super::client::{Ask, Client, Payload};
use super::token::escape;
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::image::source::{Access, Destination};

/// Most neighbours that are asked to lend a blob.
const MOST_NEIGHBOURS: usize = 4;

/// A repository that is pushed to.
pub struct Upload {
    client: Client,
    /// Repositories of the same registry that may have the blobs.
    neighbours: Vec<Reference>,
}

impl Upload {
    pub fn new(client: Client, access: &Access) -> Result<Self> {
        let here = &client.place.reference;
        let near = |its: &&Reference| its.host() == here.host() && its.repository() != here.repository();
        let neighbours = access.also_in.iter().filter(near).take(MOST_NEIGHBOURS).cloned().collect();
        Ok(Self { client, neighbours })
    }

    fn ask(&self, method: Method, path: &str) -> Ask {
        let repository = self.client.place.reference.repository();
        let to = format!("/v2/{repository}/{path}");
        let scopes = vec![format!("repository:{repository}:pull,push")];
        Ask { method, to, headers: Vec::new(), scopes }
    }

    /// Where an upload goes on, as a URL. An address with our own host keeps our own scheme: registries behind a proxy
    /// often do not know that they have TLS.
    fn continues_at(&self, response: &Response<Body>) -> Result<String> {
        let origin = self.client.origin();
        let from: Uri = origin.parse().map_err(|_| Error::new(format!("{origin:?} is no URL")))?;
        let url = location(response, &from)?;
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let ours = from.authority().map_or("", |authority| authority.as_str());
        match rest.strip_prefix(ours).filter(|path| path.starts_with('/')) {
            Some(path) => Ok(path.to_owned()),
            None => Ok(url),
        }
    }

    /// Takes a blob over from a neighbour. A registry that does not begins an upload instead, which is ended again.
    fn mount(&self, descriptor: &Descriptor, from: &Reference) -> Result<bool> {
        let query = format!(
            "blobs/uploads/?mount={}&from={}",
            escape(descriptor.digest().as_ref()),
            escape(from.repository())
        );
        let mut ask = self.ask(Method::POST, &query);
        ask.scopes.push(format!("repository:{}:pull", from.repository()));
        let response = self.client.send(&ask, Payload::None)?;
        match response.status().as_u16() {
            201 => Ok(true),
            202 => {
                let ask = Ask { to: self.continues_at(&response)?, ..self.ask(Method::DELETE, "") };
                self.client.send(&ask, Payload::None).map(|_| false)
            }
            // Not allowed to read there: then there is nothing to mount.
            _ => Ok(false),
        }
    }
}

impl Destination for Upload {
    fn at_once(&self) -> usize {
        4
    }

    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = descriptor.digest();
        let response =
            self.client.send(&self.ask(Method::HEAD, &format!("blobs/{digest}")), Payload::None)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => {
                for neighbour in &self.neighbours {
                    if self.mount(descriptor, neighbour)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Err(self.client.refusal(&format!("blob {digest}"), response)),
        }
    }

    fn put_blob(&self, descriptor: &Descriptor, bytes: &mut (dyn Read + Send)) -> Result<()> {
        let (digest, size) = (descriptor.digest(), descriptor.size());
        let doing = format!("upload of blob {digest}");
        let begun = self.client.send(&self.ask(Method::POST, "blobs/uploads/"), Payload::None)?;
        if begun.status().as_u16() != 202 {
            return Err(self.client.refusal(&doing, begun));
        }
        let to = self.continues_at(&begun)?;
        drop(begun);
        let joint = if to.contains('?') { '&' } else { '?' };
        let mut ask = self.ask(Method::PUT, "");
        ask.to = format!("{to}{joint}digest={}", escape(digest.as_ref()));
        ask.headers.push(("content-type", "application/octet-stream".to_owned()));
        // A reader that ends early must not look like a blob that is whole.
        let mut exact = bytes.take(size);
        let response = match size {
            0 => self.client.send(&ask, Payload::Bytes(b""))?,
            _ => self.client.send(&ask, Payload::Stream(&mut exact, size))?,
        };
        match response.status().as_u16() {
            201 | 204 => Ok(()),
            _ => Err(self.client.refusal(&doing, response)),
        }
    }

    fn put_manifest(&self, descriptor: &Descriptor, bytes: &[u8], named: bool) -> Result<()> {
        let reference = &self.client.place.reference;
        let digest = descriptor.digest();
        let name = match reference.tag() {
            Some(tag) if named => tag.to_owned(),
            _ => digest.to_string(),
        };
        if let (true, Some(fixed)) = (named, reference.digest())
            && fixed != digest
        {
            return Err(Error::new(format!("{reference} names {fixed}, but the image is {digest}")));
        }
        let mut ask = self.ask(Method::PUT, &format!("manifests/{name}"));
        ask.headers.push(("content-type", descriptor.media_type().to_string()));
        let response = self.client.send(&ask, Payload::Bytes(bytes))?;
        if !matches!(response.status().as_u16(), 200..=202) {
            return Err(self.client.refusal(&format!("manifest {name}"), response));
        }
        let stated = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match stated {
            Some(stated) if stated.starts_with("sha256:") && stated != digest.as_ref() => {
                Err(Error::new(format!("{reference}: the registry keeps {stated} instead of {digest}")))
            }
            _ => Ok(()),
        }
    }
}
