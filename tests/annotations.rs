//! config.md#annotations: those that mean something to the runtime. That all of them are in the state, and unknown ones
//! disturb nothing, is in tests/state.rs and tests/config.rs.

mod support;

use support::*;

/// The runtime is called with groups 0, 12 and 34.
fn with_groups(call: Call) -> Call {
    call.through(&["setpriv", "--groups", "0,12,34"])
}

#[test]
fn the_callers_groups_are_kept_when_it_is_asked() {
    deviates!("run.oci.keep_original_groups is crun's, and runc has no such thing");
    let b = Bundle::new();
    b.edit(|spec| spec["annotations"] = json!({ "run.oci.keep_original_groups": "1" }));
    b.set_args(&["/bin/probe"]);
    let out = with_groups(b.verb("run", &[])).output().ok();
    assert_eq!(out.json()["groups"], json!([0, 12, 34]));
}

#[test]
fn exec_keeps_its_callers_groups_too() {
    deviates!("run.oci.keep_original_groups is crun's, and runc has no such thing");
    let b = Bundle::new();
    b.edit(|spec| spec["annotations"] = json!({ "run.oci.keep_original_groups": "1" }));
    let c = b.running();
    let out = with_groups(b.call(&["exec", &c.id, "/bin/probe"])).output().ok();
    assert_eq!(out.json()["groups"], json!([0, 12, 34]));
}

#[test]
fn groups_without_a_number_inside_are_kept_in_a_user_namespace() {
    deviates!("run.oci.keep_original_groups is crun's, and runc has no such thing");
    needs!(Feature::UserNamespace);
    let b = Bundle::new();
    b.add_namespace("user").edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["annotations"] = json!({ "run.oci.keep_original_groups": "1" });
    });
    b.set_args(&["/bin/probe"]);
    let report = with_groups(b.verb("run", &[])).output().ok().json();
    assert_eq!(report["groups"], json!([65534, 65534, 65534]), "the overflow id stands for each");
}

#[test]
fn unless_it_is_asked_the_callers_groups_are_dropped() {
    let b = Bundle::new();
    b.edit(|spec| spec["annotations"] = json!({ "run.oci.keep_original_groups": "0" }));
    b.set_args(&["/bin/probe"]);
    let out = with_groups(b.verb("run", &[])).output().ok();
    assert_eq!(out.json()["groups"], json!([]));
}
