//! The labels that `jug run` gives where SELinux enforces a policy (`scripts/guest --selinux`), as Podman and Docker
//! choose them. What a label means to a process is in tests/selinux.rs.
#![cfg(feature = "engine")]

mod support;
use std::fs;
use std::path::Path;
use support::*;

const OWN: [&str; 2] = ["cat", "/proc/self/attr/current"];

impl Labelled {
    fn new() -> Self {
        Self { e: Engine::new() }
    }

    /// `jug run FLAGS hello PROGRAM`.
    fn run(&self, flags: &[&str], program: &[&str]) -> Output {
        self.e.jug(&[&["run", "--rm"], flags, &["hello"], program].concat())
    }

    /// A directory of the host's with a file.
    fn directory(&self, name: &str) -> String {
        let dir = self.e.bundle.path(name);
        fs::create_dir(&dir).expect("mkdir");
        fs::write(Path::new(&dir).join("file"), "of the host\n").expect("write");
        dir
    }
}

struct Labelled {
    e: Engine,
}

fn said(out: &Output) -> String {
    out.stdout.trim_end_matches(['\0', '\n']).to_owned()
}

#[test]
fn each_container_has_categories_of_its_own() {
    needs!(Feature::Selinux);
    let l = Labelled::new();
    let labels: Vec<String> = (0..3).map(|_| said(&l.run(&[], &OWN).ok())).collect();
    for label in &labels {
        let pair = label.strip_prefix("system_u:system_r:container_t:s0:c").expect("a container's label");
        assert!(pair.contains(",c"), "{label}");
    }
    assert!(labels[0] != labels[1] && labels[1] != labels[2] && labels[0] != labels[2], "{labels:?}");
    l.e.jug(&["run", "-d", "--name", "stays", "hello", "sleep", "3600"]).ok();
    let label = l.e.field("stays", "{{.ProcessLabel}}");
    let exec = ["exec", "stays", OWN[0], OWN[1]];
    assert_eq!(said(&l.e.jug(&exec).ok()), label);
    let files = label.replace("system_r:container_t", "object_r:container_file_t");
    assert_eq!(l.e.field("stays", "{{.MountLabel}}"), files);
    let pid = l.e.field("stays", "{{.State.Pid}}");
    for path in ["/bin/hello", "/etc/hosts", "/dev/shm", "/"] {
        let there = format!("/proc/{pid}/root{path}");
        let out = std::process::Command::new("stat").args(["-L", "--format=%C", &there]).output();
        let out = out.expect("stat(1)");
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), files, "{path}");
    }
}

#[test]
fn containers_are_kept_apart() {
    needs!(Feature::Selinux);
    let l = Labelled::new();
    let (plain, private, shared) = (l.directory("plain"), l.directory("private"), l.directory("shared"));
    let read = |dir: &str, option: &str| l.run(&["-v", &format!("{dir}:/d{option}")], &["cat", "/d/file"]);
    assert_ne!(read(&plain, "").code, 0, "a directory of the host's");
    assert_eq!(read(&private, ":Z").ok().stdout, "of the host\n");
    assert_ne!(read(&private, "").code, 0, "it is another container's now");
    assert_eq!(read(&shared, ":z").ok().stdout, "of the host\n");
    assert_eq!(read(&shared, "").ok().stdout, "of the host\n", "it is every container's now");
    // A volume is every container's.
    l.run(&["-v", "data:/d"], &["sh", "-c", "cat /etc/passwd"]).ok();
    l.run(&["-v", "data:/d"], &["ls", "/d"]).ok();
    read("/etc", ":Z").exits(125).says("SELinux relabeling of /etc is not allowed");
}

#[test]
fn what_is_asked_for_is_given() {
    needs!(Feature::Selinux);
    let l = Labelled::new();
    let own = fs::read_to_string("/proc/self/attr/current").expect("a label");
    let own = own.trim_end_matches(['\0', '\n']);
    for flags in [&["--security-opt", "label=disable"][..], &["--privileged"], &["--pid", "host"]] {
        assert_eq!(said(&l.run(flags, &OWN).ok()), own, "{flags:?}");
    }
    let label = "system_u:system_r:container_t:s0:c5,c6";
    assert_eq!(said(&l.run(&["--security-opt", "label=level:s0:c5,c6"], &OWN).ok()), label);
    l.run(&["--security-opt", "label=type:no_such_t"], &OWN)
        .exits(125)
        .says("no such user, role, type or level");
    l.run(&["--security-opt", "label=colour:red"], &OWN).exits(125).says("is unknown");
    l.e.jug(&["run", "-d", "--name", "one", "hello", "sleep", "3600"]).ok();
    let label = l.e.field("one", "{{.ProcessLabel}}");
    assert_eq!(said(&l.run(&["--ipc", "container:one"], &OWN).ok()), label, "who shares its queues");
}
