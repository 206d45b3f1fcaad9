//! The flags of `run`, `ps` and `exec` as people write them: what Docker and Podman take is taken, and what nobody
//! knows is refused. Each of these was found by giving the same command to Podman.
#![cfg(feature = "engine")]

mod support;
use support::*;

#[test]
fn a_flag_nobody_knows_is_no_image() {
    let e = Engine::new();
    e.jug(&["run", "--no-such", "image", "true"]).exits(125).says("unknown flag: --no-such");
    e.jug(&["exec", "--no-such", "container", "true"]).exits(125).says("unknown flag: --no-such");
    e.run(&["--security-opt", "what=ever"], &["true"]).exits(125).says("is unknown");
    e.run(&["--ulimit", "what=1"], &["true"]).exits(125).says("there is no limit");
    e.run(&["--ulimit", "nofile=2:1"], &["true"]).exits(125).says("above the hard limit");
    e.run(&["--uts", "host", "-h", "x"], &["true"]).exits(125).says("the host's own name");
}

#[test]
fn flags_twice_and_flags_with_a_value() {
    let e = Engine::new();
    // `run` says --rm already.
    e.run(&["--rm", "--read-only=true"], &["sh", "-c", "touch /x || exit 3"]).exits(3);
    e.run(&["--read-only", "--read-only=false"], &["touch", "/x"]).ok();
    e.run(&["-w", "/", "-w", "/tmp", "--tty=false"], &["pwd"]).ok();
    e.run(&["--read-only=what"], &["true"]).exits(125);
    assert!(e.jug(&["run", "--help"]).ok().stdout.contains("--read-only\n"), "the help is as it was");
}

#[test]
fn the_primary_group_is_one_of_the_groups() {
    let e = Engine::new();
    let report = e.probe(&["-u", "1234:55"], &[]);
    assert_eq!(report["groups"], json!([55]));
    e.detached("one", &[], &["sleep", "3600"]);
    let out = e.jug(&["exec", "-u", "12:34", "one", "/bin/probe"]).ok().json();
    assert_eq!(out["groups"], json!([34]));
}

#[test]
fn paths_are_masked_and_unmasked() {
    let e = Engine::new();
    let length = |flags: &[&str], file: &str| e.run(flags, &["cat", file]).ok().stdout.len();
    assert_eq!(length(&[], "/proc/interrupts"), 0);
    assert!(length(&["--security-opt", "unmask=/proc/keys:/proc/interrupts"], "/proc/interrupts") > 0);
    assert!(length(&["--security-opt", "systempaths=unconfined"], "/proc/interrupts") > 0);
    assert_eq!(length(&["--security-opt", "mask=/proc/version"], "/proc/version"), 0);
    assert_eq!(length(&["--privileged", "--security-opt", "mask=/proc/version"], "/proc/version"), 0);
}

#[test]
fn modes_and_names() {
    let e = Engine::new();
    let report = e.probe(&["--tmpfs", "/new", "--tmpfs", "/tmp:mode=700"], &[]);
    let mode = |path| {
        let mount = mount_at(&report, path);
        ["mode=1777", "mode=700"].map(|mode| mount.to_string().contains(mode))
    };
    assert_eq!(mode("/tmp"), [false, true]);
    let out = e.run(&["--tmpfs", "/fresh", "-u", "1000"], &["touch", "/fresh/x"]);
    assert_eq!(out.code, 0, "{out}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let report = e.probe(&["--network", "host"], &[]);
    assert_eq!(report["hostname"], host.trim(), "{}", mode("/new")[0]);
    assert_eq!(e.probe(&["--network", "host", "-h", "own"], &[])["hostname"], "own");
    let mounts = e.run(&["--ipc", "none"], &["cat", "/proc/mounts"]).ok().stdout;
    assert!(!mounts.contains("/dev/shm"), "{mounts}");
    e.run(&["--cpus", "0"], &["true"]).ok();
    assert_eq!(e.run(&["--entrypoint", r#"["echo", "a"]"#], &["b"]).ok().stdout, "a b\n");
    let out =
        e.run_call(&["--rm", "-e", "GIVEN_*"], &["env"]).env("GIVEN_1", "a").env("GIVE", "b").output().ok();
    assert!(out.stdout.contains("GIVEN_1=a\n") && !out.stdout.contains("GIVE="), "{out}");
}

#[test]
fn ps_filters_as_docker_does() {
    let e = Engine::new();
    let rootfs = e.bundle.rootfs();
    for (name, label) in [("web1", "tier=web"), ("web12", "tier=web"), ("db", "tier=db")] {
        let create = ["create", "--name", name, "--label", label, "--network", "none", "--rootfs"];
        e.call(&create).args(&[&rootfs.to_string_lossy(), "true"]).ok();
    }
    e.jug(&["start", "-a", "db"]).ok();
    let names = |filters: &[&str]| {
        let flags: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        let out = e.jug(&[&["ps", "-a", "--format", "{{.Names}}"], &flags[..]].concat()).ok().stdout;
        let mut names: Vec<String> = out.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    for (filters, found) in [
        (&["name=web1"][..], "web1 web12"),
        (&["name=^web1$"], "web1"),
        (&["name=^/web1$"], "web1"),
        (&["name=web[0-9]2"], "web12"),
        (&["name=^(web){1}\\d2$"], "web12"),
        (&["name=(web"], "!"),
        (&["name=db|12"], "db web12"),
        (&["before=web12"], "web1"),
        (&["since=web1"], "db web12"),
        (&["network=none", "status=exited"], "db"),
        (&["network=host"], ""),
        (&["label!=tier=web"], "db"),
        (&["status=created"], "web1 web12"),
        (&["exited=0"], "db"),
        (&["status=what"], "!"),
        (&["exited=what"], "!"),
        (&["before=nobody"], "!"),
    ] {
        if found == "!" {
            e.jug(&["ps", "--filter", filters[0]]).exits(125);
        } else {
            assert_eq!(names(filters), found, "{filters:?}");
        }
    }
    let out = e.jug(&["ps", "-a", "--format", r#"{{.Names}} {{.Label "tier"}} {{.ExitCode}} {{.Pid}}"#]).ok();
    assert!(out.stdout.contains("db db 0 0\n"), "{out}");
}

#[test]
fn inspect_tells_the_entrypoint_from_the_command() {
    let e = Engine::new();
    let rootfs = e.bundle.rootfs();
    e.call(&["create", "--name", "one", "--entrypoint", "sleep", "--rootfs"])
        .args(&[&rootfs.to_string_lossy(), "9", "8"])
        .ok();
    let shown =
        e.field("one", "{{.Config.Entrypoint}} {{.Config.Cmd}} {{.Path}} {{.Args}} {{.RestartCount}}");
    assert_eq!(shown, "[sleep] [9 8] sleep [9 8] 0");
}

#[test]
fn exec_as_docker_does() {
    let e = Engine::new();
    e.detached("one", &["--user", "1000"], &["sleep", "3600"]);
    let file = e.bundle.path("env");
    std::fs::write(&file, "FROM_FILE=1\n").expect("write");
    let out = e.jug(&["exec", "--env-file", &file, "one", "sh", "-c", "echo $FROM_FILE"]).ok();
    assert_eq!(out.stdout, "1\n");
    let held = |flags: &[&str]| {
        let words = [&["exec"], flags, &["one", "/bin/probe"]].concat();
        e.jug(&words).ok().json()["capabilities"]["effective"].as_array().map_or(0, Vec::len)
    };
    assert!(held(&["--privileged", "-u", "0"]) > 30, "{}", held(&["--privileged", "-u", "0"]));
    assert_eq!(held(&[]), 0);
    e.jug(&["exec", "-w", "/no/such", "one", "pwd"]).exits(127);
    // All of this root: other tests have their own.
    assert_eq!(e.jug(&["kill", "-a"]).ok().stdout.lines().count(), 1);
    e.jug(&["wait", "one"]).ok();
    assert_eq!(e.jug(&["stop", "-a"]).ok().stdout, "");
}

/// As every program of this kind reads its short flags.
#[test]
fn short_flags_with_their_value_beside_them() {
    let e = Engine::new();
    e.run(&["-eA=1", "-w/tmp", "-u1234"], &["sh", "-c", "test $A$PWD$(id -u) = 1/tmp1234"]).ok();
    e.run(&["-w=/tmp", "-hsheep"], &["sh", "-c", "test $PWD$(hostname) = /tmpsheep"]).ok();
    e.detached("one", &["-lx=y", "-eA=2"], &["sleep", "3600"]);
    assert_eq!(e.field("one", "{{.Config.Labels.x}}"), "y");
    e.jug(&["exec", "-w/tmp", "-eB=3", "one", "sh", "-c", "test $PWD$A$B = /tmp23"]).ok();
    e.jug(&["exec", "-it=false", "one", "true"]).ok();
    // What stands behind the program's name is the program's.
    assert_eq!(e.jug(&["exec", "one", "echo", "x", "-w/x"]).ok().stdout, "x -w/x\n");
    e.jug(&["exec", "-wx", "--no-such"]).exits(125).says("unknown flag: --no-such");
    e.run(&["--log-opt", "bogus=1"], &["true"]).exits(125).says("--log-opt: \"bogus=1\" is unknown");
    e.run(&["--log-opt", "max-size=zz"], &["true"]).exits(125).says("--log-opt max-size");
}

#[test]
fn the_embedded_shell_ends_as_it_is_told() {
    let e = Engine::new();
    e.jug(&["run", "--rm", "jug/hello", "sh", "-c", "cd /; exit 7; echo no"]).exits(7);
    e.jug(&["run", "--rm", "jug/hello", "sh", "-c", "nosuch; exit"]).exits(127);
}

#[test]
fn shells_complete_every_verb() {
    let e = Engine::new();
    let help = e.jug(&["--help"]).ok().stdout;
    let (_, verbs) = help.split_once("Commands:\n").expect("a list of commands");
    let verbs = verbs.lines().take_while(|line| line.starts_with("  "));
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"run") && verbs.len() > 30, "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = e.jug(&["completion", shell]).ok().stdout;
        for verb in &verbs {
            let word = text.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == *verb);
            assert!(word, "{shell} knows no {verb}");
        }
        assert!(text.contains("pids-limit"), "{shell} knows no flag of run");
    }
    // The shell itself reads it without a word.
    let file = e.bundle.path("completion.bash");
    std::fs::write(&file, e.jug(&["completion", "bash"]).stdout).expect("write");
    let ask = format!(
        "set -e; . {file}; COMP_WORDS=(jug sys); COMP_CWORD=1; _jug jug sys jug; echo \"${{COMPREPLY[*]}}\""
    );
    let out = std::process::Command::new("bash").args(["-c", &ask]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "system\n", "{out:?}");
}
