//! A blob as it comes in: from the byte on that was asked for, as long as it says, given up where it stalls.
//!
//! Taking up what broke off is the receiver's part, who knows what it has: it asks again, from there on.

use std::io::{Error, ErrorKind, Read, Result};
use std::sync::Arc;
use std::time::Instant;

use ureq::http::Response;
use ureq::{Body, BodyReader};

use super::Registry;

/// Fewer bytes than this in one stall's time are no progress: a server that drips holds nobody.
const LEAST_PROGRESS: u64 = 1024;

/// A blob that is being read from `at` on, up to `end`.
pub struct Incoming {
    registry: Arc<Registry>,
    digest: String,
    at: u64,
    end: u64,
    size: u64,
    body: Option<BodyReader<'static>>,
    /// When the present stretch of reading began, and at which byte.
    since: (Instant, u64),
}

impl Incoming {
    pub fn new(registry: Arc<Registry>, digest: String, at: u64, size: u64) -> Self {
        Self { registry, digest, at, end: size, size, body: None, since: (Instant::now(), at) }
    }

    /// Asks for all the bytes that follow.
    pub fn connect(&mut self) -> crate::error::Result<()> {
        if self.at >= self.size {
            return Ok(());
        }
        let response = self.registry.ask_blob(&self.digest, self.at, None)?;
        self.accept(response)
    }

    /// Asks for the bytes before `end`, and no others. An answer that is not exactly these is given back.
    pub fn connect_until(&mut self, end: u64) -> crate::error::Result<Option<Response<Body>>> {
        let response = self.registry.ask_blob(&self.digest, self.at, Some(end))?;
        let says = |name: &str, wanted: String| {
            response.headers().get(name).map(|value| value.as_bytes() == wanted.as_bytes())
        };
        let range = says("content-range", format!("bytes {}-{}/{}", self.at, end - 1, self.size));
        let length = says("content-length", (end - self.at).to_string());
        if response.status().as_u16() != 206 || range != Some(true) || length == Some(false) {
            return Ok(Some(response));
        }
        self.end = end;
        self.begin(response, 0).map(|()| None)
    }

    /// Takes an answer that holds all the bytes that follow.
    pub fn accept(&mut self, response: Response<Body>) -> crate::error::Result<()> {
        let skip = self.check(&response)?;
        self.begin(response, skip)
    }

    fn begin(&mut self, response: Response<Body>, skip: u64) -> crate::error::Result<()> {
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let skipped = std::io::copy(&mut (&mut body).take(skip), &mut std::io::sink());
        if skipped.map_err(|e| self.wrong(&e.to_string()))? < skip {
            return Err(self.wrong("it ended too early"));
        }
        self.body = Some(body);
        self.since = (Instant::now(), self.at);
        Ok(())
    }

    /// How many bytes of an answer are to be passed over: none if the server began where it was told to.
    fn check(&self, response: &Response<Body>) -> crate::error::Result<u64> {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length: Option<u64> = text("content-length").and_then(|digits| digits.parse().ok());
        let (skip, whole) = if response.status().as_u16() == 206 {
            let range = text("content-range").unwrap_or_default();
            let first = range.strip_prefix("bytes ").and_then(|rest| rest.split_once('-'));
            if first.is_none_or(|(first, _)| first.parse() != Ok(self.at)) {
                return Err(self.wrong(&format!("asked for bytes from {} on, it sent {range:?}", self.at)));
            }
            (0, length.map(|length| length.saturating_add(self.at)))
        } else {
            (self.at, length)
        };
        match whole {
            Some(whole) if whole != self.size => {
                Err(self.wrong(&format!("it should have {} bytes, the registry has {whole}", self.size)))
            }
            _ => Ok(skip),
        }
    }

    fn wrong(&self, why: &str) -> crate::error::Error {
        crate::error::Error::new(format!("{}: blob {}: {why}", self.registry.name(), self.digest))
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let (Some(body), false) = (&mut self.body, buf.is_empty()) else { return Ok(0) };
        let n = body.read(buf).map_err(|e| Error::new(e.kind(), self.wrong(&e.to_string()).what()))?;
        let left = self.end - self.at;
        if n == 0 && left > 0 {
            let why = format!("it ended {left} bytes too early");
            return Err(Error::new(ErrorKind::UnexpectedEof, self.wrong(&why).what()));
        }
        if n as u64 > left {
            return Err(Error::new(
                ErrorKind::InvalidData,
                self.wrong("it is longer than it should be").what(),
            ));
        }
        self.at += n as u64;
        let (began, from) = self.since;
        if began.elapsed() >= self.registry.stall() {
            if self.at - from < LEAST_PROGRESS && self.at < self.end {
                return Err(Error::new(ErrorKind::TimedOut, self.wrong("it hardly moves").what()));
            }
            self.since = (Instant::now(), self.at);
        }
        Ok(n)
    }
}
