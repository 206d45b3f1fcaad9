//! `events`: statistics as JSON, one line each.
mod support;

use serde_json::json;
use support::*;

#[test]
fn stats_prints_one_line_and_ends() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.verb("events", &["--stats"]).ok();
    assert_eq!(out.stdout.lines().count(), 1, "{out}");
    let event = out.json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(c.id)));
}

#[test]
fn stats_count_what_the_container_uses() {
    for controller in ["memory", "pids"] {
        needs!(Feature::Controller(controller));
    }
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 77 });
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    });
    b.set_args(&["/bin/probe", "alloc", "8", "3600"]);
    let c = b.running();
    c.wait_stdout("ok");
    let data = c.verb("events", &["--stats"]).ok().json()["data"].clone();
    assert_eq!(data["pids"], json!({ "current": 1, "limit": 77 }));
    let memory = &data["memory"]["usage"];
    assert!(memory["usage"].as_u64().is_some_and(|usage| usage >= 8 << 20), "{memory}");
    assert_eq!(memory["limit"], 64 << 20);
}

#[test]
fn stats_have_runcs_cpu_fields() {
    let b = Bundle::new();
    let c = b.running();
    let usage = c.verb("events", &["--stats"]).ok().json()["data"]["cpu"]["usage"].clone();
    assert!(usage["total"].is_u64() && usage["kernel"].is_u64() && usage["user"].is_u64(), "{usage}");
}

#[test]
fn an_interval_streams_until_the_container_is_gone() {
    let b = Bundle::new();
    let c = b.running();
    let mut call = c.call("events", &["--interval", "100ms"], &[]).spawn();
    eventually("two lines", || (call.stdout().lines().count() >= 2).then_some(()));
    assert_eq!(call.status(), None);
    c.stop();
    c.delete();
    call.wait().ok();
}

#[test]
fn a_stopped_container_has_no_events() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    c.verb("events", &["--stats"]).fails("is not running");
}

#[test]
fn a_missing_container_has_no_events() {
    Bundle::new().container().verb("events", &["--stats"]).fails("container does not exist");
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let b = Bundle::new();
    b.running().verb("events", &["--interval", "0s"]).exits(1).says("interval");
}

/// The names of runc's types/events.go, in its order; what is zero is left out of some.
#[test]
fn stats_have_runcs_names_in_runcs_order() {
    needs!(Feature::Controller("memory"));
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
    let c = b.running();
    let out = c.verb("events", &["--stats"]).ok();
    assert!(out.stdout.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":", c.id)));
    let names = |value: &Value| {
        let mut names: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        names.sort_unstable();
        names
    };
    let data = &out.json()["data"];
    let mut all = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"];
    let place = |name: &str| out.stdout.find(&format!("\"{name}\":")).expect("it is there");
    assert!(all.map(place).is_sorted(), "{out}");
    all.sort_unstable();
    assert_eq!(names(data), all);
    let cpuset = [
        "cpu_exclusive",
        "mem_exclusive",
        "mem_hardwall",
        "memory_migrate",
        "memory_pressure",
        "memory_spread_page",
        "memory_spread_slab",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
    assert!(cpuset.iter().all(|name| data["cpuset"][name].is_i64()), "{data}");
    let memory = &data["memory"];
    assert!(
        ["usage", "swap", "kernel", "kernelTCP"].iter().all(|name| memory[name]["limit"].is_u64()),
        "{memory}"
    );
    assert!(memory["usage"]["failcnt"].is_u64() && memory["raw"].is_object(), "{memory}");
    assert!(data["cpu"]["throttling"].is_object());
    assert_eq!((&data["intel_rdt"], &data["network_interfaces"]), (&json!({}), &json!(null)));
}

#[test]
fn pressure_is_told() {
    needs!(Feature::Pressure);
    newer!("1.2: psi");
    let b = Bundle::new();
    let c = b.running();
    let data = c.verb("events", &["--stats"]).ok().json()["data"].clone();
    for what in ["cpu", "memory", "blkio"] {
        for kind in ["some", "full"] {
            let pressure = &data[what]["psi"][kind];
            assert!(pressure["total"].is_u64(), "{what}: {pressure}");
            assert!(["avg10", "avg60", "avg300"].iter().all(|key| pressure[key].is_number()), "{pressure}");
        }
    }
}

#[test]
fn a_container_without_limits_has_statistics() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "sleep 1000 & echo ready; wait"]);
    let c = b.running();
    c.wait_stdout("ready\n");
    let data = c.verb("events", &["--stats=true"]).ok().json()["data"].clone();
    assert_eq!(data["pids"]["current"], 2, "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "{data}");
}

#[test]
fn throttled_periods_are_counted() {
    needs!(Feature::Controller("cpu"));
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["resources"]["cpu"] = json!({ "quota": 2000, "period": 20_000 }));
    b.set_args(&["/bin/probe", "spin"]);
    let c = b.running();
    eventually("throttling", || {
        let throttling = c.verb("events", &["--stats"]).ok().json()["data"]["cpu"]["throttling"].clone();
        let count = |key: &str| throttling[key].as_u64().unwrap_or(0);
        let all = ["periods", "throttledPeriods", "throttledTime"];
        all.iter().all(|key| count(key) > 0).then_some(())
    });
}

#[test]
fn a_paused_or_created_container_has_statistics() {
    let b = Bundle::new();
    let c = b.create();
    assert_eq!(c.verb("events", &["--stats"]).ok().json()["id"], c.id);
    c.start();
    c.verb("pause", &[]).ok();
    assert_eq!(c.verb("events", &["--stats"]).ok().json()["id"], c.id);
    c.verb("resume", &[]).ok();
}

#[test]
fn out_of_memory_is_told_as_it_happens() {
    needs!(Feature::Controller("memory"));
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 24 << 20, "swap": 24 << 20 }));
    let c = b.running();
    let mut call = c.call("events", &["--interval", "50ms"], &[]).spawn();
    call.wait_stdout("\"stats\"");
    assert!(!call.stdout().contains("\"oom\""), "too early");
    c.exec(&["/bin/probe", "alloc", "96"]).exits(137);
    call.wait_stdout(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", c.id));
    // The others live on, and so does the stream.
    let lines = call.stdout().lines().count();
    eventually("more lines", || (call.stdout().lines().count() > lines).then_some(()));
    assert_eq!((call.status(), c.status()), (None, "running".to_owned()));
    c.stop();
    c.delete();
    call.wait().ok();
}

/// Without an interval in between: it is an announcement of the kernel's, not a look at the clock.
#[test]
fn the_last_process_out_of_memory_is_told_before_the_end() {
    needs!(Feature::Controller("memory"));
    deviates!("runc races its own threads for the last event");
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 24 << 20, "swap": 24 << 20 }));
    let answer = b.path("rootfs/go");
    nix::unistd::mkfifo(answer.as_str(), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo(3)");
    b.set_args(&["sh", "-c", "read x < /go; exec /bin/probe alloc 96"]);
    let c = b.running();
    let call = c.call("events", &["--interval", "1h"], &[]).spawn();
    // It listens when it sleeps with the descriptor open, since poll(2) is all that it sleeps in.
    eventually("a watch", || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", call.pid())).ok()?.flatten();
        let mut names = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let open = names.any(|name| name.ends_with("memory.events") || name.ends_with("memory.oom_control"));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", call.pid())).ok()?;
        (open && stat.rsplit(") ").next()?.starts_with('S')).then_some(())
    });
    std::fs::write(&answer, "go\n").expect("write");
    let out = call.wait().ok();
    assert_eq!(out.stdout, format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", c.id));
}

#[test]
fn the_stream_ends_with_the_container() {
    if Feature::CgroupV1.is_present() {
        deviates!("on v1 runc's stream ends when the cgroup is removed");
    }
    let b = Bundle::new();
    let c = b.running();
    let mut call = c.call("events", &["--interval", "50ms"], &[]).spawn();
    call.wait_stdout("stats");
    c.stop();
    call.wait().ok();
}

#[test]
fn a_reader_that_goes_away_ends_the_stream() {
    let b = Bundle::new();
    let c = b.running();
    let line = format!(
        "{} --root {} events --interval 20ms {} | head -n 1",
        runtime().display(),
        b.path("root"),
        c.id
    );
    let out = c.call("events", &[], &[]).through(&["sh", "-c", &line]).ok();
    assert_eq!(out.json()["type"], "stats");
}

#[test]
fn intervals_are_gos() {
    let b = Bundle::new();
    let c = b.running();
    for interval in ["5", "soon", "1h 2m"] {
        c.verb("events", &["--interval", interval]).exits(1);
    }
    c.verb("events", &["--interval", "-1s"]).fails("duration interval must be greater than 0");
    assert_eq!(c.verb("events", &["--stats", "--interval=1h2m3.5s"]).ok().json()["type"], "stats");
}
