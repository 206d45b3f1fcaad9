//! `list`: the containers of one root, as a table, as JSON, as ids.
mod support;

use serde_json::{Value, json};
use support::*;

fn three(b: &Bundle) -> [String; 3] {
    let ids = ["a", "b", "c"].map(|suffix| b.id_of(suffix));
    for id in &ids {
        b.call(&["create", "--bundle", &b.path(""), id]).ok();
    }
    let [_, running, stopped] = &ids;
    b.call(&["start", running]).ok();
    Container::named(b, stopped.clone()).stop();
    ids
}

#[test]
fn the_table_has_runcs_columns() {
    let b = Bundle::new();
    let out = b.call(&["list"]).ok();
    let columns: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(columns, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(out.stdout.lines().count(), 1);
}

#[test]
fn a_row_has_the_state_of_its_container() {
    let b = Bundle::new();
    let [created, running, stopped] = three(&b);
    let out = b.call(&["list"]).ok();
    assert_eq!(out.stdout.lines().count(), 4, "{out}");
    for (id, status) in [(created, "created"), (running, "running"), (stopped, "stopped")] {
        let row: Vec<&str> = out
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|row| row[0] == id)
            .unwrap_or_else(|| panic!("{id} is not listed"));
        let state = b.call(&["state", &id]).ok().json();
        assert_eq!(row[1], state["pid"].to_string());
        assert_eq!(row[2], status);
        assert_eq!(row[3], state["bundle"].as_str().expect("bundle"));
        assert_eq!(row[4], state["created"].as_str().expect("created"));
        assert_eq!(row[5], "root");
    }
}

#[test]
fn quiet_lists_ids_only() {
    let b = Bundle::new();
    let mut wanted = three(&b).to_vec();
    wanted.sort();
    for flag in ["-q", "--quiet"] {
        let out = b.call(&["list", flag]).ok();
        let mut ids: Vec<String> = out.stdout.lines().map(str::to_owned).collect();
        ids.sort();
        assert_eq!(ids, wanted);
    }
}

#[test]
fn json_is_one_line_with_the_keys_in_runcs_order() {
    let b = Bundle::new();
    b.create();
    let out = b.call(&["list", "--format", "json"]).ok();
    assert!(out.stdout.ends_with("}]\n"), "{out}");
    assert_eq!(out.stdout.lines().count(), 1);
    let keys = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"];
    let places: Vec<usize> = keys
        .iter()
        .map(|key| out.stdout.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}:\n{out}")))
        .collect();
    assert!(places.is_sorted(), "{out}");
    let list: Value = out.json();
    let mut state = b.container().state();
    state["owner"] = json!("root");
    assert_eq!(list, json!([state]));
}

#[test]
fn json_of_an_empty_root_is_an_empty_list() {
    let b = Bundle::new();
    let list = b.call(&["list", "-f", "json"]).ok().json();
    // runc prints Go's nil slice.
    assert!(list.is_null() || list == json!([]), "{list}");
}

#[test]
fn a_root_that_does_not_exist_is_empty() {
    let b = Bundle::new();
    let out = b.call(&["list", "-q"]).root(b.path("no-such-root")).ok();
    assert_eq!(out.stdout, "");
}

#[test]
fn another_format_is_refused() {
    Bundle::new().call(&["list", "--format", "yaml"]).output().fails("invalid format option");
}

#[test]
fn a_directory_without_a_record_does_not_spoil_the_list() {
    let b = Bundle::new();
    b.create();
    std::fs::create_dir(b.root().join(b.id_of("broken"))).expect("mkdir");
    let out = b.call(&["list", "-q"]).ok();
    assert_eq!(out.stdout, format!("{}\n", b.id()));
}

#[test]
fn a_container_that_goes_away_meanwhile_does_not_spoil_the_list() {
    deviates!("list passes over a container that is deleted meanwhile; runc fails when stat(2) does");
    let b = Bundle::new();
    b.set_args(&["true"]);
    let ids: Vec<String> = (0..4).map(|n| b.id_of(&format!("n{n}"))).collect();
    let runs: Vec<_> = ids.iter().map(|id| b.call(&["run", "--bundle", &b.path(""), id]).spawn()).collect();
    for _ in 0..6 {
        b.call(&["list", "--format", "json"]).ok().json();
    }
    runs.into_iter().for_each(|run| {
        run.wait().ok();
    });
}
