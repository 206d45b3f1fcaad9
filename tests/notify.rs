//! `NOTIFY_SOCKET`: a container tells systemd that it is ready.
mod support;

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::*;

fn listen(b: &Bundle) -> (UnixDatagram, String) {
    let path = b.path("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(patience())).expect("SO_RCVTIMEO");
    (socket, path)
}

#[track_caller]
fn receive(socket: &UnixDatagram) -> String {
    let mut bytes = [0u8; 256];
    let length = socket.recv(&mut bytes).expect("a notification");
    String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
}

/// Says it is ready once it is told to go on, and stays.
const READY_WHEN_TOLD: [&str; 3] = ["sh", "-c", "read go; /bin/probe notify READY=1; exec sleep 1000"];

#[test]
fn run_forwards_readiness_and_names_itself_as_the_main_process() {
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&["sh", "-c", "/bin/probe notify 'READY=1\nSTATUS=secret' && exec sleep 1000"]);
    let call = b.verb("run", &[]).env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", call.pid()));
    b.container().kill("KILL");
    call.wait().exits(137);
}

#[test]
fn run_detach_waits_for_readiness_and_names_the_init() {
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&READY_WHEN_TOLD);
    let mut call = b.verb("run", &["--detach"]).env("NOTIFY_SOCKET", &path).stdin_pipe().spawn();
    eventually("a running container", || (b.container().verb("state", &[]).code == 0).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(call.status(), None, "did not wait");
    call.stdin.as_mut().expect("a pipe").write_all(b"go\n").expect("write");
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", b.container().pid()));
    call.wait().ok();
}

#[test]
fn start_waits_for_readiness_and_names_the_init() {
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&READY_WHEN_TOLD);
    let mut create = b.verb("create", &[]).env("NOTIFY_SOCKET", &path).stdin_pipe().spawn();
    let mut stdin = create.stdin.take().expect("a pipe");
    create.wait().ok();
    let c = b.container();
    let mut start = c.call("start", &[], &[]).env("NOTIFY_SOCKET", &path).spawn();
    eventually("a running container", || (c.status() == "running").then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(start.status(), None, "did not wait");
    stdin.write_all(b"go\n").expect("write");
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", c.pid()));
    start.wait().ok();
}

#[test]
fn readiness_counts_on_any_line_of_a_message() {
    deviates!("READY=1 is found on any line; runc looks at the first only");
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&["sh", "-c", "/bin/probe notify 'STATUS=secret\nREADY=1' && exec sleep 1000"]);
    b.verb("run", &["--detach"]).env("NOTIFY_SOCKET", &path).ok();
    assert_eq!(receive(&socket), "READY=1");
}

#[test]
fn the_program_sees_a_socket_of_its_own() {
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    b.set_args(&["sh", "-c", "/bin/probe env NOTIFY_SOCKET; ls /run/notify; /bin/probe notify READY=1"]);
    let out = b.verb("run", &[]).env("NOTIFY_SOCKET", &path).ok();
    assert_eq!(out.stdout, "/run/notify/notify.sock\nnotify.sock\n");
}

#[test]
fn without_the_variable_there_is_no_socket() {
    let b = Bundle::new();
    let report = b.probe(&["--stat", "/run/notify"]);
    assert_eq!(report["stats"]["/run/notify"]["errno"], "ENOENT");
    assert!(!report["env"].to_string().contains("NOTIFY_SOCKET"));
}

#[test]
fn a_program_that_ends_before_it_is_ready_ends_the_wait() {
    deviates!("run gives the program's code when it ends unready; runc waits for ever in the foreground");
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    b.set_args(&["/bin/probe", "exit", "4"]);
    b.verb("run", &[]).env("NOTIFY_SOCKET", &path).spawn().wait().exits(4);
}

#[test]
fn a_program_that_ends_before_it_is_ready_ends_the_wait_of_start() {
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    b.set_args(&["true"]);
    b.verb("create", &[]).env("NOTIFY_SOCKET", &path).ok();
    b.container().call("start", &[], &[]).env("NOTIFY_SOCKET", &path).output();
    b.container().wait("stopped");
}

#[test]
fn signals_reach_a_program_that_is_not_ready_yet() {
    deviates!("run forwards signals while it waits for readiness; runc does not");
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    let mut call = b.set_args(&["/bin/probe", "trap"]).verb("run", &[]).env("NOTIFY_SOCKET", &path).spawn();
    call.wait_stdout("ready\n");
    call.signal(Signal::SIGTERM);
    call.wait().ok();
}
