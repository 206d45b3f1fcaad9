//! config.md#mounts: owners translated by a mount, with maps of its own or (`idmap`, `ridmap`) the container's.

mod support;

use std::fs;
use std::os::unix::fs::chown;

use support::*;

/// A directory of the host with a file of user 1000.
fn source(b: &Bundle) -> String {
    let dir = b.path("host");
    fs::create_dir(&dir).expect("mkdir");
    fs::write(format!("{dir}/f"), "").expect("write");
    chown(format!("{dir}/f"), Some(1000), Some(1000)).expect("chown");
    dir
}

fn in_userns() -> Bundle {
    let b = Bundle::new();
    b.add_namespace("user").edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    b
}

/// Who owns /mnt/f inside; `None` where the file system of /tmp cannot be idmapped.
fn owner(b: &Bundle) -> Option<Value> {
    b.set_args(&["/bin/probe", "--stat", "/mnt/f"]);
    let out = b.run(&[]);
    if out.code != 0 && in_guest() && out.error().contains("EINVAL") {
        say_skip("SKIP", "the guest's tmpfs and hostfs (6.1) cannot be idmapped: the error is all there is");
        return None;
    }
    Some(out.ok().json()["stats"]["/mnt/f"]["uid"].clone())
}

#[test]
fn the_options_use_the_containers_map() {
    newer!("1.2: idmap, ridmap");
    needs!(Feature::UserNamespace);
    for (option, bind) in [("idmap", "bind"), ("ridmap", "rbind")] {
        let b = in_userns();
        let source = source(&b);
        b.add_mount(json!({
            "destination": "/mnt", "type": "bind", "source": source, "options": [bind, option],
        }));
        // Host id 1000 is stored; the mount shows it as 101000 on the host, which is 1000 inside.
        if let Some(uid) = owner(&b) {
            assert_eq!(uid, 1000, "{option}");
        }
    }
}

#[test]
fn without_the_option_the_owner_is_nobody() {
    needs!(Feature::UserNamespace);
    let b = in_userns();
    let source = source(&b);
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"] }));
    assert_eq!(owner(&b), Some(json!(65534)));
}

#[test]
fn the_option_needs_a_map() {
    newer!("1.2: idmap, ridmap");
    let b = Bundle::new();
    let source = source(&b);
    b.add_mount(
        json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "idmap"] }),
    );
    b.verb("create", &[]).output().exits(1).says("idmap");
}

#[test]
fn maps_of_users_and_groups_go_together_and_fit_a_bind_mount_alone() {
    newer!("1.2: idmapped mounts");
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let b = Bundle::new();
    let source = source(&b);
    b.add_mount(json!({
        "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"], "uidMappings": map,
    }));
    b.verb("create", &[]).output().exits(1).says("gidMappings");
    let b = Bundle::new();
    b.add_mount(json!({
        "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": map, "gidMappings": map,
    }));
    b.verb("create", &[]).output().exits(1).says("bind");
}
