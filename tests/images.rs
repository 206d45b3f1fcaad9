//! The verbs about images: what Docker's and Podman's users expect, with images of rootfs-builder, and with skopeo and
//! umoci as independent readers and writers.
#![cfg(feature = "engine")]

#[path = "support/store.rs"]
mod store;

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use store::{Said, Shop};

/// Three layers: the second hides a file of the first and all of a directory, the third has one file more.
const LAYERS: &str = r#"
tag = "jug/layers:latest"
[config]
cmd = ["/bin/sh"]
env = ["PATH=/bin", "A=b"]
labels = { "purpose" = "test" }
[[layer]]
files = [
    { path = "/bin/tool", content = "one", mode = 0o755 },
    { path = "/etc/old", content = "old" },
    { path = "/var/cache/a", content = "a", uid = 7, gid = 8 },
    { path = "/tmp", dir = true, mode = 0o1777 },
]
[[layer]]
whiteouts = ["/etc/old"]
opaque = ["/var/cache"]
files = [{ path = "/etc/new", content = "new" }]
[[layer]]
files = [{ path = "/tmp/x", content = "x" }]
"#;

fn layers(tag: &str, more: &str) -> String {
    LAYERS.replace("jug/layers:latest", tag) + more
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn an_image_is_listed_named_and_removed() {
    let shop = Shop::new("images");
    let layout = shop.image("oci", "layout", LAYERS);
    let id = shop.ok(&["pull", &layout]).trim().to_owned();
    shop.ok(&["tag", &id, "jug/layers", "localhost:5000/other:v1"]);
    let table = shop.ok(&["images"]);
    assert!(table.starts_with("REPOSITORY"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let names = shop.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(names, "jug/layers:latest\nlocalhost:5000/other:v1\n");
    assert_eq!(shop.ok(&["images", "-q"]), format!("{}\n", &id[..12]));
    assert_eq!(shop.ok(&["images", "-q", "--no-trunc", "localhost:5000/*"]), format!("sha256:{id}\n"));
    assert_eq!(shop.ok(&["images", "--format", "json", "jug/layers"]).lines().count(), 1);
    assert_eq!(shop.ok(&["images", "-q", "--filter", "reference=nothing"]), "");
    assert_eq!(shop.ok(&["images", "-q", "--filter", "label=purpose=test"]).lines().count(), 1);
    assert_eq!(shop.ok(&["images", "-q", "--filter", "dangling=true"]), "");
    for name in ["jug/layers", "docker.io/jug/layers:latest", &id, &id[..5], &format!("sha256:{id}")] {
        assert_eq!(
            shop.ok(&["image", "inspect", name, "--format", "{{.Id}}"]),
            format!("sha256:{id}\n"),
            "{name}"
        );
    }
    shop.fails(&["rmi", &id[..12]], &["several names", "--force"]);
    assert_eq!(shop.ok(&["rmi", "jug/layers"]), "Untagged: jug/layers:latest\n");
    let last = shop.ok(&["rmi", "localhost:5000/other:v1"]);
    assert_eq!(last, format!("Untagged: localhost:5000/other:v1\nDeleted: sha256:{id}\n"));
    for directory in ["blobs/sha256", "layers", "images", "names"] {
        assert_eq!(shop.list(directory), [""; 0], "left in {directory}");
    }
    shop.fails(&["rmi", "jug/layers"], &["no such image"]);
    shop.ok(&["rmi", "--ignore", "jug/layers"]);
}

#[test]
fn inspect_history_and_formats() {
    let shop = Shop::new("inspect");
    shop.ok(&["pull", &shop.image("oci", "layout", LAYERS)]);
    let id = shop.ok(&["images", "-q"]).trim().to_owned();
    shop.ok(&["tag", &id, "jug/layers"]);
    let all = json(&shop.ok(&["image", "inspect", "jug/layers"]));
    assert_eq!(all[0]["Config"]["Env"][1], "A=b");
    assert_eq!(all[0]["RepoTags"][0], "jug/layers:latest");
    assert_eq!(all[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));
    assert_eq!(all[0]["Os"], "linux");
    let one = |format: &str| shop.ok(&["image", "inspect", "--format", format, "jug/layers"]);
    assert_eq!(one("{{json .Config.Cmd}}"), "[\"/bin/sh\"]\n");
    assert_eq!(one("{{index .Config.Labels \"purpose\"}} {{len .RootFS.Layers}}"), "test 3\n");
    shop.fails(
        &["image", "inspect", "--format", "{{.Nothing}}", "jug/layers"],
        &["there is no field Nothing"],
    );
    let history = shop.ok(&["history", "jug/layers"]);
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(history.starts_with("IMAGE") && history.contains("CREATED BY"), "{history}");
    assert_eq!(shop.ok(&["history", "-q", "jug/layers"]).lines().next(), Some(&*id));
    let df = shop.ok(&["system", "df", "--format", "json"]);
    assert_eq!(json(df.lines().next().expect("a row"))["TotalCount"], "1");
    assert_eq!(json(&shop.ok(&["system", "info", "--format", "json"]))[0]["Images"], 1);
}

/// What is unpacked is what the archive says: hidden files, opaque directories, and owners that a layer does not name.
#[test]
fn layers_are_as_their_archives_say() {
    let shop = Shop::new("unpacked");
    shop.ok(&["pull", &shop.image("oci", "layout", LAYERS)]);
    let id = shop.ok(&["images", "-q"]);
    let dirs = shop.ok(&["image", "inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", id.trim()]);
    let dirs: Vec<&str> = dirs.trim().split(':').rev().collect();
    assert_eq!(dirs.len(), 3);
    assert_eq!(fs::read(format!("{}/bin/tool", dirs[0])).expect("a file"), b"one");
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let whiteout = fs::symlink_metadata(format!("{}/etc/old", dirs[1])).expect("a whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0, "overlayfs.rst, whiteouts");
    let tmp = fs::metadata(format!("{}/tmp", dirs[2])).expect("a directory that no entry names");
    assert_eq!(tmp.mode() & 0o7777, 0o1777, "as in the layer below");
}

#[test]
fn saved_and_loaded_it_is_the_same() {
    let (shop, id) =
        (Shop::new("save"), |shop: &Shop| shop.ok(&["images", "-q", "--no-trunc", "jug/layers"]));
    shop.ok(&["pull", &shop.image("oci", "layout", LAYERS)]);
    let first = shop.ok(&["images", "-q"]);
    shop.ok(&["tag", first.trim(), "jug/layers"]);
    let wanted = (id(&shop), shop.trees());
    for (format, file) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar"), ("oci-dir", "o.dir")] {
        let path = shop.dir.join(file).display().to_string();
        shop.ok(&["save", "--format", format, "-o", &path, "jug/layers"]);
        let other = shop.beside(format);
        other.ok(&["load", "-i", &path]);
        if format == "oci-dir" {
            let id = other.ok(&["images", "-q"]);
            other.ok(&["tag", id.trim(), "jug/layers"]);
        }
        assert_eq!((id(&other), other.trees()), wanted, "{format}");
        other.is_whole();
        // skopeo reads it, too, and finds the same config.
        let kind = if format == "oci-dir" { "oci" } else { format };
        let seen =
            Command::new("skopeo").args(["inspect", "--config", "--raw", &format!("{kind}:{path}")]).output();
        let seen = Said::of(&seen.expect("skopeo"));
        assert_eq!(seen.code, Some(0), "skopeo: {}", seen.err);
        assert_eq!(json(&seen.out)["config"]["Env"][1], "A=b", "{format}");
    }
    // By pipes, and compressed.
    let (tar, other) = (shop.dir.join("d.tar"), shop.beside("pipe"));
    let piped = format!(
        "gzip -c {} | {} --root {} load",
        tar.display(),
        env!("CARGO_BIN_EXE_jug"),
        other.root.display()
    );
    let loaded = Said::of(&Command::new("sh").args(["-c", &piped]).output().expect("sh"));
    assert_eq!(loaded.out, "Loaded image: jug/layers:latest\n", "{}", loaded.err);
    let saved = other.command(&["save", "jug/layers"]).stdout(Stdio::piped()).output().expect("jug");
    assert!(saved.status.success() && saved.stdout.len() > 1024);
    assert_eq!(other.list("staging"), [""; 0]);
}

#[test]
fn several_images_in_one_archive() {
    let shop = Shop::new("several");
    let names = ["jug/layers:one", "jug/layers:two", "localhost/jug/hello:latest"];
    let id = shop.ok(&["pull", &shop.image("oci", "layout", LAYERS)]);
    shop.ok(&["tag", id.trim(), names[0], names[1]]);
    shop.ok(&["pull", "hello"]);
    let listed = |shop: &Shop| {
        let mut rows: Vec<String> = shop
            .ok(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
            .lines()
            .map(str::to_owned)
            .collect();
        rows.retain(|row| names.iter().any(|name| row.starts_with(name)));
        rows.sort();
        rows
    };
    assert_eq!(listed(&shop).len(), 3);
    for (format, skopeo) in
        [("docker-archive", "jug/layers:two"), ("oci-archive", "docker.io/jug/layers:two")]
    {
        let path = shop.dir.join(format).display().to_string();
        shop.ok(&[&["save", "--format", format, "-o", &path][..], &names].concat());
        let other = shop.beside(&format!("{format}-loaded"));
        assert_eq!(other.ok(&["load", "-i", &path]).lines().count(), 3, "{format}");
        assert_eq!(listed(&other), listed(&shop), "{format}");
        other.is_whole();
        let of = format!("{format}:{path}:{skopeo}");
        let seen =
            Said::of(&Command::new("skopeo").args(["inspect", "--config", &of]).output().expect("skopeo"));
        assert_eq!(seen.code, Some(0), "{of}: {}", seen.err);
    }
    shop.fails(&["save", "-o", "/dev/null", names[0], "nobody"], &["nobody"]);
}

#[test]
fn skopeo_and_umoci_write_what_is_pulled() {
    let shop = Shop::new("skopeo");
    let layout = shop.image("oci", "layout", LAYERS);
    let archive = format!("docker-archive:{}/s.tar:jug/skopeo:v1", shop.dir.display());
    let copied = Command::new("skopeo")
        .args(["copy", "-q", &format!("{layout}:jug/layers:latest"), &archive])
        .output();
    assert!(Said::of(&copied.expect("skopeo")).code == Some(0));
    let plain = format!("docker-archive:{}/s.tar", shop.dir.display());
    shop.ok(&["pull", &plain]);
    assert_eq!(shop.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "jug/skopeo:v1\n");
    let path = layout.strip_prefix("oci:").expect("a layout");
    let umoci =
        ["config", "--image", &format!("{path}:jug/layers:latest"), "--tag", "second", "--config.env", "U=1"];
    let said = Said::of(&Command::new("umoci").args(umoci).output().expect("umoci"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let second = shop.ok(&["pull", &format!("{layout}:second")]);
    let env = shop.ok(&["image", "inspect", "--format", "{{json .Config.Env}}", second.trim()]);
    assert!(env.contains("U=1"), "{env}");
    assert_eq!(shop.list("layers").len(), 3, "the same layers, differently compressed, are there once");
    shop.is_whole();
}

#[test]
fn a_tarball_is_imported() {
    let shop = Shop::new("import");
    let tar = shop.image("tar", "root.tar.gz", &layers("x", ""));
    let path = tar.strip_prefix("tar:").expect("a path");
    let change = ["--change", "CMD [\"/bin/tool\"]", "--change", "ENV A=b", "--change", "USER 7"];
    let id = shop.ok(&[&["import", path, "jug/imported:1", "-m", "by hand"], &change[..]].concat());
    let all = json(&shop.ok(&["image", "inspect", "jug/imported:1"]));
    assert_eq!(all[0]["Id"], id.trim());
    assert_eq!((&all[0]["Config"]["Cmd"][0], &all[0]["Config"]["User"]), (&"/bin/tool".into(), &"7".into()));
    assert!(shop.ok(&["history", "jug/imported:1"]).contains("by hand"));
    shop.fails(&["import", path, "--change", "RUN true"], &["the word is unknown"]);
    shop.is_whole();
}

/// Nothing is asked and nothing written for an image that is there.
#[test]
fn what_is_there_is_not_fetched_again() {
    let shop = Shop::new("there");
    let (layout, other) =
        (shop.image("oci", "layout", LAYERS), shop.image("oci", "more", &layers("m", MORE)));
    shop.ok(&["pull", &layout]);
    let before: Vec<_> = shop.list("layers").iter().map(|name| written(&shop, name)).collect();
    let said = shop.jug(&["pull", &other]);
    assert_eq!(said.err.matches("Already exists").count(), 3, "{}", said.err);
    assert_eq!(said.err.matches("Done").count(), 1, "{}", said.err);
    let after: Vec<_> = shop.list("layers").iter().map(|name| written(&shop, name)).collect();
    assert!(before.iter().all(|layer| after.contains(layer)), "layers of another image are the same ones");
}

const MORE: &str = "[[layer]]\nfiles = [{ path = \"/more\", content = \"more\" }]\n";

fn written(shop: &Shop, layer: &str) -> (u64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(shop.root.join("layers").join(layer)).expect("a layer");
    (meta.ino(), meta.ctime())
}

/// The image that jug carries needs no registry, and is the same in every store.
#[test]
fn hello_is_carried_along() {
    let (shop, other) = (Shop::new("hello"), Shop::new("hello-again"));
    let id = shop.ok(&["image", "inspect", "--format", "{{.Id}}", "jug/hello"]);
    assert_eq!(shop.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "localhost/jug/hello:latest\n");
    assert_eq!(other.ok(&["image", "inspect", "--format", "{{.Id}}", "hello"]), id, "reproducible");
    let tree = shop.ok(&["image", "inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", "hello"]);
    let hello = Command::new("chroot").args([tree.trim(), "/bin/hello"]).output().expect("chroot(1)");
    assert!(
        String::from_utf8_lossy(&hello.stdout).starts_with("Hello from a container of jug."),
        "{hello:?}"
    );
    let line = "cd /etc; cat group";
    let inside = ["PATH=/bin", "/usr/sbin/chroot", tree.trim(), "/bin/sh", "-c", line];
    let shell = Command::new("env").args(inside).output();
    assert_eq!(String::from_utf8_lossy(&shell.expect("chroot(1)").stdout), "root:x:0:\nnogroup:x:65534:\n");
    shop.fails(&["image", "inspect", "hello-world"], &["no such image"]);
    shop.is_whole();
    shop.empties();
}

/// CVE-2026-57231: an entry without `=` would take its value from whoever runs the image.
#[test]
fn an_environment_of_the_host_is_refused() {
    let shop = Shop::new("env");
    for entry in ["*", "SECRET", "=x", ""] {
        let layout = shop.image("oci", "layout", LAYERS);
        let path = layout.strip_prefix("oci:").expect("a layout");
        rewrite_config(path, |config| config["config"]["Env"] = serde_json::json!(["A=b", entry]));
        shop.fails(&["pull", &layout], &["/config/Env/1"]);
        assert_eq!(shop.list("images"), [""; 0]);
        fs::remove_dir_all(path).expect("the layout");
    }
}

#[test]
fn a_config_of_other_layers_is_refused() {
    let shop = Shop::new("diff");
    let layout = shop.image("oci", "layout", LAYERS);
    let path = layout.strip_prefix("oci:").expect("a layout");
    rewrite_config(path, |config| drop(config["rootfs"]["diff_ids"].as_array_mut().expect("a list").pop()));
    shop.fails(&["pull", &layout], &["3 layers", "2 diff IDs"]);
    rewrite_config(path, |config| {
        let ids = config["rootfs"]["diff_ids"].as_array_mut().expect("a list");
        ids.push(format!("sha256:{}", "0".repeat(64)).into());
    });
    shop.fails(&["pull", &layout], &["layer sha256:"]);
    assert_eq!(shop.list("images"), [""; 0]);
    shop.empties();
}

/// Puts a changed config into a layout, with a manifest and an index that name it rightly.
fn rewrite_config(layout: &str, change: impl FnOnce(&mut Value)) {
    let read = |digest: &str| {
        let text = fs::read(format!("{layout}/blobs/{}", digest.replace(':', "/"))).expect("a blob");
        serde_json::from_slice::<Value>(&text).expect("JSON")
    };
    let write = |value: &Value| {
        let bytes = serde_json::to_vec(value).expect("JSON");
        let digest = jug::image::digest::of(&bytes);
        fs::write(format!("{layout}/blobs/sha256/{}", digest.digest()), &bytes).expect("a blob");
        (digest.to_string(), bytes.len())
    };
    let mut index: Value = json(&fs::read_to_string(format!("{layout}/index.json")).expect("index.json"));
    let mut manifest = read(index["manifests"][0]["digest"].as_str().expect("a digest"));
    let mut config = read(manifest["config"]["digest"].as_str().expect("a digest"));
    change(&mut config);
    let (digest, size) = write(&config);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (digest.into(), size.into());
    let (digest, size) = write(&manifest);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (digest.into(), size.into());
    fs::write(format!("{layout}/index.json"), index.to_string()).expect("index.json");
}
