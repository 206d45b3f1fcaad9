//! config-linux.md#intelrdt: a class of service of resctrl, or an error that says that this host has none.

mod support;

use std::fs;
use std::path::Path;

use support::*;

fn with(rdt: Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["intelRdt"] = rdt);
    b
}

#[test]
fn a_host_without_resctrl_is_an_error_that_names_it() {
    newer!("the specification's MUST: 1.1.5 creates the container all the same");
    if Feature::IntelRdt.is_present() {
        say_skip("SKIP", "this host has resctrl: the tests below say what it does");
        return;
    }
    for rdt in
        [json!({}), json!({ "closID": "gold", "schemata": ["L3:0=f"] }), json!({ "enableMonitoring": true })]
    {
        let b = with(rdt);
        b.verb("create", &[]).output().fails("Intel RDT is not supported or enabled");
    }
}

#[test]
fn a_class_of_the_containers_own_comes_and_goes_with_it() {
    needs!(Feature::IntelRdt);
    let b = with(json!({ "enableMonitoring": true }));
    let c = b.running();
    let group = Path::new("/sys/fs/resctrl").join(b.id());
    let pid = c.pid().to_string();
    let tasks = |dir: &Path| fs::read_to_string(dir.join("tasks")).expect("tasks");
    assert!(tasks(&group).lines().any(|line| line == pid));
    assert!(tasks(&group.join("mon_groups").join(b.id())).lines().any(|line| line == pid));
    c.stop().delete();
    assert!(!group.exists());
}

#[test]
fn the_default_class_is_nobodys_to_remove() {
    needs!(Feature::IntelRdt);
    let b = with(json!({ "closID": "/" }));
    b.running().stop().delete();
    assert!(Path::new("/sys/fs/resctrl/schemata").exists());
}
