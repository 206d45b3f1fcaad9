//! `features`: what this binary can do, for engines that ask before they run anything.
mod support;

use serde_json::{Value, json};
use support::*;

fn features() -> Value {
    runtime_call(&["features"]).ok().json()
}

fn list<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let found =
        value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {pointer}"));
    found.iter().map(|entry| entry.as_str().expect("a string")).collect()
}

#[test]
fn features_says_nothing_on_stderr_as_any_user_without_a_root() {
    let b = Bundle::rootless();
    for call in [runtime_call(&["features"]), runtime_call(&["features"]).user(65534, 65534).cwd("/")] {
        let out = call.ok();
        assert_eq!(out.stderr, "");
        assert!(out.json().is_object());
    }
    assert_eq!(b.call(&["features"]).ok().stderr, "");
}

#[test]
fn the_version_range_has_both_ends() {
    let features = features();
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().is_some_and(|version| version.starts_with("1.")), "{}", features[key]);
    }
}

#[test]
fn all_six_hooks_are_known() {
    let features = features();
    let mut hooks = list(&features, "/hooks");
    hooks.sort_unstable();
    assert_eq!(
        hooks,
        ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer"]
    );
}

#[test]
fn the_mount_options_that_engines_look_for_are_there() {
    let features = features();
    let options = list(&features, "/mountOptions");
    for option in ["ro", "rro", "rbind", "rprivate", "nosuid", "tmpcopyup", "nosymfollow", "relatime"] {
        assert!(options.contains(&option), "no {option}");
    }
    assert!(options.is_sorted(), "sorted, as runc's");
}

#[test]
fn namespaces_and_capabilities_are_listed() {
    let features = features();
    let namespaces = list(&features, "/linux/namespaces");
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(namespaces.contains(&kind), "no {kind}");
    }
    let capabilities = list(&features, "/linux/capabilities");
    assert!(capabilities.contains(&"CAP_SYS_ADMIN") && capabilities.contains(&"CAP_CHOWN"));
}

#[test]
fn the_time_namespace_is_listed() {
    newer!("1.2: time namespaces");
    assert!(list(&features(), "/linux/namespaces").contains(&"time"));
}

#[test]
fn cgroups_are_described() {
    let cgroup = &features()["linux"]["cgroup"];
    for key in ["v1", "v2", "systemd", "systemdUser"] {
        assert!(cgroup[key].is_boolean(), "{key}: {}", cgroup[key]);
    }
    assert_eq!(cgroup["v2"], true);
}

#[test]
fn seccomp_is_described() {
    let features = features();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let actions = list(&features, "/linux/seccomp/actions");
    for action in
        ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"]
    {
        assert!(actions.contains(&action), "no {action}");
    }
    let operators = list(&features, "/linux/seccomp/operators");
    assert_eq!(operators.len(), 7, "{operators:?}");
    assert!(list(&features, "/linux/seccomp/archs").contains(&"SCMP_ARCH_X86_64"));
}

#[test]
fn security_modules_are_described() {
    let linux = features()["linux"].clone();
    assert!(linux["apparmor"]["enabled"].is_boolean());
    assert!(linux["selinux"]["enabled"].is_boolean());
}

#[test]
fn idmapped_mounts_are_announced() {
    newer!("1.2: linux.mountExtensions");
    assert_eq!(features()["linux"]["mountExtensions"], json!({ "idmap": { "enabled": true } }));
}

#[test]
fn annotations_that_reach_into_the_host_are_announced() {
    newer!("1.2: potentiallyUnsafeConfigAnnotations");
    assert!(features()["potentiallyUnsafeConfigAnnotations"].is_array());
}
