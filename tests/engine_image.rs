//! Containers of images: what the config says becomes the process, what is written becomes a layer, and no mount ever
//! stands on the host.
#![cfg(feature = "engine")]

mod support;
use support::*;

#[test]
fn the_config_becomes_the_process() {
    let e = Engine::with_image(&[
        "ENTRYPOINT [\"/bin/probe\"]",
        "ENV FLOCK=wool",
        "USER lamb",
        "WORKDIR /tmp",
        "LABEL a=b",
        "LABEL run.oci.handler=wasm",
        "STOPSIGNAL INT",
    ]);
    let report = e.jug(&["run", "--rm", "box"]).ok().json();
    assert_eq!((&report["uid"]["effective"], &report["cwd"]), (&json!(1000), &json!("/tmp")));
    assert!(report["env"].as_array().expect("env").contains(&json!("FLOCK=wool")));
    let root = mount_at(&report, "/");
    assert_eq!(root["type"], "overlay");
    let out = e.jug(&["run", "--rm", "--entrypoint", "echo", "box", "said"]).ok();
    assert_eq!(out.stdout, "said\n");
    e.jug(&["create", "--name", "made", "box"]).ok();
    let labels = e.field("made", "{{json .Config.Labels}}");
    assert_eq!(labels, r#"{"a":"b","run.oci.handler":"wasm"}"#);
    assert_eq!(e.field("made", "{{.Config.StopSignal}} {{.Config.User}}"), "INT lamb");
    e.jug(&["rmi", "box"]).exits(1).says("is used by container");
    e.jug(&["rm", "made"]).ok();
    e.jug(&["rmi", "box"]).ok();
}

#[test]
fn what_is_written_stays_with_the_container_and_becomes_a_layer() {
    let e = Engine::with_image(&["CMD [\"sh\"]", "VOLUME /data"]);
    let script = "echo new > /new; rm /etc/group; mkdir /d; echo x > /d/f; echo kept > /data/k";
    e.jug(&["run", "--name", "writer", "box", "sh", "-c", script]).ok();
    let diff = e.jug(&["diff", "writer"]).ok().stdout;
    for line in ["A /new", "D /etc/group", "A /d", "A /d/f", "C /etc"] {
        assert!(diff.lines().any(|other| other == line), "{line}:\n{diff}");
    }
    assert!(!diff.contains("/data/k"), "{diff}");
    // What jug made to mount on is none of the program's work.
    assert!(!diff.contains("resolv.conf") && !diff.contains("A /data"), "{diff}");
    e.jug(&["run", "--name", "idle", "-v", "/etc/down", "box", "sh", "-c", "true"]).ok();
    assert_eq!(e.jug(&["diff", "idle"]).ok().stdout, "");
    e.jug(&["run", "--name", "closer", "box", "sh", "-c", "chmod 700 /etc"]).ok();
    assert_eq!(e.jug(&["diff", "closer"]).ok().stdout, "C /etc\n");
    e.jug(&["rm", "-v", "idle", "closer"]).ok();
    let id =
        e.jug(&["commit", "-m", "written", "-c", "CMD [\"cat\",\"/new\"]", "writer", "written"]).ok().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(e.jug(&["run", "--rm", "written"]).ok().stdout, "new\n");
    e.jug(&["run", "--rm", "written", "cat", "/etc/group"]).exits(1);
    assert_eq!(e.jug(&["run", "--rm", "box", "cat", "/etc/group"]).ok().stdout.lines().count(), 3);
    let tar = e.bundle.path("export.tar");
    e.jug(&["export", "-o", &tar, "writer"]).ok();
    let list = std::process::Command::new("tar").args(["-tf", &tar]).output().expect("tar(1)");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|name| name.trim_start_matches("./") == "d/f"), "{list}");
    let volumes = || std::fs::read_dir(e.root().join("volumes")).into_iter().flatten().count();
    assert_eq!(volumes(), 1);
    e.jug(&["rm", "-v", "writer"]).ok();
    assert_eq!(volumes(), 0);
}

#[test]
fn no_mount_stands_on_the_host() {
    let e = Engine::with_image(&["CMD [\"sleep\",\"3600\"]"]);
    let id = e.jug(&["run", "-d", "--name", "mounted", "box"]).ok().stdout.trim().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(e.bundle.tag()), "{mounts}");
    e.jug(&["exec", "mounted", "sh", "-c", "echo 1 > /here"]).ok();
    e.jug(&["stop", "-t", "0", "mounted"]).ok();
    e.jug(&["start", "mounted"]).ok();
    assert_eq!(e.jug(&["exec", "mounted", "cat", "/here"]).ok().stdout, "1\n");
    e.jug(&["rm", "-f", "mounted"]).ok();
    e.is_gone(&id);
    e.jug(&["run", "--rm", "no-such-image:1", "true"]).exits(125);
}

/// R21, CVE-2026-53488: what an image says of itself is data. A runtime and its hooks take annotations for orders.
#[test]
fn labels_of_an_image_are_no_orders() {
    let orders =
        ["run.oci.keep_original_groups=1", "org.systemd.property.MemoryMax=1", "org.criu.config=/etc/passwd"];
    let others = ["bundle=/", "io.containerd.log=binary:///bin/sh", "a=b"];
    let lines: Vec<String> = orders.iter().chain(&others).map(|label| format!("LABEL {label}")).collect();
    let e = Engine::with_image(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    e.jug(&["run", "-d", "--name", "made", "--label", "own=1", "box", "/bin/probe", "sleep", "1000"]).ok();
    let id = e.field("made", "{{.Id}}");
    let config = std::fs::read_to_string(e.root().join("containers").join(id).join("config.json"));
    let config = config.expect("config.json");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["annotations"], json!({ "own": "1" }), "only the caller gives orders");
    assert!(
        !["binary:", "keep_original", "MemoryMax"].iter().any(|word| config.to_string().contains(word)),
        "{config}"
    );
    assert!(e.field("made", "{{json .Config.Labels}}").contains("keep_original_groups"));
    e.jug(&["rm", "-f", "made"]).ok();
}

/// The lower layers alone: nothing is on top that could be written, not even by who may mount.
#[test]
fn a_read_only_root_has_no_upper_layer() {
    let e = Engine::with_image(&["WORKDIR /made/for/it"]);
    let file = e.bundle.path("file");
    std::fs::write(&file, "bound").expect("write");
    let volume = format!("{file}:/etc/new/file");
    let look = "cat /etc/new/file; pwd; stat -c %a /tmp /etc/new; cat /proc/mounts";
    let script = &format!("{look}; mount -o remount,rw / && touch /x; exit 3");
    let flags = ["--read-only", "--privileged", "-v", &volume, "-v", "/data", "--tmpfs", "/tmp"];
    let words = [&["run", "--rm"], &flags[..], &["box", "sh", "-c", script]].concat();
    let out = e.jug(&words).exits(3).says("Read-only file system");
    assert!(out.stdout.starts_with("bound/made/for/it\n1777\n755\n"), "{out}");
    let root = out.stdout.lines().find(|line| line.contains(" / overlay ")).expect("a root");
    assert!(root.contains("lowerdir") && !root.contains("upperdir"), "{root}");
    // It starts again, and another container has nothing of it.
    e.jug(&["create", "--name", "again", "--read-only", "-v", &volume, "box", "cat", "/etc/new/file"]).ok();
    for _ in 0..2 {
        assert_eq!(e.jug(&["start", "-a", "again"]).ok().stdout, "bound");
    }
    assert_eq!(e.jug(&["diff", "again"]).ok().stdout, "");
    e.jug(&["rm", "again"]).ok();
    e.jug(&["run", "--rm", "box", "cat", "/etc/new/file"]).exits(1);
}

/// Who is removed at its end keeps its image while it runs, by a link that no fsync(2) has to make durable.
#[test]
fn a_passing_container_keeps_its_image() {
    let e = Engine::with_image(&["CMD [\"sleep\",\"3600\"]"]);
    let id = e.jug(&["run", "-d", "--rm", "--name", "passing", "box"]).ok().stdout.trim().to_owned();
    let pin = e.root().join("pins").join(&id);
    assert!(std::fs::read_link(&pin).expect("a link").to_string_lossy().starts_with("sha256:"));
    e.jug(&["rmi", "box"]).exits(1).says("is used by container");
    e.jug(&["system", "prune", "--all", "--force"]).ok();
    e.jug(&["exec", "passing", "/bin/probe"]).ok();
    e.jug(&["system", "fsck"]).ok();
    e.jug(&["rm", "-f", "passing"]).ok();
    assert!(std::fs::symlink_metadata(&pin).is_err());
    // What a crash of the machine leaves goes with the next boot.
    std::os::unix::fs::symlink("sha256:00", &pin).expect("ln");
    std::fs::write(e.root().join("boot"), "\"another boot\"\n").expect("write");
    e.jug(&["images"]).ok();
    assert!(std::fs::symlink_metadata(&pin).is_err(), "a pin of another boot");
    e.jug(&["rmi", "box"]).ok();
}

/// On a terminal each layer has a bar that is drawn again; elsewhere, and on one that cannot go back, a line when it is
/// done.
#[test]
fn transfers_show_how_far_they_are() {
    let e = Engine::new();
    let archive = e.bundle.path("hello.tar");
    e.jug(&["save", "-o", &archive, "jug/hello"]).ok();
    let program = env!("CARGO_BIN_EXE_jug");
    let load = |term: &str| {
        e.jug(&["rmi", "-f", "jug/hello"]);
        let root = e.root();
        let line = format!("TERM={term} {program} --root {} load -i {archive}", root.display());
        let out = std::process::Command::new("script").args(["-qec", &line, "/dev/null"]).output();
        let out = out.expect("script(1)");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let bars = load("xterm");
    assert!(bars.contains(": Waiting\x1b[K") && bars.contains(": Extracting\x1b[K"), "{bars:?}");
    assert!(bars.contains("\x1b[1A") && bars.contains(": Done\x1b[K"), "{bars:?}");
    let lines = load("dumb");
    assert!(lines.contains(": Done\r\n") && !lines.contains('\x1b') && !lines.contains('['), "{lines:?}");
    e.jug(&["rmi", "-f", "jug/hello"]).ok();
}
