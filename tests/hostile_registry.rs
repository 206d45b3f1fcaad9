//! A registry that lies, stalls, floods and lures: a bounded error each time, and no credential for anybody else.
#![cfg(feature = "engine")]

#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/place.rs"]
mod place;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hostile::{Asked, Body, Hostile, Reply};
use jug::error::Error;
use jug::image::digest;
use jug::image::reference::Transport;
use jug::image::source::credentials::Credential;
use jug::image::source::{self, Access, Source};
use oci_spec::image::{Descriptor, MediaType};
use place::Place;
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn access() -> Access {
    Access {
        tls_verify: Some(false),
        credential: Some(Credential::new("lamb", "secret")),
        stall: Duration::from_millis(700),
        ..Access::default()
    }
}

fn open(server: &Hostile, access: &Access) -> Box<dyn Source> {
    let transport = Transport::parse(&format!("127.0.0.1:{}/a/b:t", server.port)).expect("a name");
    source::open(&transport, access).expect("nothing is asked yet")
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, digest::of(bytes))
}

fn read(source: &dyn Source, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut reader = source.blob(descriptor, offset).map_err(|e| e.to_string())?;
    reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("no error") };
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

fn basic() -> Reply {
    Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"")
}

/// R20, CVE-2020-15157: a redirect takes no credential along, and whoever it leads to gets no answer to a challenge.
#[test]
fn a_redirect_carries_no_credential() {
    let content = b"the layer".to_vec();
    let bytes = content.clone();
    let evil = Hostile::start(move |_, n| match n {
        0 => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"give\""),
        _ => Reply::new(200, bytes.clone()),
    });
    let there = evil.url("/stolen");
    let registry = Hostile::start(move |asked, _| match asked.header("authorization") {
        None => basic(),
        Some(_) if asked.path.ends_with("/moved") => Reply::new(200, "here"),
        Some(_) if asked.path.contains(&digest::of(b"here").to_string()) => {
            Reply::new(307, "").with("Location", "/v2/a/b/moved")
        }
        Some(_) => Reply::new(307, "").with("Location", there.clone()),
    });
    let source = open(&registry, &access());
    let first = read(&*source, &blob(&content), 0);
    assert!(first.expect_err("a challenge there is not answered").contains("401"));
    assert_eq!(read(&*source, &blob(&content), 0), Ok(content));
    let asked = evil.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
    assert!(registry.asked().iter().any(|asked| asked.header("authorization").is_some()));
    // One that stays at the registry is followed with the credential.
    assert_eq!(read(&*source, &blob(b"here"), 0), Ok(b"here".to_vec()));
}

/// The other half: a token server of another site gets no password.
#[test]
fn a_token_server_elsewhere_gets_no_password() {
    let evil = Hostile::start(|_, _| Reply::new(401, r#"{"details":"give it to me"}"#));
    // `localhost` and `127.0.0.1` are two sites.
    let realm = format!("http://localhost:{}/token", evil.port);
    let registry = Hostile::start(move |_, _| {
        Reply::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"x\""))
    });
    refused(open(&registry, &access()).manifest(None), &["was not sent to localhost", "401", "jug login"]);
    let asked = evil.asked();
    assert_eq!(asked.len(), 1);
    let has = |asked: &Asked| asked.header("authorization").is_some() || asked.path.contains("account");
    assert!(!has(&asked[0]), "{asked:?}");
    let identity = Access { credential: Some(Credential::Identity("refresh".into())), ..access() };
    refused(open(&registry, &identity).manifest(None), &["was not sent"]);
    assert!(evil.asked().iter().all(|asked| !has(asked) && asked.body.is_empty()));
}

#[test]
fn links_of_the_cloud_are_not_followed() {
    for (location, word) in [
        ("http://169.254.169.254/latest/meta-data", "nobody named"),
        ("http://[fe80::1]/", "nobody named"),
        ("http://[::ffff:169.254.169.254]/", "nobody named"),
        // The same in disguise: a number, which the resolver takes for an address.
        ("http://2852039166/latest/meta-data", "169.254.169.254, an address of the link that nobody named"),
        ("gopher://x/", "gopher"),
        ("//", "is no URL"),
    ] {
        let registry = Hostile::start(move |_, _| Reply::new(302, "").with("Location", location));
        let begin = Instant::now();
        refused(open(&registry, &access()).manifest(None), &[word]);
        assert!(begin.elapsed() < Duration::from_secs(20), "{location}");
    }
    let round = Hostile::start(|_, _| Reply::new(302, "").with("Location", "/v2/again"));
    refused(open(&round, &access()).manifest(None), &["redirects"]);
    assert!(round.asked().len() < 20);
    let realm = Hostile::start(|_, _| {
        Reply::new(401, "").with("WWW-Authenticate", "Bearer realm=\"http://169.254.169.254/token\"")
    });
    refused(open(&realm, &access()).manifest(None), &["169.254.169.254"]);
}

/// Tokens: asked for with the scope, used, and asked for again when they are refused.
#[test]
fn tokens() {
    let document = br#"{"schemaVersion":2,"manifests":[]}"#;
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let registry = Hostile::start(move |asked, _| {
        let host = asked.header("host").expect("a host").to_owned();
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:a/b:pull\"");
        if asked.path.starts_with("/token") {
            let n = count.fetch_add(1, Ordering::Relaxed);
            return Reply::new(200, format!(r#"{{"access_token":"T{n}","expires_in":3600}}"#));
        }
        // The first token works once.
        let last = format!("Bearer T{}", count.load(Ordering::Relaxed).wrapping_sub(1));
        match asked.header("authorization") {
            Some(token) if token == last && !(token == "Bearer T0" && asked.path.contains("sha256")) => {
                Reply::new(200, *document).with("Content-Type", "application/vnd.oci.image.index.v1+json")
            }
            _ => Reply::new(401, "").with("WWW-Authenticate", challenge),
        }
    });
    let source = open(&registry, &access());
    let (descriptor, bytes) = source.manifest(None).expect("the first token");
    assert_eq!((descriptor.media_type(), bytes.as_slice()), (&MediaType::ImageIndex, &document[..]));
    source.manifest(Some(descriptor.digest())).expect("the second token");
    assert_eq!(given.load(Ordering::Relaxed), 2);
    let asked = registry.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).expect("a question");
    assert!(
        token.path.contains("scope=repository%3Aa%2Fb%3Apull") && token.path.contains("service=s"),
        "{token:?}"
    );
    assert_eq!(token.header("authorization"), Some("Basic bGFtYjpzZWNyZXQ="));
    // A refresh token goes in a form and never in a URL.
    let identity = Access { credential: Some(Credential::Identity("refresh".into())), ..access() };
    let before = registry.asked().len();
    open(&registry, &identity).manifest(None).expect("by a refresh token");
    let asked = &registry.asked()[before..];
    let post = asked.iter().find(|asked| asked.method == "POST").expect("a form");
    assert!(post.body.contains("grant_type=refresh_token") && post.body.contains("refresh_token=refresh"));
    assert!(asked.iter().all(|asked| !asked.path.contains("refresh")));
}

/// R19, CVE-2024-3727: what is not what was asked for is refused.
#[test]
fn other_bytes_than_asked_for() {
    let document = br#"{"schemaVersion":2,"manifests":[]}"#;
    let right = digest::of(document).to_string();
    let wrong = digest::of(b"other").to_string();
    let registry = Hostile::start(move |asked, _| {
        let stated = if asked.path.ends_with("/t") { digest::of(b"lie").to_string() } else { right.clone() };
        Reply::new(200, *document).with("Content-Type", MANIFEST).with("Docker-Content-Digest", stated)
    });
    let source = open(&registry, &access());
    refused(source.manifest(None), &["the registry says"]);
    let wrong: oci_spec::image::Digest = wrong.parse().expect("a digest");
    refused(source.manifest(Some(&wrong)), &["instead"]);
}

/// What is asked for, and what comes instead: a config or a layer that is as good as the one that was meant.
#[test]
fn a_pull_of_other_bytes_than_asked_for() {
    // An archive without an entry.
    const EMPTY: [u8; 1024] = [0; 1024];
    let place = Place::new();
    let config = |author: &str| {
        let rootfs = json!({ "type": "layers", "diff_ids": [digest::of(&EMPTY).to_string()] });
        json!({ "author": author, "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string()
    };
    let (meant, other) = (config("meant"), config("other"));
    for (layer, sent, wanted, found) in [
        (&EMPTY, &other, digest::of(meant.as_bytes()), digest::of(other.as_bytes())),
        (&[b'm'; 1024], &meant, digest::of(&[b'm'; 1024]), digest::of(&EMPTY)),
    ] {
        let manifest = json!({
            "schemaVersion": 2,
            "config": Descriptor::new(MediaType::ImageConfig, meant.len() as u64, digest::of(meant.as_bytes())),
            "layers": [Descriptor::new(MediaType::ImageLayer, 1024, digest::of(layer))],
        });
        let (layer, sent) = (digest::of(layer).to_string(), sent.clone());
        let liar = Hostile::start(move |asked, _| match &asked.path {
            path if path.contains("manifests") => {
                Reply::new(200, manifest.to_string()).with("Content-Type", MANIFEST)
            }
            path if path.contains(&layer) => Reply::new(200, EMPTY),
            _ => Reply::new(200, sent.clone()),
        });
        let name = format!("127.0.0.1:{}/a:t", liar.port);
        place.jug(&["pull", &name]).fails(&[&format!("blob {wanted} has the digest {found}")]);
        assert_eq!(place.jug(&["images", "-q"]).works(), "");
    }
}

#[test]
fn lengths_that_lie_and_bodies_without_end() {
    let content = vec![b'x'; 100_000];
    let wanted = blob(&content);
    type Case = (fn() -> Body, &'static str);
    let cases: [Case; 4] = [
        (|| Body::Bytes(vec![b'x'; 100_001]), "should have 100000"),
        (|| Body::Bytes(vec![b'x'; 99_999]), "should have 100000"),
        (|| Body::Short(vec![b'x'; 50_000], 100_000), ""),
        (|| Body::Endless, "longer"),
    ];
    for (body, words) in cases {
        let registry = Hostile::start(move |_, _| Reply::body(200, body()));
        let begin = Instant::now();
        let said = read(&*open(&registry, &access()), &wanted, 0).expect_err(words);
        assert!(said.contains(words) && begin.elapsed() < Duration::from_secs(20), "{words}: {said}");
        refused(
            open(&registry, &access())
                .manifest(None)
                .and_then(|(_, bytes)| jug::image::manifest::parse(&bytes, None).map(drop)),
            &[],
        );
        assert!(begin.elapsed() < Duration::from_secs(20), "{words}");
    }
}

#[test]
fn who_stalls_is_left() {
    let wanted = blob(&vec![b'x'; 100_000]);
    for body in [|| Body::Stall(vec![b'x'; 10], 100_000), || Body::Drip(100_000)] {
        let registry = Hostile::start(move |_, _| Reply::body(200, body()));
        let begin = Instant::now();
        let said = read(&*open(&registry, &access()), &wanted, 0).expect_err("it stalls");
        assert!(said.contains("sha256:"), "{said}");
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(500) && took < Duration::from_secs(20), "{took:?}");
    }
    let silent = Hostile::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        Reply::new(200, "")
    });
    let begin = Instant::now();
    refused(open(&silent, &access()).manifest(None), &["nothing came for 0.7 s"]);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(silent.asked().len(), 4, "it was asked again, and not for ever");
}

#[test]
fn busy_registries_are_asked_again() {
    let document = br#"{"schemaVersion":2,"manifests":[]}"#;
    let registry = Hostile::start(move |_, n| match n {
        0 => Reply::new(429, "").with("Retry-After", "1"),
        1 => Reply::new(503, ""),
        _ => Reply::new(200, *document).with("Content-Type", "application/vnd.oci.image.index.v1+json"),
    });
    let begin = Instant::now();
    open(&registry, &access()).manifest(None).expect("at the third time");
    assert!(begin.elapsed() >= Duration::from_secs(1), "it waits as long as it was told");
    assert_eq!(registry.asked().len(), 3);
    let limit = Hostile::start(|_, _| {
        Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[31m down"}]}"#)
            .with("Retry-After", "86400")
    });
    let begin = Instant::now();
    refused(open(&limit, &access()).manifest(None), &["429", "TOOMANYREQUESTS: slow[31m down", "86400 s"]);
    assert!(begin.elapsed() < Duration::from_secs(20) && limit.asked().len() == 1, "a day is not waited for");
}

#[test]
fn what_is_there_is_not_asked_for_again() {
    let content: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let wanted = blob(&content);
    let bytes = content.clone();
    let ranged = Hostile::start(move |asked, _| match asked.header("range") {
        Some("bytes=70000-") => {
            Reply::new(206, &bytes[70_000..]).with("Content-Range", "bytes 70000-99999/100000")
        }
        Some(other) => panic!("{other}"),
        None => Reply::new(200, bytes.clone()),
    });
    let source = open(&ranged, &access());
    assert_eq!(read(&*source, &wanted, 70_000).as_deref(), Ok(&content[70_000..]));
    assert_eq!(read(&*source, &wanted, 0).as_deref(), Ok(&content[..]));
    let before = ranged.asked().len();
    assert_eq!(read(&*source, &wanted, 100_000).as_deref(), Ok(&[][..]));
    assert_eq!(ranged.asked().len(), before, "nothing is left to be asked for");
    // A server that does not know Range sends everything, and what is there is passed over.
    let bytes = content.clone();
    let whole = Hostile::start(move |_, _| Reply::new(200, bytes.clone()));
    assert_eq!(read(&*open(&whole, &access()), &wanted, 70_000).as_deref(), Ok(&content[70_000..]));
    // One that begins elsewhere would make a blob of two halves that do not fit.
    for range in ["bytes 69999-99998/100000", "bytes */100000", ""] {
        let bytes = content.clone();
        let shifted =
            Hostile::start(move |_, _| Reply::new(206, &bytes[70_000..]).with("Content-Range", range));
        let said = read(&*open(&shifted, &access()), &wanted, 70_000).expect_err(range);
        assert!(said.contains("from 70000 on"), "{said}");
    }
}

/// A blob that comes in pieces: nine, the last of which is small.
static LARGE: LazyLock<Arc<Vec<u8>>> =
    LazyLock::new(|| Arc::new((0..(32 << 20) + 12_345_usize).map(|n| (n / 1000) as u8).collect()));
const PIECE: usize = 4 << 20;
/// How many pieces of a pull come ahead of their turn at the same time.
const PLACES: usize = 4;

fn large() -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, LARGE.len() as u64, digest::of(b"anything"))
}

/// Much has to come through a busy machine here.
fn patient() -> Access {
    Access { stall: Duration::from_secs(60), ..access() }
}

/// One after the other: they count threads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads of this process fetch pieces.
fn fetchers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name == "piece\n").count()
}

/// What `Range: bytes=FIRST-[LAST]` asks for: the first byte, and the one after the last if that was said.
fn range(asked: &Asked) -> (usize, Option<usize>) {
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.unwrap_or(("0", ""));
    (first.parse().expect("a number"), last.parse().ok().map(|last: usize| last + 1))
}

/// The truth.
fn part(asked: &Asked) -> Reply {
    let (first, end) = range(asked);
    let end = end.unwrap_or(LARGE.len());
    let said = format!("bytes {first}-{}/{}", end - 1, LARGE.len());
    match asked.header("range") {
        Some(_) => Reply::new(206, &LARGE[first..end]).with("Content-Range", said),
        None => Reply::new(200, LARGE.to_vec()),
    }
}

/// Waits until a server was asked so often, and sees that it stays so.
fn settles(server: &Hostile, times: usize) {
    let begin = Instant::now();
    while server.asked().len() < times && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.asked().len(), times);
}

/// How many of the requests had no end.
fn open_ended(server: &Hostile) -> usize {
    server.asked().iter().filter(|asked| range(asked).1.is_none()).count()
}

#[test]
fn a_large_blob_comes_in_pieces_several_at_a_time() {
    let _alone = alone();
    let crowd = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let seen = crowd.clone();
    let pieces = Hostile::start(move |asked, before| {
        // Nobody gets anything before all are there that come: the first one decides, and the others follow.
        let mut counts = seen.0.lock().expect("the counts");
        counts.0 += 1;
        counts.1 = counts.0.max(counts.1);
        seen.1.notify_all();
        let waits = |counts: &mut (usize, usize)| before > 0 && counts.1 < PLACES;
        let all = seen.1.wait_timeout_while(counts, Duration::from_secs(10), waits);
        all.expect("the counts").0.0 -= 1;
        part(asked)
    });
    let source = open(&pieces, &patient());
    assert!(read(&*source, &large(), 0).expect("the blob") == **LARGE);
    assert_eq!(crowd.0.lock().expect("the counts").1, PLACES, "at the same time");
    let mut asked: Vec<_> = pieces.asked().iter().map(range).collect();
    asked.sort_unstable();
    let wanted = (0..LARGE.len()).step_by(PIECE).map(|at| (at, Some(LARGE.len().min(at + PIECE))));
    assert_eq!(asked, wanted.collect::<Vec<_>>(), "each byte once");
    assert_eq!(fetchers(), 0);
    // From another byte on, and where no more is left than one request is good for.
    assert!(read(&*source, &large(), 1).expect("the blob") == LARGE[1..]);
    assert_eq!(open_ended(&pieces), 0);
    let rest = LARGE.len() - 70_000;
    assert!(read(&*source, &large(), rest as u64).expect("the rest") == LARGE[rest..]);
    assert_eq!(range(pieces.asked().last().expect("a request")), (rest, None));
}

#[test]
fn who_knows_no_ranges_is_read_as_one_stream() {
    let _alone = alone();
    let whole = Hostile::start(|_, _| Reply::new(200, LARGE.to_vec()));
    assert!(read(&*open(&whole, &patient()), &large(), 0).expect("the blob") == **LARGE);
    assert_eq!(whole.asked().len(), 1);
    assert!(read(&*open(&whole, &patient()), &large(), 7).expect("the blob") == LARGE[7..]);
    // Those who refuse the first piece, or send another one, are asked for all.
    for bad in ["400", "416", "bytes 0-4194303/5", "bytes 0-4194303/*", "bytes 0-4194302/33566777", ""] {
        let other = Hostile::start(move |asked, _| match (range(asked).1, bad) {
            (None, _) => part(asked),
            (_, "400" | "416") => Reply::new(bad.parse().expect("a status"), ""),
            _ => Reply::new(206, &LARGE[..PIECE]).with("Content-Range", bad),
        });
        assert!(read(&*open(&other, &patient()), &large(), 0).expect(bad) == **LARGE, "{bad}");
        assert_eq!((other.asked().len(), open_ended(&other)), (2, 1), "{bad}");
    }
}

/// A registry that changes its mind is asked once for all that is missing.
#[test]
fn later_pieces_that_do_not_come_come_by_one_stream() {
    let _alone = alone();
    for bad in ["200", "404", "416", "first", "last", "total", "length", "none"] {
        let liar = Hostile::start(move |asked, before| {
            let (first, end) = range(asked);
            let (Some(end), true) = (end, before >= 3) else { return part(asked) };
            let (last, size) = (end - 1, LARGE.len());
            let (said, end) = match bad {
                "200" => return Reply::new(200, LARGE.to_vec()),
                "404" | "416" => return Reply::new(bad.parse().expect("a status"), ""),
                "first" => (format!("bytes {}-{last}/{size}", first - 1), end),
                "last" => (format!("bytes {first}-{}/{size}", last + 1), end),
                "total" => (format!("bytes {first}-{last}/{}", size + 1), end),
                "length" => (format!("bytes {first}-{last}/{size}"), last),
                _ => (String::new(), end),
            };
            Reply::new(206, &LARGE[first..end]).with("Content-Range", said)
        });
        assert!(read(&*open(&liar, &patient()), &large(), 0).expect(bad) == **LARGE, "{bad}");
        assert_eq!(open_ended(&liar), 1, "{bad}");
        assert_eq!(fetchers(), 0, "{bad}");
    }
    // Where that fails as well, what came in its order is kept, and the error is the registry's.
    let gone = Hostile::start(|asked, before| if before < 3 { part(asked) } else { Reply::new(404, "") });
    let mut reader = open(&gone, &patient()).blob(&large(), 0).expect("the first piece");
    let mut got = Vec::new();
    let said = reader.read_to_end(&mut got).expect_err("the rest").to_string();
    assert!(said.contains("404"), "{said}");
    assert!(got.len() >= PIECE && got[..] == LARGE[..got.len()], "{}", got.len());
}

/// Each piece is asked for as every blob is: again where it is worth it, with a token here and without one elsewhere.
#[test]
fn pieces_are_asked_for_as_blobs_are() {
    let _alone = alone();
    let storage = Hostile::start(|asked, before| match before {
        // Busy, once each.
        2 | 5 => Reply::new(503, ""),
        _ => part(asked),
    });
    let there = storage.url("/storage");
    let registry = Hostile::start(move |asked, _| match asked.header("authorization") {
        None => basic(),
        Some(_) => Reply::new(307, "").with("Location", there.clone()),
    });
    assert!(read(&*open(&registry, &patient()), &large(), 0).expect("the blob") == **LARGE);
    let asked = storage.asked();
    assert_eq!(asked.len(), LARGE.len().div_ceil(PIECE) + 2);
    assert_eq!(open_ended(&storage), 0);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()));
}

/// A piece that breaks off, or stalls, breaks the stream off there, and not before.
#[test]
fn a_piece_that_breaks_off() {
    let _alone = alone();
    let third = 2 * PIECE;
    for stalls in [false, true] {
        let server = Hostile::start(move |asked, _| match range(asked) {
            (at, Some(end)) if at == third => {
                let (half, length) = (LARGE[at..at + PIECE / 2].to_vec(), PIECE as u64);
                let body = if stalls { Body::Stall(half, length) } else { Body::Short(half, length) };
                Reply::body(206, body)
                    .with("Content-Range", format!("bytes {at}-{}/{}", end - 1, LARGE.len()))
            }
            _ => part(asked),
        });
        let source = open(&server, &Access { stall: Duration::from_secs(3), ..access() });
        let mut reader = source.blob(&large(), 0).expect("the first piece");
        let (mut got, begin) = (Vec::new(), Instant::now());
        let said = reader.read_to_end(&mut got).expect_err("it breaks off").to_string();
        assert!(said.contains("sha256:") && begin.elapsed() < Duration::from_secs(20), "{said}");
        assert!(got == LARGE[..third + PIECE / 2], "{}", got.len());
        drop(reader);
        assert_eq!(fetchers(), 0);
        let rest = read(&*source, &large(), got.len() as u64).expect("the rest");
        assert!(rest == LARGE[got.len()..]);
    }
}

#[test]
fn who_reads_no_more_ends_all_that_fetches() {
    let _alone = alone();
    for silent in [false, true] {
        let server = Hostile::start(move |asked, before| match (before, range(asked)) {
            (0, _) => part(asked),
            // An answer that does not come, one that ends in the middle, and one that is to be waited for.
            (1, _) if silent => {
                std::thread::sleep(Duration::from_secs(8));
                Reply::new(200, "")
            }
            (2, _) if silent => Reply::new(503, "").with("Retry-After", "50"),
            (_, (at, end)) => {
                let end = end.expect("an end");
                Reply::body(206, Body::Stall(LARGE[at..at + 1000].to_vec(), (end - at) as u64))
                    .with("Content-Range", format!("bytes {at}-{}/{}", end - 1, LARGE.len()))
            }
        });
        let source = open(&server, &patient());
        let mut reader = source.blob(&large(), 0).expect("the first piece");
        reader.read_exact(&mut [0; 1000]).expect("the first bytes");
        settles(&server, 1 + PLACES);
        assert_eq!(fetchers(), PLACES);
        let begin = Instant::now();
        drop(reader);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        assert_eq!(fetchers(), 0);
        settles(&server, 1 + PLACES);
    }
}

/// However many blobs come at the same time, no more waits for its turn than of one.
#[test]
fn many_blobs_share_the_places() {
    let _alone = alone();
    const BLOBS: usize = 6;
    let server = Hostile::start(|asked, _| part(asked));
    let source = open(&server, &patient());
    let mut readers: Vec<_> = (0..BLOBS).map(|_| source.blob(&large(), 0).expect("a blob")).collect();
    for reader in &mut readers {
        reader.read_exact(&mut [0; 1000]).expect("the first bytes");
    }
    settles(&server, BLOBS + PLACES);
    let end = |mut reader: Box<dyn Read + Send>| {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the rest");
        assert!(rest == LARGE[1000..]);
    };
    // One that has no place goes on by itself, in larger pieces; and takes the places when they are free.
    let (first, last) = (readers.remove(0), readers.pop().expect("a reader"));
    end(last);
    let lengths = |from: usize| -> Vec<usize> {
        server.asked()[from..].iter().map(range).map(|(at, end)| end.expect("an end") - at).collect()
    };
    let before = BLOBS + PLACES;
    assert!(matches!(lengths(before)[..], [a, b] if a > PIECE && b > PIECE), "{:?}", lengths(before));
    drop(first);
    std::thread::scope(|scope| readers.into_iter().for_each(|reader| drop(scope.spawn(|| end(reader)))));
    assert!(lengths(before).into_iter().filter(|length| *length == PIECE).count() >= PLACES);
    assert_eq!((open_ended(&server), fetchers()), (0, 0));
}

#[test]
fn proxies() {
    let proxy = Hostile::start(|_, _| Reply::new(502, ""));
    let mut place = Place::new();
    place.env.push(("https_proxy".into(), format!("http://127.0.0.1:{}", proxy.port)));
    let said = place.jug(&["pull", "registry.invalid/x:t"]);
    assert_eq!(said.code, 125);
    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| asked.method == "CONNECT"),
        "{asked:?} {}",
        said.err
    );
    assert_eq!(asked[0].path, "registry.invalid:443");
    place.env.push(("NO_PROXY".into(), "invalid".into()));
    place.jug(&["pull", "registry.invalid/x:t"]).fails(&["no such host"]);
    assert_eq!(proxy.asked().len(), asked.len(), "a host that NO_PROXY spares is asked directly");
}
