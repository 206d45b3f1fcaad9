//! SELinux where it enforces a policy (`scripts/guest --selinux`): config.md `process.selinuxLabel` and
//! config-linux.md#mount-label. In the policy, tests/fixtures/selinux/policy.cil, container_t may use container_file_t
//! of its own categories, and nothing else of the host's.
mod support;

use std::path::Path;
use std::process::Command;

use support::*;

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1,c2";
/// Every container's, as it has no categories.
const SHARED: &str = "system_u:object_r:container_file_t:s0";
const READ_LABEL: [&str; 2] = ["cat", "/proc/self/attr/current"];

/// A bundle whose root any container may use, with these two labels.
fn bundle(process: &str, mounts: &str) -> Bundle {
    let b = Bundle::new();
    label(&b.rootfs(), SHARED);
    b.edit(|spec| {
        spec["process"]["selinuxLabel"] = json!(process);
        spec["linux"]["mountLabel"] = json!(mounts);
    });
    b
}

/// Gives a file, or a directory with all below, a label.
fn label(path: &Path, label: &str) {
    let done = Command::new("chcon").args(["-h", "-R", label]).arg(path).status().expect("chcon");
    assert!(done.success(), "chcon {label} {}", path.display());
}

fn label_of(path: &str) -> String {
    let out = Command::new("stat").args(["--format=%C", path]).output().expect("stat");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn said(out: &Output) -> &str {
    out.stdout.trim_end_matches(['\0', '\n'])
}

#[test]
fn a_process_has_its_label_and_its_categories() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, "");
    assert_eq!(b.probe(&[])["label"]["current"], PROCESS);
}

#[test]
fn without_a_label_a_process_has_its_makers() {
    needs!(Feature::Selinux);
    let b = Bundle::new();
    let own = std::fs::read_to_string("/proc/self/attr/current").expect("a label");
    assert_eq!(b.probe(&[])["label"]["current"], own.trim_end_matches('\0'));
}

#[test]
fn a_label_is_enforced() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    let cases = [
        ("own", FILES, json!({ "ok": 3 })),
        ("shared", SHARED, json!({ "ok": 3 })),
        ("others", "system_u:object_r:container_file_t:s0:c1,c3", json!({ "errno": "EACCES" })),
        ("hosts", "system_u:object_r:host_file_t:s0", json!({ "errno": "EACCES" })),
    ];
    for (name, context, _) in &cases {
        label(&b.file(name, "x"), context);
    }
    let c = b.running();
    for (name, _, answer) in &cases {
        assert_eq!(c.exec(&["/bin/probe", "open", &format!("/{name}")]).ok().json(), *answer, "{name}");
    }
}

#[test]
fn a_program_that_the_label_may_not_execute_is_an_error() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    label(&b.own_copy("bin/probe"), "system_u:object_r:host_file_t:s0");
    b.run(&[]).says("ermission denied");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn exec_has_the_label_of_the_container_or_its_own() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    let c = b.running();
    assert_eq!(said(&c.exec(&READ_LABEL).ok()), PROCESS);
    let other = "system_u:system_r:container_t:s0:c7,c1023";
    assert_eq!(said(&c.exec_with(&["--process-label", other], &READ_LABEL).ok()), other);
    assert_ne!(c.exec_with(&["--process-label", "system_u:system_r:nobody_t:s0"], &READ_LABEL).code, 0);
    assert_eq!(said(&c.exec(&READ_LABEL).ok()), PROCESS);
}

#[test]
fn the_keyring_has_the_label_of_its_process() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    assert_eq!(b.probe(&[])["keyring"]["label"], PROCESS);
    b.set_args(&["/bin/probe", "sleep", "3600"]);
    let keyring = &b.running().exec_probe(&[], &[])["keyring"];
    assert_eq!(keyring["label"], PROCESS);
    assert_eq!(
        keyring["description"].as_str().and_then(|d| d.rsplit(';').next()),
        Some(&*format!("_ses.{}", b.id()))
    );
}

#[test]
fn new_file_systems_have_the_mount_label() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    b.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/var"]));
    b.add_mount(
        json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    b.file("mnt/copied", "");
    let c = b.running();
    let root = format!("/proc/{}/root", c.pid());
    for place in
        ["dev", "dev/null", "dev/pts", "dev/pts/ptmx", "dev/shm", "dev/mqueue", "mnt", "mnt/copied", "var"]
    {
        assert_eq!(label_of(&format!("{root}/{place}")), FILES, "{place}");
    }
    for place in ["proc", "sys", "sys/fs/cgroup"] {
        assert_eq!(label_of(&format!("{root}/{place}")), "system_u:object_r:kernel_file_t:s0", "{place}");
    }
    // What the container makes there is its own.
    c.exec(&["/bin/probe", "open", "/dev/shm/new", "creat,rdwr"]).ok();
    assert_eq!(label_of(&format!("{root}/dev/shm/new")), FILES);
}

#[test]
fn a_label_among_the_options_of_a_mount_stays() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    let options = json!(["mode=700", format!("context=\"{SHARED}:c9\"")]);
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options }));
    b.edit(|spec| spec["linux"]["mountLabel"] = json!(""));
    let c = b.running();
    assert_eq!(label_of(&format!("/proc/{}/root/mnt", c.pid())), format!("{SHARED}:c9"));
}

#[test]
fn the_terminal_of_a_container_is_its_own() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    b.edit(|spec| spec["process"]["terminal"] = json!(true));
    b.set_args(&["/bin/sh", "-c", "read line </dev/tty; echo got $line >/dev/console"]);
    let mut pty = Pty::open(24, 80);
    let run = b.verb("run", &[]).terminal(&pty.slave).spawn();
    pty.master.type_in("lamb\n");
    pty.master.wait_for("got lamb");
    run.wait().ok();
}

#[test]
fn a_bad_process_label_is_an_error_and_leaves_nothing() {
    needs!(Feature::Selinux);
    for bad in ["nobody_u:system_r:container_t:s0", "system_u:system_r:container_t:s0:c5000", "lamb"] {
        let b = bundle(bad, "");
        let out = b.verb("create", &[]).output().exits(1);
        if !is_peer() {
            out.says(&format!("/process/selinuxLabel {bad:?}")).says("why: the policy of this host");
        }
        b.container().verb("state", &[]).fails("does not exist");
    }
}

#[test]
fn a_bad_mount_label_is_an_error_and_leaves_nothing() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, "system_u:object_r:nobody_t:s0");
    let out = b.verb("create", &[]).output().exits(1);
    if !is_peer() {
        out.says("/linux/mountLabel");
    }
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn labels_hold_under_a_filter_without_privileges_and_in_a_user_namespace() {
    needs!(Feature::Selinux);
    let b = bundle(PROCESS, FILES);
    b.add_namespace("user");
    b.edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 200000, "size": 65536 }]);
        spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 200000, "size": 65536 }]);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
        });
    });
    let c = b.running();
    assert_eq!(said(&c.exec(&READ_LABEL).ok()), PROCESS);
    assert_eq!(label_of(&format!("/proc/{}/root/dev/shm", c.pid())), FILES);
}

#[test]
fn an_unprivileged_caller_labels_too() {
    needs!(Feature::Selinux);
    let b = Bundle::rootless();
    label(&b.rootfs(), SHARED);
    b.edit(|spec| {
        spec["process"]["selinuxLabel"] = json!(PROCESS);
        spec["linux"]["mountLabel"] = json!(FILES);
    });
    let report = b.probe(&[]);
    assert_eq!(report["label"]["current"], PROCESS);
    assert!(
        has(mount_at(&report, "/dev/shm"), "context=\"system_u:object_r:container_file_t:s0:c1"),
        "{report}"
    );
}

#[test]
fn audit_compares_the_label() {
    needs!(Feature::Selinux);
    deviates!("audit is jug's own verb");
    let b = bundle(PROCESS, FILES);
    let fewer = "system_u:system_r:container_t:s0:c1";
    b.running().verb("audit", &[]).ok();
    b.container().stop().delete();
    b.set_args(&[
        "/bin/sh",
        "-c",
        &format!("echo {fewer} >/proc/self/attr/current; echo done; exec sleep 3600"),
    ]);
    let c = b.running();
    c.wait_stdout("done");
    let found = c.verb("audit", &[]).exits(1).stdout;
    assert_eq!(found.trim(), format!("selinux label: planned {PROCESS}, found {fewer}"));
}

#[test]
fn a_file_of_the_hosts_is_no_output() {
    needs!(Feature::Selinux);
    deviates!("runc copies the output itself");
    let b = bundle(PROCESS, FILES);
    let run = |context: &str| {
        let path = b.path("output");
        std::fs::write(&path, "").expect("write");
        label(Path::new(&path), context);
        let file = std::fs::File::options().append(true).open(&path).expect("open");
        b.set_args(&["echo", "lamb"]).verb("run", &[]).output_to(&file, &file).ok();
        std::fs::read_to_string(&path).expect("read")
    };
    assert_eq!(run(FILES), "lamb\n");
    assert_eq!(run("system_u:object_r:host_file_t:s0"), "");
}
