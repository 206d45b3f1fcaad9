//! pull, push, login and logout against Debian's docker-registry, with skopeo as the other reader and writer.
#![cfg(feature = "engine")]

#[path = "registry/place.rs"]
mod place;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use place::{DockerRegistry, Place, free_port};
use serde_json::{Value, json};

/// The digest of the configuration of an image that skopeo sees, without its algorithm.
fn id(place: &Place, image: &str) -> String {
    let raw = place.skopeo(&["inspect", "--raw", "--tls-verify=false", image]);
    let manifest: Value = serde_json::from_str(&raw).expect("a manifest");
    let digest = manifest["config"]["digest"].as_str().expect("a digest");
    digest.strip_prefix("sha256:").expect("sha256").to_owned()
}

#[test]
fn what_skopeo_writes_jug_reads_and_the_reverse() {
    let here = Place::new();
    let registry = DockerRegistry::plain(&here);
    for (name, compression, format) in [
        ("oci-gzip", "gzip", "oci"),
        ("oci-zstd", "zstd", "oci"),
        ("oci-plain", "none", "oci"),
        ("docker-gzip", "gzip", "v2s2"),
    ] {
        // A store of its own: where a layer is already there, another compression of it is not downloaded.
        let place = Place::new();
        let layout = place.image(name, "amd64", compression);
        let here = registry.name(&format!("from/skopeo:{name}"));
        let copy = ["copy", "-q", "--format", format, "--dest-tls-verify=false", &layout];
        place.skopeo(&[&copy[..], &[&format!("docker://{here}")]].concat());
        let said = place.jug(&["pull", &here]).works();
        assert_eq!(said.trim_end(), id(&place, &format!("docker://{here}")), "{name}");
        // A second pull finds everything there.
        assert_eq!(place.jug(&["pull", "-q", &here]).works(), said);
        // Under its own name it goes elsewhere, with the same digest and the same bytes.
        let there = registry.name(&format!("from/jug:{name}"));
        let digest = place.jug(&["push", &here, &there]).works();
        let inspected: Value = serde_json::from_str(&place.skopeo(&[
            "inspect",
            "--tls-verify=false",
            &format!("docker://{there}"),
        ]))
        .expect("JSON");
        assert_eq!(digest.trim_end(), inspected["Digest"], "{name}");
        let copied = format!("oci:{}:t", place.text(&format!("{name}-back")));
        place.skopeo(&["copy", "-q", "--src-tls-verify=false", &format!("docker://{there}"), &copied]);
    }
    // What another repository has is mounted from there, and not sent again.
    let log = registry.log();
    assert!(log.contains("mount=sha256"), "blobs are borrowed from a neighbour: {log}");
}

/// An image whose lower layer came with another one, in another compression, goes out with the blob that is there.
#[test]
fn layers_that_came_compressed_in_another_way_are_pushed() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let [gzip, zstd] = ["gzip", "zstd"].map(|compression| {
        let name = registry.name(&format!("mixed/{compression}:t"));
        let pulled = place.jug(&["pull", "-q", &place.image(compression, "amd64", compression)]).works();
        place.jug(&["tag", pulled.trim_end(), &name]).works();
        name
    });
    let wanted = place.jug(&["image", "inspect", "-f", "{{.Id}}", &zstd]).works();
    for (tag, before) in [("first", None), ("second", Some(["rmi", &gzip]))] {
        before.map(|verb| place.jug(&verb).works());
        let there = registry.name(&format!("mixed/sent:{tag}"));
        let digest = place.jug(&["push", &zstd, &there]).works();
        assert_eq!(format!("sha256:{}\n", id(&place, &format!("docker://{there}"))), wanted, "{tag}");
        let layout = format!("oci:{}:t", place.text(&format!("back-{tag}")));
        place.skopeo(&["copy", "-q", "--src-tls-verify=false", &format!("docker://{there}"), &layout]);
        let other = place.text(&format!("store-{tag}"));
        let pulled = place.run(env!("CARGO_BIN_EXE_jug"), &["--root", &other, "pull", "-q", &layout]);
        assert_eq!(format!("sha256:{pulled}"), wanted, "{tag}");
        assert!(digest.starts_with("sha256:"), "{digest}");
    }
    let archive = place.text("saved.tar");
    place.jug(&["save", "-o", &archive, &zstd]).works();
    place.skopeo(&["inspect", &format!("docker-archive:{archive}")]);
}

/// docker-registry knows ranges: a large layer comes in pieces, and is what was sent.
#[test]
fn a_large_layer_comes_in_pieces() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    // What compresses to nothing less than itself.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let file = place.write("made/noise", noise.take(40 << 20).collect::<Vec<u8>>());
    let (archive, dir) = (place.text("made.tar"), file.parent().expect("a parent").display().to_string());
    place.run("/usr/bin/tar", &["-cf", &archive, "-C", &dir, "noise"]);
    let name = registry.name("large:t");
    let id = place.jug(&["import", &archive, &name]).works();
    place.jug(&["push", &name]).works();
    let other = place.text("other");
    let jug = |args: &[&str]| place.run(env!("CARGO_BIN_EXE_jug"), &[&["--root", &other], args].concat());
    assert_eq!(id, format!("sha256:{}", jug(&["pull", "-q", &name])));
    jug(&["system", "fsck", "--deep"]);
    let log = registry.log();
    let pieces = log.lines().filter(|line| line.contains("http.response.status=206")).count();
    assert_eq!(pieces, 11, "{log}");
}

#[test]
fn names_of_etc_hosts_resolve_in_a_static_program() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let layout = place.image("hosts", "amd64", "gzip");
    let to = format!("docker://127.0.0.1:{}/x:t", registry.port);
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &to]);
    let hosts = fs::read_to_string("/etc/hosts").expect("/etc/hosts");
    let lines = hosts.lines().filter_map(|line| line.split('#').next()?.split_once(char::is_whitespace));
    let names =
        lines.filter(|(address, _)| *address == "127.0.0.1").flat_map(|(_, names)| names.split_whitespace());
    let mut asked = 0;
    for name in names.filter(|name| !name.contains('_')) {
        // A bare name would be a repository of Docker's: `HOST:PORT/...` says that it is a host.
        place.jug(&["pull", "-q", "--tls-verify=false", &format!("{name}:{}/x:t", registry.port)]).works();
        asked += 1;
    }
    assert!(asked > 0, "no name of 127.0.0.1 in /etc/hosts");
    place.jug(&["pull", "no-such-host.invalid/x"]).fails(&["no such host", "next:"]);
}

#[test]
fn the_entry_for_the_platform() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let mut entries = Vec::new();
    for arch in ["amd64", "arm64"] {
        let layout = place.image(arch, arch, "gzip");
        let there = format!("docker://{}", registry.name(&format!("multi:{arch}")));
        place.skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &there]);
        let raw = place.skopeo(&["inspect", "--raw", "--tls-verify=false", &there]);
        let digest = jug::image::digest::of(raw.as_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let platform = json!({ "os": "linux", "architecture": arch });
        entries.push(
            json!({ "mediaType": media_type, "digest": digest, "size": raw.len(), "platform": platform }),
        );
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    put_index(&registry.name("multi:all"), index.to_string().as_bytes());
    let name = registry.name("multi:all");
    for arch in ["arm64", "amd64"] {
        let said = place.jug(&["pull", "-q", "--platform", &format!("linux/{arch}"), &name]).works();
        assert_eq!(
            said.trim_end(),
            id(&place, &format!("docker://{}", registry.name(&format!("multi:{arch}"))))
        );
    }
    place.jug(&["pull", "--platform", "linux/s390x", &name]).fails(&["linux/s390x", "linux/arm64"]);
    place.jug(&["pull", "--platform", "nonsense", &name]).fails(&["is no platform"]);
    // Every tag: three of them, one of which is an index.
    let all = place.jug(&["pull", "-q", "-a", "--policy", "missing", &registry.name("multi")]);
    // The image for the other machine is refused, by name.
    all.fails(&["linux/arm64"]);
}

/// Puts an index by our own client.
fn put_index(name: &str, bytes: &[u8]) {
    use jug::image::reference::Transport;
    use oci_spec::image::{Descriptor, MediaType};
    let transport = Transport::parse(name).expect("a name");
    let to = jug::image::source::destination(&transport, &jug::image::source::Access::default())
        .expect("a registry");
    let descriptor =
        Descriptor::new(MediaType::ImageIndex, bytes.len() as u64, jug::image::digest::of(bytes));
    to.put_manifest(&descriptor, bytes, true).expect("put");
}

#[test]
fn errors_say_what_and_what_next() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let host = format!("localhost:{}", registry.port);
    let missing = registry.name("no/such:t");
    place.jug(&["pull", &missing]).fails(&[&host, "no/such", "404", "manifest unknown", "next:"]);
    let nobody = format!("localhost:{}/x", free_port());
    place.jug(&["pull", &nobody]).fails(&["connection refused"]);
    place.jug(&["pull", "UPPER"]).fails(&["lower-case"]);
    place.jug(&["pull", "--policy", "never", &missing]).fails(&["no"]);
    place.jug(&["pull"]).fails(&["IMAGE"]);
    place.jug(&["push", "none:t"]).fails(&["none:t"]);
    place.jug(&["pull", "docker-daemon:x"]).fails(&["docker-daemon", "oci:"]);
}

/// A CA of the test's own, and a certificate of it for this machine.
fn certificates(place: &Place) {
    let at = |name: &str| place.text(name);
    place.write("ca/x", "");
    let ca = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let (key, crt) = (at("ca/ca.key"), at("ca/ca.crt"));
    place.run("openssl", &[&ca[..], &["-subj", "/CN=the test's", "-keyout", &key, "-out", &crt]].concat());
    let (request, own) = (at("ca/own.csr"), at("ca/own.key"));
    let ask =
        ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"];
    place.run("openssl", &[&ask[..], &["-keyout", &own, "-out", &request]].concat());
    let names = place.write("ca/names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n").display().to_string();
    let (signed, serial) = (at("ca/own.crt"), at("ca/ca.srl"));
    let sign =
        ["x509", "-req", "-days", "2", "-in", &request, "-CA", &crt, "-CAkey", &key, "-CAcreateserial"];
    place.run("openssl", &[&sign[..], &["-CAserial", &serial, "-extfile", &names, "-out", &signed]].concat());
    place.write("certs/ca.crt", fs::read(&crt).expect("the CA"));
}

fn tls(place: &Place, more: &str) -> String {
    format!(
        "  tls:\n    certificate: {}\n    key: {}\n{more}",
        place.text("ca/own.crt"),
        place.text("ca/own.key")
    )
}

#[test]
fn tls_with_a_ca_of_ones_own() {
    let mut place = Place::new();
    certificates(&place);
    let registry = DockerRegistry::start(&place, &tls(&place, ""), "");
    let layout = place.image("tls", "amd64", "gzip");
    let name = registry.name("x:t");
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &format!("docker://{name}")]);
    let unknown = place.jug(&["pull", "--tls-verify", &name]);
    unknown.fails(&["certificate", "/etc/containers/certs.d/", "--tls-verify=false"]);
    let certs = place.text("certs");
    place.jug(&["pull", "-q", "--tls-verify=true", "--cert-dir", &certs, &name]).works();
    place
        .jug(&["push", "-q", "--tls-verify=true", "--cert-dir", &certs, &name, &registry.name("y:t")])
        .works();
    place.jug(&["pull", "-q", "--tls-verify=false", &name]).works();
    // The same CA by its place in the caller's configuration.
    let host = format!("home/.config/containers/certs.d/localhost:{}/ca.crt", registry.port);
    place.write(&host, fs::read(place.path("certs/ca.crt")).expect("the CA"));
    place.jug(&["pull", "-q", "--tls-verify=true", &name]).works();
    // A server that asks for a certificate of ours.
    let (client, ca) = (place.text("certs"), place.text("ca/ca.crt"));
    let strict = DockerRegistry::start(&place, &tls(&place, &format!("    clientcas:\n      - {ca}\n")), "");
    let name = strict.name("x:none");
    place.env.push(("SSL_CERT_FILE".into(), ca));
    let refused = place.jug(&["pull", "--tls-verify=true", &name]);
    assert!(refused.code == 125 && !refused.err.contains("404"), "{}", refused.err);
    for (name, file) in [("own.cert", "own.crt"), ("own.key", "own.key")] {
        fs::copy(place.path("ca").join(file), place.path("certs").join(name)).expect("a copy");
    }
    // Now it lets us in, and has no such image.
    place.jug(&["pull", "--tls-verify=true", "--cert-dir", &client, &name]).fails(&["404"]);
}

#[test]
fn a_registry_without_tls_is_named_as_such() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    place
        .jug(&["pull", "--tls-verify=true", &registry.name("x")])
        .fails(&["HTTP without TLS", "--tls-verify=false"]);
}

fn with_password(place: &Place) -> DockerRegistry {
    let hashed = place.run("htpasswd", &["-Bbn", "lamb", "secret"]);
    let file = place.write("htpasswd", hashed).display().to_string();
    DockerRegistry::start(place, "", &format!("auth:\n  htpasswd:\n    realm: test\n    path: {file}\n"))
}

#[test]
fn login_and_logout() {
    let place = Place::new();
    let registry = with_password(&place);
    let host = format!("localhost:{}", registry.port);
    let layout = place.image("login", "amd64", "gzip");
    let name = registry.name("x:t");
    let to = format!("docker://{name}");
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds=lamb:secret", &layout, &to]);

    place.jug(&["pull", &name]).fails(&["401", &format!("next: jug login {host}")]);
    let wrong = place.jug_with(&["login", "-u", "lamb", "--password-stdin", &host], "wrong\n");
    assert!(!wrong.err.contains("wrong\n"), "the password is not shown");
    wrong.fails(&["login failed", "401", "invalid user name or password"]);
    assert!(!place.path("run/containers/auth.json").exists(), "what is refused is not kept");
    place.jug(&["login", "--get-login", &host]).fails(&["not logged into", &host]);

    let said = place.jug_with(&["login", "-u", "lamb", "--password-stdin", &host], "secret\n").works();
    assert_eq!(said, "Login Succeeded!\n");
    let file = place.path("run/containers/auth.json");
    assert_eq!(fs::metadata(&file).expect("kept").permissions().mode() & 0o777, 0o600);
    assert_eq!(place.jug(&["login", "--get-login", &host]).works(), "lamb\n");
    place.jug(&["pull", "-q", &name]).works();
    place.jug(&["push", "-q", &name, &registry.name("y:t")]).works();
    // Podman and skopeo find it there as well.
    place.skopeo(&["inspect", "--tls-verify=false", &to]);

    assert_eq!(place.jug(&["logout", &host]).works(), format!("Removed login credentials for {host}\n"));
    place.jug(&["pull", &registry.name("y:t")]).fails(&["401"]);
    place.jug(&["logout", &host]).fails(&["not logged into"]);
    place.jug(&["pull", "-q", "--creds", "lamb:secret", &registry.name("y:t")]).works();
}

#[test]
fn credentials_of_others() {
    let mut place = Place::new();
    let registry = with_password(&place);
    let host = format!("localhost:{}", registry.port);
    let layout = place.image("others", "amd64", "gzip");
    let name = registry.name("a/b:t");
    let to = format!("docker://{name}");
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds=lamb:secret", &layout, &to]);
    // Docker's file; a wrong entry for a longer part of the name wins, and is refused.
    let entry = |user: &str| json!({ "auth": base64(&format!("{user}:secret")) });
    let docker = |auths: Value| json!({ "auths": auths, "HttpHeaders": {} }).to_string();
    place.write("home/.docker/config.json", docker(json!({ host.as_str(): entry("lamb") })));
    place.jug(&["pull", "-q", &name]).works();
    let deeper = json!({ host.as_str(): entry("lamb"), format!("{host}/a"): entry("wolf") });
    place.write("home/.docker/config.json", docker(deeper));
    place.jug(&["pull", &name]).fails(&["401"]);
    // A helper: its program is asked for the host on its stdin.
    let script = "#!/bin/sh\nread host\n[ \"$1 $host\" = \"get $EXPECTED\" ] ||\n\
                  { echo credentials not found in native keychain; exit 1; }\n\
                  echo '{\"ServerURL\":\"x\",\"Username\":\"lamb\",\"Secret\":\"secret\"}'\n";
    program::script(place.write("bin/docker-credential-test", ""), script);
    let helpers = json!({ "credHelpers": { host.as_str(): "test" } }).to_string();
    let file = place.write("auth.json", helpers).display().to_string();
    place.env.push(("EXPECTED".into(), host.clone()));
    place.jug(&["pull", "-q", "--authfile", &file, &name]).works();
    place.env.push(("REGISTRY_AUTH_FILE".into(), file.clone()));
    place.jug(&["pull", "-q", &name]).works();
    place.env.push(("EXPECTED".into(), "another".into()));
    place.jug(&["pull", &name]).fails(&["401"]);
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn registries_conf() {
    let mut place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let layout = place.image("mirrored", "amd64", "gzip");
    let to = format!("docker://{}", registry.name("mirror/app:t"));
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &to]);
    let (port, closed) = (registry.port, free_port());
    let conf = format!(
        "unqualified-search-registries = [\"localhost:{closed}\", \"example.test\"]\n\
         [aliases]\n\"short\" = \"example.test/app\"\n\
         [[registry]]\nprefix = \"example.test\"\nlocation = \"localhost:{closed}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"localhost:{closed}/nobody\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"localhost:{port}/mirror\"\ninsecure = true\n\
         [[registry]]\nprefix = \"blocked.test\"\nblocked = true\n"
    );
    let file = place.write("registries.conf", conf).display().to_string();
    place.env.push(("CONTAINERS_REGISTRIES_CONF".into(), file));
    // The second mirror has it; its name stays what it was called.
    place.jug(&["pull", "-q", "example.test/app:t"]).works();
    assert!(
        place.jug(&["images"]).works().contains("example.test/app"),
        "{}",
        place.jug(&["images"]).works()
    );
    place.jug(&["pull", "-q", "short:t"]).works();
    place.jug(&["pull", "-q", "app:t"]).works();
    place.jug(&["pull", "blocked.test/app:t"]).fails(&["blocked", "registries.conf"]);
    place.jug(&["push", "example.test/app:t", "blocked.test/app:t"]).fails(&["blocked"]);
    // What nobody has: the registry's own error counts, not a mirror's.
    place.jug(&["pull", "example.test/app:other"]).fails(&["connection refused"]);
}

#[test]
fn policy_json() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let layout = place.image("policy", "amd64", "gzip");
    let name = registry.name("x:t");
    place.skopeo(&["copy", "-q", "--dest-tls-verify=false", &layout, &format!("docker://{name}")]);
    let policy = |kind: &str| {
        let scope = format!("localhost:{}", registry.port);
        let text = json!({
            "default": [{ "type": "insecureAcceptAnything" }],
            "transports": { "docker": { scope: [{ "type": kind, "keyPath": "/x" }] } },
        });
        place.write("home/.config/containers/policy.json", text.to_string());
    };
    policy("reject");
    place.jug(&["pull", &name]).fails(&["is refused", "policy.json", "rejects"]);
    policy("sigstoreSigned");
    place.jug(&["pull", &name]).fails(&["sigstoreSigned", "cannot verify signatures"]);
    assert!(!place.jug(&["images"]).works().contains("localhost"), "nothing came");
    place.jug(&["pull", "-q", &layout]).works();
    policy("insecureAcceptAnything");
    place.jug(&["pull", "-q", &name]).works();
}

#[test]
fn policies_of_pull() {
    let place = Place::new();
    let registry = DockerRegistry::plain(&place);
    let name = registry.name("x:t");
    let there = format!("docker://{name}");
    let first = place.image("first", "amd64", "gzip");
    let second = place.image("second", "amd64", "gzip");
    let copy = |layout: &str| place.skopeo(&["copy", "-q", "--dest-tls-verify=false", layout, &there]);
    copy(&first);
    let old = place.jug(&["pull", "-q", &name]).works();
    copy(&second);
    let pull = |when: &str| place.jug(&["pull", "-q", "--policy", when, &name]).works();
    assert_eq!(pull("missing"), old);
    assert_eq!(pull("never"), old);
    let new = pull("newer");
    assert_ne!(new, old);
    assert_eq!(new, pull("always"));
    drop(registry);
    assert_eq!(pull("newer"), new, "what is there will do");
    place.jug(&["pull", "--policy", "always", &name]).fails(&["connection refused"]);
}
