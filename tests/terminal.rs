//! Terminals: the console socket, and `run` and `exec` on a terminal of their own.
mod support;

use std::fs;
use std::os::fd::AsRawFd as _;

use nix::sys::termios::tcgetattr;
use serde_json::{Value, json};
use support::*;

/// Gives the wrapped runtime the terminal as its controlling one.
const CONTROLLED: [&str; 2] = ["setsid", "--ctty"];

fn with_terminal(args: &[&str]) -> Bundle {
    let b = Bundle::new();
    b.set_args(args).edit(|spec| spec["process"]["terminal"] = json!(true));
    b
}

/// The JSON object among what came over a terminal.
#[track_caller]
fn object(text: &str) -> Value {
    let (start, end) = (text.find('{').expect("a {"), text.rfind('}').expect("a }"));
    serde_json::from_str(&text[start..=end]).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn the_console_socket_receives_one_terminal_with_a_name() {
    let b = with_terminal(&["/bin/probe", "trap"]);
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let (name, fds) = console.receive();
    assert!(!name.is_empty() && name.len() < 4096, "{name:?}");
    assert_eq!(fds.len(), 1);
    let target = fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).expect("the descriptor");
    assert!(target.ends_with("ptmx"), "{}", target.display());
    c.start();
}

#[test]
fn the_program_has_the_terminal_as_its_controlling_one() {
    let b = with_terminal(&["/bin/probe", "--stat", "/dev/console"]);
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let mut master = console.master();
    c.start();
    let report = object(master.wait_for("}\r\n"));
    let tty = &report["tty"];
    for stream in ["stdin", "stdout", "stderr", "controlling"] {
        assert_eq!(tty[stream], true, "{stream}: {tty}");
    }
    assert_eq!(tty["name"], "/dev/pts/0");
    assert_eq!(report["stats"]["/dev/console"]["type"], "c");
    assert_eq!((&report["sid"], &report["pgid"]), (&json!(1), &json!(1)));
    let numbers: Vec<&String> = report["fds"].as_object().expect("fds").keys().collect();
    assert_eq!(numbers, ["0", "1", "2"]);
}

#[test]
fn the_terminal_has_the_configs_size() {
    let b = with_terminal(&["/bin/probe"]);
    b.edit(|spec| spec["process"]["consoleSize"] = json!({ "height": 31, "width": 117 }));
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let mut master = console.master();
    c.start();
    let report = object(master.wait_for("}\r\n"));
    assert_eq!((&report["tty"]["rows"], &report["tty"]["columns"]), (&json!(31), &json!(117)));
}

#[test]
fn the_terminal_belongs_to_the_programs_user() {
    let b = with_terminal(&["/bin/probe", "--stat", "/dev/pts/0"]);
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let mut master = console.master();
    c.start();
    let report = object(master.wait_for("}\r\n"));
    assert_eq!(report["stats"]["/dev/pts/0"]["uid"], 1000);
}

#[test]
fn what_is_typed_reaches_the_program_and_the_end_is_seen() {
    let b = with_terminal(&["sh", "-c", "read line; echo got:$line"]);
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let mut master = console.master();
    c.start();
    master.type_in("lamb\n");
    master.wait_for("got:lamb");
    master.wait_end();
    c.wait("stopped");
}

#[test]
fn a_resize_of_the_master_is_signalled_to_the_program() {
    let b = with_terminal(&["/bin/probe", "trap", "WINCH"]);
    let console = Console::listen(&b);
    let c = b.create_with(&["--console-socket", console.path()]);
    let mut master = console.master();
    c.start();
    master.wait_for("ready");
    master.resize(20, 99);
    master.wait_for("SIGWINCH");
    assert_eq!(c.status(), "running");
}

#[test]
fn run_detach_needs_the_socket_too() {
    let b = with_terminal(&["true"]);
    b.verb("run", &["--detach"]).output().fails("without setting console socket");
}

#[test]
fn a_console_socket_that_nobody_listens_on_fails_and_leaves_nothing() {
    let b = with_terminal(&["true"]);
    b.verb("create", &["--console-socket", &b.path("no.sock")]).output().exits(1);
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn a_console_socket_path_longer_than_sun_path_still_works() {
    deviates!(
        "a console socket is reached through its directory, whatever the length of its path; runc: EINVAL"
    );
    let b = with_terminal(&["/bin/probe"]);
    let deep = b.path(&"d".repeat(120));
    fs::create_dir(&deep).expect("mkdir");
    let console = Console::listen(&b);
    let long = format!("{deep}/console.sock");
    fs::rename(console.path(), &long).expect("rename");
    let c = b.create_with(&["--console-socket", &long]);
    let mut master = console.master();
    c.start();
    assert_eq!(object(master.wait_for("}\r\n"))["tty"]["stdin"], true);
}

#[test]
fn run_on_a_terminal_shows_its_output_and_gives_the_code() {
    let b = with_terminal(&["sh", "-c", "echo one; echo two; exit 5"]);
    let mut pty = Pty::open(24, 80);
    let call = b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    assert!(pty.master.wait_for("two\r\n").contains("one\r\ntwo\r\n"));
    assert_eq!(call.wait().code, 5);
}

#[test]
fn run_hands_on_the_size_and_every_change_of_it() {
    let b = with_terminal(&["sh", "-c", "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"]);
    let mut pty = Pty::open(33, 101);
    let call = b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    // runc sets the size a moment after the start.
    pty.master.wait_for(" ");
    eventually("the program's first words", || (b.container().verb("state", &[]).code == 0).then_some(()));
    pty.master.resize(40, 120);
    pty.master.wait_for("40 120");
    b.container().kill("KILL");
    call.wait().exits(137);
}

#[test]
fn keys_reach_the_program_through_runs_terminal() {
    let b = with_terminal(&["/bin/probe", "trap", "INT"]);
    let mut pty = Pty::open(24, 80);
    let call = b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    pty.master.wait_for("ready");
    pty.master.type_in("\x03");
    pty.master.wait_for("SIGINT");
    b.container().kill("TERM");
    call.wait().ok();
}

#[test]
fn run_restores_the_callers_terminal() {
    let b = with_terminal(&["true"]);
    let pty = Pty::open(24, 80);
    let before = tcgetattr(&pty.slave).expect("tcgetattr(3)");
    let call = b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    call.wait().ok();
    let after = tcgetattr(&pty.slave).expect("tcgetattr(3)");
    assert_eq!(
        (before.input_flags, before.output_flags, before.local_flags, before.control_flags),
        (after.input_flags, after.output_flags, after.local_flags, after.control_flags)
    );
}

#[test]
fn run_restores_the_callers_terminal_when_it_fails() {
    let b = with_terminal(&["no-such-program"]);
    let pty = Pty::open(24, 80);
    let before = tcgetattr(&pty.slave).expect("tcgetattr(3)");
    b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn().wait().exits(1);
    let after = tcgetattr(&pty.slave).expect("tcgetattr(3)");
    assert_eq!((before.local_flags, before.output_flags), (after.local_flags, after.output_flags));
}

#[test]
fn exec_tty_allocates_one_in_the_foreground() {
    let b = Bundle::new();
    let c = b.running();
    let mut pty = Pty::open(27, 93);
    let call = c.call("exec", &["--tty"], &["/bin/probe"]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    let report = object(pty.master.wait_for("}\r\n"));
    assert_eq!(report["tty"]["stdin"], true);
    assert_eq!(report["tty"]["controlling"], true);
    call.wait().ok();
}

#[test]
fn exec_tty_gives_the_programs_code() {
    let b = Bundle::new();
    let c = b.running();
    let pty = Pty::open(24, 80);
    let call =
        c.call("exec", &["-t"], &["/bin/probe", "exit", "11"]).through(&CONTROLLED).terminal(&pty.slave);
    call.spawn().wait().exits(11);
}

#[test]
fn exec_detached_sends_its_terminal_to_the_socket() {
    let b = Bundle::new();
    let c = b.running();
    let console = Console::listen(&b);
    let flags = ["--tty", "--detach", "--console-socket", console.path()];
    c.exec_with(&flags, &["sh", "-c", "read line; echo got:$line"]).ok();
    let mut master = console.master();
    master.type_in("ewe\n");
    master.wait_for("got:ewe");
}

#[test]
fn exec_with_a_process_file_has_the_files_terminal_and_size() {
    let b = Bundle::new();
    let c = b.running();
    let console = Console::listen(&b);
    let process = json!({
        "terminal": true, "consoleSize": { "height": 12, "width": 34 },
        "user": { "uid": 0, "gid": 0 }, "args": ["/bin/probe"], "cwd": "/", "env": ["PATH=/bin"],
    });
    fs::write(b.path("process.json"), process.to_string()).expect("write");
    let file = b.path("process.json");
    c.exec_with(&["--process", &file, "--detach", "--console-socket", console.path()], &[]).ok();
    let report = object(console.master().wait_for("}\r\n"));
    assert_eq!((&report["tty"]["rows"], &report["tty"]["columns"]), (&json!(12), &json!(34)));
}

#[test]
fn exec_refuses_a_terminal_without_a_place_for_it() {
    let b = Bundle::new();
    let c = b.running();
    c.exec_with(&["--tty", "--detach"], &["true"]).exits(255).says("without setting console socket");
    let console = Console::listen(&b);
    c.exec_with(&["--console-socket", console.path()], &["true"])
        .exits(255)
        .says("cannot use console socket if");
}

#[test]
fn without_a_terminal_there_is_none() {
    let b = Bundle::new();
    let tty = b.probe(&[])["tty"].clone();
    assert_eq!(tty["stdin"], false);
    assert_eq!(tty["controlling"], false);
}

#[test]
fn a_program_without_a_terminal_cannot_reach_the_callers() {
    // CVE-2016-2779's kind: the caller's terminal as the container's controlling one would let it type for the caller.
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let mut pty = Pty::open(24, 80);
    let call = b.verb("run", &[]).through(&CONTROLLED).terminal(&pty.slave).spawn();
    let report = object(pty.master.wait_for("}\r\n"));
    call.wait().ok();
    assert_eq!(report["tty"]["controlling"], false);
}

#[test]
fn what_goes_to_a_pipe_has_bare_line_feeds() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["terminal"] = json!(true));
    assert_eq!(b.run_args(&["/bin/echo", "one"]).ok().stdout, "one\n");
    let b = Bundle::new();
    assert_eq!(b.running().exec_with(&["-t"], &["/bin/echo", "two"]).ok().stdout, "two\n");
}

#[test]
fn a_read_only_dev_has_a_console() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["terminal"] = json!(true);
        let dev =
            spec["mounts"].as_array_mut().expect("mounts").iter_mut().find(|m| m["destination"] == "/dev");
        dev.expect("/dev")["options"].as_array_mut().expect("options").push(json!("ro"));
    });
    let mounts = b.run_args(&["/bin/cat", "/proc/mounts"]).ok().stdout;
    let dev = mounts.lines().find(|line| line.starts_with("tmpfs /dev ")).expect("/dev");
    assert!(dev.contains(" ro,"), "{dev}");
    assert!(mounts.contains(" /dev/console devpts "), "{mounts}");
}
