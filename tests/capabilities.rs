//! config.md#linux-process: five capability sets, bit for bit, for the first program and for every one that follows.
mod support;
use support::*;

const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// All that a test may ask for: the machine itself may lack some.
fn sets(report: &Value) -> Value {
    SETS.iter()
        .map(|set| ((*set).to_owned(), report["capabilities"][set].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn bundle(capabilities: &Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["capabilities"] = capabilities.clone());
    b
}

fn distinct() -> Value {
    json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_NET_RAW"],
    })
}

/// capabilities(7): for a program of uid 0 permitted and effective are inheritable | bounding; ambient counts only
/// otherwise.
#[test]
fn an_unprivileged_program_gets_what_execve_leaves_of_the_sets() {
    let b = bundle(&distinct());
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let got = sets(&b.probe(&[]));
    assert_eq!(got["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID"]));
    assert_eq!(got["inheritable"], json!(["CAP_CHOWN", "CAP_NET_RAW"]));
    assert_eq!(got["ambient"], json!(["CAP_NET_RAW"]));
    assert_eq!(got["permitted"], json!(["CAP_NET_RAW"]));
    assert_eq!(got["effective"], json!(["CAP_NET_RAW"]));
}

#[test]
fn roots_program_is_held_by_the_bounding_set() {
    let b = bundle(&distinct());
    b.edit(|spec| spec["process"]["noNewPrivileges"] = json!(false));
    let got = sets(&b.probe(&[]));
    let bounding = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID"]);
    assert_eq!(got["bounding"], bounding);
    assert_eq!(got["permitted"], bounding);
    assert_eq!(got["inheritable"], json!(["CAP_CHOWN", "CAP_NET_RAW"]));
}

/// The same with no_new_privs, under which execve(2) adds nothing to the permitted set.
#[test]
fn roots_program_is_held_by_the_permitted_set_under_no_new_privileges() {
    let got = sets(&bundle(&distinct()).probe(&[]));
    assert_eq!(got["permitted"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]));
    assert_eq!(got["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID"]));
}

#[test]
fn exec_gets_the_same_sets() {
    let b = bundle(&distinct());
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let c = b.running();
    let got = sets(&c.exec_probe(&[], &[]));
    assert_eq!(got["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETGID"]));
    assert_eq!(got["inheritable"], json!(["CAP_CHOWN", "CAP_NET_RAW"]));
    assert_eq!(got["ambient"], json!(["CAP_NET_RAW"]));
    assert_eq!(got["permitted"], json!(["CAP_NET_RAW"]));
}

#[test]
fn a_created_container_already_holds_the_sets() {
    let b = bundle(&distinct());
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let c = b.running();
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    // CHOWN 0, KILL 5, SETGID 6, NET_RAW 13.
    assert!(status.contains("CapBnd:\t0000000000002061"), "{status}");
    assert!(status.contains("CapInh:\t0000000000002001"), "{status}");
    assert!(status.contains("CapAmb:\t0000000000002000"), "{status}");
}

#[test]
fn empty_sets_are_empty() {
    let empty = json!({ "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] });
    let got = sets(&bundle(&empty).probe(&[]));
    assert_eq!(got, empty);
}

#[test]
fn no_capabilities_property_means_none() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["process"].as_object_mut().expect("process").remove("capabilities");
    });
    let got = sets(&b.probe(&[]));
    assert_eq!(got["bounding"], json!([]));
    assert_eq!(got["effective"], json!([]));
}

#[test]
fn an_unknown_capability_warns_and_is_left_out() {
    let b = bundle(&json!({ "bounding": ["CAP_KILL", "CAP_SHEEP"], "effective": ["CAP_KILL"],
                 "permitted": ["CAP_KILL", "CAP_SHEEP"] }));
    b.set_args(&["/bin/probe"]);
    let out = b.run(&[]).ok().says("CAP_SHEEP");
    assert_eq!(sets(&out.json())["bounding"], json!(["CAP_KILL"]));
}

/// Ambient without permitted and inheritable cannot be granted: warn, do not fail.
#[test]
fn an_ambient_capability_that_is_not_inheritable_is_left_out() {
    let b = bundle(&json!({
        "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"],
    }));
    let got = sets(&b.probe(&[]));
    assert_eq!(got["ambient"], json!([]));
    assert_eq!(got["bounding"], json!(["CAP_KILL"]));
    newer!("1.2: the warning");
    b.edit(|spec| {
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN", "CAP_KILL"]);
        spec["process"]["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
    });
    b.run_args(&["/bin/true"]).ok().says("can't raise ambient capability CAP_KILL: ");
}

/// R9, CVE-2022-29162: a non-empty inheritable set that nobody asked for.
#[test]
fn the_inheritable_set_is_empty_unless_asked_for() {
    let b = Bundle::new();
    assert_eq!(sets(&b.probe(&[]))["inheritable"], json!([]));
    let c = b.set_args(&["/bin/probe", "sleep", "3600"]).running();
    assert_eq!(sets(&c.exec_probe(&[], &[]))["inheritable"], json!([]));
    assert_eq!(sets(&c.exec_probe(&["--user", "1000:1000"], &[]))["inheritable"], json!([]));
}

/// R9 again, for `exec --cap`.
#[test]
fn exec_cap_adds_to_the_sets_it_is_for() {
    let b =
        bundle(&json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }));
    let c = b.running();
    let got = sets(&c.exec_probe(&["--cap", "CAP_NET_RAW"], &[]));
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(got[set], json!(["CAP_KILL", "CAP_NET_RAW"]), "{set}");
    }
    assert_eq!(got["inheritable"], json!([]));
    // init is none the wiser.
    assert_eq!(sets(&c.exec_probe(&[], &[]))["bounding"], json!(["CAP_KILL"]));
}

#[test]
fn a_capability_that_is_not_there_is_really_missing() {
    let b =
        bundle(&json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }));
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    let out = b.run_args(&["/bin/chown", "1000", "/etc/passwd"]);
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.contains("not permitted"), "{out}");
}

#[test]
fn securebits_are_untouched() {
    assert_eq!(Bundle::new().probe(&[])["securebits"], 0);
}
