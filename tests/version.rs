//! Names, help, global flags and the log: what every verb has in common.
mod support;

use std::fs;

use serde_json::Value;
use support::*;

const VERBS: [&str; 13] = [
    "create", "delete", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec", "start",
    "state",
];

#[test]
fn the_version_names_the_binary_first_and_the_specification_later() {
    for flag in ["--version", "-v"] {
        let out = runtime_call(&[flag]).ok();
        let first = out.stdout.lines().next().expect("a line");
        assert!(first.starts_with(&format!("{} version ", runtime_name())), "{first}");
        assert!(out.stdout.lines().any(|line| line.starts_with("spec: 1.")), "{out}");
        assert_eq!(out.stderr, "");
    }
}

#[test]
fn only_one_line_of_the_version_says_version() {
    // dockerd takes the last line that does.
    let out = runtime_call(&["--version"]).ok();
    assert_eq!(out.stdout.to_lowercase().matches("version").count(), 1, "{out}");
    assert!(out.stdout.lines().any(|line| line.starts_with("commit: ")), "{out}");
}

#[test]
fn help_lists_every_verb() {
    for args in [&["--help"][..], &["-h"], &["help"], &[]] {
        let out = runtime_call(args).ok();
        for verb in VERBS {
            assert!(out.stdout.contains(&format!("  {verb} ")), "no {verb}:\n{out}");
        }
    }
}

#[test]
fn every_verb_has_its_own_help() {
    for verb in VERBS {
        for args in [[verb, "--help"], [verb, "-h"], ["help", verb]] {
            let out = runtime_call(&args).ok();
            assert!(out.stdout.contains(verb) && out.stdout.to_uppercase().contains("USAGE"), "{out}");
        }
    }
}

#[test]
fn a_checkpoint_that_is_not_possible_is_not_offered() {
    deviates!("without criu the help of checkpoint fails, by which podman finds out; runc shows it always");
    for verb in ["checkpoint", "restore"] {
        let out = runtime_call(&[verb, "--help"]).env("PATH", "/no/such").output();
        out.fails("\"criu\": executable file not found in $PATH");
    }
}

#[test]
fn podman_finds_the_flag_by_which_pods_are_restored() {
    // podman looks for these words to learn whether the flag exists.
    let out = runtime_call(&["restore", "--lsm-mount-context"]).output().exits(1);
    assert!(out.error().contains("flag needs an argument"), "{out}");
}

#[test]
fn an_unknown_verb_is_refused() {
    runtime_call(&["no-such-verb"]).output().exits(3).says("no-such-verb");
}

#[test]
fn an_unknown_flag_is_refused() {
    runtime_call(&["--no-such-flag", "list"]).output().exits(1).says("no-such-flag");
    for verb in VERBS {
        runtime_call(&[verb, "--no-such-flag"]).output().exits(1).says("no-such-flag");
    }
}

#[test]
fn a_missing_or_superfluous_id_is_refused() {
    let b = Bundle::new();
    for verb in ["create", "delete", "kill", "pause", "resume", "run", "start", "state"] {
        b.call(&[verb]).output().exits(1).says("argument");
    }
    for verb in ["create", "delete", "pause", "resume", "run", "start", "state"] {
        b.call(&[verb, "one", "two"]).output().exits(1).says("argument");
    }
}

#[test]
fn long_flags_may_have_one_dash() {
    let b = Bundle::new();
    let (root, bundle, pid) = (b.path("root"), b.path(""), b.path("pid"));
    runtime_call(&["-root", &root, "create", "-bundle", &bundle, "-pid-file", &pid, &b.id()]).ok();
    assert_eq!(b.container().status(), "created");
    assert!(fs::exists(&pid).expect("stat"));
    b.call(&["delete", "-force", &b.id()]).ok();
}

#[test]
fn a_flag_and_its_value_may_be_one_word() {
    let b = Bundle::new();
    let [root, bundle] =
        [("root", "root"), ("bundle", "")].map(|(flag, path)| format!("--{flag}={}", b.path(path)));
    runtime_call(&[root.as_str(), "create", &bundle, &b.id()]).ok();
    assert_eq!(b.container().status(), "created");
    b.call(&["delete", "--force=true", &b.id()]).ok();
}

/// One object per line, each a level, a message and a time.
fn log_lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the log");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

#[test]
fn an_error_is_exactly_one_json_object_in_the_log() {
    let b = Bundle::new();
    b.set_args(&["no-such-program"]);
    let log = b.path("log.json");
    let out = b.verb("create", &[]).global(&["--log", &log, "--log-format", "json"]).output();
    out.fails("executable file not found in $PATH");
    let lines = log_lines(&log);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "error");
    let message = lines[0]["msg"].as_str().expect("msg");
    assert!(message.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{message}");
    let time = lines[0]["time"].as_str().expect("time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let utc = shape.starts_with("0000-00-00T00:00:00") && shape.ends_with('Z');
    assert!(utc || shape.starts_with("0000-00-00T00:00:00+00:00"), "{time}");
}

#[test]
fn every_verb_that_fails_logs_one_error_object() {
    let b = Bundle::new();
    let id = b.id();
    for (n, args) in [
        &["start", &id][..],
        &["state", &id],
        &["kill", &id],
        &["delete", &id],
        &["pause", &id],
        &["resume", &id],
        &["ps", &id],
        &["exec", &id, "true"],
    ]
    .iter()
    .enumerate()
    {
        let log = b.path(&format!("log.{n}"));
        let out = b.call(args).global(&["--log", &log, "--log-format", "json"]).output();
        assert_ne!(out.code, 0, "{out}");
        let lines = log_lines(&log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["level"], "error");
        assert!(
            lines[0]["msg"].as_str().is_some_and(|msg| msg.contains("container does not exist")),
            "{lines:?}"
        );
    }
}

#[test]
fn the_error_is_on_stderr_too_in_plain_text() {
    let b = Bundle::new();
    let log = b.path("log.json");
    let out = b.call(&["start", &b.id()]).global(&["--log", &log, "--log-format", "json"]).output();
    let out = out.fails("container does not exist");
    assert!(serde_json::from_str::<Value>(&out.stderr).is_err(), "{out}");
}

#[test]
fn the_log_is_appended_to() {
    let b = Bundle::new();
    let log = b.path("log");
    fs::write(&log, "before\n").expect("write");
    for _ in 0..2 {
        b.call(&["start", &b.id()]).global(&["--log", &log]).output().exits(1);
    }
    let text = fs::read_to_string(&log).expect("the log");
    assert!(text.starts_with("before\n"), "{text}");
    assert_eq!(text.matches("container does not exist").count(), 2, "{text}");
}

#[test]
fn success_logs_no_error() {
    let b = Bundle::new();
    let log = b.path("log.json");
    b.verb("create", &[]).global(&["--log", &log, "--log-format", "json"]).ok();
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(!text.contains("error"), "{text}");
}

#[test]
fn debug_says_more_and_stays_json() {
    let b = Bundle::new();
    let log = b.path("log.json");
    b.verb("create", &[]).global(&["--debug", "--log", &log, "--log-format", "json"]).ok();
    let lines = log_lines(&log);
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line["level"] == "debug" || line["level"] == "info"), "{lines:?}");
}

#[test]
fn an_unknown_log_format_is_refused() {
    let b = Bundle::new();
    b.call(&["list"]).global(&["--log-format", "xml"]).output().exits(1).says("log-format").says("xml");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    let b = Bundle::new();
    let log = b.path("missing/log");
    b.call(&["list"]).global(&["--log", &log]).output().exits(1).says("no such file or directory");
}

#[test]
fn the_root_defaults_to_run_and_the_binarys_name() {
    if is_peer() && !is_runc() {
        deviates!("only runc and jug agree on /run/NAME");
    }
    let b = Bundle::new();
    let root = format!("/run/{}", runtime_name());
    let is_new = !fs::exists(&root).expect("stat");
    b.verb("create", &[]).without_root().ok();
    let record = format!("{root}/{}", b.id());
    assert!(fs::exists(&record).expect("stat"), "no {record}");
    b.call(&["delete", "--force", &b.id()]).without_root().ok();
    assert!(!fs::exists(&record).expect("stat"));
    if is_new {
        fs::remove_dir(&root).expect("an empty root");
    }
}

#[test]
fn another_name_of_the_binary_is_another_root() {
    deviates!("the root follows the binary's name, as podman expects of a runtime; runc says runc");
    let b = Bundle::new();
    let name = format!("{}.oci", b.tag());
    let program = b.path(&name);
    install(runtime(), &program);
    let root = format!("/run/{name}");
    b.verb("create", &[]).program(&program).without_root().ok();
    assert!(fs::exists(format!("{root}/{}", b.id())).expect("stat"), "nothing in {root}");
    b.call(&["delete", "--force", &b.id()]).program(&program).without_root().ok();
    let version = runtime_call(&["--version"]).program(&program).ok();
    assert!(version.stdout.starts_with(&format!("{name} version ")), "{version}");
    fs::remove_dir(&root).expect("an empty root");
}

#[test]
fn two_roots_know_nothing_of_one_another() {
    let b = Bundle::new();
    b.create();
    b.call(&["state", &b.id()]).root(b.path("other")).output().fails("container does not exist");
}

#[test]
fn the_slash_is_no_root() {
    newer!("1.2: --root / refused");
    let b = Bundle::new();
    b.verb("create", &[]).root("/").output().exits(1).says("root");
    assert!(!fs::exists(format!("/{}", b.id())).expect("stat"));
}

#[test]
fn systemd_cgroups_without_systemd_are_refused() {
    needs!(Feature::WithoutSystemd);
    let b = Bundle::new();
    let out = b.verb("create", &[]).global(&["--systemd-cgroup"]).output();
    out.fails("systemd not running on this host, cannot use systemd cgroups manager");
}

#[test]
fn flags_of_old_callers_are_taken() {
    let b = Bundle::new();
    b.call(&["list"]).global(&["--criu", "criu", "--rootless", "false"]).ok();
}

#[test]
fn the_version_is_told_after_a_global_flag_with_a_value() {
    let out = runtime_call(&["--log-format", "json", "--version"]).ok();
    assert!(out.stdout.contains("spec: "), "{out}");
}
