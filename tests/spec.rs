//! `spec`: a config.json to begin with.
mod support;

use std::fs;

use serde_json::{Value, json};
use support::*;

fn written(b: &Bundle, dir: &str) -> Value {
    let text = fs::read(b.path(&format!("{dir}/config.json"))).expect("config.json");
    serde_json::from_slice(&text).expect("JSON")
}

fn fresh(b: &Bundle) -> String {
    let dir = b.path("fresh");
    fs::create_dir(&dir).expect("mkdir");
    dir
}

#[test]
fn spec_writes_config_json_into_the_working_directory() {
    let b = Bundle::new();
    let dir = fresh(&b);
    let out = b.call(&["spec"]).cwd(&dir).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let spec = written(&b, "fresh");
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
    let names: Vec<_> = fs::read_dir(&dir).expect("readdir").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["config.json"]);
}

#[test]
fn the_default_has_runcs_mounts_namespaces_and_paths() {
    let b = Bundle::new();
    let dir = fresh(&b);
    b.call(&["spec", "--bundle", &dir]).ok();
    let (spec, wanted) = (written(&b, "fresh"), default_spec());
    for pointer in ["/mounts", "/linux/maskedPaths", "/linux/readonlyPaths", "/process/rlimits"] {
        let (have, want) = (&spec.pointer(pointer), &wanted.pointer(pointer));
        let have = have.and_then(Value::as_array).unwrap_or_else(|| panic!("no {pointer}"));
        for entry in want.and_then(Value::as_array).expect("a list") {
            assert!(have.contains(entry), "{pointer} lacks {entry}");
        }
    }
    let kinds: Vec<&Value> =
        spec["linux"]["namespaces"].as_array().expect("a list").iter().map(|n| &n["type"]).collect();
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        assert!(kinds.contains(&&json!(kind)), "no {kind} namespace");
    }
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{ "allow": false, "access": "rwm" }]));
    assert_eq!(spec["process"]["capabilities"]["bounding"], wanted["process"]["capabilities"]["bounding"]);
}

#[test]
fn an_existing_config_is_not_overwritten() {
    let b = Bundle::new();
    let before = fs::read(b.path("config.json")).expect("config.json");
    b.call(&["spec"]).cwd(b.dir()).output().fails("File config.json exists. Remove it first");
    assert_eq!(fs::read(b.path("config.json")).expect("config.json"), before);
}

#[test]
fn what_spec_writes_can_be_run() {
    let b = Bundle::new();
    fs::remove_file(b.path("config.json")).expect("rm");
    b.call(&["spec"]).cwd(b.dir()).ok();
    b.edit(|spec| spec["process"]["terminal"] = json!(false));
    let out = b.run_args(&["sh", "-c", "hostname; exit 5"]).exits(5);
    assert_eq!(out.stdout, format!("{}\n", b.spec()["hostname"].as_str().expect("a hostname")));
}

#[test]
fn rootless_maps_the_caller_and_asks_for_no_limits() {
    let b = Bundle::rootless();
    fs::remove_file(b.path("config.json")).expect("rm");
    b.call(&["spec", "--rootless"]).cwd(b.dir()).ok();
    let linux = b.spec()["linux"].clone();
    let (uid, gid) = b.user().expect("a user");
    assert_eq!(linux["uidMappings"], json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
    assert_eq!(linux["gidMappings"], json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
    assert_eq!(linux.get("resources"), None);
    let kinds = linux["namespaces"].to_string();
    assert!(kinds.contains("user") && !kinds.contains("network"), "{kinds}");
}

#[test]
fn a_bundle_that_does_not_exist_is_refused() {
    let b = Bundle::new();
    b.call(&["spec", "--bundle", &b.path("missing")]).output().fails("no such file or directory");
}
