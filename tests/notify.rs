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

/// systemd's way to know that everything was read: it closes the descriptor that comes with this message. Newer than
/// the runc at hand.
#[track_caller]
fn receive_barrier(socket: &UnixDatagram) {
    if !is_peer() {
        assert_eq!(receive(socket), "BARRIER=1");
    }
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
    receive_barrier(&socket);
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
    receive_barrier(&socket);
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
    receive_barrier(&socket);
    start.wait().ok();
}

#[test]
fn readiness_counts_on_any_line_of_a_message() {
    deviates!("READY=1 is found on any line; runc looks at the first only");
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&["sh", "-c", "/bin/probe notify 'STATUS=secret\nREADY=1' && exec sleep 1000"]);
    let call = b.verb("run", &["--detach"]).env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(receive(&socket), "READY=1");
    drop(socket);
    call.wait().ok();
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

#[test]
fn who_detaches_waits_until_the_service_manager_has_read_everything() {
    newer!("the barrier of sd_notify_barrier(3)");
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.set_args(&["sh", "-c", "/bin/probe notify READY=1; exec sleep 1000"]);
    let mut call = b.verb("run", &["--detach"]).env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", b.container().pid()));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(call.status(), None, "left before the barrier was read");
    assert_eq!(receive(&socket), "BARRIER=1");
    call.wait().ok();
    assert_eq!(b.container().status(), "running");
}

#[test]
fn nothing_but_readiness_reaches_the_service_manager() {
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    let say = "for m in MAINPID=1 STOPPING=1 READY=1 WATCHDOG=1; do /bin/probe notify $m; done";
    b.set_args(&["sh", "-c", &format!("{say}; exec sleep 1000")]);
    let call = b.verb("run", &[]).env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", call.pid()));
    receive_barrier(&socket);
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("SO_RCVTIMEO");
    let more = socket.recv(&mut [0; 256]).map_err(|why| why.kind());
    assert_eq!(more, Err(std::io::ErrorKind::WouldBlock));
    b.container().kill("KILL");
    call.wait().exits(137);
}

#[test]
fn the_service_manager_may_listen_in_the_abstract_namespace() {
    use std::os::linux::net::SocketAddrExt as _;
    let b = Bundle::new();
    let name = format!("jug-test-{}", b.id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("bind");
    socket.set_read_timeout(Some(patience())).expect("SO_RCVTIMEO");
    b.set_args(&["/bin/probe", "notify", "READY=1"]);
    let call = b.verb("run", &[]).env("NOTIFY_SOCKET", format!("@{name}")).spawn();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", call.pid()));
    receive_barrier(&socket);
    call.wait().ok();
}

#[test]
fn a_container_in_a_user_namespace_reaches_its_socket() {
    let b = Bundle::new();
    let (socket, path) = listen(&b);
    b.add_namespace("user").edit(|spec| {
        let map = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    std::fs::create_dir_all(b.rootfs().join("run/notify")).expect("mkdir");
    b.set_args(&["/bin/probe", "notify", "READY=1"]);
    let call = b.verb("run", &[]).env("NOTIFY_SOCKET", &path).spawn();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(receive(&socket), format!("MAINPID={}", call.pid()));
    receive_barrier(&socket);
    call.wait().ok();
}

#[test]
fn the_program_cannot_change_the_directory_of_its_socket() {
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    let args = [
        "sh",
        "-c",
        "mv /run/notify/notify.sock /run/notify/x 2>&1; /bin/probe notify READY=1; ls /run/notify",
    ];
    b.set_args(&args);
    let out = b.verb("run", &[]).env("NOTIFY_SOCKET", &path).ok();
    assert!(out.stdout.contains("Read-only file system") && out.stdout.ends_with("notify.sock\n"), "{out}");
}

#[test]
fn delete_ends_the_wait_of_a_start() {
    deviates!("a start that waits holds no lock; runc looks for the process every 100 ms only");
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    b.verb("create", &[]).env("NOTIFY_SOCKET", &path).ok();
    let c = b.container();
    let start = c.call("start", &[], &[]).env("NOTIFY_SOCKET", &path).spawn();
    eventually("a running container", || (c.status() == "running").then_some(()));
    b.call(&["delete", "--force", &b.id()]).ok();
    start.wait().ok();
}

#[test]
fn a_start_without_the_place_that_create_makes_is_an_error() {
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    let c = b.create();
    c.call("start", &[], &[]).env("NOTIFY_SOCKET", &path).output().exits(1).says("no such file or directory");
    assert_eq!(c.status(), "created");
}

#[test]
fn a_created_container_binds_no_socket_yet() {
    let b = Bundle::new();
    let (_socket, path) = listen(&b);
    b.verb("create", &[]).env("NOTIFY_SOCKET", &path).ok();
    let there: Vec<_> =
        std::fs::read_dir(format!("{}/{}/notify", b.root().display(), b.id())).expect("dir").collect();
    assert!(there.is_empty(), "{there:?}");
}
