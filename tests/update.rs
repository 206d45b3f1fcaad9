//! `update`: other limits for a container that is there. What the files of a cgroup are called depends on its version,
//! so each test names both.
mod support;

use std::fs;

use serde_json::json;
use support::*;

/// The first of these files in the container's cgroups.
#[track_caller]
fn limit(b: &Bundle, names: &[&str]) -> String {
    let dirs = cgroups(b.tag());
    let files = dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
    let text = files.filter_map(|file| fs::read_to_string(file).ok()).next();
    text.unwrap_or_else(|| panic!("none of {names:?} in {dirs:?}")).trim().to_owned()
}

const MEMORY: [&str; 2] = ["memory.max", "memory.limit_in_bytes"];

fn limited() -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        spec["linux"]["resources"]["pids"] = json!({ "limit": 30 });
        spec["linux"]["resources"]["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000 });
    });
    b
}

#[test]
fn flags_change_what_they_name_and_nothing_else() {
    for controller in ["memory", "pids", "cpu"] {
        needs!(Feature::Controller(controller));
    }
    let b = limited();
    let c = b.running();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("30".into(), (64 << 20).to_string()));
    let out = c.verb("update", &["--pids-limit", "41"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("41".into(), (64 << 20).to_string()));
    c.verb("update", &["--memory", "67112960"]).ok();
    assert_eq!((limit(&b, &["pids.max"]), limit(&b, &MEMORY)), ("41".into(), "67112960".into()));
}

#[test]
fn a_quota_is_changed_with_its_period() {
    needs!(Feature::Controller("cpu"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--cpu-period", "200000", "--cpu-quota", "30000"]).ok();
    let quota = limit(&b, &["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "30000 200000" || quota == "30000", "{quota}");
    if quota == "30000" {
        assert_eq!(limit(&b, &["cpu.cfs_period_us"]), "200000");
    }
}

#[test]
fn resources_come_from_a_file_or_from_stdin() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    let file = b.path("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 51 } }).to_string()).expect("write");
    c.verb("update", &["--resources", &file]).ok();
    assert_eq!(limit(&b, &["pids.max"]), "51");
    let stdin = json!({ "pids": { "limit": 52 } }).to_string();
    c.call("update", &["--resources=-"], &[]).stdin(&stdin).ok();
    assert_eq!(limit(&b, &["pids.max"]), "52");
    c.call("update", &["-r", "-"], &[]).stdin(&json!({ "pids": { "limit": 53 } }).to_string()).ok();
    assert_eq!(limit(&b, &["pids.max"]), "53");
}

#[test]
fn resources_that_are_no_json_are_refused() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.call("update", &["--resources", "-"], &[]).stdin("{ \"pids\": ").output().exits(1);
    assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{out}");
    c.verb("update", &["--resources", &b.path("missing")]).fails("no such file or directory");
}

#[test]
fn a_created_container_can_be_updated_and_keeps_it() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.create();
    c.verb("update", &["--pids-limit", "61"]).ok();
    c.start();
    assert_eq!(limit(&b, &["pids.max"]), "61");
}

#[test]
fn a_missing_container_cannot_be_updated() {
    Bundle::new().container().verb("update", &["--pids-limit", "5"]).fails("container does not exist");
}

#[test]
fn a_value_that_is_no_number_is_refused() {
    let b = Bundle::new();
    b.running().verb("update", &["--memory", "lots"]).exits(1).says("lots");
}

#[test]
fn the_limit_is_felt() {
    needs!(Feature::Controller("pids"));
    let b = limited();
    let c = b.running();
    c.verb("update", &["--pids-limit", "5"]).ok();
    let answer = c.exec(&["/bin/probe", "fork", "20"]).ok().json();
    assert_eq!(answer["errno"], "EAGAIN", "{answer}");
}
