//! `jug run --rootfs`: what a container gets when nothing is said, and what each flag changes. The probe inside, and
//! the cgroups outside, say what is so.
#![cfg(feature = "engine")]

mod support;
use support::*;

/// Podman's list.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

fn sorted(list: &Value) -> Vec<String> {
    let names = list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name").to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A variable of the container's environment.
fn variable(report: &Value, name: &str) -> Option<String> {
    let entries = report["env"].as_array().expect("the environment");
    let found =
        entries.iter().filter_map(|entry| entry.as_str()?.split_once('=')).find(|(key, _)| *key == name);
    found.map(|(_, value)| value.to_owned())
}

#[test]
fn the_defaults_are_at_least_as_strict_as_dockers() {
    let e = Engine::new();
    let questions =
        ["--read", "/proc/keys", "--read", "/proc/kcore", "--write", "/proc/irq/default_smp_affinity"];
    let report = e.probe(
        &[],
        &[&questions[..], &["--read", "/proc/interrupts", "--write", "/proc/sys/kernel/core_pattern"]]
            .concat(),
    );
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(sorted(&report["capabilities"][set]), CAPABILITIES, "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(report["capabilities"][set], json!([]), "{set}");
    }
    assert_eq!(report["seccomp"]["mode"], 2);
    assert_eq!(report["hostname"].as_str().map(str::len), Some(12));
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(report["namespaces"][kind].as_u64(), Some(own_namespace(kind)), "{kind}");
    }
    for path in ["/proc/keys", "/proc/kcore", "/proc/interrupts"] {
        let read = &report["reads"][path];
        assert!(read.to_string().len() < 60, "{path} is not masked: {read}");
    }
    assert_eq!(e.run(&["--rm"], &["ls", "/sys/dev/block", "/sys/firmware"]).ok().stdout.lines().count(), 3);
    // Not every kernel has the first.
    let there = |path: &&str| std::path::Path::new(path).exists();
    for path in ["/proc/irq/default_smp_affinity", "/proc/sys/kernel/core_pattern"].into_iter().filter(there)
    {
        assert_eq!(report["writes"][path]["errno"], "EROFS", "{path}");
    }
    assert!(has(mount_at(&report, "/sys"), "ro"));
    assert!(has(mount_at(&report, "/etc/hosts"), "rw"));
}

#[test]
fn exit_codes_are_dockers() {
    let e = Engine::new();
    for (flags, program, code) in [
        (&[][..], &["/bin/true"][..], 0),
        (&[], &["sh", "-c", "exit 7"], 7),
        (&[], &["/no/such"], 127),
        (&[], &["no-such"], 127),
        (&[], &["/etc/passwd"], 126),
        (&["--no-such-flag"], &["true"], 125),
        (&["--memory", "much"], &["true"], 125),
        (&["--user", "nobody"], &["true"], 125),
        (&["-v", "/no/such/source:/x"], &["true"], 125),
    ] {
        e.run(flags, program).exits(code);
        // The same under a monitor.
        let out = e.run_call(&[&["--name", "twice"], flags].concat(), program).output();
        assert_eq!(out.code, code, "{out}");
        e.jug(&["rm", "-f", "twice"]).ok();
    }
    let out = e.run(&[], &["sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn users_come_from_the_roots_own_files() {
    let e = Engine::new();
    let report = e.probe(&["--user", "lamb"], &[]);
    assert_eq!((&report["uid"]["effective"], &report["gid"]["effective"]), (&json!(1000), &json!(1000)));
    assert_eq!(report["groups"], json!([1000, 2000]));
    assert_eq!(variable(&report, "HOME").as_deref(), Some("/home/lamb"));
    assert_eq!(report["capabilities"]["effective"], json!([]));
    let report = e.probe(&["-u", "12:flock", "--group-add", "77", "--cap-add", "net_raw"], &[]);
    assert_eq!((&report["uid"]["effective"], &report["gid"]["effective"]), (&json!(12), &json!(2000)));
    assert_eq!(report["groups"], json!([77, 2000]));
    assert_eq!(report["capabilities"]["effective"], json!(["CAP_NET_RAW"]));
    // What is no regular file of the root's own is never read.
    std::fs::remove_file(e.bundle.rootfs().join("etc/passwd")).expect("rm");
    std::os::unix::fs::symlink("/etc/shadow", e.bundle.rootfs().join("etc/passwd")).expect("ln");
    e.run(&["--user", "root"], &["true"]).exits(125).says("unable to find user root");
    std::fs::remove_file(e.bundle.rootfs().join("etc/passwd")).expect("rm");
    nix::unistd::mkfifo(&e.bundle.rootfs().join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU)
        .expect("mkfifo");
    e.run(&["--user", "root"], &["true"]).exits(125).says("no regular file");
}

#[test]
fn the_environment_and_the_names() {
    let e = Engine::new();
    let file = e.bundle.path("env");
    std::fs::write(&file, "# said\nFROM_FILE=1\nGIVEN\nBOTH=file\n").expect("write");
    let flags = ["--env-file", &file, "-e", "BOTH=flag", "-e", "ABSENT", "-w", "/tmp", "-h", "lambda"];
    let more = ["--add-host", "db:192.0.2.7", "--dns", "198.51.100.1", "--dns-search", "example.org"];
    let call = e.run_call(
        &[&["--rm"], &flags[..], &more].concat(),
        &["/bin/probe", "--read", "/etc/hosts", "--read", "/etc/resolv.conf", "--read", "/etc/hostname"],
    );
    let report = call.env("GIVEN", "by the caller").env("SECRET", "1").output().ok().json();
    let has = |name: &str| variable(&report, name);
    assert_eq!(has("FROM_FILE").as_deref(), Some("1"));
    assert_eq!((has("GIVEN").as_deref(), has("BOTH").as_deref()), (Some("by the caller"), Some("flag")));
    assert_eq!((has("ABSENT"), has("SECRET")), (None, None));
    assert_eq!((&report["cwd"], &report["hostname"]), (&json!("/tmp"), &json!("lambda")));
    let read = |path: &str| report["reads"][path].to_string();
    assert!(read("/etc/hosts").contains("192.0.2.7\\tdb"), "{}", read("/etc/hosts"));
    assert!(read("/etc/resolv.conf").contains("search example.org\\nnameserver 198.51.100.1"));
    assert!(read("/etc/hostname").contains("lambda\\n"));
}

#[test]
fn volumes_of_all_kinds() {
    let e = Engine::new();
    let host = e.bundle.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    std::fs::write(format!("{host}/file"), "from the host").expect("write");
    let bind = format!("{host}:/mnt/bind:ro");
    let flags = ["-v", &bind, "-v", "data:/mnt/data", "-v", "/mnt/anonymous", "--tmpfs", "/mnt/tmp:size=1m"];
    let script =
        "cat /mnt/bind/file; echo kept > /mnt/data/x; touch /mnt/anonymous/y /mnt/tmp/z; touch /mnt/bind/no";
    let out = e.run(&flags, &["sh", "-c", script]);
    assert!(out.stdout.contains("from the host") && out.stderr.contains("Read-only file system"), "{out}");
    let out = e.run(&["--mount", "type=volume,source=data,target=/d,readonly"], &["cat", "/d/x"]).ok();
    assert_eq!(out.stdout, "kept\n");
    let volumes = std::fs::read_dir(e.root().join("volumes")).expect("volumes").count();
    assert_eq!(volumes, 1, "the anonymous one went with its container");
    e.run(&["-v", "/a:/x", "-v", "/b:/x"], &["true"]).exits(125).says("duplicate mount point");
}

#[test]
fn what_is_mounted_below_a_bind_comes_along_as_was_asked() {
    let e = Engine::new();
    let host = e.bundle.path("host");
    std::fs::create_dir_all(format!("{host}/below")).expect("mkdir");
    let script =
        format!("mount -t tmpfs below {host}/below && echo 1 > {host}/below/there && exec \"$0\" \"$@\"");
    let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
    let run = |more: &str| {
        let mount = format!("type=bind,src={host},dst=/m,consistency=cached{more}");
        let script = "cat /m/below/there; touch /m/own && echo own; touch /m/below/new && echo below";
        e.run_call(&["--rm", "--mount", &mount], &["sh", "-c", script]).through(&wrapper).output().stdout
    };
    assert_eq!(run(""), "1\nown\nbelow\n");
    assert_eq!(run(",ro"), "1\n");
    assert_eq!(run(",ro,bind-recursive=writable"), "1\nbelow\n");
    assert_eq!(run(",bind-recursive=disabled"), "own\nbelow\n");
    assert_eq!(run(",bind-nonrecursive=true,readonly=true"), "");
}

#[test]
fn limits_reach_the_kernel() {
    let e = Engine::new();
    let flags = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "33", "--ulimit", "nofile=99:100"];
    let id = e.detached("limited", &flags, &["sleep", "3600"]);
    let dirs = cgroups(&id);
    let read = |names: [&str; 2]| {
        let files = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
        files.filter_map(|file| std::fs::read_to_string(file).ok()).map(|text| text.trim().to_owned()).next()
    };
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]).as_deref(), Some("67108864"));
    assert_eq!(read(["pids.max", "pids.max"]).as_deref(), Some("33"));
    let cpu = read(["cpu.max", "cpu.cfs_quota_us"]).expect("a quota");
    assert!(cpu.starts_with("50000"), "{cpu}");
    let limits = e.jug(&["exec", "limited", "cat", "/proc/self/limits"]).ok().stdout;
    assert!(
        limits.lines().any(|line| line.starts_with("Max open files")
            && line.contains(" 99 ")
            && line.contains(" 100 "))
    );
    assert_eq!(e.field("limited", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "67108864 33");
}

#[test]
fn flags_that_open_and_close() {
    let e = Engine::new();
    let report = e.probe(&["--cap-drop", "all", "--cap-add", "kill", "--read-only"], &["--write", "/new"]);
    assert_eq!(report["capabilities"]["bounding"], json!(["CAP_KILL"]));
    assert_eq!(report["writes"]["/new"]["errno"], "EROFS");
    let report =
        e.probe(&["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"], &[]);
    assert_eq!((&report["noNewPrivileges"], &report["seccomp"]["mode"]), (&json!(true), &json!(0)));
    let report = e.probe(&["--privileged"], &["--write", "/proc/sys/kernel/core_pattern"]);
    let many = report["capabilities"]["effective"].as_array().expect("a list").len();
    assert!(many > 30 && report["seccomp"]["mode"] == 0, "{many} capabilities");
    assert!(report["writes"]["/proc/sys/kernel/core_pattern"]["errno"].is_null());
    let report = e.probe(&["--network", "host", "--pid", "host", "--uts", "host", "--ipc", "host"], &[]);
    for kind in ["pid", "net", "uts", "ipc"] {
        assert_eq!(report["namespaces"][kind].as_u64(), Some(own_namespace(kind)), "{kind}");
    }
}

#[test]
fn an_init_stands_before_the_program_and_not_in_its_way() {
    let e = Engine::new();
    let out = e.run(&["--init"], &["ps"]).ok();
    assert!(out.stdout.contains("/dev/.jug-init"), "{out}");
    e.run(&["--init"], &["sh", "-c", "exit 9"]).exits(9);
    for flags in [&[][..], &["--init"]] {
        let signals = e.probe(flags, &[])["signals"].clone();
        assert_eq!(signals["blocked"], "0000000000000000", "{flags:?}");
        // SIGPIPE is the probe's own doing.
        assert_eq!(signals["ignored"], "0000000000001000", "{flags:?}");
    }
    e.detached("named", &["--init"], &["/bin/probe", "trap", "TERM"]);
    eventually("the program", || e.jug(&["logs", "named"]).stdout.contains("ready").then_some(()));
    e.jug(&["stop", "-t", "60", "named"]).ok();
    assert_eq!(e.field("named", "{{.State.ExitCode}}"), "0", "TERM came through");
    // A key of the terminal is heard once.
    let mut pty = Pty::open(33, 77);
    let call = e.run_call(&["-it", "--rm", "--init", "--name", "keys"], &["/bin/probe", "trap", "INT"]);
    let running = call.through(&["setsid", "--ctty", "--wait"]).terminal(&pty.slave).spawn();
    pty.master.wait_for("ready");
    pty.master.type_in("\x03");
    pty.master.wait_for("SIGINT");
    e.jug(&["kill", "-s", "TERM", "keys"]).ok();
    assert_eq!(pty.master.wait_for("SIGTERM").matches("SIGINT").count(), 1);
    running.wait().ok();
}

#[test]
fn the_kernel_killed_it_for_want_of_memory() {
    let e = Engine::new();
    e.detached("full", &["-m", "20m"], &["/bin/probe", "alloc", "64"]);
    e.detached("well", &["-m", "20m"], &["false"]);
    let ended = |name: &str| e.jug(&["wait", name]).ok().stdout.trim().to_owned();
    assert_eq!((ended("full"), ended("well")), ("137".to_owned(), "1".to_owned()));
    let killed = |name: &str| e.field(name, "{{.State.OOMKilled}}");
    assert_eq!((killed("full"), killed("well")), ("true".to_owned(), "false".to_owned()));
}

#[test]
fn what_is_not_possible_is_refused_in_a_sentence() {
    let e = Engine::new();
    for (flags, words) in [
        (&["-p", "80:80"][..], "published ports come with bridged networks"),
        (&["--network", "bridge"], "bridged networks come in a later version"),
        (&["--security-opt", "seccomp=/no/such"], "/no/such"),
        (&["--security-opt", "label=type:x"], "SELinux"),
        (&["--cap-add", "fly"], "unknown capability"),
        (&["--userns", "auto"], "needs an image"),
        (&["--userns", "no-such"], "is not supported"),
        (&["--stop-signal", "NOPE"], "unknown signal"),
        (&["--name", "a/b"], "is no name"),
        (&["-e", "=x"], "invalid environment variable"),
        (&["-e", ""], "invalid environment variable"),
        (&["--cpus", "-1"], "--cpus"),
        (&["--sysctl", "kernel.core_pattern=x"], "not in a separate kernel namespace"),
        (&["--runtime", "/no/such"], "the runtime"),
    ] {
        e.run(flags, &["true"]).exits(125).says(words);
    }
    assert_eq!(e.ids(), Vec::<String>::new(), "nothing stays of what was refused");
    e.call(&["run", "--rm", "--rootfs", "/", "true"]).output().exits(125).says("the host's own root");
}

#[test]
fn a_terminal_is_carried_and_can_be_left() {
    let e = Engine::new();
    let mut pty = Pty::open(33, 77);
    let call = e.run_call(&["-it", "--name", "terminal"], &["sh"]);
    let running = call.through(&["setsid", "--ctty", "--wait"]).terminal(&pty.slave).spawn();
    pty.master.type_in("stty size; echo $((40+2))\n");
    pty.master.wait_for("33 77");
    pty.master.wait_for("42");
    pty.master.resize(44, 88);
    pty.master.type_in("sleep 0.2; stty size\n");
    pty.master.wait_for("44 88");
    pty.master.type_in("\x10\x11");
    running.wait().ok();
    assert_eq!(e.field("terminal", "{{.State.Status}}"), "running", "left, and not ended");
    let running =
        e.call(&["attach", "terminal"]).through(&["setsid", "--ctty", "--wait"]).terminal(&pty.slave).spawn();
    pty.master.type_in("echo $((50+3))\nexit 5\n");
    pty.master.wait_for("53");
    running.wait().exits(5);
}

#[test]
fn an_exec_at_a_terminal_can_be_left() {
    let e = Engine::new();
    e.detached("room", &[], &["sleep", "3600"]);
    let mut pty = Pty::open(33, 77);
    let exec = |pty: &Pty, flags: &[&str], command: &[&str]| {
        let call = e.call(&[&["exec", "-it"], flags, &["room"], command].concat());
        call.through(&["setsid", "--ctty", "--wait"]).terminal(&pty.slave).spawn()
    };
    let running = exec(&pty, &[], &["sh", "-c", "stty size; read n; echo $((n+1)); exit 5"]);
    pty.master.wait_for("33 77");
    pty.master.type_in("41\n");
    pty.master.wait_for("42");
    running.wait().exits(5);
    exec(&pty, &[], &["/no/such"]).wait().exits(127);
    pty.master.wait_for("stat /no/such: no such file or directory");
    // Left by the default keys, and by one's own. The program goes on, with its terminal.
    for (flags, keys) in [(&[][..], "\x10\x11"), (&["--detach-keys", "ctrl-x,y"], "\x18y")] {
        let script =
            "stty size; read line; stty size >/tmp/left; sleep 0.5; stty size >>/tmp/left; echo lost";
        let mut pty = Pty::open(33, 77);
        let running = exec(&pty, flags, &["sh", "-c", script]);
        pty.master.wait_for("33 77");
        pty.master.type_in(&format!("go\n{keys}"));
        running.wait().ok();
        eventually("what it did alone", || {
            let said = e.jug(&["exec", "room", "cat", "/tmp/left"]).stdout;
            (said == "33 77\n33 77\n").then_some(())
        });
        e.jug(&["exec", "room", "rm", "/tmp/left"]).ok();
    }
    e.jug(&["exec", "--detach-keys", "ctrl-1", "room", "true"]).exits(125).says("is no key");
    let dir = e.root().join("containers").join(e.field("room", "{{.Id}}"));
    let names =
        std::fs::read_dir(dir).expect("the container's directory").flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".exec")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_unprivileged_user_has_containers_too() {
    let e = Engine::rootless();
    let report = e.probe(&[], &[]);
    assert_eq!(report["uid"]["effective"], 0);
    assert_eq!(report["uidMap"], json!([{ "containerID": 0, "hostID": 12345, "size": 1 }]));
    assert_eq!(sorted(&report["capabilities"]["bounding"]), CAPABILITIES);
    let id = e.detached("quiet", &[], &["sh", "-c", "echo said; sleep 3600"]);
    eventually("the log", || e.jug(&["logs", "quiet"]).stdout.contains("said").then_some(()));
    e.jug(&["exec", "quiet", "sh", "-c", "exit 4"]).exits(4);
    e.jug(&["stop", "-t", "0", "quiet"]).ok();
    e.jug(&["rm", "quiet"]).ok();
    e.is_gone(&id);
}
