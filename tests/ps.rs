//! `ps`: the container's processes under their host numbers.
mod support;

use std::fs;

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

/// A `ps` of ours: it notes its arguments and lists every process there is.
fn with_ps(b: &Bundle, call: Call) -> Call {
    let dir = b.path("path");
    fs::create_dir(&dir).expect("mkdir");
    let text = format!(
        "#!/bin/sh\necho \"$@\" > {dir}/args\necho 'UID   PID CMD'\n\
         for p in /proc/[0-9]*; do echo \"root ${{p#/proc/}} 1 command\"; done\n"
    );
    script(format!("{dir}/ps"), &text);
    call.env("PATH", format!("{dir}:{DEFAULT_PATH}"))
}

#[test]
fn the_table_is_what_ps_says_of_the_containers_processes() {
    let b = Bundle::new();
    let c = b.running();
    let out = with_ps(&b, c.call("ps", &[], &[])).ok();
    assert_eq!(out.stdout, format!("UID   PID CMD\nroot {} 1 command\n", c.pid()));
    assert_eq!(fs::read_to_string(b.path("path/args")).expect("the arguments"), "-ef\n");
}

#[test]
fn a_ps_that_is_not_there_is_an_error() {
    let b = Bundle::new();
    let c = b.running();
    c.call("ps", &[], &[]).env("PATH", "/no/such").output().exits(1).says("ps");
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
    c.call("ps", &[], &["-o", "comm"]).output().fails("PID").says("ps");
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

/// Go's empty list.
#[test]
fn a_stopped_container_shows_nobody() {
    let b = Bundle::new();
    let c = b.running();
    c.stop();
    assert_eq!(c.verb("ps", &["--format", "json"]).ok().stdout, "null\n");
    assert_eq!(with_ps(&b, c.call("ps", &[], &[])).ok().stdout, "UID   PID CMD\n");
}
