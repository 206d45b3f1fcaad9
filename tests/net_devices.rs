//! config-linux.md, network devices: a device of the host becomes the container's, with its addresses. The host here is
//! a network namespace of the test's own, in which both the runtime and ip(8) run.

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use support::*;

/// A network namespace for this thread and what it starts; dropped, the thread is back and the devices are gone.
struct Net {
    before: File,
}

impl Net {
    fn new() -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("the network namespace");
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(2)");
        let net = Self { before };
        ip("link set lo up");
        net
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        setns(&self.before, CloneFlags::CLONE_NEWNET).expect("back");
    }
}

/// ip(8) with these words; its output.
#[track_caller]
fn ip(words: &str) -> String {
    let out = Command::new("ip").args(words.split(' ')).output().expect("ip(8)");
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn has_veth() -> bool {
    let unused = Net::new();
    let made = Command::new("ip").args(["link", "add", "v0", "type", "veth"]).output();
    drop(unused);
    made.is_ok_and(|out| out.status.success())
}

macro_rules! needs_veth {
    () => {
        newer!("1.4: netDevices");
        if !Path::new("/usr/sbin/ip").exists() || !has_veth() {
            skip!("no veth devices, or no ip(8)");
        }
    };
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// A pair `lamb0`, whose other end stays, with an address of each family and an MTU of its own.
fn pair() {
    ip("link add lamb0 type veth peer name fold0");
    ip("link set lamb0 mtu 1400");
    ip("link set lamb0 up");
    ip("link set fold0 up");
    ip("addr add 192.0.2.7/24 dev lamb0");
    if has_ipv6() {
        ip("addr add 2001:db8::7/64 dev lamb0 nodad");
    }
}

fn bundle(devices: Value) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["netDevices"] = devices);
    b
}

/// What ip(8) says in the network namespace of a process.
#[track_caller]
fn ip_of(pid: i32, words: &str) -> String {
    let here = File::open("/proc/thread-self/ns/net").expect("the network namespace");
    let there = File::open(format!("/proc/{pid}/ns/net")).expect("the container's");
    setns(&there, CloneFlags::CLONE_NEWNET).expect("setns(2)");
    let said = ip(words);
    setns(&here, CloneFlags::CLONE_NEWNET).expect("setns(2)");
    said
}

#[test]
fn a_device_is_moved_with_its_addresses_and_is_up() {
    needs_veth!();
    let net = Net::new();
    pair();
    let mac = ip("-o link show lamb0").split("link/ether ").nth(1).expect("a MAC")[..17].to_owned();
    let b = bundle(json!({ "lamb0": {} }));
    let c = b.running();
    assert!(!ip("-o link").contains("lamb0"), "it is still the host's");
    let link = ip_of(c.pid(), "-o link show lamb0");
    assert!(link.contains("mtu 1400") && link.contains(&mac), "{link}");
    assert!(link.contains(",UP") || link.contains("<UP"), "{link}");
    let addresses = ip_of(c.pid(), "-o addr show dev lamb0");
    assert!(addresses.contains("inet 192.0.2.7/24"), "{addresses}");
    assert_eq!(addresses.contains("inet6 2001:db8::7/64"), has_ipv6(), "{addresses}");
    c.stop().delete();
    drop(net);
}

#[test]
fn a_device_has_its_new_name() {
    needs_veth!();
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "eth0" } }));
    b.set_args(&["/bin/ls", "/sys/class/net"]);
    assert_eq!(b.run(&[]).ok().stdout, "eth0\nlo\n");
    drop(net);
}

#[test]
fn a_template_takes_a_free_number() {
    needs_veth!();
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "eth%d" }, "fold0": { "name": "eth%d" } }));
    b.set_args(&["/bin/ls", "/sys/class/net"]);
    assert_eq!(b.run(&[]).ok().stdout, "eth0\neth1\nlo\n");
    drop(net);
}

#[test]
fn a_name_that_is_taken_inside_is_an_error_and_the_device_stays() {
    needs_veth!();
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "lo" } }));
    b.verb("create", &[]).output().fails("/linux/netDevices/lamb0").says("exists in the container already");
    assert!(ip("-o addr show dev lamb0").contains("192.0.2.7/24"));
    drop(net);
}

#[test]
fn a_failed_create_gives_the_device_back() {
    needs_veth!();
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "eth7" } }));
    b.set_args(&["/bin/nothing-of-this-name"]);
    b.verb("create", &[]).output().exits(1);
    let back = ip("-o addr show dev lamb0");
    assert!(back.contains("192.0.2.7/24"), "{back}");
    assert_eq!(back.contains("2001:db8::7/64"), has_ipv6(), "{back}");
    drop(net);
}

#[test]
fn a_device_is_moved_into_a_network_namespace_that_is_joined() {
    needs_veth!();
    let net = Net::new();
    pair();
    let holder = Holder::unshare(&["--net"], "net");
    let b = bundle(json!({ "lamb0": { "name": "eth0" } }));
    b.edit(|spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        let network = list.iter_mut().find(|ns| ns["type"] == "network").expect("network");
        network["path"] = json!(holder.path("net"));
    });
    let c = b.running();
    assert!(ip_of(holder.pid(), "-o addr show dev eth0").contains("192.0.2.7/24"));
    c.stop().delete();
    assert!(ip_of(holder.pid(), "-o link").contains("eth0"), "what is in the namespace stays there");
    drop(net);
}

#[test]
fn a_device_is_moved_into_a_user_namespace() {
    needs_veth!();
    needs!(Feature::UserNamespace);
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "eth0" } }));
    b.add_namespace("user").edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    let c = b.running();
    assert!(ip_of(c.pid(), "-o addr show dev eth0").contains("192.0.2.7/24"));
    c.stop().delete();
    drop(net);
}

#[test]
fn a_device_sysctl_finds_the_device() {
    needs_veth!();
    let net = Net::new();
    pair();
    let b = bundle(json!({ "lamb0": { "name": "eth0" } }));
    b.edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.conf.eth0.forwarding": "1" }));
    let report = b.probe(&["--sysctl", "net.ipv4.conf.eth0.forwarding"]);
    assert_eq!(report["sysctls"]["net.ipv4.conf.eth0.forwarding"], "1");
    drop(net);
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_names_it() {
    newer!("1.4: netDevices");
    let b = bundle(json!({ "nolamb0": {} }));
    b.verb("create", &[]).output().fails("/linux/netDevices/nolamb0").says("does not exist");
}

#[test]
fn without_a_network_namespace_of_its_own_it_is_refused() {
    newer!("1.4: netDevices");
    let b = bundle(json!({ "lamb0": {} }));
    b.remove_namespace("network");
    b.verb("create", &[]).output().fails("unable to move network devices without a private NET namespace");
}

#[test]
fn a_name_that_the_kernel_would_refuse_is_refused() {
    newer!("1.4: netDevices");
    for (device, inside) in [("a/b", "eth0"), ("lamb0", "name of 16 bytes"), ("lamb0", "%d%d%x")] {
        let b = bundle(json!({ device: { "name": inside } }));
        b.verb("create", &[]).output().fails("invalid network device name");
    }
}

#[test]
fn a_rootless_caller_is_told_that_it_cannot() {
    newer!("1.4: netDevices");
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.add_namespace("network").edit(|spec| spec["linux"]["netDevices"] = json!({ "lamb0": {} }));
    b.verb("create", &[]).output().fails("network devices are not supported in rootless containers");
}
