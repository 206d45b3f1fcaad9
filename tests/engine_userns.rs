//! `jug run --userns auto`: every container has a range of ids of its own, and nobody notices inside.
#![cfg(feature = "engine")]

mod support;
use std::os::unix::fs::MetadataExt as _;

use support::*;

/// How many ids the image wants: its /etc/group has the group 2000.
const SIZE: u64 = 2001;

/// An engine of root's with these lines in /etc/subuid and /etc/subgid, and the image `box`.
struct Ranges {
    e: Engine,
    script: String,
}

impl Ranges {
    fn new(subids: &str) -> Self {
        let e = Engine::new();
        let file = e.bundle.path("subids");
        std::fs::write(&file, subids).expect("write");
        let script = format!(
            "mount --bind {file} /etc/subuid && mount --bind {file} /etc/subgid && exec \"$0\" \"$@\""
        );
        let ranges = Self { e, script };
        let (tar, rootfs) = (ranges.e.bundle.path("root.tar"), ranges.e.bundle.rootfs());
        let mut pack = std::process::Command::new("tar");
        pack.arg("-C").arg(rootfs).args(["--owner=0", "--group=0", "-cf", &tar, "."]);
        // 1: a file changed meanwhile, see engine_image.rs.
        assert!(matches!(pack.status().expect("tar(1)").code(), Some(0 | 1)));
        ranges.jug(&["import", "-q", "-c", "CMD [\"sh\"]", "-c", "VOLUME /data", &tar, "box"]).ok();
        ranges
    }

    fn call(&self, args: &[&str]) -> Call {
        let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &self.script];
        self.e.call(args).through(&wrapper)
    }

    #[track_caller]
    fn jug(&self, args: &[&str]) -> Output {
        self.call(args).output()
    }

    /// `run --userns auto`; the first id outside and how many, of users and of groups, from the kernel.
    #[track_caller]
    fn map(&self, mode: &str, flags: &[&str]) -> [(u64, u64); 2] {
        let args = [&["run", "--rm", "--userns", mode], flags, &["box", "/bin/probe"]].concat();
        let report = self.jug(&args).ok().json();
        ["uidMap", "gidMap"].map(|key| {
            let map = &report[key][0];
            assert_eq!((report[key].as_array().map(Vec::len), &map["containerID"]), (Some(1), &json!(0)));
            (map["hostID"].as_u64().expect("an id"), map["size"].as_u64().expect("a size"))
        })
    }

    /// One that stays; the same of it.
    #[track_caller]
    fn stays(&self, name: &str, script: &str) -> (u64, u64) {
        let script = format!("{script}; echo ready; exec sleep 3600");
        self.jug(&["run", "-d", "--userns", "auto", "--name", name, "box", "sh", "-c", &script]).ok();
        eventually("the log", || self.jug(&["logs", name]).stdout.contains("ready").then_some(()));
        self.range_of(name)
    }

    #[track_caller]
    fn range_of(&self, name: &str) -> (u64, u64) {
        let pid = self.e.field(name, "{{.State.Pid}}");
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("uid_map");
        let numbers: Vec<u64> = map.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        assert_eq!((numbers.len(), numbers[0]), (3, 0), "{map}");
        (numbers[1], numbers[2])
    }
}

#[test]
fn ranges_do_not_overlap_and_are_given_back() {
    let r = Ranges::new("somebody:1:9\ncontainers:200000:10000\n");
    assert_eq!(r.stays("one", "true"), (200_000, SIZE));
    assert_eq!(r.stays("two", "true"), (202_001, SIZE));
    assert_eq!(r.map("auto", &[]), [(204_002, SIZE); 2]);
    assert_eq!(r.map("auto:size=3000", &[]), [(204_002, 3000); 2]);
    // One that does not run keeps its range, and has it again.
    r.jug(&["stop", "-t", "0", "one"]).ok();
    assert_eq!(r.map("auto", &[]), [(204_002, SIZE); 2]);
    r.jug(&["start", "one"]).ok();
    assert_eq!(r.range_of("one"), (200_000, SIZE));
    assert_eq!(r.e.field("two", "{{json .HostConfig.IDMappings.UidMap}}"), r#"["0:202001:2001"]"#);
    assert_eq!(r.e.field("two", "{{.HostConfig.UsernsMode}}"), "auto");
    r.jug(&["run", "--rm", "--userns", "auto:size=6000", "box", "true"])
        .exits(125)
        .says("no 6000 ids in a row are free");
    r.jug(&["rm", "-f", "one"]).ok();
    assert_eq!(r.map("auto", &[]), [(200_000, SIZE); 2]);
    // Whoever was killed while it made a container keeps nothing.
    std::os::unix::fs::symlink(
        "200000:200000:10000",
        r.e.root().join("containers/.ids").join("0".repeat(64)),
    )
    .expect("symlink");
    assert_eq!(r.map("auto", &[]), [(200_000, SIZE); 2]);
}

#[test]
fn many_at_once_have_ids_of_their_own() {
    let r = Ranges::new("containers:200000:65536\n");
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let mut calls = Vec::new();
    for name in &names {
        let args = ["run", "-d", "--userns", "auto", "--name", name, "box", "sleep", "3600"];
        calls.push(r.call(&args).spawn());
    }
    calls.into_iter().for_each(|call| drop(call.wait().ok()));
    let mut ranges: Vec<(u64, u64)> = names.iter().map(|name| r.range_of(name)).collect();
    ranges.sort_unstable();
    let in_a_row: Vec<(u64, u64)> = (0..8).map(|n| (200_000 + n * SIZE, SIZE)).collect();
    assert_eq!(ranges, in_a_row);
}

#[test]
fn the_size_is_what_the_image_wants() {
    let r = Ranges::new("containers:200000:100000\n");
    assert_eq!(r.map("auto", &["-u", "3000"])[0].1, 3001);
    assert_eq!(r.map("auto", &["-u", "5:4000"])[0].1, 4001);
    assert_eq!(r.map("auto", &["--group-add", "5000"])[0].1, 5001);
    let script = "touch /high; chown 6000:7000 /high";
    r.jug(&["run", "--name", "files", "box", "sh", "-c", script]).ok();
    r.jug(&["commit", "files", "files"]).ok();
    let report =
        r.jug(&["run", "--rm", "--userns", "auto", "files", "/bin/probe", "--stat", "/high"]).ok().json();
    assert_eq!(
        (&report["uidMap"][0]["size"], &report["stats"]["/high"]["gid"]),
        (&json!(7001), &json!(7000))
    );
    let script = "echo 'far:x:8000:9000::/:/bin/sh' >> /etc/passwd; echo 'nobody:x:65534:' >> /etc/group";
    r.jug(&["run", "--name", "users", "box", "sh", "-c", script]).ok();
    r.jug(&["commit", "users", "users"]).ok();
    let report = r.jug(&["run", "--rm", "--userns", "auto", "-u", "far", "users", "/bin/probe"]).ok().json();
    assert_eq!((&report["uidMap"][0]["size"], &report["uid"]["effective"]), (&json!(9001), &json!(8000)));
    let refused = ["run", "--rm", "--userns", "auto", "-u", "70000", "box", "true"];
    r.jug(&refused).exits(125).says("needs 70001 ids").says("auto:size=70001");
    r.jug(&["run", "--rm", "--userns", "auto:size=70001", "-u", "70000", "box", "true"]).ok();
    let refused = ["run", "--rm", "--userns", "auto:size=10", "-u", "10", "box", "true"];
    r.jug(&refused).exits(125).says("id 10 is not among 10");
}

#[test]
fn inside_nobody_notices() {
    let r = Ranges::new("containers:200000:5000\n");
    let script = "echo kept > /kept; chown 5:6 /kept; echo more >> /etc/passwd; echo x > /data/x; rm /etc/group; \
                  mkdir /own; echo y > /own/y";
    r.stays("life", script);
    // Outside, what it wrote has the ids of its range.
    let id = r.e.field("life", "{{.Id}}");
    let upper = r.e.root().join("containers").join(&id).join("upper");
    let owner = |name: &str| {
        let meta = std::fs::metadata(upper.join(name)).expect("stat");
        (meta.uid(), meta.gid())
    };
    assert_eq!(
        (owner("kept"), owner(""), owner("etc/passwd")),
        ((200_005, 200_006), (200_000, 200_000), (200_000, 200_000))
    );
    let stat = |path: &str| r.jug(&["exec", "life", "busybox", "stat", "-c", "%u:%g", path]).ok().stdout;
    for (path, owner) in
        [("/", "0:0"), ("/bin/sh", "0:0"), ("/kept", "5:6"), ("/data/x", "0:0"), ("/etc/hosts", "0:0")]
    {
        assert_eq!(stat(path), format!("{owner}\n"), "{path}");
    }
    r.jug(&["exec", "life", "sh", "-c", "echo '# mine' >> /etc/hosts"]).ok();
    r.jug(&["exec", "-u", "lamb", "life", "touch", "/tmp/lambs"]).ok();
    r.jug(&["restart", "-t", "0", "life"]).ok();
    assert_eq!(r.jug(&["exec", "life", "cat", "/kept"]).ok().stdout, "kept\n");
    assert_eq!(stat("/kept"), "5:6\n");
    let diff = r.jug(&["diff", "life"]).ok().stdout;
    for line in ["A /kept", "D /etc/group", "C /etc/passwd", "A /own"] {
        assert!(diff.lines().any(|found| found == line), "{line} in:\n{diff}");
    }
    // An image of it, and its tree, have the image's ids.
    r.jug(&["commit", "life", "made"]).ok();
    assert_eq!(
        r.jug(&["run", "--rm", "made", "busybox", "stat", "-c", "%u:%g", "/kept"]).ok().stdout,
        "5:6\n"
    );
    assert_eq!(
        r.jug(&["run", "--rm", "--userns", "auto", "made", "busybox", "stat", "-c", "%u:%g", "/own/y"])
            .ok()
            .stdout,
        "0:0\n"
    );
    let tar = r.e.bundle.path("export.tar");
    r.jug(&["export", "-o", &tar, "life"]).ok();
    let list =
        std::process::Command::new("tar").args(["-tvf", &tar, "--numeric-owner"]).output().expect("tar(1)");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|line| line.contains(" 5/6 ") && line.ends_with("kept")), "{list}");
    assert!(list.lines().any(|line| line.contains(" 0/0 ") && line.ends_with("bin/sh -> busybox")), "{list}");
    r.jug(&["rm", "-fv", "life"]).ok();
    r.e.is_gone(&id);
}

#[test]
fn volumes_are_shared_and_roots_are_read_only() {
    let r = Ranges::new("containers:200000:5000\n");
    r.stays("other", "true");
    let run = |flags: &[&str], script: &str| {
        r.jug(&[&["run", "--rm", "-v", "shared:/data"], flags, &["box", "sh", "-c", script]].concat())
    };
    run(&[], "echo a > /data/a; chown 7:8 /data/a").ok();
    assert_eq!(run(&["--userns", "auto"], "stat -c %u:%g /data/a; echo b > /data/b").ok().stdout, "7:8\n");
    assert_eq!(run(&[], "stat -c %u:%g /data/b").ok().stdout, "0:0\n");
    let out = run(
        &["--userns", "auto", "--read-only", "-v", "/made/here"],
        "touch /new; stat -c %u /made /etc/hosts /bin/sh",
    );
    assert_eq!(out.stdout, "0\n0\n0\n");
    assert!(out.stderr.contains("Read-only file system"), "{out}");
    let report = r
        .jug(&["run", "--rm", "--userns", "auto", "--privileged", "--init", "box", "/bin/probe"])
        .ok()
        .json();
    assert_eq!(report["uidMap"][0]["hostID"], 202_001);
}

#[test]
fn what_is_not_possible_is_said() {
    let r = Ranges::new("nobody-of-ours:200000:5000\n");
    let auto = ["run", "--rm", "--userns", "auto"];
    r.jug(&[&auto[..], &["box", "true"]].concat()).exits(125).says("gives no ids to the user containers");
    r.jug(&["run", "--rm", "--userns", "auto:uidmapping=0:1:1", "box", "true"])
        .exits(125)
        .says("auto:size=N");
    let rootfs = r.e.bundle.rootfs();
    let rootfs = rootfs.to_str().expect("text");
    r.jug(&[&auto[..], &["--rootfs", rootfs, "true"]].concat()).exits(125).says("needs an image");
    assert_eq!(r.e.ids(), Vec::<String>::new(), "nothing stays of what was refused");
    let r = Ranges::new("root:300000:3000\n");
    assert_eq!(r.map("auto", &[])[0], (300_000, SIZE), "where nobody is named containers, root's own");
    let e = Engine::rootless();
    e.run(&["--userns", "auto"], &["true"]).exits(125).says("is for root");
}
