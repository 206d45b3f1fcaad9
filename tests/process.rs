//! config.md#process: the program, and everything it is born with.
mod support;
use std::fs;
use support::*;

/// A bundle whose root file system can be written to.
fn writable() -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b
}

fn environment(report: &Value) -> Vec<String> {
    let mut env: Vec<String> = serde_json::from_value(report["env"].clone()).expect("a list of words");
    env.sort();
    env
}

#[test]
fn uid_and_gid_are_all_four() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 2000 }));
    let report = b.probe(&[]);
    assert_eq!(report["uid"], json!({ "real": 1000, "effective": 1000, "saved": 1000, "fs": 1000 }));
    assert_eq!(report["gid"], json!({ "real": 2000, "effective": 2000, "saved": 2000, "fs": 2000 }));
}

#[test]
fn additional_gids_are_the_only_groups() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 4_000_000] })
    });
    assert_eq!(b.probe(&[])["groups"], json!([5, 4_000_000]));
}

#[test]
fn no_additional_gids_means_no_groups_of_the_caller() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    b.set_args(&["/bin/probe"]);
    // The caller is in a group that must not come along.
    let out = b.verb("run", &[]).through(&["setpriv", "--groups", "4242"]).ok();
    assert_eq!(out.json()["groups"], json!([]));
}

#[test]
fn a_uid_without_a_passwd_entry_will_do() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 54321, "gid": 54321 }));
    let report = b.probe(&[]);
    assert_eq!(report["uid"]["real"], 54321);
    assert!(environment(&report).contains(&"HOME=/".to_owned()), "{}", report["env"]);
}

#[test]
fn the_umask_is_the_one_asked_for() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"]["umask"] = json!(0o77));
    assert_eq!(b.probe(&[])["umask"], 0o77);
}

#[test]
fn the_umask_is_022_unless_asked_for() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let out = b.verb("run", &[]).through(&["sh", "-c", "umask 0007; exec \"$@\"", "sh"]).ok();
    assert_eq!(out.json()["umask"], 0o22);
}

#[test]
fn arguments_arrive_as_they_are() {
    let b = Bundle::new();
    let args = ["/bin/busybox", "env", "printf", "%s|", "", "two words", "ü\n", "$HOME", "'\"\\"];
    // busybox has no printf applet linked, but its own name finds it.
    let b_args: Vec<&str> = [&["/bin/busybox", "printf"], &args[3..]].concat();
    let out = b.run_args(&b_args).ok();
    assert_eq!(out.stdout, "|two words|ü\n|$HOME|'\"\\|");
}

#[test]
fn argument_zero_is_the_word_given() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["env"] = json!(["PATH=/bin"]));
    let out = b.run_args(&["probe"]).ok();
    assert_eq!(out.json()["args"], json!(["probe"]));
}

#[test]
fn the_environment_is_the_one_given_and_home() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "B=two words", "A=", "C=x=y"]));
    b.set_args(&["/bin/probe"]);
    let out = b.verb("run", &[]).env("SECRET", "of the caller").ok();
    assert_eq!(environment(&out.json()), ["A=", "B=two words", "C=x=y", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn the_last_of_two_equal_names_wins() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2"]));
    assert_eq!(b.run_args(&["/bin/sh", "-c", "echo $A"]).ok().stdout, "2\n");
}

#[test]
fn home_comes_from_the_containers_passwd() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert!(environment(&b.probe(&[])).contains(&"HOME=/home/lamb".to_owned()));
}

#[test]
fn a_home_given_stays() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["env"] = json!(["HOME=/elsewhere"]));
    assert_eq!(environment(&b.probe(&[])), ["HOME=/elsewhere"]);
}

#[test]
fn cwd_is_where_the_program_begins() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["cwd"] = json!("/var"));
    assert_eq!(b.probe(&[])["cwd"], "/var");
}

#[test]
fn a_missing_cwd_is_made() {
    let b = writable();
    b.edit(|spec| spec["process"]["cwd"] = json!("/a/b/c"));
    let report = b.probe(&["--stat", "/a/b/c"]);
    assert_eq!(report["cwd"], "/a/b/c");
    assert_eq!(report["stats"]["/a/b/c"]["mode"], 0o755);
}

#[test]
fn a_missing_cwd_is_made_below_a_read_only_root() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["cwd"] = json!("/made"));
    let report = b.probe(&["--write", "/made"]);
    assert_eq!(report["cwd"], "/made");
    assert_eq!(report["writes"]["/made"]["errno"], "EROFS");
}

#[test]
fn a_cwd_through_a_symlink_stays_inside() {
    let b = Bundle::new();
    let name = format!("/{}", b.tag());
    std::os::unix::fs::symlink(&name, b.rootfs().join("link")).expect("symlink");
    std::fs::create_dir(b.rootfs().join(b.tag())).expect("mkdir");
    b.edit(|spec| spec["process"]["cwd"] = json!("/link"));
    assert_eq!(b.probe(&[])["cwd"], json!(name));
}

#[test]
fn a_cwd_that_is_a_file_is_refused() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["cwd"] = json!("/etc/passwd"));
    let out = b.run_args(&["/bin/true"]).fails("/etc/passwd");
    assert!(out.error().contains("not a directory"), "{out}");
}

#[test]
fn rlimits_are_set() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "hard": 512, "soft": 256 },
            { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 },
            { "type": "RLIMIT_FSIZE", "hard": 1_000_000, "soft": 999_999 },
        ]);
    });
    let report = b.probe(&[]);
    assert_eq!(report["rlimits"]["RLIMIT_NOFILE"], json!({ "soft": 256, "hard": 512 }));
    assert_eq!(report["rlimits"]["RLIMIT_CORE"], json!({ "soft": 0, "hard": 0 }));
    assert_eq!(report["rlimits"]["RLIMIT_FSIZE"], json!({ "soft": 999_999, "hard": 1_000_000 }));
}

#[test]
fn rlimits_not_named_are_inherited() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let out = b.verb("run", &[]).through(&["prlimit", "--core=7:11"]).ok();
    assert_eq!(out.json()["rlimits"]["RLIMIT_CORE"], json!({ "soft": 7, "hard": 11 }));
}

#[test]
fn an_unknown_rlimit_is_refused() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_SHEEP", "hard": 1, "soft": 1 }]));
    b.run(&[]).fails("RLIMIT_SHEEP");
}

#[test]
fn an_rlimit_named_twice_is_refused() {
    newer!("the check for one rlimit named twice, which config.md demands");
    let b = Bundle::new();
    let limit = json!({ "type": "RLIMIT_CORE", "hard": 1, "soft": 1 });
    b.edit(|spec| spec["process"]["rlimits"] = json!([limit, limit]));
    b.run(&[]).fails("RLIMIT_CORE");
}

#[test]
fn a_soft_limit_above_the_hard_one_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "hard": 1, "soft": 2 }]));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().to_lowercase().contains("limit"), "{out}");
}

#[test]
fn no_new_privileges_is_set() {
    assert_eq!(Bundle::new().probe(&[])["noNewPrivileges"], true);
}

#[test]
fn no_new_privileges_is_not_set_unasked() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    assert_eq!(b.probe(&[])["noNewPrivileges"], false);
}

#[test]
fn oom_score_adj_is_set() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["oomScoreAdj"] = json!(567));
    assert_eq!(b.probe(&[])["oomScoreAdj"], 567);
}

#[test]
fn oom_score_adj_is_inherited_unless_given() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let raise = "echo 321 > /proc/self/oom_score_adj; exec \"$@\"";
    let out = b.verb("run", &[]).through(&["sh", "-c", raise, "sh"]).ok();
    assert_eq!(out.json()["oomScoreAdj"], 321);
}

#[test]
fn without_a_terminal_the_streams_are_the_callers() {
    let b = Bundle::new();
    b.set_args(&["/bin/sh", "-c", "cat; echo to stderr >&2"]);
    let out = b.verb("run", &[]).stdin("from the caller").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("from the caller", "to stderr\n"));
    assert_eq!(b.probe(&[])["tty"]["controlling"], false);
}

#[test]
fn a_terminal_needs_a_console_socket_to_be_detached() {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["terminal"] = json!(true));
    let out = b.verb("create", &[]).output();
    assert_ne!(out.code, 0, "{out}");
    assert!(out.error().contains("console socket") || out.error().contains("console-socket"), "{out}");
}

#[test]
fn the_program_is_looked_for_in_its_own_path() {
    let b = Bundle::new();
    b.script("only/here/greet", "#!/bin/sh\necho found\n");
    b.edit(|spec| spec["process"]["env"] = json!(["PATH=/nowhere:/only/here"]));
    assert_eq!(b.run_args(&["greet"]).ok().stdout, "found\n");
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let b = Bundle::new();
    b.run_args(&["/bin/nowhere"]).fails("/bin/nowhere");
    b.run_args(&["nowhere"]).fails("nowhere");
}

#[test]
fn a_program_without_the_execute_bit_is_refused() {
    let b = Bundle::new();
    b.file("bin/plain", "#!/bin/sh\n");
    let out = b.run_args(&["/bin/plain"]).fails("/bin/plain");
    assert!(out.error().contains("ermission denied"), "{out}");
}

#[test]
fn the_exit_code_is_the_programs() {
    Bundle::new().run_args(&["/bin/probe", "exit", "42"]).exits(42);
}

#[test]
fn a_programs_death_by_signal_is_128_and_its_number() {
    // init ignores its own default-action signals, so a child of the shell dies and the shell reports it.
    Bundle::new().run_args(&["/bin/sh", "-c", "/bin/probe signal TERM & wait $!"]).exits(128 + 15);
}

#[test]
fn no_signal_is_blocked_or_ignored_by_the_runtime() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    // What the caller ignores is inherited, as execve(2) says; so it ignores nothing here (signal 32, the C
    // library's, it cannot help).
    let signals = b.verb("run", &[]).through(&["env", "--default-signal"]).ok().json()["signals"].clone();
    let set = |name: &str| u64::from_str_radix(signals[name].as_str().expect("hex"), 16).expect("hex");
    assert_eq!(set("blocked"), 0, "{signals}");
    // SIGPIPE (13) is Rust's doing, in the probe itself.
    assert_eq!(set("ignored") & !(1 << 31) & !(1 << 12), 0, "{signals}");
}

#[test]
fn only_three_descriptors_are_open() {
    let fds = Bundle::new().probe(&[])["fds"].clone();
    let numbers: Vec<&String> = fds.as_object().expect("fds").keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{fds}");
}

#[test]
fn an_inherited_descriptor_of_the_caller_stays_outside() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let secret = std::fs::File::open("/etc/hostname").expect("a host file");
    let out = b.verb("run", &[]).fd(&secret, 9).ok();
    assert_eq!(out.json()["fds"].as_object().expect("fds").len(), 3, "{}", out.json()["fds"]);
}

#[test]
fn init_leads_a_session_of_its_own() {
    let report = Bundle::new().probe(&[]);
    assert_eq!((&report["pid"], &report["sid"], &report["pgid"]), (&json!(1), &json!(1), &json!(1)));
}

#[test]
fn a_scheduler_is_set() {
    newer!("process.scheduler");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    let report = b.probe(&[]);
    assert_eq!(report["scheduler"]["policy"], "SCHED_BATCH");
    assert_eq!(report["scheduler"]["nice"], 7);
}

/// Whether a process in a cgroup may be a real-time one. With CONFIG_RT_GROUP_SCHED, where the cpu controller of
/// cgroup v2 is on, it may not.
fn real_time_in_a_cgroup() -> bool {
    let dir = cgroup2_mount().join(format!("jug-test-{}-rt", std::process::id()));
    fs::create_dir(&dir).expect("mkdir of a cgroup");
    let script = "echo $$ >\"$0\"/cgroup.procs && exec chrt -r 3 true";
    let ended = std::process::Command::new("sh").args(["-c", script]).arg(&dir).output().expect("sh(1)");
    eventually("rmdir", || fs::remove_dir(&dir).is_ok().then_some(()));
    ended.status.success()
}

#[test]
fn a_real_time_scheduler_has_its_priority() {
    newer!("process.scheduler");
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["scheduler"] =
            json!({ "policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    });
    if !real_time_in_a_cgroup() {
        b.run_args(&["/bin/true"]).fails("CONFIG_RT_GROUP_SCHED");
        return;
    }
    let report = b.probe(&[]);
    assert_eq!(report["scheduler"]["policy"], "SCHED_RR");
    assert_eq!(report["scheduler"]["priority"], 3);
    assert_eq!(report["scheduler"]["flags"], 1);
}

#[test]
fn an_unknown_scheduler_is_refused() {
    newer!("process.scheduler");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["scheduler"] = json!({ "policy": "SCHED_SHEEP" }));
    b.run_args(&["/bin/true"]).fails("SCHED_SHEEP");
}

#[test]
fn an_io_priority_is_set() {
    newer!("process.ioPriority");
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    assert_eq!(b.probe(&[])["ioPriority"], json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    // The kernel would take 9 for 1 and a hint.
    b.edit(|spec| spec["process"]["ioPriority"]["priority"] = json!(9));
    b.run_args(&["/bin/true"]).fails("riority: 9");
}

#[test]
fn a_personality_is_set() {
    newer!("linux.personality");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    assert_eq!(b.probe(&[])["personality"], 8);
}

#[test]
fn windows_properties_are_ignored() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"]["commandLine"] = json!("cmd.exe /c dir");
        spec["process"]["user"]["username"] = json!("ContainerUser");
    });
    assert_eq!(b.probe(&[])["uid"]["real"], 0);
}

#[test]
fn a_cwd_that_only_the_runtime_may_enter_is_entered() {
    newer!("1.1.10: the directory is tried before and after the user is set");
    let b = Bundle::new();
    std::fs::create_dir(b.rootfs().join("closed")).expect("mkdir");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(b.rootfs().join("closed"), mode).expect("chmod");
    b.edit(|spec| {
        spec["process"]["cwd"] = json!("/closed");
        spec["process"]["user"] = json!({ "uid": 2000, "gid": 2000 });
    });
    assert_eq!(b.run_args(&["/bin/sh", "-c", "echo $PWD"]).ok().stdout, "/closed\n");
}

#[test]
fn exec_has_the_personality_and_the_memory_policy_too() {
    newer!("linux.personality, linux.memoryPolicy");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    assert_eq!(b.running().exec_probe(&[], &[])["personality"], 8);
}

#[test]
fn a_memory_policy_that_is_none_is_refused_in_runcs_words() {
    newer!("1.4: linux.memoryPolicy");
    let b = Bundle::new();
    for (policy, words) in [
        (json!({ "mode": "INTERLEAVE", "nodes": "0" }), "invalid memory policy mode"),
        (json!({ "nodes": "0" }), "invalid memory policy mode"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["x"] }), "invalid memory policy flag"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }), "invalid memory policy node"),
    ] {
        b.edit(|spec| spec["linux"]["memoryPolicy"] = policy);
        b.run_args(&["/bin/true"]).fails(words);
    }
    b.edit(|spec| spec["linux"]["memoryPolicy"] = json!({}));
    b.run_args(&["/bin/true"]).ok();
}
