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
