//! `jug bench` as a user meets it: small real runs with real contenders. What the statistics are worth is shown beside
//! them (src/bench/stats.rs, compare.rs), against values that were computed elsewhere.
#![cfg(feature = "engine")]

#[path = "support/store.rs"]
mod store;
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use store::Shop;
use support::{Value, eventually, in_guest, say_skip, script, skip};

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
        for figure in
            ["cpu_ns", "syscall_ns", "switch_ns", "create_ns", "loopback_mb_s", "veth_trip_ns", "veth_mb_s"]
        {
            assert!(results["overhead"][who][figure][0].as_f64() > Some(0.0), "{who}: no {figure}");
        }
    }
    assert!(summary.contains("The same way natively, without a container: veth pair "), "{summary}");
    the_payload_is_confined(&results);
    the_payload_has_fewer_ways_in(&results, &summary);
    let wide = &results["starts"]["four at a time"]["jug-oci"]["cpu_ms"];
    assert!(wide[0].as_f64() > Some(0.1), "CPU time four at a time: {wide}");
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

/// Ways into the kernel besides system calls: what the host gives and the container does not, and what both give.
fn the_payload_has_fewer_ways_in(results: &Value, summary: &str) {
    let count = |who: &str, kind: &str| results["probes"][who]["entries"][kind].as_u64();
    for kind in ["drivers", "filesystems", "namespaces", "keys", "engines"] {
        assert!(
            count("native", kind) > Some(0),
            "{kind} on the host: {}",
            results["probes"]["native"]["entries"]
        );
        assert_eq!(count("jug-oci", kind), Some(0), "{kind} in the container");
    }
    for kind in
        ["devices", "proc_read", "proc_write", "sys_read", "sys_write", "families", "sockets", "netlink"]
    {
        assert!(count("jug-oci", kind) < count("native", kind), "{kind}");
    }
    // null, zero, full, random, urandom, tty and ptmx.
    assert_eq!(count("jug-oci", "devices"), Some(7));
    assert_eq!(count("jug-oci", "sys_write"), Some(0), "sysfs is read-only");
    let row =
        summary.lines().find(|line| line.starts_with("device nodes that may be opened ")).expect("a row");
    assert!(
        row.contains(&format!("  native {}  jug-oci 7", count("native", "devices").expect("a count"))),
        "{row}"
    );
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
    script(&hanging, "#!/bin/sh\n[ \"$1\" != --version ] || exec echo hang 1.0\nexec sleep 1234.5\n");
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

/// Killed outright: the processes inside follow, and the guard removes what they leave.
#[test]
fn who_is_killed_leaves_nothing() {
    let out = Out::new("killed");
    let mut child: Child = bench(&out, &["density", "--n", "300", "--against", "jug-oci"])
        .stderr(Stdio::null())
        .spawn()
        .expect("jug");
    let name = format!("jug-bench-{}", child.id());
    eventually("a container", || (support::cgroups(&name).len() > 3).then_some(()));
    child.kill().expect("kill");
    child.wait().expect("wait");
    let gone = || {
        let directories = ["/tmp", "/var/tmp"].map(|dir| fs::metadata(Path::new(dir).join(&name)).is_err());
        (support::cgroups(&name).is_empty() && directories == [true; 2]).then_some(())
    };
    eventually("the end of everything", gone);
    nothing_is_left_of(child.id());
}

/// A script in the place of jug-oci: `before` it does what the lines say.
fn instead(out: &Out, name: &str, before: &str) -> String {
    let path = out.0.join(name);
    let runtime = Path::new(env!("CARGO_BIN_EXE_jug")).with_file_name("jug-oci");
    script(&path, &format!("#!/bin/sh\n{before}\nexec {} \"$@\"\n", runtime.display()));
    format!("jug-oci={}", path.display())
}

fn names(of: &Value) -> Vec<String> {
    of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// Every variant, with what it is there for in the figures.
#[test]
fn density_grows_what_is_asked_for() {
    let out = Out::new("variants");
    let words =
        ["density", "--n", "4", "--variant", "idle,light,touch,memory-cgroup", "--against", "jug-oci,jug"];
    let output = run(bench(&out, &words));
    assert!(output.status.success(), "{}", said(&output));
    let results = out.results();
    assert_eq!(names(&results["growth"]), ["idle", "idle, memory cgroup", "light", "touch"]);
    for variant in ["idle", "light", "touch"] {
        assert_eq!(names(&results["growth"][variant]), ["jug", "jug-oci"], "{}", said(&output));
    }
    let each = |variant: &str, what: &str| {
        let points = &results["growth"][variant]["jug-oci"]["points"];
        (points[4][what].as_f64().expect(what) - points[0][what].as_f64().expect(what)) / 4.0
    };
    assert!(each("touch", "pss") > 16_384.0, "16 MiB that are written to: {} KiB", each("touch", "pss"));
    assert!(each("idle", "pss") < 4_000.0, "a process that sleeps: {} KiB", each("idle", "pss"));
    for (variant, rows) in results["growth"].as_object().expect("rows") {
        for (name, growth) in rows.as_object().expect("a row") {
            let way = &growth["teardown"];
            assert!(way["n"] == 4 && way["baseline_seconds"].as_f64().is_some(), "{name}, {variant}: {way}");
        }
    }
    let summary = said(&output);
    assert!(summary.contains("open  jug-oci: R² > 0.99 to N ≥ 1000: "), "four are no thousand: {summary}");
    assert!(summary.contains("  jug: its own memory ≤ 0.5 × the kernel's for each: "), "{summary}");
}

/// The first start that fails ends a growth, and what was measured until then is kept.
#[test]
fn a_growth_stops_at_the_first_failure() {
    let out = Out::new("fails");
    let count = out.0.join("count");
    let fails = format!(
        "case \" $* \" in *' run '*) echo >>{0}; [ $(wc -l <{0}) -lt 12 ] || {{ echo no more; exit 1; }};; esac",
        count.display()
    );
    let against = instead(&out, "fails", &fails);
    let words = ["density", "--n", "20", "--variant", "idle", "--against", &against];
    let output = run(bench(&out, &words));
    assert!(output.status.success(), "{}", said(&output));
    let growth = &out.results()["growth"]["idle"]["jug-oci"];
    // The trial and the probe started before.
    let stopped = growth["stopped"].as_str().expect("a reason");
    assert!(stopped.starts_with("start 10 failed: ") && stopped.contains("no more"), "{stopped}");
    assert_eq!(growth["starts"].as_array().map(Vec::len), Some(9));
    assert!(growth["teardown"]["baseline_seconds"].as_f64().is_some(), "{}", growth["teardown"]);
}

/// A run ends when its time is over, and says what was cut.
#[test]
fn a_run_keeps_to_its_time() {
    if in_guest() {
        return say_skip("SKIP", "the guest is too slow for a run of half a minute");
    }
    let out = Out::new("time");
    let begun = std::time::Instant::now();
    let words = ["all", "--n", "100000", "--minutes", "0.4", "--against", "jug-oci,bubblewrap"];
    let output = run(bench(&out, &words));
    let took = begun.elapsed().as_secs();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!((10..60).contains(&took), "24 s were to be spent, and {took} s were: {text}");
    assert!(text.contains("bench: 1 of 9, about 2"), "an estimate that the run keeps: {text}");
    let stopped =
        out.results()["growth"]["idle"]["jug-oci"]["stopped"].as_str().expect("a reason").to_owned();
    assert!(stopped.starts_with("its ") && stopped.ends_with(" s were over"), "{stopped}");
}

/// A change in the runtime is found, and none where there is none.
#[test]
fn compare_finds_a_made_difference() {
    let (before, after) = (Out::new("before"), Out::new("after"));
    let slow = instead(&after, "slow", "case \" $* \" in *' run '*) sleep 0.25;; esac");
    for (out, against) in [(&before, "jug-oci"), (&after, &slow)] {
        let output = run(bench(out, &["start", "--n", "20", "--against", against]));
        assert!(output.status.success(), "{}", said(&output));
    }
    let compare = |a: &Out, b: &Out| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jug"));
        let output = command.args(["bench", "compare"]).arg(&a.0).arg(&b.0).output().expect("jug");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let table = compare(&before, &after);
    let row = table.lines().find(|line| line.starts_with("jug-oci: start, serial, wall")).expect("a row");
    assert!(row.ends_with(" yes"), "a quarter of a second more: {table}");
    let same = compare(&before, &before);
    assert!(same.lines().any(|line| line.starts_with("0 of ")) && !same.contains(" yes"), "{same}");
}

/// Boots on every processor, with nothing but what is installed: the cache is empty.
#[test]
fn user_mode_linux_needs_no_preparation() {
    if in_guest() || !Path::new("/usr/bin/linux.uml").exists() {
        skip!("no user-mode Linux on this machine: apt-get install user-mode-linux");
    }
    let out = Out::new("uml");
    let mut command =
        bench(&out, &["density", "--n", "2", "--variant", "idle", "--against", "user-mode-linux"]);
    command.env("XDG_CACHE_HOME", out.0.join("cache"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("jug");
    let outside = child.id();
    eventually("helpers with the memory of their kernel, which counts once", || {
        let (all, again) = memories_of_machines(outside);
        (again > 0 && again < all).then_some(())
    });
    let output = child.wait_with_output().expect("wait");
    nothing_is_left_of(outside);
    assert!(output.status.success(), "{}", said(&output));
    let results = out.results();
    assert_eq!(results["growth"]["idle"]["user-mode-linux"]["teardown"]["n"], 2, "{}", said(&output));
    assert_eq!(results["contenders"][0]["class"], "Paravirtual");
    // Its own kernel answers, and it is not the host's.
    let release = results["probes"]["user-mode-linux"]["release"].as_str().expect("a release");
    assert_ne!(Some(release), results["probes"]["native"]["release"].as_str());
    let none = |line: &str| line.starts_with("user-mode-linux ") && line.contains("  0 of ");
    assert!(said(&output).lines().any(none), "{}", said(&output));
}

/// The root on a disk: it is ext4 and read-only, and what the payload sees is the same as without. Beside it a machine
/// keeps the memory that it was found to need, and its answer is not taken for that of another one.
#[test]
fn a_machine_has_its_root_on_a_disk() {
    if in_guest() || !Path::new("/usr/bin/linux.uml").exists() {
        skip!("no user-mode Linux on this machine: apt-get install user-mode-linux");
    }
    let out = Out::new("root");
    let against = "user-mode-linux,user-mode-linux-disk";
    let run_again = || {
        let words = ["all", "--n", "3", "--minutes", "20", "--variant", "idle", "--against", against];
        let mut command = bench(&out, &words);
        command.env("XDG_CACHE_HOME", out.0.join("cache"));
        let output = run(command);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let text = run_again();
    let results = out.results();
    let [initramfs, disk] =
        [0, 1].map(|at| results["contenders"][at]["how"].as_str().expect("words").to_owned());
    assert!(initramfs.contains("; initramfs: the payload only"), "{initramfs}");
    assert!(disk.contains("; root: a read-only disk with ext4"), "{disk}");
    for name in against.split(',') {
        assert_eq!(results["growth"]["idle"][name]["teardown"]["n"], 3, "{text}");
        assert!(
            results["overhead"][name]["create_ns"][0].as_f64() > Some(0.0),
            "{name} has no disk to write to"
        );
        // Four at a time, with the CPU time of each turn.
        let row = &results["starts"]["four at a time"][name];
        assert!(row["cpu_ms"][0].as_f64() > Some(10.0), "{name}: {row}");
    }
    let monitor = results["contenders"][1]["monitor"].as_str().expect("a monitor");
    assert!(monitor.starts_with("user 0 with ") && text.contains(monitor), "{monitor}: {text}");
    let ask = |text: &str| text.matches("does it come up in").count();
    let known = fs::read_dir(out.0.join("cache/jug")).expect("a cache").count();
    assert!(ask(&text) >= 2 && known == 2, "{known} answers: {text}");
    assert_eq!(ask(&run_again()), 0, "what is known is asked again");
}

/// How many processes user-mode Linux has in that run, and how many of them have the memory of another one.
fn memories_of_machines(outside: u32) -> (usize, usize) {
    let name = format!("umid=jug-bench-{outside}-");
    let lines = said(&Command::new("ps").args(["-eo", "pid,args"]).output().expect("ps"));
    let kernel = |line: &&str| line.contains(&name) && line.contains("linux.uml ");
    let pids: Vec<&str> =
        lines.lines().filter(kernel).filter_map(|line| line.split_whitespace().next()).collect();
    let payload = Path::new(env!("CARGO_BIN_EXE_jug")).with_file_name("jug-payload");
    let again = Command::new(payload).args(["same", &pids.join(",")]).output().expect("jug-payload");
    (pids.len(), said(&again).lines().count())
}

/// Debian's kernel has the drivers of disk and balloon as modules: they are found, and both devices work.
#[test]
fn machines_have_a_disk_and_give_memory_back() {
    let cache = std::env::var("HOME").map(|home| Path::new(&home).join(".cache/jug")).unwrap_or_default();
    let entries: Vec<String> = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let has = |prefix: &str| entries.iter().any(|name| name.starts_with(prefix));
    if in_guest() || !has("vm-image-") || !has("vm-qemu-") {
        skip!("no qemu and no kernel of scripts/vm here: scripts/vm --build");
    }
    let out = Out::new("devices");
    let words = ["--n", "1", "--minutes", "8", "--timeout", "60", "--against", "qemu-microvm"];
    for words in [["density", "--variant=free,reporting"], ["overhead", "--variant=idle"]]
        .map(|first| [&first[..], &words].concat())
    {
        let output = run(bench(&out, &words));
        assert!(output.status.success(), "{}", said(&output));
    }
    let results = out.results();
    let rows = ["free", "free, free-page reporting", "idle, free-page reporting"];
    assert_eq!(names(&results["growth"]), rows);
    let memory = rows.map(|name| {
        let row = &results["growth"][name]["qemu-microvm"];
        assert_eq!(row["teardown"]["n"], 1, "{row}");
        row["points"][1]["pss"].as_f64().expect("KiB")
    });
    assert!(memory[1] + 4096.0 < memory[0], "what is free came back, in KiB: {memory:?}");
    let figures = &results["overhead"]["qemu-microvm"];
    assert!(figures["create_ns"][0].as_f64() > Some(0.0), "{figures}");
    if results["contenders"][0]["class"] == "Emulated" {
        let page = fs::read_to_string(out.0.join("report.html")).expect("report.html");
        assert!(
            page.contains("is emulated (TCG): what follows is no speed"),
            "an emulated disk has no label"
        );
        assert_eq!(names(figures), ["create_ns", "read_mb_s", "write_mb_s"], "nothing else is asked");
    }
}

/// Monitors that need KVM are left out where it boots nothing, by name and with the reason.
#[test]
fn machines_without_kvm_are_left_out() {
    let out = Out::new("kvm");
    let against = "jug-oci,firecracker=/bin/true,cloud-hypervisor=/bin/true,firecracker,youki=/nowhere";
    let kernel = out.0.join("kernel");
    fs::write(&kernel, b"\x7fELF and nothing more").expect("write");
    let words = ["start", "--n", "3", "--kernel", &kernel.display().to_string(), "--against", against];
    let mut command = bench(&out, &words);
    command.env("XDG_CACHE_HOME", out.0.join("cache"));
    let output = run(command);
    assert!(output.status.success(), "{}", said(&output));
    let left = out.results()["left_out"].clone();
    let left: Vec<(&str, &str)> = left
        .as_array()
        .expect("a list")
        .iter()
        .map(|left| (left["name"].as_str().expect("a name"), left["why"].as_str().expect("a reason")))
        .collect();
    for name in ["firecracker", "cloud-hypervisor"] {
        let why = format!("/dev/kvm boots no guest here, and {name} needs one that does");
        assert!(left.contains(&(name, &why)), "{left:?}");
    }
    let page = fs::read_to_string(out.0.join("report.html")).expect("report.html");
    assert!(page.contains("<b>firecracker</b> is left out: "), "the page does not say so");
}

/// An image of the store, and one that comes with it: its program runs in every contender, from its own files.
#[test]
fn an_image_can_be_the_payload() {
    if in_guest() {
        return say_skip("SKIP", "the guest is a contender of the benchmark, and too slow to be its host");
    }
    let (out, shop) = (Out::new("image"), Shop::new("bench-image"));
    let sleeps = |name: &str, program: &str| {
        let recipe = format!(
            "tag = \"jug/{name}:v1\"\n[config]\nentrypoint = [\"{program}\"]\ncmd = [\"sleep\", \"86400.5\"]\n\
             workdir = \"/work\"\n[[layer]]\nfrom = \"busybox\"\n[[layer]]\n\
             files = [{{ path = \"/work\", dir = true }}]\n"
        );
        shop.image("oci", name, &recipe)
    };
    let layout = sleeps("sleeps", "/bin/busybox");
    let with = |out: &Out, image: &str, against: &str| {
        let mut command = shop.command(&["bench", "density", "--quick", "--n", "3", "--variant", "idle"]);
        command.args(["--against", against, "--payload", image, "--out"]).arg(&out.0);
        run(command)
    };
    let mut against = String::from("jug-oci,bubblewrap,crun");
    against += if Path::new("/usr/bin/linux.uml").exists() { ",user-mode-linux" } else { "" };
    let output = with(&out, &layout, &against);
    assert!(output.status.success(), "{}", said(&output));
    let results = out.results();
    assert!(
        results["machine"]["payload"].as_str().is_some_and(|name| name.starts_with(&layout)),
        "{results}"
    );
    for name in against.split(',') {
        assert_eq!(results["growth"]["idle"][name]["teardown"]["n"], 3, "{name}: {}", said(&output));
    }
    // Now it is in the store, under its name; figures of another payload are not mixed with these.
    shop.ok(&["tag", shop.ok(&["images", "-q"]).trim(), "jug/sleeps:v1"]);
    let other = Out::new("image-named");
    let output = with(&other, "jug/sleeps:v1", "jug-oci");
    assert!(output.status.success(), "{}", said(&output));
    let plain = run(bench(&out, &["density", "--n", "3", "--against", "jug-oci"]));
    assert!(said(&plain).contains("is of another run"), "{}", said(&plain));
    // A program that ends at once is no instance.
    let ends = Out::new("image-ends");
    let output = with(&ends, &sleeps("ends", "/bin/true"), "jug-oci");
    assert!(said(&output).contains("jug-oci: the image's program ended at once"), "{}", said(&output));
    let output = with(&Out::new("image-none"), "oci:/nowhere", "jug-oci");
    assert!(!output.status.success() && said(&output).contains("/nowhere"), "{}", said(&output));
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
        (&["start", "--against", "nobody"], "it is no results.json of jug bench"),
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
