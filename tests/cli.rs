//! The command line of every verb, line by line: what is taken, what is refused, with which code and which words. Each
//! line goes to the runtime as it stands here; `ID` is the name of a running container, `PATH` a directory of the
//! test's.
mod support;

use std::fs;

use support::*;

/// A line, its exit code, and what its stderr says (its stdout, where the code is 0).
type Row = (&'static str, i32, &'static str);

/// Runs the lines in the bundle's directory and collects what is not as it should be.
#[track_caller]
fn table(b: &Bundle, rows: &[Row]) {
    let mut faults = Vec::new();
    for (line, code, words) in rows {
        let fill = |word: &str| {
            word.trim_matches('\'').replace("ID", &b.id()).replace("PATH", b.path("").trim_end_matches('/'))
        };
        let args: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(fill).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = b.call(&args).cwd(b.path("")).output();
        let (text, stderr) = (out.stdout.clone(), out.error());
        let said = if *code == 0 { text.contains(words) } else { stderr.contains(words) };
        if out.code != *code || !said {
            faults.push(format!("{line:?}: expected {code} and {words:?}\n{out}"));
        }
    }
    assert!(faults.is_empty(), "{} of {} lines:\n{}", faults.len(), rows.len(), faults.join("\n\n"));
}

const MISSING: &str = "container does not exist";
const UNDEFINED: &str = "flag provided but not defined: -";
const NEEDS: &str = "flag needs an argument: -";

#[test]
fn flags_before_the_verb() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("--nosuch", 1, "flag provided but not defined: -nosuch"),
            ("--nosuch list", 1, "flag provided but not defined: -nosuch"),
            ("-d list", 1, "flag provided but not defined: -d"),
            ("--log-format", 1, "flag needs an argument: -log-format"),
            ("--criu", 1, "flag needs an argument: -criu"),
            ("--log-format xml list", 1, "log-format"),
            ("--log PATH/nosuch/log list", 1, "nosuch/log"),
            ("--debug=x list", 1, "invalid boolean value \"x\" for -debug: parse error"),
            ("--debug=false list", 0, "ID "),
            ("--debug=F list", 0, "ID "),
            ("-debug=0 list", 0, "ID "),
            ("--systemd-cgroup=false list", 0, "ID "),
            ("--systemd-cgroup list", 0, "ID "),
            ("--systemd-cgroup state nosuch", 1, MISSING),
            ("--rootless true list", 0, "ID "),
            ("--rootless=auto list", 0, "ID "),
            ("--rootless maybe list", 0, "ID "),
            ("--criu criu list", 0, "ID "),
            ("--log-format text --log-format json list", 0, "ID "),
            ("-log-format json list", 0, "ID "),
            ("-- list", 0, "ID "),
            ("--version", 0, "spec: 1."),
            ("-version", 0, "spec: 1."),
            ("-v", 0, "spec: 1."),
            ("--v", 0, "spec: 1."),
            ("-v list", 0, "spec: 1."),
            ("--version nosuch", 0, "spec: 1."),
        ],
    );
}

#[test]
fn help_and_unknown_verbs() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("", 0, "delete"),
            ("--help", 0, "delete"),
            ("-h", 0, "delete"),
            ("-help", 0, "delete"),
            ("help", 0, "delete"),
            ("h", 0, "delete"),
            ("help run", 0, "--detach"),
            ("h run", 0, "--detach"),
            ("run --help", 0, "--detach"),
            ("run -h", 0, "--detach"),
            ("run -help", 0, "--detach"),
            ("run --help x y", 0, "--detach"),
            ("help nosuch", 3, "No help topic for 'nosuch'"),
            ("nosuch", 3, "No help topic for 'nosuch'"),
            ("nosuch --help", 3, "No help topic for 'nosuch'"),
            ("nosuch x y", 3, "No help topic for 'nosuch'"),
        ],
    );
}

#[test]
fn unknown_flags_are_named_as_go_names_them() {
    let b = Bundle::new();
    for verb in [
        "checkpoint",
        "create",
        "delete",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
    ] {
        for flag in ["--nosuch", "-nosuch", "--nosuch=1"] {
            b.call(&[verb, flag, "x"]).output().exits(1).says(&format!("{UNDEFINED}nosuch"));
        }
    }
    table(
        &b,
        &[
            // Short flags cannot be put together.
            ("exec -it ID sh", 1, "flag provided but not defined: -it"),
            ("delete -ff ID", 1, "flag provided but not defined: -ff"),
            ("run -db PATH x", 1, "flag provided but not defined: -db"),
            ("list --version", 1, "flag provided but not defined: -version"),
            ("state -nosuch", 1, "flag provided but not defined: -nosuch"),
            ("run ---bundle x", 1, "bad flag syntax: ---bundle"),
        ],
    );
}

#[test]
fn flags_without_their_value_are_named() {
    let b = Bundle::new();
    for (verb, flags) in [
        ("create", &["bundle", "b", "console-socket", "pid-file", "preserve-fds"][..]),
        ("run", &["bundle", "b", "console-socket", "pid-file", "preserve-fds"]),
        (
            "exec",
            &["cwd", "env", "e", "user", "u", "additional-gids", "g", "process", "p", "pid-file", "cap", "c"],
        ),
        ("exec", &["console-socket", "process-label", "apparmor", "preserve-fds", "cgroup"]),
        ("checkpoint", &["image-path", "work-path", "parent-path", "page-server", "status-fd", "empty-ns"]),
        ("restore", &["image-path", "work-path", "bundle", "pid-file", "lsm-profile", "lsm-mount-context"]),
        ("list", &["format", "f"]),
        ("ps", &["format", "f"]),
        ("spec", &["bundle", "b"]),
    ] {
        for flag in flags {
            let dashes = if flag.len() == 1 { "-" } else { "--" };
            b.call(&[verb, &format!("{dashes}{flag}")]).output().exits(1).says(&format!("{NEEDS}{flag}"));
        }
    }
}

#[test]
fn switches_take_gos_booleans() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("delete --force=1 nosuch", 0, ""),
            ("delete --force=T nosuch", 0, ""),
            ("delete -force=TRUE nosuch", 0, ""),
            ("delete --force=0 nosuch", 1, MISSING),
            ("delete --force=False nosuch", 1, MISSING),
            ("delete --force=yes nosuch", 1, "invalid boolean value \"yes\" for -force: parse error"),
            ("delete --force= nosuch", 1, "invalid boolean value \"\" for -force: parse error"),
            ("run --detach=maybe x", 1, "invalid boolean value \"maybe\" for -detach: parse error"),
            ("run --preserve-fds many x", 1, "invalid value \"many\" for flag -preserve-fds: parse error"),
            ("exec --preserve-fds=x ID true", 1, "invalid value \"x\" for flag -preserve-fds: parse error"),
        ],
    );
}

#[test]
fn how_many_words_a_verb_takes() {
    let b = Bundle::new();
    for verb in ["checkpoint", "create", "delete", "pause", "restore", "resume", "run", "start", "state"] {
        for args in [&[verb][..], &[verb, "a", "b"], &[verb, "a", "--", "b"]] {
            b.call(args).output().exits(1).says(&format!("\"{verb}\" requires exactly 1 argument(s)"));
        }
    }
    for verb in ["features", "list", "spec"] {
        b.call(&[verb, "a"]).output().exits(1).says(&format!("\"{verb}\" requires exactly 0 argument(s)"));
    }
    table(
        &b,
        &[
            ("kill", 1, "\"kill\" requires a minimum of 1 argument(s)"),
            ("kill a b c", 1, "\"kill\" requires a maximum of 2 argument(s)"),
            ("exec", 1, "\"exec\" requires a minimum of 1 argument(s)"),
            ("ps", 1, "\"ps\" requires a minimum of 1 argument(s)"),
        ],
    );
}

#[test]
fn a_container_that_is_not_there() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("state nosuch", 1, MISSING),
            ("start nosuch", 1, MISSING),
            ("kill nosuch", 1, MISSING),
            ("kill nosuch KILL", 1, MISSING),
            ("kill nosuch NOSIG", 1, MISSING),
            ("kill --all nosuch 9", 1, MISSING),
            ("delete nosuch", 1, MISSING),
            ("delete -f nosuch", 0, ""),
            ("delete nosuch --force", 0, ""),
            ("pause nosuch", 1, MISSING),
            ("resume nosuch", 1, MISSING),
            ("ps nosuch", 1, MISSING),
            ("ps nosuch -ef", 1, MISSING),
            ("ps --format yaml nosuch", 1, MISSING),
            ("checkpoint nosuch", 1, MISSING),
            ("exec nosuch", 255, "exec failed: container does not exist"),
            ("exec nosuch true", 255, "exec failed: container does not exist"),
            ("exec nosuch --nosuch", 255, MISSING),
            ("exec -p PATH/nosuch nosuch", 255, MISSING),
        ],
    );
}

#[test]
fn names_that_are_none() {
    let b = Bundle::new();
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps", "checkpoint"] {
        b.call(&[verb, ""]).output().exits(1).says("container id cannot be empty");
        for bad in ["..", "../x", "a/b", "a b", "\u{e4}", "a\nb", "-x", "a:b"] {
            b.call(&[verb, "--", bad]).output().exits(1).says("container");
        }
    }
    for bad in ["..", ".", "../x", "a/b", "a b", "\u{e4}", "a\nb", "a:b"] {
        b.call(&["create", "--bundle", &b.path(""), bad])
            .output()
            .exits(1)
            .says("invalid container ID format");
        b.call(&["exec", bad, "true"]).output().exits(255).says("container ID format");
        assert_ne!(b.call(&["delete", "--force", bad]).output().code, 0, "{bad:?}");
    }
    b.call(&["create", "--bundle", &b.path(""), ""]).output().exits(1).says("container id cannot be empty");
}

#[test]
fn flags_may_stand_behind_the_name() {
    let b = Bundle::new();
    let pid = b.path("pid");
    b.call(&["create", &b.id(), "-bundle", &b.path(""), "--pid-file", &pid]).ok();
    assert_eq!(fs::read_to_string(&pid).expect("the pid file"), b.container().pid().to_string());
    b.call(&["kill", &b.id(), "KILL", "--all"]).ok();
    b.call(&["delete", &b.id(), "-f"]).ok();
}

#[test]
fn the_last_of_two_equal_flags_counts() {
    let b = Bundle::new();
    let (first, second) = (b.path("first"), b.path("second"));
    let flags =
        ["create", "--bundle", "/no/such/bundle", "--pid-file", &first, "--pid-file", &second, "--bundle"];
    b.call(&flags).args(&[&b.path(""), &b.id()]).ok();
    assert!(!fs::exists(&first).expect("stat") && fs::exists(&second).expect("stat"));
}

#[test]
fn signals_by_name_and_number() {
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "sleep", "1000"]);
    let c = b.running();
    table(
        &b,
        &[
            ("kill ID 0", 0, ""),
            ("kill ID CONT", 0, ""),
            ("kill ID SIGCONT", 0, ""),
            ("kill ID sigcont", 0, ""),
            ("kill ID cont", 0, ""),
            ("kill ID 18", 0, ""),
            ("kill -a ID CONT", 0, ""),
            ("kill ID CONT --all", 0, ""),
            ("kill ID NOSIG", 1, "unknown signal \"NOSIG\""),
            ("kill ID SIGSIGCONT", 1, "unknown signal"),
            ("kill ID SIG", 1, "unknown signal \"SIG\""),
            ("kill ID 1000", 1, ""),
            ("kill ID 9x", 1, "unknown signal \"9x\""),
        ],
    );
    assert_eq!(c.status(), "running");
    table(&b, &[("kill ID SIGKILL", 0, "")]);
    c.wait("stopped");
    table(&b, &[("kill ID KILL", 1, "container not running"), ("kill --all ID KILL", 0, "")]);
}

#[test]
fn states_that_a_verb_refuses() {
    let b = Bundle::new();
    let c = b.running();
    table(
        &b,
        &[
            ("start ID", 1, "cannot start an already running container"),
            ("delete ID", 1, "that is not stopped: running"),
            ("resume ID", 1, "container not paused"),
            ("run --bundle PATH ID", 1, "container with given ID already exists"),
            ("create --bundle PATH ID", 1, "container with given ID already exists"),
            ("pause ID", 0, ""),
            ("exec ID true", 255, "cannot exec in a paused container (use --ignore-paused to override)"),
            ("delete ID", 1, "that is not stopped: paused"),
            ("resume ID", 0, ""),
        ],
    );
    c.stop();
    table(
        &b,
        &[
            ("start ID", 1, "cannot start a container that has stopped"),
            ("pause ID", 1, "container not running"),
            ("resume ID", 1, "container not paused"),
            ("exec ID true", 255, "cannot exec in a stopped container"),
            ("state ID", 0, "\"status\": \"stopped\""),
            ("state ID", 0, "\"pid\": 0"),
            ("delete ID", 0, ""),
            ("delete ID", 1, MISSING),
        ],
    );
}

#[test]
fn formats() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("list", 0, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"),
            ("list -f json", 0, "null\n"),
            ("list --format=json", 0, "null\n"),
            ("list -q", 0, ""),
            ("list -f yaml", 1, "invalid format option"),
        ],
    );
    let c = b.running();
    table(
        &b,
        &[
            ("list --quiet", 0, &*Box::leak(format!("{}\n", b.id()).into_boxed_str())),
            ("list -f json", 0, "\"status\":\"running\""),
            ("list", 0, " running "),
            ("ps ID --format json", 1, "ps"),
            ("ps --format json ID", 0, &*Box::leak(format!("[{}]\n", c.pid()).into_boxed_str())),
            ("ps -f yaml ID", 1, "invalid format option"),
            ("ps ID -o pid", 0, &*Box::leak(format!("{}\n", c.pid()).into_boxed_str())),
            ("ps ID -- -o pid", 1, "ps"),
        ],
    );
}

#[test]
fn what_exec_takes() {
    let b = Bundle::new();
    b.running();
    fs::write(
        b.path("process.json"),
        r#"{"cwd": "/bin", "args": ["/bin/pwd"], "user": {"uid": 0, "gid": 0}}"#,
    )
    .expect("write");
    table(
        &b,
        &[
            ("exec ID echo -n --tty -x", 0, "--tty -x"),
            ("exec ID echo -- x", 0, "-- x\n"),
            ("exec -- ID echo x", 0, "x\n"),
            ("exec --cwd /bin ID pwd", 0, "/bin\n"),
            ("exec --cwd=/bin ID pwd", 0, "/bin\n"),
            ("exec -e A=1 -e B=2 ID env", 0, "A=1\nB=2"),
            ("exec --env A=1 --env A=2 ID env", 0, "A=2"),
            ("exec -u 7 ID id -u", 0, "7\n"),
            ("exec --user 7:8 ID id -g", 0, "8\n"),
            ("exec --user=0 -g 5 -g 6 ID id -G", 0, "0 5 6\n"),
            ("exec --user x ID true", 255, "x"),
            ("exec -g x ID true", 1, "invalid value \"x\" for flag -"),
            ("exec -p process.json ID", 0, "/bin\n"),
            ("exec --process process.json ID ignored", 0, "/bin\n"),
            ("exec --process nosuch.json ID", 255, "no such file or directory"),
            ("exec --no-new-privs ID true", 0, ""),
            ("exec --process-label '' ID true", 0, ""),
            ("exec --apparmor '' ID true", 0, ""),
            ("exec --cap CAP_SYS_ADMIN ID grep CapEff /proc/self/status", 0, "0000000020200"),
            ("exec -c sys_admin -c CAP_NOSUCH ID true", 0, ""),
            (
                "exec --tty -d ID true",
                255,
                "cannot allocate tty if runc will detach without setting console socket",
            ),
            (
                "exec --console-socket PATH/nosuch ID true",
                255,
                "cannot use console socket if runc will not detach",
            ),
            ("exec ID", 255, "args cannot be empty"),
            ("exec ID nosuch", 255, "exec: \"nosuch\": executable file not found in $PATH"),
        ],
    );
}

#[test]
fn what_create_and_run_refuse() {
    let b = Bundle::new();
    table(
        &b,
        &[
            ("run --bundle PATH/nosuch x", 1, "no such file or directory"),
            ("run --bundle PATH/rootfs x", 1, "config.json"),
            (
                "run --bundle PATH --console-socket PATH/nosuch x",
                1,
                "cannot use console socket if runc will not detach",
            ),
            ("create --bundle PATH --console-socket PATH/nosuch x", 1, "cannot use console socket"),
            ("run --bundle PATH --pid-file PATH/nosuch/pid x", 1, "no such file or directory"),
            ("--rootless maybe run --bundle PATH x", 1, "maybe"),
        ],
    );
    table(&b, &[("list -q", 0, "")]);
    assert_eq!(b.call(&["list", "-q"]).ok().stdout, "");
}

#[test]
fn more_descriptors_than_there_are_numbers() {
    newer!("a check before the descriptors are touched");
    let b = Bundle::new();
    for number in ["2147483647", "4294967295"] {
        b.verb("run", &["--preserve-fds", number]).output().exits(1).says("preserve");
    }
}

#[test]
fn a_wrong_line_is_logged_like_any_error() {
    let b = Bundle::new();
    for (n, line) in
        [&["run", "--nosuch", "x"][..], &["run"], &["nosuch"], &["exec", "--user"]].into_iter().enumerate()
    {
        let log = b.path(&format!("log.{n}"));
        let out = b.call(line).global(&["--log", &log, "--log-format", "json"]).output();
        assert_ne!(out.code, 0);
        let text = fs::read_to_string(&log).expect("the log");
        let entry: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text:?}"));
        assert_eq!(entry["level"], "error");
        assert!(entry["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{text}");
    }
}
