//! config.md#posix-platform-hooks: six kinds, each in its place and its moment.
mod support;
use std::fs;
use std::time::{Duration, Instant};
use support::*;

/// All but poststart, which runc 1.1.5 runs at the end of create, before the program: its tests stand apart.
const KINDS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststop"];

/// A bundle whose directory `out` is at the same path on the host and in the container.
fn bundle() -> (Bundle, String) {
    let b = Bundle::new();
    let out = b.path("out");
    fs::create_dir(&out).expect("mkdir");
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b.add_mount(json!({ "destination": out, "type": "bind", "source": out, "options": ["bind"] }));
    (b, out)
}

/// A hook that runs a shell script; `/bin/sh` is on the host and in the container.
fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"] })
}

fn add(b: &Bundle, kind: &str, hook: Value) {
    b.edit(|spec| {
        if spec["hooks"][kind].is_null() {
            spec["hooks"][kind] = json!([]);
        }
        spec["hooks"][kind].as_array_mut().expect("hooks").push(hook);
    });
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{path}: {why}"))
}

#[test]
fn the_kinds_run_in_order() {
    let (b, out) = bundle();
    for kind in KINDS {
        for turn in [1, 2] {
            add(&b, kind, shell(&format!("echo {kind} {turn} >> {out}/log")));
        }
    }
    b.run_args(&["/bin/true"]).ok();
    let want: Vec<String> =
        KINDS.iter().flat_map(|kind| [format!("{kind} 1"), format!("{kind} 2")]).collect();
    assert_eq!(read(&format!("{out}/log")).lines().collect::<Vec<_>>(), want);
}

#[test]
fn each_kind_runs_in_its_verb() {
    let (b, out) = bundle();
    for kind in KINDS {
        add(&b, kind, shell(&format!("echo {kind} >> {out}/log")));
    }
    let log = || read(&format!("{out}/log")).lines().map(str::to_owned).collect::<Vec<_>>();
    let c = b.create();
    assert_eq!(log(), ["prestart", "createRuntime", "createContainer"]);
    c.start();
    eventually("the hook of start", || (log().len() == 4).then_some(()));
    assert_eq!(log()[3..], ["startContainer"]);
    c.stop();
    assert_eq!(log().len(), 4);
    c.delete();
    assert_eq!(log()[4..], ["poststop"]);
}

#[test]
fn poststart_runs_in_start_once_the_program_is_there() {
    deviates!("runc 1.1.5 runs the poststart hooks at the end of create");
    let (b, out) = bundle();
    add(&b, "startContainer", shell(&format!("echo startContainer >> {out}/log")));
    add(&b, "poststart", shell(&format!("echo poststart >> {out}/log; cat > {out}/state")));
    let c = b.create();
    assert!(!fs::exists(format!("{out}/log")).expect("stat"));
    c.start();
    assert_eq!(read(&format!("{out}/log")), "startContainer\npoststart\n");
    let state: Value = serde_json::from_str(&read(&format!("{out}/state"))).expect("JSON");
    assert_eq!((&state["status"], &state["pid"]), (&json!("running"), &json!(c.pid())));
}

#[test]
fn hooks_of_the_runtime_are_in_its_namespaces() {
    let (b, out) = bundle();
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    for kind in kinds {
        add(
            &b,
            kind,
            shell(&format!(
                "readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/pid > {out}/{kind}; cat"
            )),
        );
    }
    b.run_args(&["/bin/true"]).ok();
    let own = ["mnt", "net", "pid"].map(|kind| format!("{kind}:[{}]\n", own_namespace(kind))).concat();
    for kind in kinds {
        assert_eq!(read(&format!("{out}/{kind}")), own, "{kind}");
    }
}

#[test]
fn create_container_is_in_the_containers_namespaces_and_on_the_hosts_files() {
    let (b, out) = bundle();
    let host_only = b.path("config.json");
    add(
        &b,
        "createContainer",
        shell(&format!(
            "readlink /proc/self/ns/mnt /proc/self/ns/uts > {out}/ns; test -e {host_only} && echo host >> {out}/ns"
        )),
    );
    let c = b.create();
    let want = format!("mnt:[{}]\nuts:[{}]\nhost\n", namespace(c.pid(), "mnt"), namespace(c.pid(), "uts"));
    assert_eq!(read(&format!("{out}/ns")), want);
}

#[test]
fn create_container_finds_the_mounts_made() {
    let (b, out) = bundle();
    let rootfs = b.path("rootfs");
    add(
        &b,
        "createContainer",
        shell(&format!("grep -c ' {rootfs}/proc ' /proc/self/mountinfo > {out}/seen")),
    );
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(read(&format!("{out}/seen")), "1\n");
}

#[test]
fn start_container_is_inside() {
    let (b, out) = bundle();
    b.script("bin/inside", "#!/bin/sh\nexit 0\n");
    add(
        &b,
        "startContainer",
        shell(&format!(
            "readlink /proc/self/ns/mnt > {out}/ns; test -e /bin/inside && hostname > {out}/name"
        )),
    );
    let c = b.running();
    assert_eq!(read(&format!("{out}/ns")), format!("mnt:[{}]\n", namespace(c.pid(), "mnt")));
    assert_eq!(read(&format!("{out}/name")), "runc\n");
}

#[test]
fn the_state_is_on_stdin_with_its_status() {
    let (b, out) = bundle();
    b.edit(|spec| spec["annotations"] = json!({ "org.example.sheep": "Dolly \"5\"" }));
    for kind in KINDS {
        add(&b, kind, shell(&format!("cat > {out}/{kind}")));
    }
    let c = b.running();
    let pid = c.pid();
    c.stop().delete();
    for (kind, status) in KINDS.iter().zip(["creating", "creating", "creating", "created", "stopped"]) {
        let state: Value = serde_json::from_str(&read(&format!("{out}/{kind}"))).expect("JSON");
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], json!(b.id()), "{kind}");
        assert_eq!(state["bundle"], json!(format!("/tmp/{}", b.tag())), "{kind}");
        assert_eq!(state["annotations"]["org.example.sheep"], "Dolly \"5\"", "{kind}");
        assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{kind}");
        match *kind {
            "poststop" => assert!(state["pid"].is_null() || state["pid"] == 0, "{state}"),
            "prestart" | "createRuntime" => assert_eq!(state["pid"], pid, "{kind}"),
            // Seen from inside a new PID namespace, the container's process may be called 1.
            _ => assert!(state["pid"] == pid || state["pid"] == 1, "{kind}: {state}"),
        }
    }
}

#[test]
fn the_pid_leads_to_the_containers_network_namespace() {
    let (b, out) = bundle();
    let script =
        format!("pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > {out}/net");
    add(&b, "createRuntime", shell(&script));
    let c = b.create();
    assert_eq!(read(&format!("{out}/net")), format!("net:[{}]\n", namespace(c.pid(), "net")));
}

#[test]
fn the_environment_is_the_one_given() {
    let (b, out) = bundle();
    // In this order; of two of one name the last one counts, in its place.
    let given = ["ONLY=one", "Z=2", "PATH=/usr/bin:/bin", "ONLY=this"];
    for kind in KINDS {
        let script = format!("exec 3< /proc/self/environ; tr '\\0' '\\n' <&3 > {out}/{kind}; :");
        let script = if kind == "startContainer" { script.replace("tr ", "busybox tr ") } else { script };
        add(&b, kind, json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": given }));
    }
    b.set_args(&["/bin/true"]);
    b.verb("run", &[]).env("SECRET", "of the caller").ok();
    for kind in KINDS {
        let text = read(&format!("{out}/{kind}"));
        let entries: Vec<&str> = text.lines().collect();
        assert_eq!(entries, ["Z=2", "PATH=/usr/bin:/bin", "ONLY=this"], "{kind}");
    }
}

#[test]
fn a_hook_without_an_environment_has_an_empty_one() {
    deviates!(
        "hooks get only their own environment in jug; runc lets them inherit its own when none is given"
    );
    let (b, out) = bundle();
    for kind in ["createRuntime", "createContainer", "poststop"] {
        let script = format!("exec 3< /proc/self/environ; /usr/bin/tr '\\0' '\\n' <&3 > {out}/{kind}; :");
        add(&b, kind, json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    }
    b.set_args(&["/bin/true"]);
    b.verb("run", &[]).env("SECRET", "of the caller").ok();
    for kind in ["createRuntime", "createContainer", "poststop"] {
        assert_eq!(read(&format!("{out}/{kind}")), "", "{kind}");
    }
}

#[test]
fn a_hook_begins_at_the_hosts_root() {
    deviates!("jug's hooks begin at /, runc's wherever the caller happened to be");
    let (b, out) = bundle();
    for kind in ["createRuntime", "poststart", "poststop"] {
        add(&b, kind, shell(&format!("pwd > {out}/{kind}")));
    }
    b.set_args(&["/bin/true"]);
    b.verb("run", &[]).cwd("/etc").ok();
    for kind in ["createRuntime", "poststart", "poststop"] {
        assert_eq!(read(&format!("{out}/{kind}")), "/\n", "{kind}");
    }
}

#[test]
fn arguments_begin_with_argument_zero() {
    let (b, out) = bundle();
    let script = format!("#!/bin/sh\ntr '\\0' '|' < /proc/self/cmdline > {out}/cmdline\n");
    let path = b.script("hook", &script);
    add(
        &b,
        "createRuntime",
        json!({ "path": path, "args": ["zero", "one", "two words"], "env": ["PATH=/usr/bin:/bin"] }),
    );
    b.run_args(&["/bin/true"]).ok();
    // The kernel puts the interpreter and the script's path where argument zero was.
    let cmdline = read(&format!("{out}/cmdline"));
    assert!(cmdline.ends_with("|one|two words|") && !cmdline.contains("zero"), "{cmdline}");
}

#[test]
fn a_hook_needs_no_arguments() {
    let (b, out) = bundle();
    let path = b.script("hook", &format!("#!/bin/sh\necho ran > {out}/ran\n"));
    add(&b, "createRuntime", json!({ "path": path }));
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(read(&format!("{out}/ran")), "ran\n");
}

#[test]
fn a_hook_need_not_read_its_stdin() {
    let (b, _out) = bundle();
    // More than a pipe holds.
    b.edit(|spec| spec["annotations"] = json!({ "org.example.long": "x".repeat(200_000) }));
    add(&b, "createRuntime", json!({ "path": "/bin/true" }));
    add(&b, "poststart", json!({ "path": "/bin/true" }));
    b.run_args(&["/bin/true"]).ok();
}

#[test]
fn a_big_state_arrives_whole() {
    let (b, out) = bundle();
    b.edit(|spec| spec["annotations"] = json!({ "org.example.long": "x".repeat(200_000) }));
    add(&b, "createRuntime", shell(&format!("cat > {out}/state")));
    b.run_args(&["/bin/true"]).ok();
    let state: Value = serde_json::from_str(&read(&format!("{out}/state"))).expect("JSON");
    assert_eq!(state["annotations"]["org.example.long"].as_str().map(str::len), Some(200_000));
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    let (b, _out) = bundle();
    add(&b, "createRuntime", json!({ "path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1 }));
    let start = Instant::now();
    let out = b.verb("create", &[]).output();
    assert_eq!(out.code, 1, "{out}");
    assert!(start.elapsed() < Duration::from_secs(if in_guest() { 60 } else { 15 }));
    assert!(
        out.error().contains("imeout")
            || out.error().contains("timed out")
            || out.error().contains("seconds")
            || out.error().contains(" ran past "),
        "{out}"
    );
    b.container().verb("state", &[]).exits(1);
}

#[test]
fn a_hook_in_time_is_left_to_finish() {
    let (b, out) = bundle();
    let mut hook = shell(&format!("sleep 1; echo done > {out}/done"));
    hook["timeout"] = json!(60);
    add(&b, "createRuntime", hook);
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(read(&format!("{out}/done")), "done\n");
}

#[test]
fn a_failing_hook_before_start_destroys_the_container() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let (b, out) = bundle();
        add(&b, kind, shell("echo baa >&2; exit 7"));
        add(&b, kind, shell(&format!("touch {out}/after")));
        let failed = b.verb("create", &[]).output();
        assert_eq!(failed.code, 1, "{kind}: {failed}");
        assert!(failed.error().contains("hook"), "{kind}: {failed}");
        assert!(
            failed.error().contains('7') && failed.error().contains("baa"),
            "what the hook said: {kind}: {failed}"
        );
        b.container().verb("state", &[]).exits(1);
        assert!(!fs::exists(format!("{out}/after")).expect("stat"), "{kind}: the next hook ran");
        assert!(cgroups(b.tag()).is_empty(), "{kind}");
    }
}

#[test]
fn a_failing_start_container_hook_stops_the_program() {
    let (b, out) = bundle();
    add(&b, "startContainer", shell("exit 7"));
    b.set_args(&["/bin/touch", &format!("{out}/started")]);
    let c = b.create();
    c.verb("start", &[]);
    c.wait("stopped");
    assert!(!fs::exists(format!("{out}/started")).expect("stat"));
}

#[test]
fn start_says_that_a_start_container_hook_failed() {
    deviates!("runc's start returns before the startContainer hooks ran, so it cannot say");
    let (b, _out) = bundle();
    add(&b, "startContainer", shell("exit 7"));
    let c = b.create();
    c.verb("start", &[]).fails("hook");
}

#[test]
fn a_failing_poststart_hook_is_only_reported() {
    deviates!("config.md: a failing poststart hook is logged and the container lives; runc 1.1.5 kills it");
    let (b, out) = bundle();
    add(&b, "poststart", shell("exit 7"));
    add(&b, "poststart", shell(&format!("touch {out}/after")));
    let c = b.create();
    c.verb("start", &[]).ok().says("hook");
    assert_eq!(c.status(), "running");
    assert!(fs::exists(format!("{out}/after")).expect("stat"), "the hooks that remain run");
}

#[test]
fn a_failing_poststop_hook_is_only_reported() {
    let (b, out) = bundle();
    add(&b, "poststop", shell("exit 7"));
    add(&b, "poststop", shell(&format!("touch {out}/after")));
    let c = b.running();
    c.stop();
    c.verb("delete", &[]).ok().says("hook");
    c.verb("state", &[]).exits(1);
    deviates!("config.md: the hooks that remain run all the same; runc leaves them out");
    assert!(fs::exists(format!("{out}/after")).expect("stat"));
}

#[test]
fn poststop_runs_once() {
    let (b, out) = bundle();
    add(&b, "poststop", shell(&format!("echo x >> {out}/log")));
    let c = b.running();
    c.verb("delete", &["--force"]).ok();
    c.verb("delete", &["--force"]).ok();
    assert_eq!(read(&format!("{out}/log")), "x\n");
}

#[test]
fn a_missing_hook_is_an_error_that_names_it() {
    let (b, _out) = bundle();
    add(&b, "createRuntime", json!({ "path": "/no/such/hook" }));
    b.verb("create", &[]).output().fails("/no/such/hook");
    b.container().verb("state", &[]).exits(1);
}

#[test]
fn a_relative_hook_is_refused() {
    newer!("a check that a hook's path is absolute");
    let (b, _out) = bundle();
    add(&b, "createRuntime", json!({ "path": "bin/true" }));
    b.verb("create", &[]).output().fails("/hooks/createRuntime/0");
}

#[test]
fn no_descriptor_leaks_into_a_hook() {
    newer!("hooks without leaks: 1.1.5 hands its init's socket and exec.fifo to createContainer hooks");
    let (b, out) = bundle();
    for kind in KINDS {
        // The shell looks at itself; readlink(1) says what its inherited copy is.
        let look =
            "for fd in /proc/self/fd/*; do n=${fd##*/}; [ $n -gt 2 ] && readlink /proc/self/fd/$n; done";
        add(&b, kind, shell(&format!("{{ echo looked; {look}; }} >> {out}/{kind}; exit 0")));
    }
    b.set_args(&["/bin/true"]);
    let secret = fs::File::open("/etc/hostname").expect("a host file");
    b.verb("run", &[]).fd(&secret, 9).ok();
    for kind in KINDS {
        let seen = read(&format!("{out}/{kind}"));
        // While a shell's output is redirected, it keeps the former one (a pipe, or /dev/null) as fd 10 and up.
        let own = |line: &&str| *line != "looked" && !line.starts_with(&out) && !line.starts_with("/proc/");
        let leaked: Vec<_> = seen
            .lines()
            .filter(own)
            .filter(|line| !line.starts_with("pipe:") && *line != "/dev/null")
            .collect();
        assert!(seen.starts_with("looked\n") && leaked.is_empty(), "{kind}: {leaked:?}");
    }
}

#[test]
fn hooks_do_not_write_into_the_containers_output() {
    let (b, _out) = bundle();
    add(&b, "createRuntime", shell("echo noise; echo more noise >&2"));
    let out = b.run_args(&["/bin/echo", "signal"]).ok();
    assert_eq!(out.stdout, "signal\n");
}

/// A pipe holds 64 KiB: one that nobody empties would stop the hook, and the runtime with it.
#[test]
fn a_hook_that_says_much_does_not_hang() {
    let b = Bundle::new();
    let script =
        "i=0; while [ $i -lt 5000 ]; do echo 'words that nobody will want to read' >&2; i=$((i+1)); done";
    add(&b, "createRuntime", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    b.run_args(&["/bin/true"]).ok();
}

#[test]
fn a_start_container_hook_without_an_environment_has_the_processs() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["env"] = json!(["ONE=two", "PATH=/bin"]));
    let script = "test $ONE = two && test -n \"$HOME\"";
    add(&b, "startContainer", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    b.run_args(&["/bin/true"]).ok();
}

#[test]
fn a_start_container_hook_is_as_confined_as_the_process() {
    newer!("1.1.5 is not tried: the order is that of 1.2 and later");
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 7, "gid": 8 });
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "pidfd_open"], "action": "SCMP_ACT_ERRNO" }],
        });
    });
    add(&b, "startContainer", shell("test $(/bin/id -u) = 7 && ! /bin/mkdir /tmp/no"));
    b.run_args(&["/bin/true"]).ok();
    add(&b, "startContainer", shell("exit 3"));
    b.run_args(&["/bin/true"]).fails("error running startContainer hook #1");
}

#[test]
fn a_create_container_hook_begins_at_the_containers_root() {
    let (b, out) = bundle();
    add(&b, "createContainer", shell(&format!("pwd > {out}/where")));
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(read(&format!("{out}/where")).trim(), b.rootfs().to_str().expect("text"));
}
