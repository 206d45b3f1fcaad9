//! `create`: everything of a container but its program's start.
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::json;
use support::*;

#[test]
fn create_leaves_the_program_waiting_until_start() {
    let b = Bundle::new();
    b.set_args(&["echo", "ran"]);
    let c = b.create();
    assert_eq!(c.status(), "created");
    assert_eq!(c.stdout(), "", "the program ran before start");
    c.start();
    c.wait_stdout("ran\n");
}

#[test]
fn create_says_nothing_when_it_succeeds() {
    let b = Bundle::new();
    let out = b.verb("create", &[]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
}

#[test]
fn pid_file_holds_the_decimal_pid_and_no_newline() {
    let b = Bundle::new();
    let c = b.create_with(&["--pid-file", &b.path("pid")]);
    let text = fs::read_to_string(b.path("pid")).expect("the pid file");
    assert_eq!(text, c.pid().to_string());
}

#[test]
fn pid_file_replaces_what_was_there_and_leaves_no_other_file() {
    let b = Bundle::new();
    fs::create_dir(b.path("pids")).expect("mkdir");
    fs::write(b.path("pids/init.pid"), "a much longer text than any pid\n").expect("write");
    let c = b.create_with(&["--pid-file", &b.path("pids/init.pid")]);
    assert_eq!(fs::read_to_string(b.path("pids/init.pid")).expect("the pid file"), c.pid().to_string());
    let names: Vec<_> =
        fs::read_dir(b.path("pids")).expect("readdir").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["init.pid"]);
}

/// scripts/prove kill: a create that was killed between writing and renaming left `.init.pid` behind.
#[test]
fn pid_file_has_no_other_name_on_its_way() {
    deviates!("runc writes .NAME first, which is left when it is killed there");
    let b = Bundle::new();
    fs::create_dir_all(b.path("pids/.init.pid")).expect("mkdir");
    let c = b.create_with(&["--pid-file", &b.path("pids/init.pid")]);
    assert_eq!(fs::read_to_string(b.path("pids/init.pid")).expect("the pid file"), c.pid().to_string());
}

#[test]
fn pid_file_that_cannot_be_written_fails_the_create_and_leaves_nothing() {
    let b = Bundle::new();
    b.verb("create", &["--pid-file", &b.path("missing/pid")]).output().fails("no such file or directory");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn a_taken_id_is_refused_and_its_container_unharmed() {
    let b = Bundle::new();
    let c = b.running();
    let pid = c.pid();
    b.verb("create", &[]).output().fails("container with given ID already exists");
    b.verb("run", &[]).output().fails("container with given ID already exists");
    assert_eq!((c.status(), c.pid()), ("running".to_owned(), pid));
}

#[test]
fn of_four_creates_at_once_with_one_id_exactly_one_wins() {
    newer!("1.2: a claim of the id that the loser of a race does not take away again");
    let b = Bundle::new();
    let calls: Vec<_> = (0..4).map(|_| b.verb("create", &[]).spawn()).collect();
    let codes: Vec<i32> = calls.into_iter().map(|call| call.wait().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(b.container().status(), "created");
}

#[test]
fn ids_of_letters_digits_and_a_few_signs_are_taken() {
    let b = Bundle::new();
    for id in [b.id_of("a_b-C+9"), b.id_of(&"x".repeat(100))] {
        b.call(&["create", "--bundle", &b.path(""), &id]).ok();
        assert_eq!(Container::named(&b, id).status(), "created");
    }
}

#[test]
fn every_verb_refuses_an_id_that_is_no_name() {
    let b = Bundle::new();
    let outside = b.path("outside");
    let verbs: [&[&str]; 10] = [
        &["create", "--bundle", &b.path("")],
        &["run", "--bundle", &b.path("")],
        &["start"],
        &["state"],
        &["kill"],
        &["delete"],
        &["pause"],
        &["resume"],
        &["ps"],
        &["exec"],
    ];
    for verb in verbs {
        for id in ["..", ".", "../outside", "a/b", "a b", "a\nb", "é", outside.as_str()] {
            let mut call = b.call(verb).args(&[id]);
            let mut code = 1;
            if verb[0] == "exec" {
                call = call.args(&["true"]);
                code = 255;
            }
            call.output().exits(code).says("invalid container ID format");
        }
    }
    assert!(!fs::exists(&outside).expect("stat"));
}

#[test]
fn a_program_that_is_nowhere_in_path_fails_at_create() {
    let b = Bundle::new();
    b.set_args(&["no-such-program"]);
    b.verb("create", &[]).output().fails("exec: \"no-such-program\": executable file not found in $PATH");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn path_of_the_config_decides_where_the_program_is_found() {
    let b = Bundle::new();
    b.script("opt/here/greet", "#!/bin/sh\necho hello\n");
    b.set_args(&["greet"]).edit(|spec| spec["process"]["env"] = json!(["PATH=/nowhere:/opt/here"]));
    assert_eq!(b.run(&[]).ok().stdout, "hello\n");
}

#[test]
fn an_absolute_program_that_is_missing_fails_at_create() {
    let b = Bundle::new();
    b.set_args(&["/no/such/program"]);
    b.verb("create", &[])
        .output()
        .fails("exec: \"/no/such/program\": stat /no/such/program: no such file or directory");
}

#[test]
fn a_program_without_execute_permission_fails_at_create() {
    let b = Bundle::new();
    b.file("etc/data", "not a program");
    b.set_args(&["/etc/data"]);
    b.verb("create", &[]).output().fails("exec: \"/etc/data\": permission denied");
}

#[test]
fn a_directory_as_program_fails_at_create() {
    let b = Bundle::new();
    b.set_args(&["/etc"]);
    // runc 1.1.5 says "permission denied", 1.2 and later "is a directory": dockerd makes 126 of both.
    let out = b.verb("create", &[]).output().fails("exec: \"/etc\": ");
    let text = out.error();
    assert!(text.contains("is a directory") || text.contains("permission denied"), "{out}");
}

#[test]
fn a_missing_bundle_is_named() {
    let b = Bundle::new();
    let missing = b.path("missing");
    b.call(&["create", "--bundle", &missing, &b.id()])
        .output()
        .fails(&missing)
        .says("no such file or directory");
}

#[test]
fn a_bundle_without_config_is_named() {
    let b = Bundle::new();
    fs::remove_file(b.path("config.json")).expect("rm");
    b.verb("create", &[]).output().fails("config.json").says("not found");
}

#[test]
fn a_config_that_is_no_json_is_refused() {
    let b = Bundle::new();
    fs::write(b.path("config.json"), "{ \"ociVersion\": ").expect("write");
    let out = b.verb("create", &[]).output().exits(1);
    assert!(!out.stderr.contains("panicked"), "{out}");
    assert!(out.stderr.lines().count() >= 1);
}

#[test]
fn a_missing_rootfs_is_refused() {
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["path"] = json!("no-such-rootfs"));
    b.verb("create", &[]).output().fails("no-such-rootfs").says("no such file or directory");
}

#[test]
fn the_bundle_defaults_to_the_working_directory() {
    let b = Bundle::new();
    b.call(&["create", &b.id()]).cwd(b.dir()).ok();
    assert_eq!(b.container().state()["bundle"], json!(b.dir()));
}

#[test]
fn a_relative_bundle_is_recorded_absolute() {
    let b = Bundle::new();
    b.call(&["create", "--bundle", b.tag(), &b.id()]).cwd("/tmp").ok();
    assert_eq!(b.container().state()["bundle"], json!(b.dir()));
}

#[test]
fn a_config_changed_after_create_does_not_change_the_container() {
    let b = Bundle::new();
    b.set_args(&["echo", "before"]);
    let c = b.create();
    b.set_args(&["echo", "after"]);
    c.start().wait_stdout("before\n");
}

#[test]
fn preserve_fds_passes_them_with_their_numbers() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let files = ["three", "four"].map(|name| fs::File::create(b.path(name)).expect("create"));
    let [three, four] = &files;
    let out = b.verb("run", &["--preserve-fds", "2"]).fd(three, 3).fd(four, 4).ok();
    let fds = &out.json()["fds"];
    assert_eq!(fds["3"]["target"], json!(b.path("three")));
    assert_eq!(fds["4"]["target"], json!(b.path("four")));
}

#[test]
fn descriptors_that_nobody_asked_to_keep_are_closed() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let file = fs::File::create(b.path("secret")).expect("create");
    let directory = fs::File::open("/").expect("open /");
    let call = b.verb("run", &["--preserve-fds", "1"]).fd(&file, 3).fd(&directory, 4).fd(&directory, 9);
    let report = call.ok().json();
    let numbers: Vec<&String> = report["fds"].as_object().expect("fds").keys().collect();
    assert_eq!(numbers, ["0", "1", "2", "3"], "{:#}", report["fds"]);
}

#[test]
fn a_descriptor_to_preserve_that_is_not_open_fails_the_create() {
    let b = Bundle::new();
    let file = fs::File::create(b.path("three")).expect("create");
    // More than any runtime has open itself: runc takes its own epoll descriptor for a preserved one.
    b.verb("create", &["--preserve-fds", "60"]).fd(&file, 3).output().fails("preserve");
    b.container().verb("state", &[]).fails("does not exist");
}

/// As systemd starts a service: `LISTEN_PID` is the runtime's own number.
const ACTIVATED: [&str; 3] = ["sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""];

#[test]
fn listen_fds_are_handed_on_with_their_variables() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let socket = fs::File::create(b.path("socket")).expect("create");
    let report = b.verb("run", &[]).fd(&socket, 3).env("LISTEN_FDS", "1").through(&ACTIVATED).ok().json();
    assert_eq!(report["fds"]["3"]["target"], json!(b.path("socket")));
    let env: Vec<_> = report["env"].as_array().expect("env").iter().filter_map(|e| e.as_str()).collect();
    assert!(env.contains(&"LISTEN_FDS=1") && env.contains(&"LISTEN_PID=1"), "{env:?}");
}

#[test]
fn listen_fds_meant_for_another_process_are_not_handed_on() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let socket = fs::File::create(b.path("socket")).expect("create");
    let call = b.verb("run", &[]).fd(&socket, 3).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let report = call.ok().json();
    assert_eq!(report["fds"].get("3"), None, "{:#}", report["fds"]);
    assert!(!report["env"].to_string().contains("LISTEN_"), "{}", report["env"]);
}

#[test]
fn preserved_descriptors_come_after_those_of_listen_fds() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let files = ["socket", "kept"].map(|name| fs::File::create(b.path(name)).expect("create"));
    let [socket, kept] = &files;
    let call = b.verb("run", &["--preserve-fds", "1"]).fd(socket, 3).fd(kept, 4);
    let call = call.env("LISTEN_FDS", "1").through(&ACTIVATED);
    let report = call.ok().json();
    assert_eq!(report["fds"]["3"]["target"], json!(b.path("socket")));
    assert_eq!(report["fds"]["4"]["target"], json!(b.path("kept")));
}

#[test]
fn the_callers_environment_stays_outside() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let report = b.verb("run", &[]).env("JUG_SECRET", "do not tell").ok().json();
    assert!(!report["env"].to_string().contains("JUG_SECRET"), "{}", report["env"]);
}

#[test]
fn a_terminal_without_console_socket_is_refused() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["terminal"] = json!(true));
    b.verb("create", &[])
        .output()
        .fails("cannot allocate tty if")
        .says("will detach without setting console socket");
}

#[test]
fn a_console_socket_without_terminal_is_refused() {
    let b = Bundle::new();
    let console = Console::listen(&b);
    b.verb("create", &["--console-socket", console.path()])
        .output()
        .fails("cannot use console socket if")
        .says("will not detach or allocate tty");
}

#[test]
fn a_session_keyring_of_its_own_is_named_after_the_id() {
    let b = Bundle::new();
    let keyring = b.probe(&[])["keyring"]["description"].clone();
    assert!(keyring.as_str().expect("a keyring").ends_with(&format!("_ses.{}", b.id())), "{keyring}");
}

#[test]
fn no_new_keyring_keeps_the_callers() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let keyring = b.run(&["--no-new-keyring"]).ok().json()["keyring"].clone();
    assert_eq!(keyring, probe_here(&[])["keyring"]);
}

#[test]
fn no_pivot_still_confines_to_the_rootfs() {
    let b = Bundle::new();
    b.file("etc/marker", "inside");
    b.set_args(&["/bin/probe", "--read", "/etc/marker", "--stat", "/../../etc/marker", "--list", "/"]);
    let report = b.run(&["--no-pivot"]).ok().json();
    assert_eq!(report["reads"]["/etc/marker"]["ok"], "inside");
    assert_eq!(report["stats"]["/../../etc/marker"]["type"], "-");
    assert!(!report["lists"]["/"].to_string().contains("config.json"));
}

#[test]
fn the_state_directory_is_for_its_owner_only() {
    let b = Bundle::new();
    let root = b.path("fresh/root");
    b.call(&["create", "--bundle", &b.path(""), &b.id()]).root(&root).ok();
    let directory = fs::metadata(format!("{root}/{}", b.id())).expect("the state directory");
    let mode = |meta: &fs::Metadata| meta.permissions().mode() & 0o077;
    // Nobody else may read records or reach sockets: one closed door on the way is enough, and --root is made so.
    let parent = fs::metadata(&root).expect("the root directory");
    assert!(mode(&directory) == 0 || mode(&parent) == 0, "{:o} in {:o}", directory.mode(), parent.mode());
    b.call(&["delete", "--force", &b.id()]).root(&root).ok();
}

#[test]
fn a_failing_hook_fails_the_create_and_leaves_nothing() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "exit 7"] }] })
    });
    b.verb("create", &[]).output().fails("hook");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn pidfd_socket_receives_a_pidfd_of_the_init() {
    newer!("1.2: create --pidfd-socket");
    let b = Bundle::new();
    let listener = Console::listen_at(std::path::Path::new(&b.path("pidfd.sock")));
    let c = b.create_with(&["--pidfd-socket", listener.path()]);
    let (_, fds) = listener.receive();
    assert_eq!(fds.len(), 1);
    let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fds[0]));
    let info = fs::read_to_string(info).expect("fdinfo");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    assert_eq!(pid, Some(c.pid().to_string().as_str()), "{info}");
}
