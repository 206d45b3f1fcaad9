//! Containers of `jug` where SELinux enforces a policy (`scripts/guest --selinux`): each has labels of its own, as
//! Podman and Docker give them, and they hold.
#![cfg(feature = "engine")]

mod support;
use std::path::Path;
use std::process::Command;

use support::*;

const OF_IMAGE: [&str; 3] = ["box", "/bin/probe", "sleep"];

fn label_of(path: &str) -> String {
    let out = Command::new("stat").args(["--format=%C", path]).output().expect("stat");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn own_label() -> String {
    std::fs::read_to_string("/proc/self/attr/current").expect("a label").trim_end_matches('\0').to_owned()
}

/// The level of a label.
fn level(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap_or("")
}

/// A container of the image that sleeps.
fn sleeper(e: &Engine, name: &str, flags: &[&str]) {
    e.jug(&[&["run", "-d", "--name", name], flags, &OF_IMAGE, &["3600"]].concat()).ok();
}

fn labels(e: &Engine, name: &str) -> (String, String) {
    (e.field(name, "{{.ProcessLabel}}"), e.field(name, "{{.MountLabel}}"))
}

/// A directory of the host's with a file.
fn shared(e: &Engine) -> String {
    let dir = e.bundle.path("shared");
    std::fs::create_dir(&dir).expect("mkdir");
    std::fs::write(format!("{dir}/file"), "wool\n").expect("write");
    dir
}

#[test]
fn containers_have_labels_of_their_own_which_hold() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    let dir = shared(&e);
    sleeper(&e, "one", &["-v", &format!("{dir}:/shared:Z")]);
    sleeper(&e, "other", &["-v", &format!("{dir}:/shared")]);
    let ((one, files), (other, _)) = (labels(&e, "one"), labels(&e, "other"));
    for label in [&one, &other] {
        assert!(label.starts_with("system_u:system_r:container_t:s0:c"), "{label}");
        assert_eq!(level(label).matches(',').count(), 1, "{label}");
    }
    assert_ne!(one, other);
    assert_eq!(files, format!("system_u:object_r:container_file_t:{}", level(&one)));
    let current = |name| e.jug(&["exec", name, "cat", "/proc/self/attr/current"]).ok().stdout;
    assert_eq!(
        (current("one").trim_end_matches('\0'), current("other").trim_end_matches('\0')),
        (&*one, &*other)
    );
    assert_eq!(label_of(&format!("{dir}/file")), files);
    let read = |name| e.jug(&["exec", name, "cat", "/shared/file"]);
    assert_eq!(read("one").ok().stdout, "wool\n");
    read("other").exits(1).says("Permission denied");
    // z is for all.
    e.jug(&["run", "--rm", "-v", &format!("{dir}:/shared:z"), "box", "cat", "/shared/file"]).ok();
    assert_eq!(label_of(&format!("{dir}/file")), "system_u:object_r:container_file_t:s0");
    assert_eq!(
        (read("one").ok().stdout, read("other").ok().stdout),
        ("wool\n".to_owned(), "wool\n".to_owned())
    );
}

#[test]
fn the_files_of_the_image_have_the_containers_label() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&["VOLUME /data"]);
    sleeper(&e, "box", &["-v", "named:/named"]);
    let (_, files) = labels(&e, "box");
    e.jug(&[
        "exec",
        "box",
        "sh",
        "-c",
        "echo x >/new && echo y >/etc/passwd && cat /etc/hosts /etc/resolv.conf",
    ])
    .ok();
    let root = format!("/proc/{}/root", e.field("box", "{{.State.Pid}}"));
    for path in ["bin/sh", "new", "etc/passwd", "etc/hosts", "dev/shm", "dev/null", "dev/mqueue"] {
        let path = format!("{root}/{path}");
        assert_eq!(label_of(&path), files, "{path}");
    }
    // Volumes are everybody's.
    e.jug(&["exec", "box", "touch", "/named/file", "/data/file"]).ok();
    assert_eq!(label_of(&format!("{root}/named")), "system_u:object_r:container_file_t:s0");
    e.jug(&["run", "--rm", "-v", "named:/named", "box", "ls", "/named/file"]).exits(0);
    // They stay, as what was written does.
    e.jug(&["stop", "-t", "0", "box"]).ok();
    e.jug(&["start", "box"]).ok();
    assert_eq!(labels(&e, "box").1, files);
    assert_eq!(e.jug(&["exec", "box", "cat", "/new"]).ok().stdout, "x\n");
    // Where the root is read-only, too.
    e.jug(&["run", "--rm", "--read-only", "box", "cat", "/etc/passwd"]).ok();
}

#[test]
fn who_is_not_confined_has_no_label() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    for flags in
        [&["--security-opt", "label=disable"][..], &["--privileged"], &["--pid", "host"], &["--ipc", "host"]]
    {
        let args = [&["run", "--rm"], flags, &["box", "cat", "/proc/self/attr/current"]].concat();
        assert_eq!(e.jug(&args).ok().stdout.trim_end_matches('\0'), own_label(), "{flags:?}");
    }
    e.jug(&["create", "--name", "open", "--security-opt", "label=disable", "box", "true"]).ok();
    let files = "system_u:object_r:container_file_t:s0:c1022,c1023".to_owned();
    assert_eq!(labels(&e, "open"), (String::new(), files));
}

#[test]
fn parts_of_a_label_can_be_asked_for() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    let options = ["label=level:s0:c5,c6", "label=type:host_t", "label:filetype:host_file_t"];
    let flags: Vec<&str> = options.iter().flat_map(|option| ["--security-opt", option]).collect();
    let program = ["box", "cat", "/proc/self/attr/current"];
    let out = e.jug(&[&["run", "--name", "box"], &flags[..], &program].concat()).ok().stdout;
    assert_eq!(out.trim_end_matches('\0'), "system_u:system_r:host_t:s0:c5,c6");
    assert_eq!(labels(&e, "box").1, "system_u:object_r:host_file_t:s0:c5,c6");
    for bad in ["label=type", "label=nested", "label=type:nobody_t"] {
        let out = e.jug(&["run", "--rm", "--security-opt", bad, "box", "true"]);
        assert_eq!(out.code, 125, "{out}");
        out.says(if bad.ends_with("nobody_t") { "nobody_t" } else { "label" });
    }
}

#[test]
fn who_shares_processes_or_queues_shares_the_label() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    sleeper(&e, "one", &[]);
    let (one, _) = labels(&e, "one");
    for flag in ["--pid", "--ipc"] {
        sleeper(&e, &flag[2..], &[flag, "container:one"]);
        assert_eq!(labels(&e, &flag[2..]).0, one);
        assert_eq!(
            e.jug(&["exec", &flag[2..], "cat", "/proc/self/attr/current"]).ok().stdout.trim_end_matches('\0'),
            one
        );
    }
    // A network alone does not; the files that go with it can be read by both.
    sleeper(&e, "net", &["--network", "container:one"]);
    assert_ne!(labels(&e, "net").0, one);
    e.jug(&["exec", "net", "cat", "/etc/hosts"]).ok();
    e.jug(&["exec", "one", "cat", "/etc/hosts"]).ok();
}

#[test]
fn the_host_keeps_its_own_labels() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    let before = label_of("/etc");
    e.jug(&["run", "--rm", "-v", "/etc:/x:Z", "box", "true"]).exits(125).says("is not allowed");
    assert_eq!(label_of("/etc"), before);
    // What a link leads to is not the directory's own.
    let dir = shared(&e);
    let outside = e.bundle.path("outside");
    std::fs::write(&outside, "").expect("write");
    let before = label_of(&outside);
    std::os::unix::fs::symlink(&outside, Path::new(&dir).join("link")).expect("symlink");
    e.jug(&["run", "--rm", "-v", &format!("{dir}:/x:Z"), "box", "ls", "/x"]).ok();
    assert_eq!(label_of(&outside), before);
    assert_eq!(e.ids(), Vec::<String>::new());
}

#[test]
fn the_callers_files_are_streams_all_the_same() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    sleeper(&e, "box", &[]);
    let much = "0123456789abcdef".repeat(1 << 16);
    let file = |name: &str| e.bundle.path(name);
    std::fs::write(file("in"), &much).expect("write");
    let runs: [&[&str]; 2] = [&["run", "--rm", "-i", "box"], &["exec", "-i", "box"]];
    for args in runs {
        // The file that the caller has open is a host's, of a type that no container may write.
        let args = [args, &["sh", "-c", "cat; echo said >&2"]].concat();
        let (out, err) = (
            std::fs::File::create(file("out")).expect("out"),
            std::fs::File::create(file("err")).expect("err"),
        );
        let input = std::fs::File::open(file("in")).expect("in");
        e.call(&args).fd(&input, 0).output_to(&out, &err).ok();
        assert!(std::fs::read_to_string(file("out")).expect("read") == much, "{args:?}");
        assert_eq!(std::fs::read_to_string(file("err")).expect("read"), "said\n");
    }
}

#[test]
fn a_policy_that_knows_no_containers_gives_no_labels() {
    needs!(Feature::Selinux);
    let e = Engine::with_image(&[]);
    let hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /etc/selinux && exec \"$@\"", "sh"];
    let out =
        e.call(&["run", "--rm", "box", "cat", "/proc/self/attr/current"]).through(&hidden).output().ok();
    assert_eq!(out.stdout.trim_end_matches('\0'), own_label());
}

#[test]
fn an_ordinary_user_has_labels_too() {
    needs!(Feature::Selinux);
    let e = Engine::rootless();
    let done = Command::new("chcon")
        .args(["-hR", "system_u:object_r:container_file_t:s0"])
        .arg(e.bundle.rootfs())
        .status();
    assert!(done.expect("chcon").success());
    let label = e.run(&[], &["cat", "/proc/self/attr/current"]).ok().stdout;
    assert!(label.starts_with("system_u:system_r:container_t:s0:c"), "{label}");
}
