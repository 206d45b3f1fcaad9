//! One registry, spoken to: connections, authorization, redirects, retries. What is asked is `mod.rs`'s matter.
//!
//! `Authorization` is set by hand on each request, and only on one that goes to the registry's own scheme, host and
//! port. No redirect is followed by the HTTP crate, so that no header can follow one.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use ureq::http::{Method, Request, Response, Uri, header, request};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::answer::{backoff, clean, covers, drain, is_loopback, location, message, origin_of, pause};
use super::challenge::{self, Challenge};
use super::token::{self, Authorization, Question};
use super::{address, proxy, stop, tls};
use crate::error::{Error, Result};
use crate::image::source::credentials::{self, Credential};
use crate::image::source::registries::{Place, api_host};
use crate::image::source::{Access, credentials::find};

/// How often a request is sent before its failure counts, and how many redirects one may take.
const MOST_TRIES: u32 = 4;
const MOST_HOPS: u32 = 8;
/// How many connections wait for their next request: those of the pieces of a blob, and of some other blobs.
const MOST_IDLE: usize = 8;
/// What a registry may need to put a large upload together before it answers.
const UPLOAD_STALL: Duration = Duration::from_secs(300);

/// A registry at one place: the repository is the place's.
pub struct Client {
    pub place: Place,
    pub stall: Duration,
    /// The registry's own TLS (its CA, our certificate), and that for whoever it redirects to.
    own: Agent,
    foreign: Agent,
    /// The schemes to try; those before `scheme` have failed.
    schemes: &'static [&'static str],
    scheme: AtomicU8,
    insecure: bool,
    credential: Option<Credential>,
    access: Access,
    tokens: Mutex<HashMap<String, Authorization>>,
    /// It has answered once: a connection that fails now is a fault that may pass.
    met: AtomicBool,
}

/// What is asked of a registry.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    /// A path of the API (`/v2/...`), or a whole URL that the registry gave us.
    pub to: String,
    pub headers: Vec<(&'static str, String)>,
    /// Scopes of the token that this needs: `repository:NAME:pull`.
    pub scopes: Vec<String>,
}

/// What is sent with it. Only bytes at hand can be sent twice.
pub enum Payload<'p> {
    None,
    Bytes(&'p [u8]),
    Stream(&'p mut dyn Read, u64),
}

impl Payload<'_> {
    fn again(&self) -> bool {
        !matches!(self, Self::Stream(..))
    }
}

/// Why a request had no answer.
struct Failure {
    error: Error,
    /// It may pass: it is worth another try.
    passing: bool,
    /// Another scheme may do.
    scheme: bool,
}

impl Client {
    pub fn new(place: Place, access: &Access) -> Result<Self> {
        let host = place.reference.host().to_owned();
        let insecure = match (access.tls_verify, place.insecure) {
            (Some(verify), _) => !verify,
            (None, Some(insecure)) => insecure,
            // As Docker has it: what never leaves this machine needs no TLS.
            (None, None) => is_loopback(&host),
        };
        let config = |tls| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(None)
                .user_agent(concat!("jug/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(access.stall))
                .timeout_per_read(Some(access.stall))
                .timeout_per_write(Some(access.stall))
                .max_response_header_size(64 << 10)
                .max_idle_connections_per_host(MOST_IDLE)
                .tls_config(tls)
                .build()
        };
        let credential = find(access, &place.reference.name())?;
        Ok(Self {
            own: Agent::with_parts(
                config(tls::of(&host, insecure, access)?),
                stop::connector(),
                DefaultResolver::default(),
            ),
            foreign: Agent::with_parts(
                config(tls::plain(insecure)),
                stop::connector(),
                address::Guard::new(&host),
            ),
            schemes: if insecure { &["https", "http"] } else { &["https"] },
            scheme: AtomicU8::new(0),
            stall: access.stall,
            access: access.clone(),
            tokens: Mutex::new(HashMap::new()),
            met: AtomicBool::new(false),
            place,
            insecure,
            credential,
        })
    }

    pub fn host(&self) -> &str {
        self.place.reference.host()
    }

    pub fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// `SCHEME://HOST[:PORT]` of the registry's API.
    pub fn origin(&self) -> String {
        let scheme =
            self.schemes[usize::from(self.scheme.load(Ordering::Relaxed)).min(self.schemes.len() - 1)];
        format!("{scheme}://{}", api_host(self.host()))
    }

    /// Asks until there is an answer: with a token where one is wanted, after redirects, once more after a failure that
    /// may pass. Any status is an answer, see [`Client::refusal`].
    pub fn send(&self, ask: &Ask, mut payload: Payload<'_>) -> Result<Response<Body>> {
        let (mut tries, mut challenged) = (0, false);
        loop {
            tries += 1;
            let authorization = self.known(&ask.scopes);
            let scheme = self.scheme.load(Ordering::Relaxed);
            let last = tries >= MOST_TRIES || !payload.again();
            let response = match self.exchange(ask, &mut payload, authorization.as_deref()) {
                Ok(response) => response,
                Err(failure) if failure.scheme && payload.again() && self.leaves(scheme) => {
                    tries -= 1;
                    continue;
                }
                Err(failure) if failure.passing && !last => {
                    stop::sleep(backoff(tries));
                    continue;
                }
                Err(failure) => return Err(failure.error),
            };
            let Heard { response, foreign } = response;
            let status = response.status().as_u16();
            if status == 401 && !foreign && !challenged && payload.again() {
                challenged = true;
                self.answer(response, &ask.scopes, authorization.as_deref())?;
                continue;
            }
            let wait = if last { None } else { pause(&response, tries) };
            match wait {
                Some(wait) => stop::sleep(wait),
                None => return Ok(response),
            }
        }
    }

    /// Whether there is another scheme than the one that has failed. Several threads may find out at once.
    fn leaves(&self, failed: u8) -> bool {
        let met = self.met.load(Ordering::Relaxed);
        if !met && usize::from(failed) + 1 < self.schemes.len() {
            let _ = self.scheme.compare_exchange(failed, failed + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.scheme.load(Ordering::Relaxed) > failed
    }

    /// One request with the redirects that follow it.
    fn exchange(
        &self,
        ask: &Ask,
        payload: &mut Payload<'_>,
        authorization: Option<&str>,
    ) -> std::result::Result<Heard, Failure> {
        let origin = self.origin();
        let mut url = if ask.to.starts_with('/') { format!("{origin}{}", ask.to) } else { ask.to.clone() };
        let registry: Uri = parse(&origin)?;
        let mut foreign = false;
        for _ in 0..MOST_HOPS {
            let target: Uri = parse(&url)?;
            // Once away, always away: what another host sends us to gets nothing of ours.
            foreign |= origin_of(&target) != origin_of(&registry);
            self.check_target(&target, &registry).map_err(Failure::lasting)?;
            let response = self.once(ask, payload, &target, authorization.filter(|_| !foreign), foreign)?;
            if !foreign {
                self.met.store(true, Ordering::Relaxed);
            }
            let follows = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(Heard { response, foreign });
            }
            url = location(&response, &target).map_err(Failure::lasting)?;
        }
        Err(Failure::lasting(Error::new(format!("{}: more than {MOST_HOPS} redirects", self.host()))))
    }

    fn check_target(&self, target: &Uri, registry: &Uri) -> Result<()> {
        if target.scheme_str() == Some("http") && registry.scheme_str() == Some("https") && !self.insecure {
            return Err(Error::new(format!("{} sends us to {target}, which has no TLS", self.host())));
        }
        address::check_url(target, registry).map_err(|e| e.context(self.host()))
    }

    fn once(
        &self,
        ask: &Ask,
        payload: &mut Payload<'_>,
        target: &Uri,
        authorization: Option<&str>,
        foreign: bool,
    ) -> std::result::Result<Response<Body>, Failure> {
        let upload = !matches!(payload, Payload::None);
        let mut request = Request::builder().method(ask.method.clone()).uri(target);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let agent = if foreign { &self.foreign } else { &self.own };
        let stall = if upload { self.stall.max(UPLOAD_STALL) } else { self.stall };
        match payload {
            // Without a length some registries wait for a body.
            Payload::None if ask.method == Method::POST => self.run(agent, request, &b""[..], target, stall),
            Payload::None => self.run(agent, request, (), target, stall),
            Payload::Bytes(bytes) => self.run(agent, request, *bytes, target, stall),
            Payload::Stream(reader, length) => {
                let request = request.header(header::CONTENT_LENGTH, *length);
                self.run(agent, request, SendBody::from_reader(*reader), target, stall)
            }
        }
    }

    fn run(
        &self,
        agent: &Agent,
        request: request::Builder,
        body: impl AsSendBody,
        target: &Uri,
        stall: Duration,
    ) -> std::result::Result<Response<Body>, Failure> {
        let failed = |e: ureq::http::Error| Failure::lasting(Error::new(format!("{target}: {e}")));
        if stop::stopped() {
            return Err(Failure::lasting(Error::new(format!("{target}: nobody waits for it any more"))));
        }
        let request = agent
            .configure_request(request.body(body).map_err(failed)?)
            .proxy(proxy::of(target).map_err(Failure::lasting)?)
            .timeout_per_read(Some(stall))
            .build();
        agent.run(request).map_err(|e| self.failure(target, &e))
    }

    fn failure(&self, target: &Uri, error: &ureq::Error) -> Failure {
        let met = self.met.load(Ordering::Relaxed);
        let said = error.to_string();
        let what = |words: &str| {
            let at = target.authority().map_or("", |authority| authority.as_str());
            // The registry itself need not be said twice.
            let at = if at == self.host() { String::new() } else { format!("{at}: ") };
            Error::new(format!("{}: {at}{words}", self.host()))
        };
        let (error, passing, scheme) = match error {
            _ if matches!(error, ureq::Error::HostNotFound) || said.contains("failed to lookup address") => {
                (what("no such host").next("check the name, and that this machine resolves it"), met, false)
            }
            ureq::Error::Timeout(which) => {
                (what(&format!("nothing came for {} s ({which})", self.stall.as_secs_f32())), true, false)
            }
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                (what("connection refused").why("no registry listens there"), met, true)
            }
            _ if said.contains("InvalidContentType") => {
                let error = what("the registry speaks HTTP without TLS");
                (
                    error.next("allow it with --tls-verify=false, or insecure = true in registries.conf"),
                    false,
                    true,
                )
            }
            _ if said.contains("certificate") || said.contains("UnknownIssuer") => {
                let next = format!(
                    "put its CA into /etc/containers/certs.d/{}/ca.crt, or give --tls-verify=false",
                    self.host()
                );
                (what(&said).next(next), false, true)
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => (what(&said), false, true),
            ureq::Error::Io(_) | ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed => {
                (what(&said), true, true)
            }
            _ => (what(&said), false, false),
        };
        Failure { error, passing, scheme }
    }

    /// The authorization that is known for some scopes and still good.
    fn known(&self, scopes: &[String]) -> Option<String> {
        let mut tokens = self.tokens();
        let key = scopes.join(" ");
        tokens.retain(|_, known| known.until.is_none_or(|until| until > Instant::now()));
        tokens.get(BASIC).or_else(|| tokens.get(&key)).map(|known| known.value.clone())
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, Authorization>> {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gets what a 401 asks for. One thread does; the others find the token when they have waited.
    fn answer(&self, response: Response<Body>, scopes: &[String], tried: Option<&str>) -> Result<()> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> = headers
            .iter()
            .take(8)
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let key = scopes.join(" ");
        let mut tokens = self.tokens();
        if tokens.get(BASIC).or(tokens.get(&key)).is_some_and(|known| Some(known.value.as_str()) != tried) {
            return Ok(());
        }
        tokens.remove(&key);
        let basic = self.credential.as_ref().and_then(Credential::basic);
        if let Some(bearer) = challenges.iter().find(|its| its.scheme == "bearer") {
            let mut scopes = scopes.to_vec();
            let named = bearer.get("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
            for scope in named {
                if !scopes.iter().any(|ours| covers(ours, scope)) {
                    scopes.push(scope.to_owned());
                }
            }
            tokens.insert(key, self.token(bearer, &scopes)?);
        } else if let (true, Some(basic)) = (challenges.iter().any(|its| its.scheme == "basic"), basic) {
            if tried.is_none() {
                tokens
                    .insert(BASIC.to_owned(), Authorization { value: format!("Basic {basic}"), until: None });
            } else {
                return Err(self.login(Error::new(format!("{}: the password is not accepted", self.host()))));
            }
        } else {
            return Err(self.login(self.refusal("asking", response)));
        }
        Ok(())
    }

    fn login(&self, error: Error) -> Error {
        error.next(format!("jug login {}", self.host()))
    }

    /// Asks the token server that a challenge names.
    fn token(&self, challenge: &Challenge, scopes: &[String]) -> Result<Authorization> {
        let context = |e: Error| e.context(format_args!("{}: its token server", self.host()));
        let registry: Uri = parse(&self.origin()).map_err(|failure| failure.error)?;
        let realm =
            token::check_realm(challenge.get("realm").unwrap_or_default(), &registry).map_err(context)?;
        let (home, other) = (registry.host().unwrap_or_default(), realm.host().unwrap_or_default());
        let theirs;
        let credential = if token::same_site(home, other) {
            self.credential.as_ref()
        } else {
            let authority = realm.authority().map_or(other, |authority| authority.as_str());
            let kept = Access { credential: None, ..self.access.clone() };
            theirs = credentials::find(&kept, authority)?;
            theirs.as_ref()
        };
        let withheld = self.credential.is_some() && credential.is_none();
        let question = token::question(challenge, scopes, credential)?;
        let (status, bytes) = self.ask_token_server(&realm, &registry, &question).map_err(context)?;
        match status {
            200..300 => token::answer(&bytes).map_err(context),
            _ => {
                let said = message(&bytes);
                let error = Error::new(format!("{}: its token server {other}: {status}{said}", self.host()));
                let error = if withheld {
                    error.why(format!("{home}'s password was not sent to {other}, which is of another site"))
                } else {
                    error
                };
                Err(if matches!(status, 401 | 403) { self.login(error) } else { error })
            }
        }
    }

    fn ask_token_server(&self, realm: &Uri, registry: &Uri, question: &Question) -> Result<(u16, Vec<u8>)> {
        let own = origin_of(realm) == origin_of(registry);
        let agent = if own { &self.own } else { &self.foreign };
        let mut tries = 0;
        loop {
            tries += 1;
            let (method, url, basic, body) = match question {
                Question::Get { url, basic } => (Method::GET, url, basic.as_ref(), String::new()),
                Question::Post { url, form } => {
                    let pairs: Vec<String> =
                        form.iter().map(|(name, value)| format!("{name}={}", token::escape(value))).collect();
                    (Method::POST, url, None, pairs.join("&"))
                }
            };
            let mut request = Request::builder().method(method.clone()).uri(url.as_str());
            if let Some(basic) = basic {
                request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
            }
            if method == Method::POST {
                request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            let answer = match method {
                Method::POST => self.run(agent, request, body.as_bytes(), realm, self.stall),
                _ => self.run(agent, request, (), realm, self.stall),
            };
            match answer {
                Ok(response) => match pause(&response, tries).filter(|_| tries < MOST_TRIES) {
                    Some(wait) => stop::sleep(wait),
                    None => return Ok((response.status().as_u16(), drain(response))),
                },
                Err(failure) if failure.passing && tries < MOST_TRIES => stop::sleep(backoff(tries)),
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// A status that is no success, as an error: what was asked, the status, the registry's own words, the next step.
    pub fn refusal(&self, doing: &str, response: Response<Body>) -> Error {
        let (status, place) = (response.status(), &self.place.reference);
        let words = status.canonical_reason().unwrap_or_default();
        let wait =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(clean);
        let code = status.as_u16();
        let said = message(&drain(response));
        let error =
            Error::new(format!("{}: {}: {doing}: {code} {words}{said}", place.host(), place.repository()));
        match code {
            401 | 403 if self.has_credential() => error
                .why("the credentials that are kept do not allow it")
                .next(format!("jug login {}", self.host())),
            401 | 403 => self.login(error),
            404 => error.next("check the name and the tag; a private repository may need `jug login`"),
            429 => match wait {
                Some(wait) => error.next(format!("try again in {wait} s, or log in for a higher limit")),
                None => {
                    error.next(format!("try again later, or `jug login {}` for a higher limit", self.host()))
                }
            },
            _ => error,
        }
    }
}

/// The key under which Basic credentials are kept: they are for every scope.
const BASIC: &str = "basic";

struct Heard {
    response: Response<Body>,
    /// Another host answered.
    foreign: bool,
}

impl Failure {
    fn lasting(error: Error) -> Self {
        Self { error, passing: false, scheme: false }
    }
}

fn parse(url: &str) -> std::result::Result<Uri, Failure> {
    url.parse().map_err(|_| Failure::lasting(Error::new(format!("{:?} is no URL", clean(url)))))
}
