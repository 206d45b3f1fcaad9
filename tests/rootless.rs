//! The runtime in the hands of a user without privilege.
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::json;
use support::*;

#[test]
fn the_caller_is_root_inside_and_itself_outside() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let (uid, gid) = b.user().expect("a user");
    let report = b.probe(&[]);
    assert_eq!(report["uid"]["effective"], 0);
    assert_eq!(report["gid"]["effective"], 0);
    assert_eq!(report["uidMap"], json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
    assert_eq!(report["gidMap"], json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
    assert_eq!(report["setgroups"], "deny");
}

#[test]
fn files_made_inside_are_the_callers_outside() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b.run_args(&["touch", "/var/made"]).ok();
    let meta = fs::metadata(b.rootfs().join("var/made")).expect("the file");
    assert_eq!((meta.uid(), meta.gid()), (12345, 12345));
}

#[test]
fn the_life_of_a_container_needs_no_privilege() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let c = b.create();
    assert_eq!(c.status(), "created");
    c.start();
    assert_eq!(c.status(), "running");
    assert_eq!(c.exec(&["id", "-u"]).ok().stdout, "0\n");
    c.exec(&["/bin/probe", "exit", "8"]).exits(8);
    let list = b.call(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["id"], json!(c.id));
    c.stop();
    c.delete();
}

#[test]
fn exec_shares_the_user_namespace() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let c = b.running();
    let inside = c.exec_probe(&[], &[])["namespaces"]["user"].to_string();
    let init = fs::read_link(format!("/proc/{}/ns/user", c.pid())).expect("the init's namespace");
    assert_eq!(init.to_string_lossy(), format!("user:[{inside}]"));
    assert_ne!(inside, probe_here(&[])["namespaces"]["user"].to_string());
}

#[test]
fn the_root_defaults_to_the_users_runtime_directory() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.verb("create", &[]).without_root().ok();
    let root = format!("{}/{}", b.path("xdg"), runtime_name());
    assert!(fs::exists(format!("{root}/{}", b.id())).expect("stat"), "nothing in {root}");
    let mode = fs::metadata(&root).expect("the root").mode();
    assert_eq!(mode & 0o7777, 0o1700, "sticky against cleaners of XDG_RUNTIME_DIR: {mode:o}");
    b.call(&["delete", "--force", &b.id()]).without_root().ok();
}

#[test]
fn a_container_without_a_user_namespace_is_refused() {
    let b = Bundle::rootless();
    b.remove_namespace("user").edit(|spec| {
        let linux = spec["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    b.verb("create", &[]).output().fails("rootless container requires user namespaces");
}

#[test]
fn an_id_that_is_not_the_callers_cannot_be_mapped() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.edit(|spec| spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]));
    let out = b.verb("create", &[]).output().exits(1);
    assert!(!out.stderr.is_empty(), "{out}");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn a_user_that_is_not_mapped_is_refused() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 0 }));
    b.verb("create", &[]).output().exits(1).says("map");
}

#[test]
fn additional_groups_that_are_not_mapped_are_refused() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.edit(|spec| spec["process"]["user"]["additionalGids"] = json!([1000]));
    b.verb("create", &[]).output().exits(1);
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn a_limit_that_the_caller_may_not_set_is_an_error() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    b.edit(|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 20 } }));
    b.verb("create", &[]).output().exits(1).says("cgroup");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn the_sleeping_program_is_the_callers_process() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let c = b.running();
    assert_eq!(fs::metadata(format!("/proc/{}", c.pid())).expect("the init").uid(), 12345);
}

#[test]
fn no_descriptor_of_the_host_is_open_inside() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let report = b.probe(&[]);
    let numbers: Vec<&String> = report["fds"].as_object().expect("fds").keys().collect();
    assert_eq!(numbers, ["0", "1", "2"]);
}

fn has_subids() -> bool {
    ["/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"].iter().all(|path| fs::exists(path).expect("stat"))
}

/// The caller as root, and the ids from `first` on.
fn own_and_range(first: u32) -> serde_json::Value {
    json!([
        { "containerID": 0, "hostID": 12345, "size": 1 },
        { "containerID": 1, "hostID": first, "size": 65535 },
    ])
}

/// Makes the wrapped runtime see a passwd, subuid and subgid of ours (in a mount namespace of its own) and run as the
/// bundle's user.
fn with_subids(b: &Bundle) -> Vec<String> {
    fs::write(b.path("passwd"), "root:x:0:0::/:/bin/sh\nlamb:x:12345:12345::/:/bin/sh\n").expect("write");
    fs::write(b.path("subids"), "lamb:200000:65536\n").expect("write");
    let script = format!(
        "mount --bind {dir}/passwd /etc/passwd && mount --bind {dir}/subids /etc/subuid && \
         mount --bind {dir}/subids /etc/subgid && \
         exec setpriv --reuid 12345 --regid 12345 --clear-groups \"$0\" \"$@\"",
        dir = b.dir().display()
    );
    ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        .map(str::to_owned)
        .into_iter()
        .chain([script])
        .collect()
}

#[test]
fn a_range_of_ids_is_mapped_by_newuidmap() {
    needs!(Feature::UserNamespace);
    if !has_subids() {
        skip!("no newuidmap, /etc/subuid or /etc/subgid (Debian: uidmap)");
    }
    let b = Bundle::rootless();
    b.edit(|spec| {
        spec["linux"]["uidMappings"] = own_and_range(200_000);
        spec["linux"]["gidMappings"] = own_and_range(200_000);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    });
    b.set_args(&["/bin/probe"]);
    let report = b.verb("run", &[]).by_root().through(&with_subids(&b)).ok().json();
    assert_eq!(report["uidMap"], own_and_range(200_000));
    assert_eq!(report["gidMap"], own_and_range(200_000));
    assert_eq!(report["uid"]["effective"], 1000);
    assert_eq!(report["gid"]["effective"], 1001);
}

#[test]
fn additional_groups_of_a_mapped_range_are_set() {
    deviates!("newgidmap leaves setgroups(2) allowed, so groups can be set; runc refuses them all");
    needs!(Feature::UserNamespace);
    if !has_subids() {
        skip!("no newuidmap, /etc/subuid or /etc/subgid (Debian: uidmap)");
    }
    let b = Bundle::rootless();
    b.edit(|spec| {
        spec["linux"]["uidMappings"] = own_and_range(200_000);
        spec["linux"]["gidMappings"] = own_and_range(200_000);
        spec["process"]["user"]["additionalGids"] = json!([5]);
    });
    b.set_args(&["/bin/probe"]);
    let report = b.verb("run", &[]).by_root().through(&with_subids(&b)).ok().json();
    assert_eq!(report["setgroups"], "allow");
    assert!(report["groups"].as_array().expect("groups").contains(&json!(5)));
}

#[test]
fn a_range_that_is_not_the_callers_is_refused() {
    needs!(Feature::UserNamespace);
    if !has_subids() {
        skip!("no newuidmap, /etc/subuid or /etc/subgid (Debian: uidmap)");
    }
    let b = Bundle::rootless();
    b.edit(|spec| spec["linux"]["uidMappings"] = own_and_range(300_000));
    let wrapper = with_subids(&b);
    b.verb("create", &[]).by_root().through(&wrapper).output().exits(1).says("newuidmap");
    b.container().verb("state", &[]).fails("does not exist");
}

/// Without CAP_SYS_ADMIN there is no read-only bind to run from; a user who owns the binary gets a sealed copy of it in
/// memory (CVE-2019-5736).
#[test]
fn a_runtime_that_its_user_owns_runs_from_a_sealed_copy() {
    deviates!("the other runtimes seal in ways of their own");
    let b = Bundle::rootless();
    let (uid, gid) = b.user().expect("a user");
    let own = b.path("own-runtime");
    install(runtime(), &own);
    std::os::unix::fs::chown(&own, Some(uid), Some(gid)).expect("chown");
    b.set_args(&["/bin/sleep", "3600"]);
    b.verb("create", &[]).program(&own).ok();
    let c = b.container();
    let exe = format!("/proc/{}/exe", c.pid());
    let target = std::fs::read_link(&exe).expect("readlink");
    assert!(target.to_string_lossy().starts_with("/memfd:"), "{}", target.display());
    let written = std::fs::OpenOptions::new().write(true).open(&exe);
    assert!(written.is_err(), "the copy can be opened for writing");
}

/// Without a cgroup nobody but the first process is known: it gets the signal, and a warning says so.
#[test]
fn kill_all_without_a_cgroup_kills_the_first_process() {
    needs!(Feature::UserNamespace);
    newer!("1.2: kill without a cgroup");
    let b = Bundle::rootless();
    let c = b.running();
    let out = c.call("kill", &["--all"], &["KILL"]).ok();
    assert!(cgroups(b.tag()).is_empty() == out.stderr.contains("lack of cgroup"), "{out}");
    c.wait("stopped");
    c.call("kill", &["--all"], &["KILL"]).ok();
}

#[test]
fn without_a_cgroup_there_is_nothing_to_update_and_little_to_tell() {
    needs!(Feature::UserNamespace);
    let b = Bundle::rootless();
    let c = b.running();
    if !cgroups(b.tag()).is_empty() {
        say_skip("SKIP", "this caller may make cgroups");
        return;
    }
    c.verb("update", &["--pids-limit", "5"]).exits(1).says("cgroup");
    let out = c.verb("events", &["--stats"]).ok();
    assert_eq!((&out.json()["type"], &out.json()["data"]["pids"]), (&json!("stats"), &json!({})));
    deviates!("runc fails without a memory controller to watch");
    let mut call = c.call("events", &["--interval", "50ms"], &[]).spawn();
    call.wait_stdout("{\"type\":\"stats\"");
    c.stop();
    call.wait().ok();
}

/// A caller that is root in a user namespace already, as Podman is without privilege: the container has none of its
/// own.
fn in_the_callers_namespace() -> Bundle {
    let b = Bundle::rootless();
    b.remove_namespace("user").edit(|spec| {
        let linux = spec["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        linux.remove("cgroupsPath");
    });
    b
}

#[test]
fn root_in_a_user_namespace_has_devices_and_the_callers_cgroup() {
    needs!(Feature::UserNamespace);
    let b = in_the_callers_namespace();
    b.remove_namespace("cgroup");
    b.add_mount(json!({ "destination": "/mnt", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    b.set_args(&["/bin/sh", "-c", "echo gone >/dev/null && ls /mnt/cgroup.procs"]);
    let run = b.verb("run", &[]).through(&["unshare", "--user", "--map-root-user", "--mount"]);
    let out = run.output();
    // Of v1 runc shows a tree of hierarchies.
    if !is_runc() || cgroup2_mount() == std::path::Path::new("/sys/fs/cgroup") {
        assert_eq!(out.ok().stdout, "/mnt/cgroup.procs\n");
    }
}

#[test]
fn root_in_a_user_namespace_joins_what_others_made_in_it() {
    needs!(Feature::UserNamespace);
    let b = in_the_callers_namespace();
    let link = b.path("xdg/ipc");
    b.edit(|spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != "ipc");
        list.push(json!({ "type": "ipc", "path": link }));
    });
    b.set_args(&["/bin/sh", "-c", "ls -l /proc/self/ns/ipc"]);
    let script = "unshare --ipc sleep 60 & holder=$!
        own=$(readlink /proc/self/ns/ipc)
        while there=$(readlink /proc/$holder/ns/ipc) && [ \"$there\" = \"$own\" ]; do sleep 0.1; done
        ln -s /proc/$holder/ns/ipc \"$0\"; echo \"$there\"
        \"$@\"; ended=$?; kill $holder; exit $ended";
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, &link];
    let out = b.verb("run", &[]).through(&wrapper).output().ok().stdout;
    let [there, inside] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(there.starts_with("ipc:[") && inside.ends_with(there), "{out}");
}
