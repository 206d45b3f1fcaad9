//! config-linux.md#sysctl: what belongs to the container's own namespaces may be set, nothing else.
mod support;
use support::*;

fn with(name: &str, value: &str) -> Bundle {
    let b = Bundle::new();
    b.set_args(&["/bin/true"]);
    b.edit(|spec| spec["linux"]["sysctl"] = json!({ name: value }));
    b
}

/// What must be refused is asked for with the value that the host has already: a runtime that obeys does no harm.
fn refused_with_the_hosts_value(b: &Bundle, name: &str, file: &str) -> support::Output {
    let path = format!("/proc/sys/{file}");
    let value = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    b.edit(|spec| spec["linux"]["sysctl"] = json!({ name: value.trim_end() }));
    b.run_args(&["/bin/true"])
}

#[test]
fn an_ipc_sysctl_is_set() {
    let report = with("kernel.msgmax", "12345").probe(&["--sysctl", "kernel.msgmax"]);
    assert_eq!(report["sysctls"]["kernel.msgmax"], "12345");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/msgmax").expect("read").trim(), "12345");
}

#[test]
fn a_message_queue_sysctl_is_set() {
    let report = with("fs.mqueue.msg_max", "17").probe(&["--sysctl", "fs.mqueue.msg_max"]);
    assert_eq!(report["sysctls"]["fs.mqueue.msg_max"], "17");
}

#[test]
fn a_network_sysctl_is_set() {
    let report = with("net.ipv4.ip_forward", "1").probe(&["--sysctl", "net.ipv4.ip_forward"]);
    assert_eq!(report["sysctls"]["net.ipv4.ip_forward"], "1");
}

#[test]
fn slashes_serve_as_well_as_dots() {
    let report = with("net/ipv4/ip_default_ttl", "77").probe(&["--sysctl", "net.ipv4.ip_default_ttl"]);
    assert_eq!(report["sysctls"]["net.ipv4.ip_default_ttl"], "77");
}

#[test]
fn the_domainname_may_be_set_as_a_sysctl() {
    let report = with("kernel.domainname", "meadow").probe(&[]);
    assert_eq!(report["domainname"], "meadow");
}

#[test]
fn a_value_of_several_words_is_one_value() {
    let report = with("kernel.sem", "250 32000 32 99").probe(&["--sysctl", "kernel.sem"]);
    assert_eq!(report["sysctls"]["kernel.sem"], "250\t32000\t32\t99");
}

#[test]
fn a_sysctl_of_the_whole_kernel_is_refused() {
    for name in ["kernel.core_pattern", "kernel.pid_max", "vm.swappiness", "fs.file-max"] {
        refused_with_the_hosts_value(&Bundle::new(), name, &name.replace('.', "/")).fails(name);
    }
}

#[test]
fn the_hostname_is_not_a_sysctl() {
    refused_with_the_hosts_value(&Bundle::new(), "kernel.hostname", "kernel/hostname")
        .fails("kernel.hostname");
}

#[test]
fn a_network_sysctl_needs_a_network_namespace() {
    let b = Bundle::new();
    b.remove_namespace("network");
    refused_with_the_hosts_value(&b, "net.ipv4.ip_default_ttl", "net/ipv4/ip_default_ttl")
        .fails("net.ipv4.ip_default_ttl");
}

#[test]
fn an_ipc_sysctl_needs_an_ipc_namespace() {
    let b = Bundle::new();
    b.remove_namespace("ipc");
    refused_with_the_hosts_value(&b, "kernel.msgmax", "kernel/msgmax").fails("kernel.msgmax");
}

#[test]
fn the_hosts_network_namespace_by_path_is_still_the_hosts() {
    let b = Bundle::new();
    b.remove_namespace("network");
    b.edit(|spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.push(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    });
    refused_with_the_hosts_value(&b, "net.ipv4.ip_default_ttl", "net/ipv4/ip_default_ttl")
        .fails("net.ipv4.ip_default_ttl");
}

/// CVE-2022-0811: a name that walks out of its prefix.
#[test]
fn dots_in_a_name_do_not_lead_elsewhere() {
    for name in
        ["kernel/../kernel/core_pattern", "net/../kernel/core_pattern", "net/ipv4/../../kernel/core_pattern"]
    {
        let out = refused_with_the_hosts_value(&Bundle::new(), name, "kernel/core_pattern");
        assert_eq!(out.code, 1, "{name}: {out}");
    }
}

#[test]
fn a_sysctl_that_does_not_exist_is_an_error() {
    let out = with("net.sheep.wool", "1").run(&[]).exits(1);
    assert!(out.error().contains("net/sheep/wool") || out.error().contains("net.sheep.wool"), "{out}");
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error() {
    let out = with("net.ipv4.ip_default_ttl", "sheep").run(&[]).exits(1);
    assert!(out.error().contains("invalid argument") || out.error().contains("Invalid argument"), "{out}");
}

#[test]
fn sysctls_are_set_although_proc_sys_is_read_only() {
    let report = with("net.ipv4.ip_forward", "1").probe(&[
        "--sysctl",
        "net.ipv4.ip_forward",
        "--write",
        "/proc/sys/net/ipv4/ip_forward",
    ]);
    assert_eq!(report["sysctls"]["net.ipv4.ip_forward"], "1");
    assert_eq!(report["writes"]["/proc/sys/net/ipv4/ip_forward"]["errno"], "EROFS");
}
