//! config-linux.md#masked-paths and #readonly-paths.
mod support;
use std::os::unix::fs::symlink;
use support::*;

fn masking(paths: &[&str]) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["maskedPaths"] = json!(paths);
    });
    b
}

fn read_only(paths: &[&str]) -> Bundle {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["readonlyPaths"] = json!(paths);
    });
    b
}

#[test]
fn a_masked_file_is_empty() {
    let b = masking(&["/etc/secret", "/proc/version"]);
    b.file("etc/secret", "hidden");
    let report = b.probe(&["--read", "/etc/secret", "--read", "/proc/version", "--stat", "/etc/secret"]);
    assert_eq!(report["reads"]["/etc/secret"], json!({ "ok": "", "bytes": 0 }));
    assert_eq!(report["reads"]["/proc/version"], json!({ "ok": "", "bytes": 0 }));
    assert_eq!(report["stats"]["/etc/secret"]["major"], 1);
    assert_eq!(report["stats"]["/etc/secret"]["minor"], 3);
}

#[test]
fn a_masked_directory_is_empty_and_read_only() {
    let b = masking(&["/etc/secrets"]);
    b.file("etc/secrets/one", "hidden");
    let report =
        b.probe(&["--list", "/etc/secrets", "--read", "/etc/secrets/one", "--write", "/etc/secrets"]);
    assert_eq!(report["lists"]["/etc/secrets"], json!([]));
    assert_eq!(report["reads"]["/etc/secrets/one"]["errno"], "ENOENT");
    assert_eq!(report["writes"]["/etc/secrets"]["errno"], "EROFS");
}

#[test]
fn what_is_written_to_a_masked_file_goes_nowhere() {
    let b = masking(&["/etc/secret"]);
    let file = b.file("etc/secret", "hidden");
    b.run_args(&["/bin/sh", "-c", "echo changed > /etc/secret"]);
    assert_eq!(std::fs::read_to_string(file).expect("read"), "hidden");
}

#[test]
fn a_masked_path_that_is_missing_is_no_matter() {
    let b = masking(&["/no/such/path"]);
    assert_eq!(b.probe(&["--stat", "/no/such/path"])["stats"]["/no/such/path"]["errno"], "ENOENT");
}

#[test]
fn a_masked_path_below_a_file_is_no_matter() {
    newer!("the rule that a path which cannot exist is as good as a missing one: 1.1.5 fails with ENOTDIR");
    assert_eq!(masking(&["/etc/passwd/below"]).probe(&[])["pid"], 1);
}

#[test]
fn a_masked_symlink_masks_what_it_leads_to_inside() {
    let b = masking(&["/link"]);
    b.file("etc/secret", "hidden");
    symlink("/etc/secret", b.rootfs().join("link")).expect("symlink");
    assert_eq!(b.probe(&["--read", "/link"])["reads"]["/link"]["ok"], "");
}

#[test]
fn exec_sees_the_masks_too() {
    let b = masking(&["/etc/secret"]);
    b.file("etc/secret", "hidden");
    let c = b.running();
    assert_eq!(c.exec_probe(&[], &["--read", "/etc/secret"])["reads"]["/etc/secret"]["ok"], "");
}

#[test]
fn masked_directories_have_nothing_in_common_to_write_to() {
    let b = masking(&["/etc/one", "/etc/two"]);
    b.file("etc/one/x", "");
    b.file("etc/two/x", "");
    let report = b.probe(&["--write", "/etc/one", "--write", "/etc/two", "--list", "/etc/two"]);
    assert_eq!(report["writes"]["/etc/one"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/etc/two"]["errno"], "EROFS");
    assert_eq!(report["lists"]["/etc/two"], json!([]));
}

#[test]
fn a_read_only_path_cannot_be_written() {
    let b = read_only(&["/etc", "/proc/sys"]);
    let report = b.probe(&[
        "--write",
        "/etc",
        "--write",
        "/proc/sys/kernel/msgmax",
        "--read",
        "/etc/passwd",
        "--write",
        "/var",
    ]);
    assert_eq!(report["writes"]["/etc"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/proc/sys/kernel/msgmax"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/var"]["ok"], true);
    assert_eq!(report["reads"]["/etc/passwd"]["bytes"].as_u64().map(|n| n > 0), Some(true));
}

#[test]
fn a_read_only_file_cannot_be_written() {
    let b = read_only(&["/etc/passwd"]);
    let report = b.probe(&["--write", "/etc/passwd", "--write", "/etc/group"]);
    assert_eq!(report["writes"]["/etc/passwd"]["errno"], "EROFS");
    assert_eq!(report["writes"]["/etc/group"]["ok"], true);
}

#[test]
fn a_read_only_path_keeps_the_other_flags_of_its_mount() {
    let b = read_only(&["/mnt"]);
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec"] }));
    let report = b.probe(&[]);
    let mount = mount_at(&report, "/mnt");
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|word| has(mount, word)), "{mount}");
}

#[test]
fn a_read_only_path_that_is_missing_is_no_matter() {
    assert_eq!(read_only(&["/no/such/path"]).probe(&[])["pid"], 1);
}

#[test]
fn empty_lists_mask_nothing() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    let report = b.probe(&[]);
    let below: Vec<_> = report["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter(|mount| mount["mountPoint"].as_str().is_some_and(|point| point.starts_with("/proc/")))
        .collect();
    assert!(below.is_empty(), "{below:?}");
}

#[test]
fn a_relative_masked_path_is_refused() {
    newer!("a check that a masked path is absolute: 1.1.5 takes it as below the working directory");
    let b = masking(&["etc/passwd"]);
    b.run_args(&["/bin/true"]).fails("etc/passwd");
}
