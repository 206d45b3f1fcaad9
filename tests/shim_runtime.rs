//! What the shim runs the runtime for and what it does itself, and that a caller sees no difference.
#![cfg(feature = "shim")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jug::protobuf::Message;
use support::shim::{PROGRAM, RUNNING, SERVICE, STOPPED, Shim, named, number, request};
use support::*;

const CREATED: i64 = 1;

/// A program that does what the runtime does, and writes down each verb.
fn scribe(b: &Bundle, dir: &str) -> PathBuf {
    fs::create_dir_all(b.path(dir)).expect("mkdir");
    let program = PathBuf::from(b.path(dir)).join("jug-oci");
    let text = format!(
        "#!/bin/sh\nfor word; do case $word in create|start|delete|exec) echo $word >>{}; break ;; esac; done\n\
         exec {} \"$@\"\n",
        b.path("verbs"),
        runtime().display()
    );
    script(&program, &text);
    program
}

fn verbs(b: &Bundle) -> String {
    fs::read_to_string(b.path("verbs")).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A copy of the shim with the scribe beside it.
fn beside_a_scribe(b: &Bundle) -> Command {
    let program = scribe(b, "bin").with_file_name("containerd-shim-jug-v2");
    install(PROGRAM, &program);
    Command::new(program)
}

/// A whole life, after which the code is 7.
fn life(b: &Bundle, mut shim: Shim<'_>) {
    b.set_args(&["/bin/sh", "-c", "exit 7"]);
    let pid = shim.run(&Message::default());
    assert_eq!(number(&shim.good("Wait", &request(&b.id())), 1), 7);
    assert_eq!(shim.status(), STOPPED);
    let deleted = shim.delete();
    assert_eq!((number(&deleted, 1), number(&deleted, 2)), (i64::from(pid), 7));
    let topics: Vec<String> =
        (0..4).map(|_| shim.events.recv_timeout(patience()).expect("an event")).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    let left = fs::read_dir(b.path("state/testing")).expect("the state root").count();
    assert_eq!(left, 0, "no record is left");
    shim.end();
}

#[test]
fn only_a_create_needs_the_runtime_beside_the_shim() {
    let b = Bundle::new();
    let program = beside_a_scribe(&b);
    life(&b, Shim::start_with(&b, program, named(&b, Path::new(""))));
    assert_eq!(verbs(&b), "create");
}

#[test]
fn a_runtime_that_is_named_is_run_for_every_verb() {
    let b = Bundle::new();
    let runtime = scribe(&b, "elsewhere");
    life(&b, Shim::start_with(&b, Command::new(PROGRAM), named(&b, &runtime)));
    assert_eq!(verbs(&b), "create start delete");
}

#[test]
fn a_shim_that_was_replaced_runs_the_runtime_of_today() {
    let b = Bundle::new();
    let program = beside_a_scribe(&b);
    let path = PathBuf::from(program.get_program());
    let shim = Shim::start_with(&b, program, named(&b, Path::new("")));
    fs::remove_file(path).expect("unlink");
    life(&b, shim);
    assert_eq!(verbs(&b), "create start delete");
}

#[test]
fn hooks_are_the_runtimes() {
    for (kind, want) in [("poststart", "create start"), ("poststop", "create delete")] {
        let b = Bundle::new();
        let mark = b.path("mark");
        b.edit(|spec| {
            spec["hooks"] =
                json!({ kind: [{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo >>{mark}")] }] });
        });
        let program = beside_a_scribe(&b);
        life(&b, Shim::start_with(&b, program, named(&b, Path::new(""))));
        assert_eq!(
            (verbs(&b).as_str(), fs::read(&mark).expect("the hook's mark").len()),
            (want, 1),
            "{kind}"
        );
    }
}

#[test]
fn a_program_that_the_kernel_refuses_fails_the_start() {
    for runtime in [Path::new(""), runtime()] {
        let b = Bundle::new();
        b.script("bin/orphan", "#!/no/such/interpreter\n");
        b.set_args(&["/bin/orphan"]);
        let mut shim = Shim::start_with(&b, Command::new(PROGRAM), named(&b, runtime));
        shim.create(&Message::default());
        let (_, said) = shim.ask("Start", &request(&b.id())).expect_err("no interpreter");
        assert!(said.starts_with("OCI runtime start failed: ") && said.contains("no such file"), "{said}");
        assert_eq!(number(&shim.good("Wait", &request(&b.id())), 1), 1);
        shim.delete();
        shim.end();
    }
}

/// A created container that is never started, and one whose process dies before.
#[test]
fn a_container_that_was_never_started_is_removed() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    shim.create(&Message::default());
    assert_eq!(number(&shim.delete(), 2), 137);
    shim.create(&Message::default());
    shim.kill();
    assert_eq!(number(&shim.good("Wait", &request(&b.id())), 1), 137);
    shim.refuses("Start", &request(&b.id()), 9);
    shim.delete();
    shim.end();
}

#[test]
fn a_start_that_takes_its_time_holds_up_nobody() {
    let b = Bundle::new();
    b.script("bin/hook", "#!/bin/sh\nuntil [ -e /tmp/go ]; do sleep 0.05; done\n");
    b.edit(|spec| spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/hook" }] }));
    let mut shim = Shim::start(&b);
    let pid = shim.create(&Message::default());
    let started = shim.send(SERVICE, "Start", &request(&b.id()));
    assert_eq!(shim.status(), CREATED);
    shim.refuses("Delete", &request(&b.id()), 9);
    b.file("tmp/go", "");
    let (stream, answer) = shim.hear();
    assert_eq!((stream, number(&answer.expect("a start"), 1)), (started, pid));
    assert_eq!(shim.status(), RUNNING);
    shim.kill_and_end();
}

/// Somebody else's verb is at work on the container: who waits for it is the runtime, never the shim.
#[test]
fn a_container_that_is_held_holds_up_nobody() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    let pid = shim.create(&Message::default());
    let record = fs::File::open(b.path("state/testing") + "/" + &b.id()).expect("the record");
    record.lock().expect("flock(2)");
    let started = shim.send(SERVICE, "Start", &request(&b.id()));
    assert_eq!(shim.status(), CREATED);
    record.unlock().expect("flock(2)");
    let (stream, answer) = shim.hear();
    assert_eq!((stream, number(&answer.expect("a start"), 1)), (started, pid));
    shim.kill();
    shim.good("Wait", &request(&b.id()));
    record.lock().expect("flock(2)");
    let deleted = shim.send(SERVICE, "Delete", &request(&b.id()));
    assert_eq!(shim.status(), STOPPED);
    record.unlock().expect("flock(2)");
    assert!(matches!(shim.hear(), (stream, Ok(_)) if stream == deleted));
    shim.end();
}

/// systemd starts containerd with Type=notify, and with it all that containerd starts.
#[test]
fn the_service_managers_socket_is_no_containers() {
    for runtime in [Path::new(""), runtime()] {
        let b = Bundle::new();
        let mut program = Command::new(PROGRAM);
        program.env("NOTIFY_SOCKET", b.path("notify"));
        let mut shim = Shim::start_with(&b, program, named(&b, runtime));
        let pid = shim.run(&Message::default());
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("environ");
        assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
        shim.kill_and_end();
    }
}

/// A container that was restored runs, and containerd starts it all the same. criu is another matter: this runtime
/// restores by running.
#[test]
fn a_start_of_what_was_restored_is_no_error() {
    let b = Bundle::new();
    let program = PathBuf::from(b.path("runtime"));
    let text = r#"#!/bin/sh
for word; do
    shift
    [ -z "$skip" ] || { skip=; continue; }
    case $word in
        restore) word=run ;;
        --image-path | --work-path) skip=1; continue ;;
    esac
    set -- "$@" "$word"
done
exec RUNTIME "$@"
"#;
    script(&program, &text.replace("RUNTIME", &runtime().to_string_lossy()));
    let mut shim = Shim::start_with(&b, Command::new(PROGRAM), named(&b, &program));
    let mut more = Message::default();
    more.text(8, b.path("image"));
    shim.run(&more);
    assert_eq!(shim.status(), RUNNING);
    shim.kill_and_end();
}

/// A file system in memory, unmounted when it is dropped.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    fn new(at: &'p Path, data: &str) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("disk"), at, Some("tmpfs"), flags, Some(data)).expect("mount(2)");
        Self(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_an_error_on_the_call() {
    let b = Bundle::new();
    // The bundle's own files on a small disk; what the program needs lies elsewhere.
    let bundle = PathBuf::from(b.path("small"));
    fs::create_dir(&bundle).expect("mkdir");
    let disk = Disk::new(&bundle, "size=32k");
    let mut spec: Value =
        serde_json::from_slice(&fs::read(b.dir().join("config.json")).expect("config")).expect("JSON");
    spec["root"]["path"] = json!(b.rootfs());
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).expect("JSON")).expect("write");
    let fill = || fs::write(bundle.join("filler"), [0; 64 << 10]).expect_err("the disk is full");
    fill();
    // The shim's own: one that is run cannot open its log any more, which lies in the bundle.
    let own = named(&b, Path::new(""));
    let mut shim = Shim::start_with(&b, Command::new(PROGRAM), named(&b, Path::new("")));
    let mut create = request(&b.id());
    create.text(2, bundle.as_os_str().as_encoded_bytes()).message(10, &own);
    let (_, said) = shim.ask("Create", &create).expect_err("no room");
    assert!(said.contains("ENOSPC") || said.contains("no space left"), "{said}");
    shim.refuses("State", &request(&b.id()), 5);
    // There is room again: the same shim makes it.
    fs::remove_file(bundle.join("filler")).expect("unlink");
    shim.good("Create", &create);
    shim.good("Start", &request(&b.id()));
    shim.kill();
    shim.good("Wait", &request(&b.id()));
    // And it is removed from a disk that is full again.
    fill();
    shim.delete();
    shim.end();
    drop(disk);
}

#[test]
fn a_bundle_that_vanishes_takes_nothing_with_it() {
    let b = Bundle::new();
    let bundle = PathBuf::from(b.path("bundle"));
    fs::create_dir(&bundle).expect("mkdir");
    fs::rename(b.rootfs(), bundle.join("rootfs")).expect("rename");
    fs::copy(b.dir().join("config.json"), bundle.join("config.json")).expect("copy");
    // The shim's own: one that is run cannot open its log any more, which lies in the bundle.
    let own = named(&b, Path::new(""));
    let mut shim = Shim::start_with(&b, Command::new(PROGRAM), named(&b, Path::new("")));
    let mut create = request(&b.id());
    create.text(2, bundle.as_os_str().as_encoded_bytes()).message(10, &own);
    shim.good("Create", &create);
    fs::rename(bundle.join("rootfs"), b.rootfs()).expect("rename");
    fs::remove_dir_all(&bundle).expect("rm -r");
    shim.good("Start", &request(&b.id()));
    assert_eq!(shim.status(), RUNNING);
    // What needs the bundle fails by itself.
    let mut exec = request(&b.id());
    exec.text(2, "e").message(7, &Message::default());
    shim.good("Exec", &exec);
    let mut one = request(&b.id());
    one.text(2, "e");
    assert!(shim.ask("Start", &one).expect_err("nowhere to write").1.contains("no such file"));
    shim.kill();
    shim.good("Wait", &request(&b.id()));
    shim.delete();
    shim.end();
}
