//! `state`: one JSON object, observed at the moment of asking.
mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::*;

#[test]
fn state_has_the_fields_of_the_specification_and_of_runc() {
    let b = Bundle::new();
    let state = b.create().state();
    let keys: BTreeSet<&str> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    let wanted = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"];
    assert_eq!(keys, BTreeSet::from(wanted));
    assert_eq!(state["id"], json!(b.id()));
    assert_eq!(state["bundle"], json!(b.dir()));
    assert_eq!(state["rootfs"], json!(b.rootfs()));
    assert!(state["pid"].as_i64().expect("a number") > 1);
    assert!(state["ociVersion"].as_str().expect("a string").starts_with("1."));
    assert!(state["owner"].is_string());
}

#[test]
fn state_is_indented_and_ends_without_a_newline() {
    let b = Bundle::new();
    let text = b.create().verb("state", &[]).ok().stdout;
    assert!(text.starts_with("{\n  \"ociVersion\": ") && text.ends_with("\n}"), "{text}");
}

#[test]
fn status_follows_the_life() {
    let b = Bundle::new();
    let c = b.create();
    assert_eq!(c.status(), "created");
    c.start();
    assert_eq!(c.status(), "running");
    c.verb("pause", &[]).ok();
    assert_eq!(c.status(), "paused");
    c.verb("resume", &[]).ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").wait("stopped");
    assert_eq!(c.state()["pid"], 0);
}

#[test]
fn pid_is_the_hosts_number_of_the_init() {
    let b = Bundle::new();
    let c = b.running();
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("the init's status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("NSpid");
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    assert_eq!(numbers.last(), Some(&"1"), "{numbers:?}");
    assert_eq!(numbers.first(), Some(&c.pid().to_string().as_str()), "{numbers:?}");
}

/// `YYYY-MM-DDTHH:MM:SS[.frac]Z`.
fn is_rfc3339_utc(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((date, time)) = text.strip_suffix('Z').and_then(|text| text.split_once('T')) else {
        return false;
    };
    let date: Vec<&str> = date.split('-').collect();
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let time: Vec<&str> = time.split(':').collect();
    date.iter().map(|part| part.len()).eq([4, 2, 2])
        && time.iter().map(|part| part.len()).eq([2, 2, 2])
        && date.iter().chain(&time).all(|part| digits(part))
        && digits(fraction)
        && fraction.len() <= 9
}

#[test]
fn created_is_a_moment_in_utc_that_does_not_move() {
    let b = Bundle::new();
    let c = b.create();
    let created = c.state()["created"].as_str().expect("a string").to_owned();
    assert!(is_rfc3339_utc(&created), "{created}");
    let minute =
        std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:"]).output().expect("date").stdout;
    assert!(created.starts_with(String::from_utf8_lossy(&minute).trim()), "{created} is not of this hour");
    c.start();
    assert_eq!(c.state()["created"], json!(created));
    c.stop();
    assert_eq!(c.state()["created"], json!(created));
}

#[test]
fn annotations_of_the_config_are_in_the_state() {
    let b = Bundle::new();
    b.edit(|spec| spec["annotations"] = json!({ "org.example.flock": "lambs", "empty": "" }));
    let state = b.create().state();
    assert_eq!(state["annotations"], json!({ "org.example.flock": "lambs", "empty": "" }));
}

#[test]
fn a_missing_container_has_no_state() {
    let b = Bundle::new();
    let out = b.container().verb("state", &[]).fails("container does not exist");
    assert_eq!(out.stdout, "");
}

#[test]
fn an_empty_id_is_refused() {
    Bundle::new().call(&["state", ""]).output().exits(1).says("container");
}

#[test]
fn a_pid_that_now_belongs_to_another_process_is_not_the_container() {
    // The init is gone and waited for; whatever takes its number later, the container stays stopped.
    let b = Bundle::new();
    b.set_args(&["true"]);
    let c = b.create();
    let pid = c.pid();
    c.start().wait("stopped");
    let state = c.state();
    assert_eq!((&state["pid"], &state["status"]), (&json!(0), &json!("stopped")), "was {pid}");
    c.call("kill", &[], &["KILL"]).output().fails("container not running");
}

#[test]
fn state_of_one_container_in_many() {
    let b = Bundle::new();
    let ids = ["a", "b", "c"].map(|suffix| b.id_of(suffix));
    for id in &ids {
        b.call(&["create", "--bundle", &b.path(""), id]).ok();
    }
    let pids: BTreeSet<i64> = ids
        .iter()
        .map(|id| {
            let state: Value = b.call(&["state", id]).ok().json();
            assert_eq!(state["id"], json!(id));
            state["pid"].as_i64().expect("a pid")
        })
        .collect();
    assert_eq!(pids.len(), 3);
}
