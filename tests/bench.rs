//! `jug bench` as a user meets it: small real runs with real contenders. What the statistics are worth is shown beside
//! them (src/bench/stats.rs, compare.rs), against values that were computed elsewhere.
#![cfg(feature = "engine")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Value, eventually, in_guest, say_skip, skip};

/// A directory for results that is gone at the end.
struct Out(PathBuf);

impl Out {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("jug-test-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("mkdir");
        Self(dir)
    }

    fn results(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("results.json")).expect("results.json")).expect("JSON")
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `jug bench` with these words; jug-oci and jug-payload lie beside it.
fn bench(out: &Out, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jug"));
    command.arg("bench").args(words).arg("--quick").arg("--out").arg(&out.0).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Waits for the end of the process; what stands afterwards with its number in the name is a leak.
fn nothing_is_left_of(outside: u32) {
    let name = format!("jug-bench-{outside}");
    for dir in ["/tmp", "/var/tmp"] {
        assert!(fs::metadata(Path::new(dir).join(&name)).is_err(), "{dir}/{name} is left");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&name), "a mount is left:\n{mounts}");
    let cgroups: Vec<String> =
        support::cgroups(&name).iter().map(|path| path.display().to_string()).collect();
    assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
    let lines = Command::new("ps").args(["-eo", "args"]).output().expect("ps");
    let left =
        said(&lines).lines().filter(|line| line.contains(&name)).map(str::to_owned).collect::<Vec<_>>();
    assert!(left.is_empty(), "processes are left: {left:?}");
}

/// Runs to the end, in which nothing may be left.
fn run(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("jug");
    let outside = child.id();
    let output = child.wait_with_output().expect("wait");
    nothing_is_left_of(outside);
    output
}

#[test]
fn a_small_run_measures_and_reports() {
    if in_guest() {
        return say_skip("SKIP", "the guest is a contender of the benchmark, and too slow to be its host");
    }
    let out = Out::new("small");
    let output = run(bench(&out, &["all", "--n", "3", "--against", "jug-oci,bubblewrap,nobody"]));
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // What the density is paid with stands first.
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(summary.starts_with("Not the same isolation: containers share the host's kernel"), "{summary}");
    for words in
        ["Memory of one more instance: idle", "start until", "Times the native cost", "nothing left after"]
    {
        assert!(summary.to_lowercase().contains(&words.to_lowercase()), "no {words:?} in\n{summary}");
    }
    let results = out.results();
    assert_eq!(results["left_out"][0]["name"], "nobody", "{text}");
    let idle = &results["growth"]["idle"]["jug-oci"];
    let alive: Vec<u64> =
        idle["points"].as_array().expect("points").iter().filter_map(|p| p["n"].as_u64()).collect();
    assert_eq!(alive, [0, 1, 2, 3]);
    assert_eq!(idle["starts"].as_array().map(Vec::len), Some(3));
    assert!(idle["points"][3]["pss"].as_f64() > Some(10.0), "three payloads have memory: {idle}");
    let teardown = &idle["teardown"];
    assert!(teardown["baseline_seconds"].as_f64().is_some() && teardown["mounts"] == 0, "{teardown}");
    let starts = &results["starts"]["serial"]["jug-oci"];
    assert_eq!(starts["wall_ms"].as_array().map(Vec::len), Some(3));
    assert!(starts["cpu_ms"][0].as_f64() > Some(0.1) && starts["failures"] == 0, "{starts}");
    for who in ["native", "jug-oci", "bubblewrap"] {
        for figure in ["cpu_ns", "syscall_ns", "switch_ns", "create_ns", "loopback_mb_s"] {
            assert!(results["overhead"][who][figure][0].as_f64() > Some(0.0), "{who}: no {figure}");
        }
    }
    the_payload_is_confined(&results);
    the_page_is_whole(&out);
}

/// The profile refuses what it refuses, and the host does not.
fn the_payload_is_confined(results: &Value) {
    let answer = |who: &str, number: i64| results["probes"][who]["calls"][number as usize].as_i64();
    for number in [libc::SYS_mount, libc::SYS_kexec_load, libc::SYS_bpf, libc::SYS_init_module] {
        assert_ne!(answer("native", number), Some(1), "call {number} on the host");
        assert_eq!(answer("jug-oci", number), Some(1), "call {number} in the container: EPERM");
    }
    let features = |who: &str, name: &str| results["probes"][who]["features"][name].as_bool();
    assert_eq!([features("native", "mounts"), features("jug-oci", "mounts")], [Some(true), Some(false)]);
    assert_eq!(features("jug-oci", "loopback address"), Some(true));
}

/// In a real browser: everything is drawn, and nothing is fetched.
fn the_page_is_whole(out: &Out) {
    let page = out.0.join("report.html");
    let html = fs::read_to_string(&page).expect("report.html");
    assert!(!html.contains("http") && !html.contains("<script"), "the page needs something else");
    if Command::new("chromium").arg("--version").output().is_err() {
        return say_skip("SKIP", "no chromium here to draw the page with: apt-get install chromium");
    }
    let picture = out.0.join("page.png");
    let mut browser = Command::new("timeout");
    browser.args([
        "60",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,3600",
    ]);
    browser.arg(format!("--user-data-dir={}", out.0.join("browser").display()));
    browser.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{}", page.display()));
    let output = browser.env("HOME", &out.0).output().expect("timeout");
    let size = fs::metadata(&picture).map(|meta| meta.len()).unwrap_or(0);
    assert!(size > 50_000, "a picture of {size} bytes: {}", said(&output));
    assert!(html.matches("<svg").count() >= 5 && html.contains("class=\"isolation\""));
}

/// A contender that never says that it is ready costs its patience, and no more; its process is gone.
#[test]
fn who_hangs_is_left_out() {
    let out = Out::new("hang");
    let hanging = out.0.join("hang");
    fs::write(&hanging, "#!/bin/sh\n[ \"$1\" != --version ] || exec echo hang 1.0\nexec sleep 1234.5\n")
        .expect("write");
    fs::set_permissions(&hanging, fs::Permissions::from_mode(0o755)).expect("chmod");
    let against = format!("runc={}", hanging.display());
    let output = run(bench(&out, &["start", "--n", "3", "--timeout", "2", "--against", &against]));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("runc is left out: runc: not ready after 2 s"), "{text}");
    assert!(text.contains("Error: no contender can start the payload here"), "{text}");
    let lines = said(&Command::new("ps").args(["-eo", "args"]).output().expect("ps"));
    assert!(!lines.contains("sleep 1234.5"), "{lines}");
}

/// Ctrl-C in the middle: nothing stays, what was finished is kept, and the same command goes on.
#[test]
fn an_interrupted_run_leaves_nothing_and_goes_on() {
    let out = Out::new("interrupt");
    let words = ["density", "--n", "300", "--against", "jug-oci"];
    let mut child = bench(&out, &words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("jug");
    let outside = child.id();
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("jug-oci: density, idle")), "it never came to the density");
    let some_live = || {
        let name = format!("jug-bench-{outside}-");
        (support::cgroups(&name).len() > 10).then_some(())
    };
    eventually("ten containers", some_live);
    kill(Pid::from_raw(outside.cast_signed()), Signal::SIGINT).expect("kill");
    let rest: String = lines.collect::<Vec<_>>().join("\n");
    let status = child.wait().expect("wait");
    assert!(!status.success() && rest.contains("Error: interrupted"), "{status}: {rest}");
    nothing_is_left_of(outside);
    let before = out.results();
    assert_eq!(before["order"].as_array().map(Vec::len), Some(1), "{}", before["order"]);
    assert!(before["growth"].as_object().is_some_and(serde_json::Map::is_empty));

    let output = run(bench(&out, &words));
    let text = said(&output);
    assert!(output.status.success() && text.contains("holds 1 parts, which are kept"), "{text}");
    let after = out.results();
    assert_eq!(after["probes"], before["probes"], "what was there was measured again");
    // On a busy machine the time of a quick run is over before all have started.
    let grown = after["growth"]["idle"]["jug-oci"]["teardown"]["n"].as_u64();
    assert!(grown.is_some_and(|n| (20..=300).contains(&n)), "{text}");
}

/// Killed outright, with no chance to clean up: the processes inside follow, and the next test finds no container.
#[test]
fn who_is_killed_leaves_no_process() {
    let out = Out::new("killed");
    let mut child: Child = bench(&out, &["density", "--n", "300", "--against", "jug-oci"])
        .stderr(Stdio::null())
        .spawn()
        .expect("jug");
    let name = format!("jug-bench-{}", child.id());
    let cgroups = || support::cgroups(&name);
    eventually("a container", || (cgroups().len() > 3).then_some(()));
    child.kill().expect("kill");
    child.wait().expect("wait");
    let procs = || -> String {
        cgroups()
            .iter()
            .map(|path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default())
            .collect()
    };
    eventually("the end of all processes", || procs().is_empty().then_some(()));
    for cgroup in cgroups() {
        fs::remove_dir(&cgroup).expect("rmdir of an empty cgroup");
    }
    let _ = fs::remove_dir(Path::new("/tmp").join(&name));
    nothing_is_left_of(child.id());
}

#[test]
fn too_little_memory_is_a_sentence() {
    let out = Out::new("memory");
    let output = run(bench(&out, &["density", "--n", "3", "--keep-free", "100", "--against", "jug-oci"]));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(
        text.contains("Error: too little memory: ") && text.contains("100 % have to stay free"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let out = Out::new("refused");
    let file = out.0.join("results.json");
    fs::write(&file, "{\"format\":99}").expect("write");
    let file = file.display().to_string();
    let rows: [(&[&str], &str); 4] = [
        (&["compare", &file], "compare wants two results"),
        (&["compare", &file, &file], "it is no results.json of jug bench"),
        (&["start", &file], "only compare takes files"),
        (&["start", "--payload", "/nowhere", "--against", "nobody"], "it is no results.json of jug bench"),
    ];
    for (words, expected) in rows {
        let output = run(bench(&out, words));
        assert!(
            output.status.code() == Some(125) && said(&output).contains(expected),
            "{words:?}: {}",
            said(&output)
        );
    }
}

#[test]
fn without_root_it_says_so() {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_jug"),
        "bench",
        "start",
        "--out",
        "/tmp",
    ]);
    let output = command.output().expect("setpriv");
    if said(&output).contains("Permission denied") {
        skip!("another user cannot execute what cargo built here");
    }
    assert!(said(&output).contains("Error: jug bench needs root"), "{}", said(&output));
}
