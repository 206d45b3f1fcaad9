//! `jug system df` and `prune` over images, containers and volumes; `jug inspect` of whatever has the name.
#![cfg(feature = "engine")]

mod support;
use std::path::Path;
use support::*;

/// A row of `system df`: TOTAL, ACTIVE, SIZE.
fn row(e: &Engine, kind: &str) -> (String, String, String) {
    let out =
        e.jug(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}"]).ok().stdout;
    let found = out.lines().find_map(|line| line.strip_prefix(&format!("{kind}|")));
    let words: Vec<&str> = found.unwrap_or_else(|| panic!("{kind} in {out}")).split('|').collect();
    (words[0].to_owned(), words[1].to_owned(), words[2].to_owned())
}

fn words(total: &str, active: &str) -> (String, String) {
    (total.to_owned(), active.to_owned())
}

fn counts(e: &Engine, kind: &str) -> (String, String) {
    let (total, active, _) = row(e, kind);
    (total, active)
}

#[test]
fn df_counts_and_prune_removes_what_does_not_run() {
    let e = Engine::new();
    let write = "head -c 300000 /dev/zero > /data/x; head -c 200000 /dev/zero > /named/y";
    let volumes = ["-v", "/data", "-v", "kept:/named"];
    let rootfs = e.bundle.rootfs().display().to_string();
    let run = |name: &str, flags: &[&str], program: &[&str]| {
        let head = ["run", "--name", name];
        let all = [&head[..], &volumes, flags, &["--rootfs", &rootfs], program].concat();
        e.jug(&all).ok();
    };
    run("ended", &[], &["sh", "-c", write]);
    run("runs", &["-d"], &["sleep", "1000"]);
    assert_eq!(counts(&e, "Containers"), words("2", "1"));
    assert_eq!(counts(&e, "Local Volumes"), words("3", "3"), "one with a name, and one of each container");
    let (_, _, size) = row(&e, "Local Volumes");
    assert!(size.starts_with('5') && size.ends_with("kB"), "{size}");
    let out = e.jug(&["system", "prune", "--force"]).ok().stdout;
    assert!(out.starts_with("Deleted Containers:\n") && out.contains("Total reclaimed space:"), "{out}");
    assert_eq!(counts(&e, "Containers"), words("1", "1"), "what runs stays");
    assert_eq!(counts(&e, "Local Volumes"), words("3", "2"), "volumes stay unless asked for");
    let out = e.jug(&["system", "prune", "--force", "--volumes"]).ok().stdout;
    assert!(out.starts_with("Deleted Volumes:\n") && out.lines().count() == 3, "{out}");
    assert_eq!(
        counts(&e, "Local Volumes"),
        words("2", "2"),
        "what a container has stays, and what has a name"
    );
    e.jug(&["rm", "-f", "runs"]).ok();
    e.jug(&["system", "prune", "--force", "--volumes"]).ok();
    assert_eq!(counts(&e, "Local Volumes"), words("1", "0"), "a volume with a name");
}

#[test]
fn volumes_have_verbs() {
    let e = Engine::new();
    let listed = |flags: &[&str]| e.jug(&[&["volume", "ls", "-q"], flags].concat()).ok().stdout;
    assert_eq!(listed(&[]), "");
    assert_eq!(e.jug(&["volume", "create", "made"]).ok().stdout, "made\n");
    assert_eq!(e.jug(&["volume", "create", "made"]).ok().stdout, "made\n", "it is there already");
    let id = e.jug(&["volume", "create"]).ok().stdout;
    e.jug(&["volume", "create", "../x"]).exits(125).says("is no name for a volume");
    // An empty volume is filled from what the root has there, and keeps what it has.
    e.run(&["-v", "made:/etc"], &["sh", "-c", "test -s /etc/passwd && echo mine >/etc/own"]).ok();
    let rootfs = e.bundle.rootfs().to_string_lossy().into_owned();
    e.jug(&["create", "--name", "user", "-v", "made:/there", "--rootfs", &rootfs, "cat", "/there/own"]).ok();
    assert_eq!(e.jug(&["start", "-a", "user"]).ok().stdout, "mine\n");
    let mountpoint = e.jug(&["volume", "inspect", "-f", "{{.Mountpoint}}", "made"]).ok().stdout;
    assert_eq!(
        std::fs::read_to_string(Path::new(mountpoint.trim()).join("own")).expect("its file"),
        "mine\n"
    );
    assert_eq!(listed(&["-f", "dangling=true"]), id);
    assert_eq!(listed(&["-f", "dangling=false", "-f", "name=mad"]), "made\n");
    let table = e.jug(&["volume", "ls"]).ok().stdout;
    assert!(table.starts_with("DRIVER   VOLUME NAME\n") && table.contains("local    made\n"), "{table}");
    e.jug(&["volume", "rm", "made"]).exits(1).says("volume made is in use");
    e.jug(&["volume", "rm", "nobody"]).exits(1).says("no such volume");
    e.jug(&["volume", "rm", "-f", "nobody"]).ok();
    e.jug(&["volume", "inspect", "nobody"]).exits(1).says("no such volume");
    let out = e.jug(&["volume", "prune", "--force"]).ok().stdout;
    assert!(out.starts_with(&format!("Deleted Volumes:\n{id}")), "{out}");
    e.jug(&["rm", "user"]).ok();
    assert_eq!(listed(&[]), "made\n", "it outlives its containers");
    e.jug(&["volume", "prune", "--force", "--all"]).ok();
    assert_eq!(listed(&[]), "");
    e.jug(&["volume", "create", "--driver", "nfs", "last"]).exits(125).says("local");
    e.jug(&["volume", "create", "--label", "of=mine", "--label", "bare", "last"]).ok();
    let labels = e.jug(&["volume", "inspect", "-f", "{{json .Labels}}", "last"]).ok().stdout;
    assert_eq!(labels.trim(), r#"{"bare":"","of":"mine"}"#);
    assert_eq!(listed(&["-f", "label=bare", "-f", "label=of=mine"]), "last\n");
    assert_eq!(listed(&["-f", "label=of=yours"]), "");
    assert_eq!(e.jug(&["volume", "rm", "last"]).ok().stdout, "last\n");
    assert_eq!(listed(&[]), "");
}

#[test]
fn inspect_shows_what_was_asked_for() {
    let e = Engine::new();
    let rootfs = e.bundle.rootfs().to_string_lossy().into_owned();
    let flags = [
        (
            "--device=/dev/null:/dev/zilch:rw",
            "{{(index .HostConfig.Devices 0).PathInContainer}}",
            "/dev/zilch",
        ),
        (
            "--ulimit=nofile=10:20",
            "{{range .HostConfig.Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}}{{end}}",
            "nofile=10:20",
        ),
        ("--shm-size=1m", "{{.HostConfig.ShmSize}}", "1048576"),
        ("--tmpfs=/t:size=1m", "{{json .HostConfig.Tmpfs}}", r#"{"/t":"size=1m"}"#),
        ("--sysctl=net.ipv4.ip_forward=1", "{{json .HostConfig.Sysctls}}", r#"{"net.ipv4.ip_forward":"1"}"#),
        ("--group-add=7", "{{.HostConfig.GroupAdd}}", "[7]"),
        ("--cgroup-parent=/p", "{{.HostConfig.CgroupParent}}", "/p"),
    ];
    let words = flags.map(|(flag, ..)| flag);
    e.jug(&[&["create", "--name", "all"], &words[..], &["--rootfs", &rootfs, "true"]].concat()).ok();
    for (flag, template, shown) in flags {
        assert_eq!(e.field("all", template), shown, "{flag}");
    }
}

#[test]
fn inspect_shows_what_has_the_name() {
    let e = Engine::new();
    let image = e.jug(&["inspect", "-f", "{{.Id}} {{.Os}}", "hello"]).ok().stdout;
    assert!(image.starts_with("sha256:") && image.ends_with(" linux\n"), "{image}");
    e.jug(&["create", "--name", "hello", "hello"]).ok();
    assert_eq!(
        e.jug(&["inspect", "-f", "{{.Name}}", "hello"]).ok().stdout,
        "/hello\n",
        "a container comes first"
    );
    assert_eq!(e.jug(&["inspect", "--type", "image", "-f", "{{.Id}} {{.Os}}", "hello"]).ok().stdout, image);
    e.jug(&["rm", "hello"]).ok();
    e.jug(&["inspect", "--type", "container", "hello"]).exits(1);
    e.jug(&["inspect", "nothing-of-this-name"]).exits(1);
    e.jug(&["inspect", "--type", "volume", "hello"]).exits(125);
    // The image that jug carries says nothing of its time.
    let created = e.jug(&["images", "--format", "{{.CreatedSince}}"]).ok().stdout;
    assert_eq!(created, "N/A\n");
    let history = e.jug(&["history", "--format", "{{.CreatedSince}}", "hello"]).ok().stdout;
    assert_eq!(history, "N/A\n");
}
