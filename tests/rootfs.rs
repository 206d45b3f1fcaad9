//! config.md#root and config-linux.md#rootfs-mount-propagation.
mod support;
use std::fs;
use support::*;

#[test]
fn a_read_only_root_cannot_be_written() {
    let report = Bundle::new().probe(&["--write", "/", "--write", "/etc/passwd"]);
    assert_eq!(report["writes"]["/"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/etc/passwd"]["errno"], "EROFS");
    assert!(has(mount_at(&report, "/"), "ro"));
}

#[test]
fn a_writable_root_can_be_written() {
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b.run_args(&["/bin/touch", "/made"]).ok();
    assert!(b.rootfs().join("made").exists());
}

#[test]
fn a_root_is_writable_unless_said_otherwise() {
    let b = Bundle::new();
    b.edit(|spec| spec["root"] = json!({ "path": "rootfs" }));
    assert_eq!(b.probe(&["--write", "/"])["writes"]["/"]["ok"], true);
}

#[test]
fn the_hosts_directory_stays_writable_under_a_read_only_root() {
    let b = Bundle::new();
    let c = b.running();
    b.file("late", "by the host");
    let report = c.exec_probe(&[], &["--read", "/late"]);
    assert_eq!(report["reads"]["/late"]["ok"], "by the host");
}

#[test]
fn the_path_may_be_absolute() {
    let b = Bundle::new();
    let path = b.path("rootfs");
    b.edit(|spec| spec["root"]["path"] = json!(path));
    assert_eq!(b.probe(&[])["pid"], 1);
}

#[test]
fn the_path_may_be_elsewhere_and_have_another_name() {
    let b = Bundle::new();
    fs::create_dir(b.path("else")).expect("mkdir");
    fs::rename(b.rootfs(), b.path("else/where")).expect("rename");
    b.edit(|spec| spec["root"]["path"] = json!("else/where"));
    let report = b.probe(&["--list", "/"]);
    assert!(report["lists"]["/"].as_array().expect("a list").contains(&json!("bin")));
}

#[test]
fn a_symlink_to_the_root_is_followed() {
    newer!("a root.path that is a symlink (runc 1.1.5 calls it not an absolute path or a symlink)");
    let b = Bundle::new();
    fs::rename(b.rootfs(), b.path("real")).expect("rename");
    std::os::unix::fs::symlink("real", b.path("rootfs")).expect("symlink");
    assert_eq!(b.probe(&[])["pid"], 1);
}

#[test]
fn a_missing_root_is_an_error_that_names_it() {
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["path"] = json!("nowhere"));
    b.run_args(&["/bin/true"]).fails("nowhere");
}

#[test]
fn a_root_that_is_a_file_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["path"] = json!("config.json"));
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().contains("not a directory"), "{out}");
}

#[test]
fn no_root_property_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("root");
    });
    let out = b.run_args(&["/bin/true"]).exits(1);
    assert!(out.error().to_lowercase().contains("root"), "{out}");
}

#[test]
fn the_hosts_root_is_gone() {
    let b = Bundle::new();
    fs::write(b.path("canary"), "seen").expect("write");
    let path = b.path("canary");
    let report = b.probe(&["--read", &path, "--list", "/"]);
    assert_eq!(report["reads"][&path]["errno"], "ENOENT");
    // Nothing of the host's mount table is left but the container's own mounts.
    let mounts = report["mounts"].as_array().expect("mounts");
    let foreign: Vec<_> = mounts
        .iter()
        .filter_map(|mount| mount["mountPoint"].as_str())
        .filter(|point| {
            !["/", "/proc", "/dev", "/sys"].iter().any(|own| {
                point == own || point.starts_with(&format!("{}/", own.trim_end_matches('/'))) && *own != "/"
            })
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn the_roots_parent_is_the_root() {
    let out = Bundle::new().run_args(&["/bin/sh", "-c", "cd /.. && cd ../../.. && ls -d bin && pwd"]).ok();
    assert_eq!(out.stdout, "bin\n/\n");
}

fn root_propagation(value: Option<&str>) -> Vec<String> {
    let b = Bundle::new();
    if let Some(value) = value {
        b.edit(|spec| spec["linux"]["rootfsPropagation"] = json!(value));
    }
    let tags = mount_at(&b.probe(&[]), "/")["propagation"].clone();
    serde_json::from_value(tags).expect("words")
}

#[test]
fn a_shared_root_is_shared() {
    newer!("a root that is shared in the end: 1.1.5 binds it below a parent that it has just made private");
    assert!(root_propagation(Some("shared")).iter().any(|tag| tag.starts_with("shared:")));
}

#[test]
fn a_private_root_is_private() {
    assert_eq!(root_propagation(Some("private")), Vec::<String>::new());
}

#[test]
fn an_unbindable_root_is_unbindable() {
    newer!("an unbindable root: 1.1.5 makes it so before it binds it");
    assert_eq!(root_propagation(Some("unbindable")), ["unbindable"]);
}

#[test]
fn a_root_is_never_shared_unasked() {
    for value in [None, Some("slave"), Some("rslave"), Some("rprivate")] {
        let tags = root_propagation(value);
        assert!(!tags.iter().any(|tag| tag.starts_with("shared:")), "{value:?}: {tags:?}");
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["rootfsPropagation"] = json!("sheepish"));
    b.run_args(&["/bin/true"]).fails("sheepish");
}
