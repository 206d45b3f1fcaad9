//! `ps`: the container's processes under their host numbers.
mod support;

use serde_json::json;
use support::*;

#[test]
fn json_is_the_list_of_host_pids() {
    let b = Bundle::new();
    let c = b.running();
    let pids = c.verb("ps", &["--format", "json"]).ok().json();
    assert_eq!(pids, json!([c.pid()]));
}

#[test]
fn processes_of_exec_and_of_forks_are_counted() {
    let b = Bundle::new();
    b.set_args(&["sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"]);
    let c = b.running();
    c.wait_stdout("ready\n");
    c.exec_with(&["--detach"], &["sleep", "1000"]).ok();
    let pids = c.verb("ps", &["-f", "json"]).ok().json();
    let pids = pids.as_array().expect("a list");
    assert_eq!(pids.len(), 4, "{pids:?}");
    assert!(pids.contains(&json!(c.pid())));
}

#[test]
fn the_table_has_the_header_of_ps_and_only_our_processes() {
    let b = Bundle::new();
    b.set_args(&["sleep", "1234"]);
    let c = b.running();
    let out = c.verb("ps", &[]).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("UID") && lines[0].contains("PID") && lines[0].ends_with("CMD"), "{out}");
    assert!(lines[1].contains(&c.pid().to_string()) && lines[1].ends_with("sleep 1234"), "{out}");
}

#[test]
fn more_arguments_go_to_ps() {
    let b = Bundle::new();
    let c = b.running();
    let out = c.call("ps", &[], &["-o", "pid,comm"]).ok();
    let rows: Vec<Vec<&str>> = out.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["PID", "COMMAND"], vec![c.pid().to_string().as_str(), "probe"]]);
}

#[test]
fn a_table_without_a_pid_column_is_refused() {
    let b = Bundle::new();
    let c = b.running();
    c.call("ps", &[], &["-o", "comm"]).output().fails("couldn't find PID field in ps output");
}

#[test]
fn a_created_container_shows_its_waiting_init() {
    let b = Bundle::new();
    let c = b.create();
    assert_eq!(c.verb("ps", &["--format", "json"]).ok().json(), json!([c.pid()]));
}

#[test]
fn a_missing_container_has_no_processes() {
    Bundle::new().container().verb("ps", &[]).fails("container does not exist");
}

#[test]
fn another_format_is_refused() {
    let b = Bundle::new();
    b.running().verb("ps", &["--format", "yaml"]).fails("invalid format option");
}
