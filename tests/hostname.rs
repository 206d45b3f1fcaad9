//! config.md#hostname and #domainname.
mod support;
use support::*;

#[test]
fn the_hostname_is_set() {
    let b = Bundle::new();
    b.edit(|spec| spec["hostname"] = json!("lamb"));
    let report = b.probe(&[]);
    assert_eq!(report["hostname"], "lamb");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    assert_ne!(host.trim(), "lamb");
}

#[test]
fn without_a_hostname_the_hosts_is_inherited() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("hostname");
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    assert_eq!(b.probe(&[])["hostname"], json!(host.trim()));
}

#[test]
fn a_hostname_of_64_bytes_is_taken_and_one_of_65_is_not() {
    let b = Bundle::new();
    b.edit(|spec| spec["hostname"] = json!("a".repeat(64)));
    assert_eq!(b.probe(&[])["hostname"], json!("a".repeat(64)));
    b.edit(|spec| spec["hostname"] = json!("a".repeat(65)));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("hostname"), "{out}");
}

#[test]
fn the_domainname_is_set() {
    newer!("domainname");
    let b = Bundle::new();
    b.edit(|spec| spec["domainname"] = json!("meadow"));
    assert_eq!(b.probe(&[])["domainname"], "meadow");
}

#[test]
fn a_domainname_needs_a_uts_namespace() {
    newer!("domainname");
    let b = Bundle::new();
    b.remove_namespace("uts");
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("hostname");
        spec["domainname"] = json!("meadow");
    });
    b.run_args(&["/bin/true"]).fails("domainname");
}
