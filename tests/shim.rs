//! containerd's shim, spoken to directly: what containerd would never send, and what becomes of containers whose shim
//! dies. What containerd itself does with it is shown by `scripts/engines --only shim`.
#![cfg(feature = "shim")]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jug::protobuf::Message;
use support::shim::{
    RUNNING, SERVICE, STOPPED, Shim, bootstrap, connect, field, number, options, program, request,
};
use support::*;

#[test]
fn a_life_and_its_events() {
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "exit 7"]);
    let mut shim = Shim::start(&b);
    let wait = shim.send(SERVICE, "Wait", &request(&b.id()));
    assert_eq!((shim.hear().1.expect_err("nothing is there yet").0, wait), (5, 1));
    let pid = shim.run(&Message::default());
    let wait = shim.good("Wait", &request(&b.id()));
    assert_eq!(number(&wait, 1), 7);
    assert_eq!(shim.status(), STOPPED);
    let deleted = shim.delete();
    assert_eq!((number(&deleted, 1), number(&deleted, 2)), (i64::from(pid), 7));
    let topics: Vec<String> =
        (0..4).map(|_| shim.events.recv_timeout(patience()).expect("an event")).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    shim.end();
}

#[test]
fn the_third_version_is_the_same() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    shim.run(&Message::default());
    let sent = shim.send("containerd.task.v3.Task", "State", &request(&b.id()));
    let (stream, state) = shim.hear();
    assert_eq!((stream, number(&state.expect("a state"), 4)), (sent, RUNNING));
    shim.kill_and_end();
}

#[test]
fn a_wait_holds_up_nobody() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    shim.run(&Message::default());
    let waiting = shim.send(SERVICE, "Wait", &request(&b.id()));
    assert_eq!(shim.status(), RUNNING);
    let mut kill = request(&b.id());
    kill.number(3, 15);
    let killed = shim.send(SERVICE, "Kill", &kill);
    assert_eq!(shim.hear(), (killed, Ok(Vec::new())));
    // The program ignores SIGTERM, as a first process does.
    shim.kill();
    let (stream, ended) = shim.hear();
    assert_eq!((stream, number(&ended.expect("an end"), 1)), (waiting, 137));
    shim.delete();
    shim.end();
}

#[test]
fn nonsense_is_an_error_on_the_call() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    let id = request(&b.id());
    let asked = shim.send(SERVICE, "Fly", &id);
    assert!(matches!(shim.hear(), (stream, Err((12, _))) if stream == asked));
    shim.send("containerd.sheep.v1.Herd", "State", &id);
    assert!(matches!(shim.hear(), (_, Err((12, _)))));
    // Nobody has such containers, processes or bundles.
    for method in ["State", "Start", "Delete", "Pids", "Pause", "Kill", "Exec", "Wait", "Stats", "Update"] {
        let mut nobody = request("nobody");
        nobody.text(2, "exec");
        shim.refuses(method, &nobody, 5);
    }
    for name in ["", "..", "a/b", "a\0b", &"x".repeat(1000)] {
        let mut create = request(name);
        create.text(2, b.dir().to_string_lossy().as_bytes());
        shim.refuses("Create", &create, 3);
    }
    let mut create = request(&b.id());
    create.text(2, b.path("vanished")).message(10, &options(&b));
    shim.refuses("Create", &create, 5);
    // Garbage where messages should be, and frames that are none.
    for junk in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff", b"\x12"] {
        let sent = shim.stream;
        let mut bytes = (junk.len() as u32).to_be_bytes().to_vec();
        bytes.extend(sent.to_be_bytes());
        bytes.extend([1, 0]);
        bytes.extend(junk);
        shim.socket.write_all(&bytes).expect("write");
        assert!(matches!(shim.hear(), (stream, Err((3, _))) if stream == sent));
    }
    let pid = shim.pid();
    shim.run(&Message::default());
    assert_eq!(shim.pid(), pid, "it is the same shim");
    shim.kill();
    shim.good("Wait", &id);
    shim.delete();
    shim.end();
}

#[test]
fn a_message_that_is_too_long_is_skipped() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    let long = (4 << 20) + 1;
    let mut bytes = (long as u32).to_be_bytes().to_vec();
    bytes.extend(99u32.to_be_bytes());
    bytes.extend([1, 0]);
    bytes.resize(10 + long, b'x');
    shim.socket.write_all(&bytes).expect("write");
    assert!(matches!(shim.hear(), (99, Err((8, _)))));
    assert!(shim.pid() > 0);
    // A client that begins a message and goes away leaves nothing.
    let mut half = connect(&shim.address);
    half.write_all(&bytes[..5]).expect("write");
    drop(half);
    assert!(shim.pid() > 0);
    shim.end();
}

#[test]
fn a_fifo_that_nobody_reads_stops_nobody_else() {
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"]);
    let fifo = b.path("stdout");
    nix::unistd::mkfifo(Path::new(&fifo), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let mut shim = Shim::start(&b);
    let mut more = Message::default();
    more.text(6, &fifo);
    shim.run(&more);
    for _ in 0..20 {
        assert_eq!(shim.status(), RUNNING);
    }
    // One that comes late reads from the beginning, and goes again.
    let mut text = [0; 80];
    fs::File::open(&fifo).expect("open").read_exact(&mut text).expect("read");
    assert!(text.starts_with(b"0123456789"));
    assert_eq!(shim.status(), RUNNING);
    shim.kill_and_end();
}

#[test]
fn input_ends_when_it_is_closed() {
    let b = Bundle::new();
    b.set_args(&["/bin/cat"]);
    let (stdin, stdout) = (b.path("stdin"), b.path("stdout"));
    for fifo in [&stdin, &stdout] {
        nix::unistd::mkfifo(Path::new(fifo), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    }
    let mut shim = Shim::start(&b);
    let mut more = Message::default();
    more.text(5, &stdin).text(6, &stdout);
    shim.run(&more);
    let mut reader = fs::OpenOptions::new().read(true).open(&stdout).expect("open");
    for line in ["one\n", "two\n"] {
        // Each by a client that goes away: the input stays open.
        fs::OpenOptions::new()
            .write(true)
            .open(&stdin)
            .expect("open")
            .write_all(line.as_bytes())
            .expect("write");
        let mut text = [0; 4];
        reader.read_exact(&mut text).expect("read");
        assert_eq!(text, line.as_bytes());
    }
    assert_eq!(shim.status(), RUNNING);
    let mut close = request(&b.id());
    close.flag(3, true);
    shim.good("CloseIO", &close);
    assert_eq!(number(&shim.good("Wait", &request(&b.id())), 1), 0);
    assert_eq!(reader.read(&mut [0; 8]).expect("read"), 0, "its readers see an end");
    shim.delete();
    shim.end();
}

#[test]
fn a_terminal_that_nobody_reads() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["terminal"] = json!(true));
    b.set_args(&["/bin/sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"]);
    let fifo = b.path("stdout");
    nix::unistd::mkfifo(Path::new(&fifo), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let mut shim = Shim::start(&b);
    let mut more = Message::default();
    more.flag(4, true).text(6, &fifo);
    shim.run(&more);
    let mut resize = request(&b.id());
    resize.number(3, 117).number(4, 31);
    shim.good("ResizePty", &resize);
    assert_eq!(shim.status(), RUNNING);
    // It waits for a reader, and does not burn: the shim's own time stands still.
    let pid = shim.pid();
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("time") + fields[12].parse::<u64>().expect("time")
    };
    eventually("a full FIFO", || {
        let before = used();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (used() <= before + 1).then_some(())
    });
    let mut reader =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("open");
    let mut text = [0; 41];
    reader.read_exact(&mut text).expect("read");
    assert!(text.starts_with(b"0123456789"), "{text:?}");
    shim.kill_and_end();
}

#[test]
fn an_exec_has_a_life_of_its_own() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    shim.run(&Message::default());
    let spec = json!({ "args": ["/bin/sh", "-c", "exit 9"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    let mut any = Message::default();
    any.text(1, "types.containerd.io/opencontainers/runtime-spec/1/Process").text(2, spec.to_string());
    let mut exec = request(&b.id());
    exec.text(2, "e").message(7, &any);
    shim.good("Exec", &exec);
    shim.refuses("Exec", &exec, 6);
    let mut one = request(&b.id());
    one.text(2, "e");
    assert!(number(&shim.good("Start", &one), 1) > 0);
    assert_eq!(number(&shim.good("Wait", &one), 1), 9);
    shim.refuses("Start", &one, 9);
    assert_eq!(number(&shim.good("Delete", &one), 2), 9);
    shim.refuses("State", &one, 5);
    // One that cannot be started: the runtime's words, and the container goes on.
    let spec = json!({ "args": ["/nowhere"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    let mut any = Message::default();
    any.text(1, "x").text(2, spec.to_string());
    let mut exec = request(&b.id());
    exec.text(2, "f").message(7, &any);
    shim.good("Exec", &exec);
    let mut one = request(&b.id());
    one.text(2, "f");
    let (_, said) = shim.ask("Start", &one).expect_err("no such program");
    assert!(
        said.starts_with("OCI runtime exec failed: exec failed: ") && said.contains("/nowhere"),
        "{said}"
    );
    shim.good("Delete", &one);
    assert_eq!(shim.status(), RUNNING);
    shim.kill_and_end();
}

#[test]
fn statistics_are_those_of_the_cgroup() {
    for controller in ["memory", "pids"] {
        needs!(Feature::Controller(controller));
    }
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 77 });
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    });
    b.set_args(&["/bin/probe", "alloc", "8", "3600"]);
    let out = b.path("out");
    let mut shim = Shim::start(&b);
    let mut more = Message::default();
    more.text(6, format!("file://{out}"));
    shim.run(&more);
    eventually("8 MiB", || fs::read_to_string(&out).ok().filter(|text| text.contains("ok")));
    let any = field(&shim.good("Stats", &request(&b.id())), 1);
    let (name, metrics) = (String::from_utf8(field(&any, 1)).expect("text"), field(&any, 2));
    // The numbers of the fields are those of stats/v1/metrics.proto and cgroup2/stats/metrics.proto.
    let memory = field(&metrics, 4);
    let (pids, limit, usage) = match name.as_str() {
        "io.containerd.cgroups.v1.Metrics" => {
            let usage = field(&memory, 33);
            (field(&metrics, 2), number(&usage, 1), number(&usage, 2))
        }
        "io.containerd.cgroups.v2.Metrics" => (field(&metrics, 1), number(&memory, 33), number(&memory, 32)),
        other => panic!("{other}"),
    };
    assert_eq!(name.contains("v2"), Feature::CgroupV2.is_present());
    assert_eq!((number(&pids, 1), number(&pids, 2)), (1, 77));
    assert_eq!(limit, 64 << 20);
    assert!((8 << 20..64 << 20).contains(&usage), "{usage}");
    shim.kill_and_end();
}

#[test]
fn an_idle_shim_keeps_little() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    shim.run(&Message::default());
    let pid = shim.pid();
    let private = || {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            line.trim_end_matches("kB").trim().parse::<u64>().expect("kB")
        };
        of("Private_Clean:") + of("Private_Dirty:")
    };
    // It has just worked; a second later it has given back what it does not need. (A build for debugging is larger.)
    eventually("less than 1000 kB of its own", || (private() < 1000).then_some(()));
    assert_eq!(shim.status(), RUNNING, "and it takes it up again");
    shim.kill_and_end();
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let b = Bundle::new();
    b.set_args(&["/nowhere"]);
    let mut shim = Shim::start(&b);
    let create = shim.create_request();
    let (_, said) = shim.ask("Create", &create).expect_err("no such program");
    assert!(said.starts_with("OCI runtime create failed: ") && said.contains("no such file"), "{said}");
    shim.refuses("State", &request(&b.id()), 5);
    // A root file system that cannot be mounted, and streams that are not there.
    let mut mount = Message::default();
    mount.text(1, "overlay").text(2, "overlay").text(4, "lowerdir=/nowhere");
    let mut with_mount = create.clone();
    with_mount.message(3, &mount);
    assert!(shim.ask("Create", &with_mount).expect_err("no such layer").1.contains("/nowhere"));
    // A place in the image for a mount, by which the image would lead out.
    let outside = b.path("outside");
    fs::create_dir(&outside).expect("mkdir");
    std::os::unix::fs::symlink(&outside, b.rootfs().join("way")).expect("symlink");
    let mut mount = Message::default();
    mount.text(1, "tmpfs").text(2, "tmpfs").text(3, "/way");
    let mut with_target = create.clone();
    with_target.message(3, &mount);
    assert!(shim.ask("Create", &with_target).expect_err("no way").1.contains("no such file"));
    let mut with_stream = create.clone();
    with_stream.text(6, "/nowhere/stdout");
    assert!(shim.ask("Create", &with_stream).expect_err("no such FIFO").1.contains("/nowhere/stdout"));
    let mut with_scheme = create;
    with_scheme.text(6, "gopher://x");
    assert!(shim.ask("Create", &with_scheme).expect_err("no such scheme").1.contains("gopher"));
    shim.end();
}

/// containerd gives a container in a user namespace the image's layers, and the maps as options.
#[test]
fn layers_are_seen_through_the_maps_of_a_user_namespace() {
    let b = Bundle::new();
    let layer = PathBuf::from(b.path("layer"));
    let [upper, work] = ["upper", "work"].map(|name| PathBuf::from(b.path(name)));
    fs::rename(b.rootfs(), &layer).expect("rename");
    for dir in [&b.rootfs(), &upper, &work] {
        fs::create_dir(dir).expect("mkdir");
    }
    let mut mount = Message::default();
    mount.text(1, "overlay").text(2, "overlay");
    let data = [("lowerdir", &layer), ("upperdir", &upper), ("workdir", &work)];
    for (key, dir) in data {
        mount.text(4, format!("{key}={}", dir.display()).as_bytes());
    }
    mount.text(4, "uidmap=0:100000:65536").text(4, "gidmap=0:200000:65536");
    let mut shim = Shim::start(&b);
    let mut create = shim.create_request();
    create.message(3, &mount);
    match shim.ask("Create", &create) {
        Err((_, said)) if in_guest() && said.contains("EINVAL") => {
            return say_skip("SKIP", "the guest's tmpfs and hostfs (6.1) cannot be idmapped");
        }
        answer => answer.expect("Create"),
    };
    let owner = |path: &Path| {
        let found = fs::symlink_metadata(path).expect("stat");
        (found.uid(), found.gid())
    };
    assert_eq!(owner(&b.rootfs().join("bin")), (100_000, 200_000));
    assert_eq!(owner(&layer.join("bin")), (0, 0), "the image's own is untouched");
    assert!(!b.dir().join("layers").exists(), "what is needed for the mount only goes with it");
    shim.delete();
    assert!(!b.rootfs().join("bin").exists(), "it is unmounted");
    shim.end();
}

#[test]
fn a_pod_has_one_shim() {
    let (b, second) = (Bundle::new(), Bundle::new());
    for bundle in [&b, &second] {
        bundle.edit(|spec| spec["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": b.id() }));
    }
    let mut shim = Shim::start(&b);
    shim.run(&Message::default());
    let mut params = bootstrap(&second, &second.id(), &options(&second));
    params.text(9, b.path("s"));
    let (good, out, said) = program(&second, &second.id(), &["start"], params.bytes());
    assert!(good, "{said}");
    let address = String::from_utf8(field(&out, 2)).expect("text");
    assert_eq!(address, format!("unix://{}", shim.address.display()));
    let mut create = request(&second.id());
    create.text(2, second.dir().to_string_lossy().as_bytes()).message(10, &options(&second));
    shim.good("Create", &create);
    shim.good("Start", &request(&second.id()));
    // It goes on when one of them is over, and when it is told to end.
    shim.kill();
    shim.good("Wait", &request(&b.id()));
    shim.delete();
    shim.good("Shutdown", &request(&b.id()));
    assert_eq!(number(&shim.good("State", &request(&second.id())), 4), RUNNING);
    let mut kill = request(&second.id());
    kill.number(3, 9);
    shim.good("Kill", &kill);
    shim.good("Wait", &request(&second.id()));
    shim.good("Delete", &request(&second.id()));
    shim.end();
}

#[test]
fn a_killed_shim_is_cleaned_up_after() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    let init = shim.run(&Message::default());
    let pid = nix::unistd::Pid::from_raw(shim.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill(2)");
    gone(pid.as_raw());
    assert!(Path::new(&format!("/proc/{init}")).exists(), "the container goes on");
    let socket = fs::symlink_metadata(&shim.address).expect("its socket is left");
    assert!(socket.file_type().is_socket());
    // containerd names the bundle's directory as the container; here that is a name beside it.
    let (good, out, said) = program(&b, &b.id(), &["-bundle", &b.dir().to_string_lossy(), "delete"], b"");
    assert!(good, "{said}");
    assert_eq!((number(&out, 1), number(&out, 2)), (i64::from(init), 137));
    gone(init);
    assert!(fs::symlink_metadata(&shim.address).is_err(), "its socket is removed");
    let (again, _, said) = program(&b, &b.id(), &["-bundle", &b.dir().to_string_lossy(), "delete"], b"");
    assert!(again, "a second time there is nothing to do: {said}");
}

#[test]
fn a_shim_that_everybody_left_ends() {
    let b = Bundle::new();
    let mut shim = Shim::start(&b);
    let pid = shim.pid();
    let address = shim.address.clone();
    drop(shim);
    gone(pid);
    assert!(fs::symlink_metadata(address).is_err(), "its socket is left");
}

#[test]
fn a_shim_says_what_it_is() {
    let b = Bundle::new();
    let (good, out, _) = program(&b, &b.id(), &["-v"], b"");
    assert!(good && String::from_utf8_lossy(&out).contains(env!("CARGO_PKG_VERSION")));
    let (good, out, said) = program(&b, &b.id(), &["-info"], options(&b).bytes());
    assert!(good, "{said}");
    assert_eq!(field(&out, 1), b"io.containerd.jug.v2");
    // containerd 2.x reads it by this name, and refuses a pod in a user namespace without.
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    assert_eq!(field(&field(&out, 4), 1), kind.as_bytes());
    let features: Value = serde_json::from_slice(&field(&field(&out, 4), 2)).expect("features");
    assert!(features["linux"]["namespaces"].is_array());
    // Old and new words on stdin; anything else is refused, and leaves nothing.
    for (args, input) in [(&["start"][..], &b"\x0a\x03abc"[..]), (&["stop"], b""), (&["-x"], b"")] {
        let (good, _, said) = program(&b, &b.id(), args, input);
        assert!(!good && said.starts_with("containerd-shim-jug-v2: "), "{args:?}: {said}");
    }
}
