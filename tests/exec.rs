//! `exec`: one more process in a running container, with the container's confinement.
mod support;

use std::fs;
use std::io::Write as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::*;

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

#[test]
fn exec_exits_with_the_programs_code() {
    let b = Bundle::new();
    let c = b.running();
    for code in [0, 1, 7, 126, 255] {
        c.exec(&["/bin/probe", "exit", &code.to_string()]).exits(code);
    }
}

#[test]
fn a_program_killed_by_a_signal_gives_128_and_its_number() {
    let b = Bundle::new();
    let c = b.running();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        c.exec(&["/bin/probe", "signal", signal]).exits(code);
    }
}

#[test]
fn stdin_stdout_and_stderr_pass_through() {
    let b = Bundle::new();
    let c = b.running();
    let mut call =
        c.call("exec", &[], &["sh", "-c", "read line; echo got $line; echo bad >&2"]).stdin_pipe().spawn();
    call.stdin.take().expect("a pipe").write_all(b"lamb\n").expect("write");
    let out = call.wait().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("got lamb\n", "bad\n"));
}

#[test]
fn a_program_that_is_not_found_gives_255() {
    let b = Bundle::new();
    let c = b.running();
    c.exec(&["no-such-program"])
        .exits(255)
        .says("exec: \"no-such-program\": executable file not found in $PATH");
    c.exec(&["/no/such"]).exits(255).says("exec: \"/no/such\": stat /no/such: no such file or directory");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_program_without_execute_permission_gives_255() {
    let b = Bundle::new();
    b.file("etc/data", "not a program");
    let c = b.running();
    c.exec(&["/etc/data"]).exits(255).says("exec: \"/etc/data\": permission denied");
}

/// Engines hand it on as it is: `OCI runtime exec failed: exec failed: ...`.
#[test]
fn the_message_begins_as_runcs() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.exec(&["nosuch"]).exits(255).says("exec failed: unable to start container process: exec: ");
    assert!(!out.error().contains(&format!("{} exec failed", runtime_name())), "{out}");
    c.kill("KILL");
    c.wait("stopped");
    let out = c.call("kill", &[], &[]).output().fails("container not running");
    assert!(!out.error().contains("kill failed"), "{out}");
}

#[test]
fn a_missing_container_gives_255() {
    Bundle::new().container().exec(&["true"]).exits(255).says("container does not exist");
}

#[test]
fn a_stopped_container_gives_255() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.exec(&["true"]).exits(255).says("cannot exec in a stopped container");
}

#[test]
fn exec_without_a_program_is_refused() {
    let b = Bundle::new();
    b.running().exec(&[]).exits(255).says("args cannot be empty");
}

#[test]
fn a_created_container_can_be_entered() {
    let b = Bundle::new();
    let c = b.create();
    assert_eq!(c.exec(&["echo", "early"]).ok().stdout, "early\n");
    assert_eq!(c.status(), "created");
}

#[test]
fn a_paused_container_cannot_be_entered() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    c.exec(&["true"]).exits(255).says("cannot exec in a paused container (use --ignore-paused to override)");
}

#[test]
fn ignore_paused_waits_for_the_resume() {
    let b = Bundle::new();
    let c = b.running();
    c.verb("pause", &[]).ok();
    let mut call = c.call("exec", &["--ignore-paused"], &["echo", "thawed"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!((call.status(), call.stdout().as_str()), (None, ""));
    c.verb("resume", &[]).ok();
    assert_eq!(call.wait().ok().stdout, "thawed\n");
}

#[test]
fn exec_joins_every_namespace_and_the_cgroups_of_the_init() {
    let b = Bundle::new();
    let kinds = ["pid", "net", "ipc", "uts", "mnt", "user", "cgroup"];
    let c = b.running();
    let report = c.exec_probe(&[], &[]);
    for kind in kinds {
        let link = fs::read_link(format!("/proc/{}/ns/{kind}", c.pid())).expect("the init's namespace");
        let inode = format!("{kind}:[{}]", report["namespaces"][kind]);
        assert_eq!(link.to_string_lossy(), inode);
    }
    let ours = c.exec_with(&[], &["cat", "/proc/1/cgroup"]).ok().stdout;
    assert_eq!(c.exec(&["cat", "/proc/self/cgroup"]).ok().stdout, ours);
}

#[test]
fn env_adds_to_the_configs_and_wins() {
    let b = Bundle::new();
    let c = b.running();
    let report = c.exec_probe(&["--env", "LAMB=white", "--env", "TERM=dumb", "--env", "EMPTY="], &[]);
    let env = strings(&report["env"]);
    for entry in ["LAMB=white", "TERM=dumb", "EMPTY=", &format!("PATH={DEFAULT_PATH}")] {
        assert!(env.contains(&entry), "no {entry} in {env:?}");
    }
    assert_eq!(c.exec_with(&["-e", "TERM=dumb"], &["/bin/probe", "env", "TERM"]).ok().stdout, "dumb\n");
}

#[test]
fn home_is_the_users() {
    let b = Bundle::new();
    let c = b.running();
    assert_eq!(c.exec(&["/bin/probe", "env", "HOME"]).ok().stdout, "/root\n");
    assert_eq!(c.exec_with(&["--user", "1000"], &["/bin/probe", "env", "HOME"]).ok().stdout, "/home/lamb\n");
    assert_eq!(c.exec_with(&["--env", "HOME=/x"], &["/bin/probe", "env", "HOME"]).ok().stdout, "/x\n");
}

#[test]
fn cwd_is_the_configs_unless_said_otherwise() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["cwd"] = json!("/etc"));
    let c = b.running();
    assert_eq!(c.exec(&["pwd"]).ok().stdout, "/etc\n");
    assert_eq!(c.exec_with(&["--cwd", "/var"], &["pwd"]).ok().stdout, "/var\n");
    c.exec_with(&["--cwd", "/missing"], &["pwd"])
        .exits(255)
        .says("/missing")
        .says("no such file or directory");
}

#[test]
fn user_and_additional_groups_are_set() {
    let b = Bundle::new();
    let c = b.running();
    let report =
        c.exec_probe(&["--user", "1000:1001", "--additional-gids", "2000", "--additional-gids", "2001"], &[]);
    let same = |id: u32| json!({ "real": id, "effective": id, "saved": id, "fs": id });
    assert_eq!(report["uid"], same(1000));
    assert_eq!(report["gid"], same(1001));
    let groups = report["groups"].as_array().expect("groups");
    assert!(groups.contains(&json!(2000)) && groups.contains(&json!(2001)), "{groups:?}");
    assert!(!groups.contains(&json!(0)), "the caller's groups came along: {groups:?}");
}

#[test]
fn a_user_that_is_no_number_is_refused() {
    let b = Bundle::new();
    let out = b.running().exec_with(&["--user", "lamb"], &["true"]).exits(255);
    assert!(out.stderr.contains("lamb"), "{out}");
}

#[test]
fn capabilities_are_the_configs() {
    let b = Bundle::new();
    let c = b.running();
    let report = c.exec_probe(&[], &[]);
    let wanted = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(report["capabilities"][set], wanted, "{set}");
    }
}

#[test]
fn cap_adds_one() {
    let b = Bundle::new();
    let c = b.running();
    let report = c.exec_probe(&["--cap", "CAP_SYS_CHROOT"], &[]);
    for set in ["bounding", "effective", "permitted"] {
        let have = strings(&report["capabilities"][set]);
        assert!(have.contains(&"CAP_SYS_CHROOT") && have.contains(&"CAP_KILL"), "{set}: {have:?}");
    }
    assert_eq!(report["capabilities"]["inheritable"], json!([]));
}

#[test]
fn a_capability_that_does_not_exist_is_warned_about_not_refused() {
    let b = Bundle::new();
    let out = b.running().exec_with(&["--cap", "CAP_NO_SUCH"], &["true"]).ok();
    assert!(out.stderr.contains("CAP_NO_SUCH"), "{out}");
}

#[test]
fn no_new_privs_is_the_configs_and_can_be_added() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    let c = b.running();
    assert_eq!(c.exec_probe(&[], &[])["noNewPrivileges"], false);
    assert_eq!(c.exec_probe(&["--no-new-privs"], &[])["noNewPrivileges"], true);
}

#[test]
fn rlimits_are_the_configs() {
    let b = Bundle::new();
    let c = b.running();
    assert_eq!(c.exec_probe(&[], &[])["rlimits"]["RLIMIT_NOFILE"], json!({ "soft": 1024, "hard": 1024 }));
}

#[test]
fn a_seccomp_profile_of_the_config_holds_for_exec() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 }],
        });
    });
    let c = b.running();
    let answer = c.exec(&["/bin/probe", "syscall", &libc::SYS_umask.to_string(), "0"]).ok().json();
    assert_eq!(answer, json!({ "errno": "ENOMSG" }));
    assert_eq!(c.exec_probe(&[], &[])["seccomp"], json!({ "mode": 2, "filters": 1 }));
}

#[test]
fn the_session_keyring_is_the_containers() {
    let b = Bundle::new();
    let c = b.running();
    let keyring = c.exec_probe(&[], &[])["keyring"]["description"].to_string();
    assert!(keyring.contains(&format!("_ses.{}", c.id)), "{keyring}");
}

fn process(args: &[&str]) -> Value {
    json!({ "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": [format!("PATH={DEFAULT_PATH}")] })
}

fn process_file(b: &Bundle, process: &Value) -> String {
    let path = b.path("process.json");
    fs::write(&path, process.to_string()).expect("write process.json");
    path
}

#[test]
fn a_process_file_decides_everything() {
    let b = Bundle::new();
    let c = b.running();
    let mut process = process(&["/bin/probe"]);
    process["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7] });
    process["cwd"] = json!("/var");
    process["env"] = json!(["ONLY=this"]);
    process["noNewPrivileges"] = json!(false);
    process["rlimits"] = json!([{ "type": "RLIMIT_CPU", "soft": 99, "hard": 100 }]);
    process["capabilities"] = json!({ "bounding": ["CAP_CHOWN"], "effective": [], "permitted": [] });
    let path = process_file(&b, &process);
    let report = c.exec_with(&["--process", &path], &[]).ok().json();
    assert_eq!(report["uid"]["effective"], 1000);
    assert_eq!(report["gid"]["effective"], 1001);
    assert!(report["groups"].as_array().expect("groups").contains(&json!(7)));
    assert_eq!(report["cwd"], "/var");
    let env = strings(&report["env"]);
    assert!(env.contains(&"ONLY=this") && !env.iter().any(|entry| entry.starts_with("TERM=")), "{env:?}");
    assert_eq!(report["noNewPrivileges"], false);
    assert_eq!(report["rlimits"]["RLIMIT_CPU"], json!({ "soft": 99, "hard": 100 }));
    assert_eq!(report["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
    assert_eq!(report["capabilities"]["effective"], json!([]));
}

#[test]
fn the_umask_is_the_configs() {
    deviates!("exec has the config's umask; runc sets it for the init alone");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"]["umask"] = json!(0o27));
    assert_eq!(b.running().exec_probe(&[], &[])["umask"], 0o27);
}

#[test]
fn a_process_file_has_its_own_umask() {
    deviates!("exec has the umask of its process file; runc sets one for the init alone");
    let b = Bundle::new();
    let c = b.running();
    let mut process = process(&["/bin/probe"]);
    process["user"]["umask"] = json!(0o77);
    let path = process_file(&b, &process);
    assert_eq!(c.exec_with(&["--process", &path], &[]).ok().json()["umask"], 0o77);
}

#[test]
fn a_process_file_gives_the_programs_code() {
    let b = Bundle::new();
    let c = b.running();
    let path = process_file(&b, &process(&["/bin/probe", "exit", "31"]));
    c.exec_with(&["-p", &path], &[]).exits(31);
}

#[test]
fn a_process_file_that_is_missing_or_no_json_gives_255() {
    let b = Bundle::new();
    let c = b.running();
    c.exec_with(&["--process", &b.path("missing")], &[]).exits(255).says("no such file or directory");
    fs::write(b.path("broken"), "{ \"args\": [").expect("write");
    let out = c.exec_with(&["--process", &b.path("broken")], &[]).exits(255);
    assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{out}");
}

#[test]
fn detach_returns_at_once_with_a_pid_file_for_the_host() {
    let b = Bundle::new();
    let c = b.running();
    let file = b.path("exec.pid");
    let out = c.exec_with(&["--detach", "--pid-file", &file], &["/bin/probe", "sleep", "3600"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let text = fs::read_to_string(&file).expect("pid file");
    let pid: u32 = text.parse().expect("a number, no newline");
    assert!(c.verb("ps", &["--format", "json"]).ok().json().as_array().expect("pids").contains(&json!(pid)));
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("cmdline");
    assert_eq!(line, b"/bin/probe\0sleep\x003600\0");
}

#[test]
fn detach_of_a_missing_program_fails() {
    let b = Bundle::new();
    let c = b.running();
    c.exec_with(&["-d"], &["no-such-program"]).exits(255).says("executable file not found in $PATH");
}

#[test]
fn pid_file_is_written_in_the_foreground_too() {
    let b = Bundle::new();
    let c = b.running();
    let file = b.path("exec.pid");
    c.exec_with(&["--pid-file", &file], &["true"]).ok();
    let text = fs::read_to_string(&file).expect("pid file");
    assert!(text.parse::<u32>().is_ok(), "{text:?}");
}

#[test]
fn signals_sent_to_exec_reach_the_program() {
    let b = Bundle::new();
    let c = b.running();
    let mut call = c.call("exec", &[], &["/bin/probe", "trap", "HUP", "USR1"]).spawn();
    call.wait_stdout("ready\n");
    for (signal, name) in [(Signal::SIGHUP, "SIGHUP\n"), (Signal::SIGUSR1, "SIGUSR1\n")] {
        call.signal(signal);
        call.wait_stdout(name);
    }
    call.signal(Signal::SIGTERM);
    call.wait().ok();
}

#[test]
fn exec_ends_with_its_container() {
    let b = Bundle::new();
    let c = b.running();
    let mut call = c.call("exec", &[], &["/bin/probe", "trap"]).spawn();
    call.wait_stdout("ready\n");
    c.stop();
    call.wait().exits(137);
}

#[test]
fn descriptors_of_the_caller_stay_outside() {
    let b = Bundle::new();
    let c = b.running();
    let directory = fs::File::open("/").expect("open /");
    let report = c.call("exec", &[], &["/bin/probe"]).fd(&directory, 3).fd(&directory, 8).ok().json();
    let numbers: Vec<&String> = report["fds"].as_object().expect("fds").keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{:#}", report["fds"]);
}

#[test]
fn preserve_fds_passes_them_with_their_numbers() {
    let b = Bundle::new();
    let c = b.running();
    let file = fs::File::create(b.path("kept")).expect("create");
    let call = c.call("exec", &["--preserve-fds", "1"], &["/bin/probe"]).fd(&file, 3).fd(&file, 4);
    let report = call.ok().json();
    assert_eq!(report["fds"]["3"]["target"], json!(b.path("kept")));
    assert_eq!(report["fds"].get("4"), None);
}

#[test]
fn flags_after_the_program_are_the_programs() {
    let b = Bundle::new();
    let c = b.running();
    assert_eq!(c.exec(&["echo", "--cwd", "/x", "-t", "--", "-d"]).ok().stdout, "--cwd /x -t -- -d\n");
}

#[test]
fn ten_at_once_get_their_own_answers() {
    let b = Bundle::new();
    let c = b.running();
    let calls: Vec<_> =
        (0..10).map(|n| c.call("exec", &[], &["/bin/probe", "exit", &n.to_string()]).spawn()).collect();
    for (n, call) in (0..10).zip(calls) {
        call.wait().exits(n);
    }
    assert_eq!(c.verb("ps", &["--format", "json"]).ok().json(), json!([c.pid()]));
}

#[test]
fn the_runtimes_own_environment_stays_outside() {
    let b = Bundle::new();
    let c = b.running();
    let report = c.call("exec", &[], &["/bin/probe"]).env("JUG_SECRET", "do not tell").ok().json();
    assert!(!report["env"].to_string().contains("JUG_SECRET"));
}

#[test]
fn cgroup_puts_the_program_below_the_containers_own() {
    let b = Bundle::new();
    let c = b.running();
    for dir in cgroups(b.tag()) {
        fs::create_dir(dir.join("below")).expect("mkdir in a cgroup");
        // A v1 cpuset takes no process before it has CPUs and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let below = dir.join("below").join(file);
            if let (Ok(value), true) = (fs::read(dir.join(file)), below.exists()) {
                fs::write(below, value).expect("write to a cpuset");
            }
        }
    }
    let text = c.exec_with(&["--cgroup", "below"], &["cat", "/proc/self/cgroup"]).ok().stdout;
    let ours: Vec<&str> = text.lines().filter(|line| line.contains(b.tag())).collect();
    assert!(!ours.is_empty() && ours.iter().all(|line| line.ends_with("/below")), "{text}");
}

#[test]
fn a_cgroup_that_does_not_exist_is_an_error() {
    let b = Bundle::new();
    b.running().exec_with(&["--cgroup", "no-such-cgroup"], &["true"]).exits(255).says("no-such-cgroup");
}

#[test]
fn pidfd_socket_receives_a_pidfd_of_the_program() {
    newer!("1.2: exec --pidfd-socket");
    let b = Bundle::new();
    let c = b.running();
    let listener = Console::listen_at(std::path::Path::new(&b.path("pidfd.sock")));
    let file = b.path("exec.pid");
    let flags = ["--detach", "--pid-file", &file, "--pidfd-socket", listener.path()];
    c.exec_with(&flags, &["/bin/probe", "sleep", "3600"]).ok();
    let (_, fds) = listener.receive();
    let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fds[0]));
    let info = fs::read_to_string(info).expect("fdinfo");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    assert_eq!(pid, Some(fs::read_to_string(&file).expect("pid file").as_str()), "{info}");
}
