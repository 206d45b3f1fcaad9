//! The systemd cgroup driver, where systemd is the first process: `scripts/test --vm`. What systemd says of a unit is
//! read back with systemctl(1), what the kernel says from the cgroup's files.
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::*;

/// A program of the host's, which must succeed.
#[track_caller]
fn host(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().expect("spawn");
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A property of a unit of the system's, as systemd prints it.
#[track_caller]
fn property(unit: &str, name: &str) -> String {
    host(&["systemctl", "show", "--value", "--property", name, unit])
}

#[track_caller]
fn is_forgotten(unit: &str) {
    assert_eq!(property(unit, "LoadState"), "not-found", "{unit} is still there");
}

/// A bundle for `system.slice:jug:ID` with these resources, and the unit's name.
fn with(resources: Value) -> (Bundle, String) {
    let b = Bundle::new();
    let id = b.id();
    b.edit(|spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("system.slice:jug:{id}"));
        let all = spec["linux"]["resources"].as_object_mut().expect("resources");
        all.extend(resources.as_object().expect("an object").clone());
    });
    (b, format!("jug-{id}.scope"))
}

/// `VERB --systemd-cgroup`, with the output of the container kept away from pipes.
#[track_caller]
fn detached(b: &Bundle, verb: &str, flags: &[&str]) -> Output {
    let out = fs::File::create(b.path("out")).expect("a file");
    b.verb(verb, flags).global(&["--systemd-cgroup"]).output_to(&out, &out).output()
}

#[track_caller]
fn running(b: &Bundle) -> Container<'_> {
    detached(b, "run", &["--detach"]).ok();
    b.container()
}

/// A file of the container's own cgroup.
#[track_caller]
fn file(c: &Container<'_>, name: &str) -> String {
    let path = own_cgroup(c.pid()).join(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display())).trim().to_owned()
}

fn own_cgroup(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("/proc/PID/cgroup");
    let path = text.trim().strip_prefix("0::/").expect("cgroup v2").to_owned();
    PathBuf::from("/sys/fs/cgroup").join(path)
}

#[test]
fn the_default_is_runcs() {
    needs!(Feature::Systemd);
    let b = Bundle::new();
    let c = running(&b);
    let unit = format!("runc-{}.scope", b.id());
    assert_eq!(own_cgroup(c.pid()), PathBuf::from(format!("/sys/fs/cgroup/system.slice/{unit}")));
    for (name, want) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Description", &format!("libcontainer container {}", b.id())),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("IOAccounting", "yes"),
    ] {
        assert_eq!(property(&unit, name), want, "{name}");
    }
    c.stop();
    c.delete();
    is_forgotten(&unit);
}

#[test]
fn a_slice_lies_in_the_slices_of_its_name() {
    needs!(Feature::Systemd);
    let b = Bundle::new();
    let (id, slice) = (b.id(), format!("jugtest{}", std::process::id()));
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!(format!("{slice}-in.slice:pre:{id}")));
    let c = running(&b);
    let want = format!("/sys/fs/cgroup/{slice}.slice/{slice}-in.slice/pre-{id}.scope");
    assert_eq!(own_cgroup(c.pid()), PathBuf::from(want));
    assert_eq!(property(&format!("pre-{id}.scope"), "Slice"), format!("{slice}-in.slice"));
    c.stop();
    c.delete();
    host(&["systemctl", "stop", &format!("{slice}.slice")]);
}

#[test]
fn a_path_that_is_no_triple_is_refused() {
    needs!(Feature::Systemd);
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!("/jug/test"));
    let out = detached(&b, "create", &[]);
    assert_eq!(out.code, 1);
    let said = fs::read_to_string(b.path("out")).expect("the output");
    assert!(said.contains("slice:prefix:name"), "{said}");
}

#[test]
fn a_name_that_is_no_slice_is_refused() {
    needs!(Feature::Systemd);
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["cgroupsPath"] = json!("a--b.slice:jug:x"));
    assert_eq!(detached(&b, "create", &[]).code, 1);
    let said = fs::read_to_string(b.path("out")).expect("the output");
    assert!(said.contains("invalid slice name"), "{said}");
}

#[test]
fn limits_are_the_units_and_the_kernels() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({
        "memory": { "limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296 },
        "cpu": { "shares": 2048, "quota": 33_000, "period": 50_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 77 },
    }));
    let c = running(&b);
    for (name, want) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "33554432"),
        ("CPUQuotaPerSecUSec", "660ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "77"),
    ] {
        assert_eq!(property(&unit, name), want, "{name}");
    }
    for (name, want) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "33554432"),
        ("cpu.max", "33000 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "77"),
    ] {
        assert_eq!(file(&c, name), want, "{name}");
    }
    assert_eq!(property(&unit, "CPUWeight"), file(&c, "cpu.weight"));
}

#[test]
fn an_update_is_the_units_and_the_kernels() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 77 } }));
    let c = running(&b);
    let flags = ["--memory", "33554432", "--pids-limit", "55"];
    c.call("update", &flags, &[]).global(&["--systemd-cgroup"]).output().ok();
    let kernel = || (file(&c, "memory.max"), file(&c, "pids.max"));
    let want = ("33554432".to_owned(), "55".to_owned());
    assert_eq!((property(&unit, "MemoryMax"), property(&unit, "TasksMax")), want);
    assert_eq!(kernel(), want);
    host(&["systemctl", "daemon-reload"]);
    assert_eq!(kernel(), want);
}

#[test]
fn limits_outlive_a_reload_of_systemd() {
    needs!(Feature::Systemd);
    let (b, _) = with(json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 77 } }));
    let c = running(&b);
    host(&["systemctl", "daemon-reload"]);
    assert_eq!((file(&c, "memory.max"), file(&c, "pids.max")), ("67108864".to_owned(), "77".to_owned()));
}

#[test]
fn unified_becomes_properties_where_systemd_has_words() {
    needs!(Feature::Systemd);
    let unified = json!({ "memory.high": "50331648", "pids.max": "55", "memory.oom.group": "1" });
    let (b, unit) = with(json!({ "unified": unified }));
    let c = running(&b);
    assert_eq!(
        (property(&unit, "MemoryHigh"), file(&c, "memory.high")),
        ("50331648".into(), "50331648".into())
    );
    assert_eq!((property(&unit, "TasksMax"), file(&c, "pids.max")), ("55".into(), "55".into()));
    assert_eq!(file(&c, "memory.oom.group"), "1");
}

/// Nodes that need no capability to be opened: that only the filter keeps closed.
fn fuse() -> Value {
    json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 })
}

/// The disk of the root file system.
fn disk() -> Value {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata("/").expect("stat /").dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    json!({ "path": "/dev/disk", "type": "b", "major": major, "minor": minor })
}

#[test]
fn devices_are_what_the_rules_allow() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" },
    ] }));
    b.edit(|spec| spec["linux"]["devices"] = json!([fuse(), disk()]));
    let c = running(&b);
    assert_eq!(property(&unit, "DevicePolicy"), "strict");
    let allowed = property(&unit, "DeviceAllow");
    assert!(allowed.contains("/dev/char/10:229 r") && allowed.contains("/dev/char/1:3 rwm"), "{allowed}");
    let readable = |path: &str| c.exec(&["dd", &format!("if={path}"), "count=0"]).code == 0;
    let look = || (readable("/dev/null"), readable("/dev/fuse"), readable("/dev/disk"));
    assert_eq!(look(), (true, true, false));
    host(&["systemctl", "daemon-reload"]);
    assert_eq!(look(), (true, true, false), "after a reload of systemd");
}

#[test]
fn a_container_with_all_devices_has_no_policy() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({ "devices": [{ "allow": true, "access": "rwm" }] }));
    b.edit(|spec| spec["linux"]["devices"] = json!([fuse(), disk()]));
    let c = running(&b);
    assert_eq!(property(&unit, "DevicePolicy"), "auto");
    c.exec(&["dd", "if=/dev/fuse", "count=0"]).ok();
    c.exec(&["dd", "if=/dev/disk", "count=0"]).ok();
}

#[test]
fn annotations_are_properties() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    b.edit(|spec| {
        spec["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
            "org.systemd.property.RuntimeMaxSec": "3600",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.Description": "'one of ours'",
            "org.other.property.Description": "'not for systemd'",
        });
    });
    let c = running(&b);
    assert_eq!(property(&unit, "TimeoutStopUSec"), "2min 3s");
    assert_eq!(property(&unit, "RuntimeMaxUSec"), "1h");
    assert_eq!(property(&unit, "CollectMode"), "inactive-or-failed");
    assert_eq!(property(&unit, "Description"), "one of ours");
    assert_eq!(c.state()["annotations"]["org.systemd.property.CollectMode"], "'inactive-or-failed'");
}

#[test]
fn annotations_that_are_no_properties_are_refused() {
    needs!(Feature::Systemd);
    for (key, value, words) in [
        ("TimeoutStopUSec", "uint64 x", "parse error"),
        ("TimeoutStopSec", "'soon'", "value"),
        ("Timeout-Stop", "1", "name incorrect"),
        ("NoSuchProperty", "true", "NoSuchProperty"),
    ] {
        let (b, unit) = with(json!({}));
        b.edit(|spec| {
            spec["annotations"] = json!({ format!("org.systemd.property.{key}"): value });
        });
        assert_eq!(detached(&b, "create", &[]).code, 1, "{key}={value}");
        let said = fs::read_to_string(b.path("out")).expect("the output");
        assert!(said.contains(words), "{key}={value}: {said}");
        b.container().verb("state", &[]).fails("does not exist");
        is_forgotten(&unit);
    }
}

#[test]
fn a_delegated_cgroup_is_the_containers_to_divide() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({ "pids": { "limit": 50 } }));
    b.add_namespace("cgroup").edit(|spec| {
        for mount in spec["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }
        }
    });
    let c = running(&b);
    c.exec(&["mkdir", "/sys/fs/cgroup/inner"]).ok();
    c.exec(&["sh", "-c", "echo 1 >/sys/fs/cgroup/inner/cgroup.procs"]).ok();
    host(&["systemctl", "daemon-reload"]);
    let inner = format!("/sys/fs/cgroup/system.slice/{unit}/inner");
    assert_eq!(own_cgroup(c.pid()), PathBuf::from(inner));
    c.stop();
    c.delete();
    is_forgotten(&unit);
}

#[test]
fn exec_pause_and_ps_find_the_cgroup() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    let c = running(&b);
    let out = c.exec(&["cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(out.trim(), format!("0::/system.slice/{unit}"));
    c.verb("pause", &[]).ok();
    assert_eq!((c.status(), file(&c, "cgroup.freeze")), ("paused".to_owned(), "1".to_owned()));
    c.verb("resume", &[]).ok();
    assert_eq!(c.call("ps", &["--format", "json"], &[]).ok().json(), json!([c.pid()]));
}

#[test]
fn a_run_in_the_foreground_leaves_no_unit() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    b.set_args(&["/bin/probe", "exit", "7"]);
    b.verb("run", &[]).global(&["--systemd-cgroup"]).output().exits(7);
    is_forgotten(&unit);
}

#[test]
fn a_create_that_fails_leaves_no_unit() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    b.set_args(&["/bin/no-such-program"]);
    assert_eq!(detached(&b, "create", &[]).code, 1);
    is_forgotten(&unit);
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn delete_by_force_ends_what_runs() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    let c = running(&b);
    let pid = c.pid();
    c.verb("delete", &["--force"]).ok();
    gone(pid);
    is_forgotten(&unit);
}

#[test]
fn a_unit_that_failed_is_forgotten_by_delete() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }));
    let c = running(&b);
    let out = c.exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    assert_ne!(out.code, 0, "{out}");
    c.kill("KILL").wait("stopped");
    c.delete();
    is_forgotten(&unit);
    // The name is free again.
    let again = running(&b);
    again.stop();
    again.delete();
    is_forgotten(&unit);
}

#[test]
fn a_unit_of_somebody_elses_is_left_alone() {
    needs!(Feature::Systemd);
    let (b, unit) = with(json!({}));
    // In another slice, where its processes are not in the way: only systemd knows that the name is taken.
    let mut other = Command::new("systemd-run")
        .args(["--quiet", "--scope", "--slice=jugother.slice", &format!("--unit={unit}"), "sleep", "600"])
        .spawn()
        .expect("systemd-run");
    eventually("the other unit", || (property(&unit, "ActiveState") == "active").then_some(()));
    assert_eq!(detached(&b, "create", &[]).code, 1);
    let said = fs::read_to_string(b.path("out")).expect("the output");
    assert!(said.contains("already"), "{said}");
    b.container().verb("delete", &["--force"]).ok();
    let after = (property(&unit, "ActiveState"), other.try_wait().expect("wait").is_none());
    let _ = other.kill();
    other.wait().expect("wait");
    host(&["systemctl", "stop", "jugother.slice"]);
    deviates!("the unit of the name that a create asked for in vain is stopped");
    assert_eq!(after, ("active".into(), true), "the unit, and whether its process runs");
}

/// The runtime is killed by a hook, so when the unit is there and the container is not yet.
#[test]
fn a_killed_create_is_undone_by_delete() {
    needs!(Feature::Systemd);
    deviates!("the record is written before the unit is made");
    let (b, unit) = with(json!({}));
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"] });
    b.edit(|spec| spec["hooks"] = json!({ "createRuntime": [hook] }));
    let code = detached(&b, "create", &[]).code;
    assert_eq!(code, -9, "{}", fs::read_to_string(b.path("out")).unwrap_or_default());
    b.container().verb("delete", &["--force"]).ok();
    is_forgotten(&unit);
    assert!(!fs::exists(format!("/sys/fs/cgroup/system.slice/{unit}")).expect("stat"));
}

/// Killed after so many milliseconds, wherever that is.
#[test]
fn a_create_killed_at_any_time_is_undone_by_delete() {
    needs!(Feature::Systemd);
    deviates!("the record is written before the unit is made");
    for n in 1..8 {
        let (b, unit) = with(json!({}));
        let wait = format!("{}.{:03}", n / 4, n % 4 * 250);
        let call = b.verb("create", &[]).global(&["--systemd-cgroup"]);
        let out = fs::File::create(b.path("out")).expect("a file");
        call.through(&["timeout", "--signal=KILL", &wait]).output_to(&out, &out).output();
        b.container().verb("delete", &["--force"]).ok();
        is_forgotten(&unit);
    }
}

/// The unprivileged user of the machine, whose systemd runs.
const USER: u32 = 1000;

/// A bundle of that user's, and the environment of their session.
fn users() -> Bundle {
    let name = host(&["id", "--name", "--user", &USER.to_string()]);
    host(&["loginctl", "enable-linger", &name]);
    eventually("the user's bus", || fs::exists(format!("/run/user/{USER}/bus")).ok().filter(|there| *there));
    Bundle::rootless_for(USER, USER)
}

fn in_session(call: Call) -> Call {
    call.env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"))
}

#[track_caller]
fn users_container<'b>(b: &'b Bundle, spec: Value) -> Container<'b> {
    b.edit(|config| {
        config["linux"].as_object_mut().expect("linux").extend(spec.as_object().expect("{}").clone())
    });
    let out = fs::File::create(b.path("out")).expect("a file");
    let call = in_session(b.verb("run", &["--detach"]).global(&["--systemd-cgroup"]));
    let ended = call.output_to(&out, &out).output();
    assert_eq!(ended.code, 0, "{}", fs::read_to_string(b.path("out")).unwrap_or_default());
    b.container()
}

#[track_caller]
fn end(c: &Container<'_>) {
    in_session(c.call("delete", &["--force"], &[])).ok();
}

#[test]
fn a_users_container_is_a_unit_of_their_own_systemd() {
    needs!(Feature::Systemd);
    let b = users();
    let c = users_container(&b, json!({}));
    let scope = format!("runc-{}.scope", b.id());
    let want = format!("/sys/fs/cgroup/user.slice/user-{USER}.slice/user@{USER}.service/user.slice/{scope}");
    assert_eq!(own_cgroup(c.pid()), PathBuf::from(want));
    end(&c);
}

#[test]
fn a_users_limits_hold_where_they_are_delegated() {
    needs!(Feature::Systemd);
    let b = users();
    let resources = json!({ "resources": { "memory": { "limit": 67_108_864 }, "pids": { "limit": 40 } } });
    let c = users_container(&b, resources);
    assert_eq!((file(&c, "memory.max"), file(&c, "pids.max")), ("67108864".to_owned(), "40".to_owned()));
    end(&c);
}

/// From outside of the user's own cgroups: their systemd fetches the process.
#[test]
fn a_users_exec_is_in_the_containers_cgroup() {
    needs!(Feature::Systemd);
    newer!("exec in a scope from another session: it stays outside, silently");
    let b = users();
    let c = users_container(&b, json!({ "cgroupsPath": format!("app.slice:jug:{}", b.id()) }));
    let out = in_session(c.call("exec", &[], &["cat", "/proc/self/cgroup"])).ok().stdout;
    assert!(out.trim().ends_with(&format!("/app.slice/jug-{}.scope", b.id())), "{out}");
    end(&c);
}

#[test]
fn a_user_without_a_systemd_is_told_so() {
    needs!(Feature::Systemd);
    let b = Bundle::rootless();
    let out = b.verb("create", &[]).global(&["--systemd-cgroup"]).output().exits(1);
    assert!(out.stderr.contains("systemd") || out.stderr.contains("bus"), "{out}");
}

#[test]
fn a_restored_container_is_in_a_unit_again() {
    needs!(Feature::Systemd);
    needs!(Feature::Criu);
    let (b, unit) = with(json!({ "memory": { "limit": 67_108_864 } }));
    b.set_args(&["sh", "-c", "while true; do sleep 0.1; done"]);
    // criu does not know files of the host's, the null device apart.
    let null = fs::File::options().write(true).open("/dev/null").expect("the null device");
    b.verb("run", &["--detach"]).global(&["--systemd-cgroup"]).output_to(&null, &null).output().ok();
    let c = b.container();
    let images = b.path("images");
    let path = std::env::var("PATH").unwrap_or_default();
    c.call("checkpoint", &["--image-path", &images], &[]).env("PATH", &path).output().ok();
    is_forgotten(&unit);
    b.verb("restore", &["--detach", "--image-path", &images])
        .env("PATH", &path)
        .global(&["--systemd-cgroup"])
        .output_to(&null, &null)
        .output()
        .ok();
    let c = b.container();
    assert_eq!(c.status(), "running");
    assert_eq!(own_cgroup(c.pid()), PathBuf::from(format!("/sys/fs/cgroup/system.slice/{unit}")));
    assert_eq!(
        (property(&unit, "ActiveState"), property(&unit, "MemoryMax")),
        ("active".into(), "67108864".into())
    );
    assert_eq!(file(&c, "memory.max"), "67108864");
    c.stop();
    c.delete();
    is_forgotten(&unit);
}
