//! Attacks of the past, each by its number: what the rootfs, the image or the container does must not reach the host.
//!
//! Each runs in scripts/box, where nothing of the host can be written to, and a bundle that leads outwards in a
//! `SafeBox` there as well. The canary is a listing of everything outside: types, modes, owners, bytes. Where runc
//! 1.1.5 is itself vulnerable the test is jug's alone: what it does to the canary was tried by hand.
mod support;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;
use support::*;

fn without_dev_mounts(b: &Bundle) {
    b.edit(|spec| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev")));
        spec["root"]["readonly"] = json!(false);
    });
}

fn boxed_run(b: &Bundle, args: &[&str]) -> support::Output {
    b.set_args(args);
    SafeBox::limit(b.verb("run", &[])).output()
}

/// A copy of the runtime that an attack may hit.
fn own_runtime(b: &Bundle) -> String {
    let path = b.path(&runtime_name());
    install(runtime(), &path);
    path
}

/// scripts/prove faults: where the mask could not be copied, the first masked path lost it to the next one.
#[test]
fn a_mask_that_cannot_be_copied_is_an_error_and_not_moved() {
    boxed!();
    let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];
    let mut seen = 0;
    for number in 1..=12 {
        let b = Bundle::new();
        b.edit(|spec| spec["linux"]["maskedPaths"] = json!(masked));
        b.set_args(&["/bin/probe", "--read", masked[0], "--read", masked[1], "--read", masked[2]]);
        let inject = format!("inject=open_tree:error=EMFILE:when={number}");
        let out = b.verb("run", &[]).through(&["strace", "-f", "-o", "/dev/null", "-e", &inject]).output();
        if out.code != 0 {
            continue;
        }
        seen += 1;
        let report = out.json();
        for path in masked.iter().filter(|path| Path::new(path).exists()) {
            assert_eq!(report["reads"][path]["ok"], "", "{path}, without call {number}: {report:#}");
        }
    }
    assert!(seen > 0, "beyond the last call nothing fails");
}

/// scripts/prove faults: root that could not learn that it is root was given what others are, without a word.
#[test]
fn who_cannot_learn_whether_it_is_root_makes_nothing() {
    boxed!();
    deviates!("runc asks elsewhere");
    let b = Bundle::new();
    b.set_args(&["/bin/true"]);
    let question = ["-P", "/proc/self/ns/user", "-e", "inject=openat,openat2:error=EMFILE"];
    let strace = ["strace", "-f", "-o", "/dev/null"];
    let out = b.verb("run", &[]).through(&[&strace[..], &question[..]].concat()).output();
    assert_eq!(out.code, 1, "{out}");
    assert!(out.error().contains("/proc/self/ns/user"), "{out}");
}

// R1, CVE-2019-5736: the runtime's binary through /proc/PID/exe.

/// The program that exec starts is the runtime's own file, which waits for its log to have a reader. The container
/// keeps that file open, lets it end, and writes.
#[test]
fn the_runtime_is_not_overwritten_through_proc_self_exe() {
    boxed!();
    deviates!("what waits there is jug's opening of its log");
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    let program = own_runtime(&b);
    let before = fs::read(&program).expect("read");
    b.script("bin/evil", "#!/proc/self/exe --log=/fifo\n");
    nix::unistd::mkfifo(&b.rootfs().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let writer = "while :; do for p in /proc/[0-9]*; do read name 2>/dev/null < $p/comm; [ \"$name\" = evil ] || \
                  continue; exec 3< $p/exe; cat /fifo > /dev/null; while [ -e $p ]; do :; done; \
                  (echo overwritten > /proc/self/fd/3) 2>/error; echo tried > /tried; exit; done; done";
    b.set_args(&["/bin/sh", "-c", writer]);
    let c = b.container();
    b.verb("run", &["--detach"]).program(&program).output_to(&memory(), &memory()).ok();
    let _ = c.call("exec", &[], &["/bin/evil"]).program(&program).output();
    eventually("the attack", || fs::read(b.rootfs().join("tried")).ok());
    c.wait("stopped");
    assert!(fs::read(&program).expect("read") == before, "the runtime's binary was changed");
    let error = fs::read_to_string(b.rootfs().join("error")).expect("read");
    assert!(error.contains("Read-only"), "not for another reason: {error}");
}

#[test]
fn a_program_that_is_the_runtime_itself_changes_nothing() {
    boxed!();
    let b = Bundle::new();
    let program = own_runtime(&b);
    let before = fs::read(&program).expect("read");
    b.script("bin/evil", "#!/proc/self/exe\n");
    b.set_args(&["/bin/evil"]);
    let _ = b.verb("run", &[]).program(&program).output();
    assert!(fs::read(&program).expect("read") == before, "the runtime's binary was changed");
}

fn memory() -> fs::File {
    nix::sys::memfd::memfd_create("out", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .expect("memfd_create(2)")
        .into()
}

/// What a waiting init executes must not be the host's file, or not be writable once init is gone.
#[test]
fn the_executable_of_a_created_container_cannot_be_written_later() {
    boxed!();
    let b = Bundle::new();
    let program = own_runtime(&b);
    let c = b.container();
    b.verb("create", &[]).program(&program).output_to(&memory(), &memory()).ok();
    let exe = format!("/proc/{}/exe", c.pid());
    let held = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&exe).expect("O_PATH");
    let same = fs::metadata(&program).expect("stat");
    let same = |meta: &fs::Metadata| (meta.dev(), meta.ino()) == (same.dev(), same.ino());
    let is_the_hosts = same(&held.metadata().expect("stat"));
    c.stop();
    c.delete();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let writable = fs::OpenOptions::new().write(true).open(again);
    assert!(!(is_the_hosts && writable.is_ok()), "init's executable leads to the host's binary, writable");
}

// R2, CVE-2024-21626: a working directory that is a leaked descriptor.

#[test]
fn a_working_directory_through_a_descriptor_does_not_lead_out() {
    boxed!();
    let b = Bundle::new();
    for n in 3..if in_guest() { 9 } else { 20 } {
        b.edit(|spec| spec["process"]["cwd"] = json!(format!("/proc/self/fd/{n}")));
        let out = b.run_args(&["/bin/probe"]);
        assert_ne!(out.code, 0, "fd {n}: {out}");
    }
}

#[test]
fn a_directory_that_the_caller_left_open_is_no_working_directory() {
    boxed!();
    let b = Bundle::new();
    let host = fs::File::open("/").expect("/");
    b.edit(|spec| spec["process"]["cwd"] = json!("/proc/self/fd/9"));
    b.set_args(&["/bin/probe", "--list", "."]);
    let out = b.verb("run", &[]).fd(&host, 9).output();
    assert_ne!(out.code, 0, "{out}");
}

#[test]
fn exec_has_no_working_directory_through_a_descriptor() {
    boxed!();
    let b = Bundle::new();
    let c = b.running();
    let host = fs::File::open("/").expect("/");
    for n in 3..12 {
        let flags = ["--cwd", &format!("/proc/self/fd/{n}")];
        let out = c.call("exec", &flags, &["/bin/probe"]).fd(&host, 9).output();
        assert_ne!(out.code, 0, "fd {n}: {out}");
    }
}

#[test]
fn a_created_init_holds_no_directory_of_the_host() {
    boxed!();
    let b = Bundle::new();
    let c = b.create();
    // It closes them as soon as it is kept, which `create` does not wait for.
    eventually("an init without directories", || {
        let mut fds = fs::read_dir(format!("/proc/{}/fd", c.pid())).expect("ls").flatten();
        (!fds.any(|fd| fs::metadata(fd.path()).is_ok_and(|meta| meta.is_dir()))).then_some(())
    });
}

#[test]
fn a_created_init_holds_its_streams_and_one_door() {
    boxed!();
    deviates!("runc's waiting init keeps its channels open as well");
    let b = Bundle::new();
    let c = b.create();
    // The start barrier, and the lock that execve releases.
    eventually("an init with five descriptors at most", || {
        (fs::read_dir(format!("/proc/{}/fd", c.pid())).expect("ls").count() <= 5).then_some(())
    });
}

#[test]
fn a_created_init_shows_nothing_of_the_host_to_exec() {
    boxed!();
    let b = Bundle::new();
    fs::write(b.path("canary"), "seen").expect("write");
    let c = b.container();
    b.verb("create", &[]).env("SECRET_OF_THE_CALLER", "wool").output_to(&memory(), &memory()).ok();
    let canary = b.path("canary");
    let look = format!(
        "cat /proc/1/environ; cat /proc/1/root{canary}; cat /proc/1/cwd/canary; cat /proc/1/cwd{canary}; \
         for n in 3 4 5 6 7 8 9 10; do cat /proc/1/fd/$n{canary} /proc/1/fd/$n/../canary; done 2>/dev/null; :"
    );
    // exec into a created container is allowed; that is what makes this worth a look.
    let out = c.exec(&["/bin/sh", "-c", &look]);
    assert!(!out.stdout.contains("SECRET_OF_THE_CALLER") && !out.stdout.contains("seen"), "{out}");
}

/// Power over the container's own user namespace is none over a process that comes from the host's.
#[test]
fn a_created_init_cannot_be_read_by_whoever_may_trace_inside() {
    boxed!();
    let b = Bundle::new();
    b.add_namespace("user");
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(all);
        }
    });
    let c = b.container();
    b.verb("create", &[]).env("SECRET_OF_THE_CALLER", "wool").output_to(&memory(), &memory()).ok();
    let out = c.exec(&["/bin/probe", "--read", "/proc/1/environ"]).ok();
    let read = &out.json()["reads"]["/proc/1/environ"];
    assert!(read["errno"] == "EACCES" || read["errno"] == "EPERM", "{read}");
}

// R3, CVE-2021-30465, CVE-2024-45310: a mount target that changes under the runtime's hands.

/// Sets the flag when it is dropped.
struct Raise<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_destination_that_is_swapped_does_not_lead_out() {
    boxed!();
    deviates!("runc 1.1.5 is vulnerable: CVE-2024-45310");
    let b = Bundle::new();
    let guard = SafeBox::enter(&b);
    let rootfs = b.rootfs();
    fs::create_dir_all(rootfs.join("vol/real/a")).expect("mkdir");
    symlink(&guard.outside, rootfs.join("vol/link")).expect("symlink");
    fs::write(guard.outside.join("file"), "canary").expect("write");
    let before = listing(&guard.outside);
    b.add_mount(json!({ "destination": "/vol/real/a/deep", "type": "tmpfs", "source": "tmpfs" }));
    b.add_mount(json!({ "destination": "/vol/real/made", "type": "bind",
        "source": b.path("config.json"), "options": ["bind"] }));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (real, link) = (rootfs.join("vol/real"), rootfs.join("vol/link"));
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let here = nix::fcntl::AT_FDCWD;
                let _ =
                    nix::fcntl::renameat2(here, &real, here, &link, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
            }
        });
        // A panic here must end the other thread too, or the scope waits for ever.
        let _end = Raise(&done);
        for _ in 0..if in_guest() { 10 } else { 60 } {
            // Works or fails, as the race falls.
            let _ = boxed_run(&b, &["/bin/true"]);
        }
    });
    assert_eq!(listing(&guard.outside), before);
}

// R4, CVE-2026-41579, CVE-2026-47766: /dev is a symlink that leads out of the rootfs.

#[test]
fn a_dev_that_is_a_symlink_does_not_lead_out() {
    boxed!();
    deviates!("runc 1.1.5 is vulnerable: CVE-2026-41579");
    for relative in [false, true] {
        for mounted in [false, true] {
            let b = Bundle::new();
            let guard = SafeBox::enter(&b);
            if !mounted {
                without_dev_mounts(&b);
            }
            fs::remove_dir(b.rootfs().join("dev")).expect("rmdir");
            let target = if relative { Path::new("../outside").to_owned() } else { guard.outside.clone() };
            symlink(target, b.rootfs().join("dev")).expect("symlink");
            fs::write(guard.outside.join("ptmx"), "marker").expect("write");
            let before = listing(&guard.outside);
            let _ = boxed_run(&b, &["/bin/true"]);
            assert_eq!(listing(&guard.outside), before, "relative: {relative}, mounted: {mounted}");
        }
    }
}

#[test]
fn a_directory_in_dev_that_is_a_symlink_does_not_lead_out() {
    boxed!();
    for name in ["pts", "shm", "mqueue", "net"] {
        let b = Bundle::new();
        let guard = SafeBox::enter(&b);
        without_dev_mounts(&b);
        symlink(&guard.outside, b.rootfs().join("dev").join(name)).expect("symlink");
        b.edit(|spec| {
            spec["linux"]["devices"] =
                json!([{ "path": format!("/dev/{name}/node"), "type": "c", "major": 1, "minor": 3 }])
        });
        let before = listing(&guard.outside);
        let _ = boxed_run(&b, &["/bin/true"]);
        assert_eq!(listing(&guard.outside), before, "{name}");
    }
}

// R5, CVE-2025-31133, CVE-2026-88265: /dev/null is a symlink.

#[test]
fn a_dev_null_that_is_a_symlink_masks_nothing_with_its_target() {
    boxed!();
    deviates!("runc 1.1.5 is vulnerable: CVE-2025-31133");
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    without_dev_mounts(&b);
    let canary = b.file("canary", "the image's file");
    symlink("/canary", b.rootfs().join("dev/null")).expect("symlink");
    b.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/version"]));
    let out = boxed_run(&b, &["/bin/probe", "--read", "/proc/version"]);
    if out.code == 0 {
        let report = out.json();
        assert_eq!(report["reads"]["/proc/version"]["ok"], "", "{}", report["reads"]);
        assert_ne!(report["fds"]["0"]["target"], "/canary");
    }
    assert_eq!(fs::read_to_string(canary).expect("read"), "the image's file");
}

#[test]
fn a_dev_null_that_is_a_symlink_is_not_attached_to_the_streams() {
    boxed!();
    let b = Bundle::new();
    let guard = SafeBox::enter(&b);
    without_dev_mounts(&b);
    fs::write(guard.outside.join("canary"), "outside").expect("write");
    let inside = b.file(&format!("tmp/{}/outside/canary", b.tag()), "inside");
    symlink(guard.outside.join("canary"), b.rootfs().join("dev/null")).expect("symlink");
    b.edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let before = listing(&guard.outside);
    let _ = boxed_run(&b, &["/bin/sh", "-c", "echo written >&0; echo written > /dev/null"]);
    assert_eq!(listing(&guard.outside), before);
    let meta = fs::metadata(&inside).expect("stat");
    assert_eq!(meta.uid(), 0, "the runtime gave the image's file away");
}

// R6, CVE-2025-52565, CVE-2026-88264: /dev/console is a symlink.

#[test]
fn a_dev_console_that_is_a_symlink_is_not_followed() {
    boxed!();
    deviates!("runc 1.1.5 is vulnerable: CVE-2025-52565");
    for target in ["inside", "outside"] {
        let b = Bundle::new();
        let guard = SafeBox::enter(&b);
        b.remove_mount("/dev").remove_mount("/dev/shm").remove_mount("/dev/mqueue");
        b.edit(|spec| spec["root"]["readonly"] = json!(false));
        let inside = b.file("etc/target", "the image's file");
        fs::write(guard.outside.join("canary"), "outside").expect("write");
        let link = if target == "inside" { "/etc/target".into() } else { guard.outside.join("canary") };
        symlink(link, b.rootfs().join("dev/console")).expect("symlink");
        b.edit(|spec| spec["process"]["terminal"] = json!(true));
        b.set_args(&["/bin/sh", "-c", "ls -l /etc/target; echo end"]);
        let before = listing(&guard.outside);
        let console = Console::listen(&b);
        let path = console.path().to_owned();
        let out = SafeBox::limit(b.verb("run", &["--detach", "--console-socket", &path])).output();
        if out.code == 0 {
            let mut master = console.master();
            let seen = master.wait_for("end").to_owned();
            assert!(!seen.contains("character") && !seen.contains("crw"), "{target}: {seen}");
            b.container().wait("stopped");
        }
        assert_eq!(listing(&guard.outside), before, "{target}");
        assert_eq!(fs::read_to_string(&inside).expect("read"), "the image's file");
    }
}

// R7, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: a false /proc.

#[test]
fn a_proc_that_is_a_symlink_is_refused() {
    boxed!();
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    fs::remove_dir(b.rootfs().join("proc")).expect("rmdir");
    fs::create_dir(b.rootfs().join("false")).expect("mkdir");
    symlink("/false", b.rootfs().join("proc")).expect("symlink");
    let out = boxed_run(&b, &["/bin/true"]);
    assert_eq!(out.code, 1, "{out}");
    assert!(out.error().contains("/proc") || out.error().contains("proc"), "{out}");
}

#[test]
fn a_sys_that_is_a_symlink_is_refused() {
    boxed!();
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    fs::remove_dir(b.rootfs().join("sys")).expect("rmdir");
    fs::create_dir(b.rootfs().join("false")).expect("mkdir");
    symlink("/false", b.rootfs().join("sys")).expect("symlink");
    assert_eq!(boxed_run(&b, &["/bin/true"]).code, 1);
}

#[test]
fn without_proc_mounted_nothing_is_written_to_a_false_one() {
    boxed!();
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    b.remove_mount("/proc");
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    let pattern = b.file("proc/sys/net/ipv4/ip_default_ttl", "64\n");
    b.edit(|spec| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "65" });
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    let out = boxed_run(&b, &["/bin/true"]);
    // Really set, or refused; never into the image's file.
    assert_eq!(fs::read_to_string(pattern).expect("read"), "64\n", "{out}");
}

/// A mount that covered a part of /proc would take what is written there for itself.
#[test]
fn a_link_of_the_image_into_proc_takes_no_mount() {
    boxed!();
    for target in ["/proc/sys", "/proc/self/attr", "proc/sys/kernel"] {
        let b = Bundle::new();
        let _guard = SafeBox::enter(&b);
        symlink(target, b.rootfs().join("volume")).expect("symlink");
        b.add_mount(json!({ "destination": "/volume", "type": "tmpfs", "source": "tmpfs" }));
        let out = boxed_run(&b, &["/bin/true"]);
        assert_eq!(out.code, 1, "{target}: {out}");
        assert!(out.error().contains("/proc"), "{target}: {out}");
    }
}

// R8: ids that are paths.

#[test]
fn hostile_ids_are_refused_by_every_verb() {
    boxed!();
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    let root = b.path("deep/a/b/c");
    fs::create_dir_all(format!("{root}/sibling")).expect("mkdir");
    fs::write(format!("{root}/sibling/state.json"), "{}").expect("write");
    fs::write(b.path("deep/a/b/neighbour"), "here").expect("write");
    let before = listing(Path::new(&b.path("deep")));
    let dir = format!("/tmp/{}", b.tag());
    for id in [
        "",
        ".",
        "..",
        "../x",
        "../neighbour",
        "a/b",
        "sibling/../sibling",
        "/abs",
        "a b",
        "a\nb",
        "ü",
        "a\u{202e}b",
    ] {
        let verbs: [&[&str]; 7] = [
            &["create", "--bundle", &dir, id],
            &["run", "--bundle", &dir, id],
            &["start", id],
            &["state", id],
            &["kill", id, "KILL"],
            &["delete", "--force", id],
            &["exec", id, "/bin/true"],
        ];
        for verb in verbs {
            let out = SafeBox::limit(b.call(verb).root(&root)).output();
            assert_ne!(out.code, 0, "{id:?}: {out}");
        }
        assert_eq!(listing(Path::new(&b.path("deep"))), before, "{id:?}");
    }
    let long = "a".repeat(300);
    let out = SafeBox::limit(b.call(&["create", "--bundle", &dir, &long]).root(&root)).output();
    assert_ne!(out.code, 0, "{out}");
    assert_eq!(listing(Path::new(&b.path("deep"))), before);
}

// R10, CVE-2026-30892, CVE-2024-40635: users that are read wrongly.

/// The uid of `exec --user VALUE`, if there was one.
fn exec_uid(c: &Container<'_>, value: &str) -> Option<Value> {
    let out = c.exec_with(&["--user", value], &["/bin/probe"]);
    (out.code == 0).then(|| json!([out.json()["uid"]["real"], out.json()["gid"]["real"]]))
}

#[test]
fn exec_users_are_read_as_written() {
    boxed!();
    let b = Bundle::new();
    let c = b.running();
    assert_eq!(exec_uid(&c, "1").map(|ids| ids[0].clone()), Some(json!(1)));
    assert_eq!(exec_uid(&c, "1000:2000"), Some(json!([1000, 2000])));
    // runc takes no id above 2^31-1; the kernel would.
    let high = exec_uid(&c, "2147483648:7");
    assert!(high.as_ref().is_none_or(|ids| *ids == json!([2_147_483_648u32, 7])), "{high:?}");
    for value in [":", ":1", "1:", "1:2:3", "1 ", " 1", "0x1", "1e3", "１", "+-1", "lamb", "root", "1:flock"]
    {
        let got = exec_uid(&c, value);
        assert!(got.as_ref().is_none_or(|ids| ids[0] != 0), "{value:?} became root: {got:?}");
    }
}

#[test]
fn exec_users_do_not_overflow() {
    boxed!();
    newer!("range checks on --user: 1.1.5 takes 4294967296 for 0");
    let b = Bundle::new();
    let c = b.running();
    for value in
        ["-1", "4294967295", "4294967296", "18446744073709551616", "4294967296:0", "1:4294967296", "1:-1"]
    {
        assert_eq!(exec_uid(&c, value), None, "{value}");
    }
}

// R11, CVE-2022-0492, CVE-2023-25809: out through the cgroup file system.

#[test]
fn the_cgroup_file_system_is_read_only_and_cannot_be_mounted_anew() {
    boxed!();
    let b = Bundle::new();
    let file = "/sys/fs/cgroup/cgroup.procs";
    assert_eq!(b.probe(&["--write", file])["writes"][file]["errno"], "EROFS");
    for kind in ["cgroup2", "cgroup"] {
        let out = b.run_args(&["/bin/mount", "-t", kind, "-o", "memory", "none", "/mnt"]);
        assert_ne!(out.code, 0, "{out}");
        assert!(out.stderr.contains("ermitted") || out.stderr.contains("enied"), "{out}");
    }
    let nr = libc::SYS_unshare.to_string();
    let new_cgroup_namespace = b.run_args(&["/bin/probe", "syscall", &nr, "0x02000000"]).ok().json();
    assert_eq!(new_cgroup_namespace["errno"], "EPERM");
}

// R12: the caller's terminal and its keys.

#[test]
fn nothing_is_pushed_into_the_callers_terminal() {
    boxed!();
    let b = Bundle::new();
    b.set_args(&["/bin/probe", "tiocsti"]);
    let Pty { mut master, slave } = Pty::open(24, 80);
    // Detached, the program has the terminal itself, not a pipe to it.
    let running =
        b.verb("run", &["--detach"]).through(&["setsid", "--ctty", "--wait"]).terminal(&slave).spawn();
    drop(slave);
    let seen = master.wait_for("errno").to_owned();
    let seen = if seen.contains('}') { seen } else { master.wait_for("}").to_owned() };
    assert!(seen.contains("EPERM") || seen.contains("EIO"), "{seen}");
    running.wait();
    b.container().wait("stopped");
}

/// Runs in a session keyring of this thread's own, with one key in it.
fn with_a_key() {
    // SAFETY: both calls take terminated strings that live for the call, and integers.
    unsafe {
        let joined = libc::syscall(libc::SYS_keyctl, 1, c"the-callers-keys".as_ptr());
        assert!(joined > 0, "KEYCTL_JOIN_SESSION_KEYRING: {}", std::io::Error::last_os_error());
        let (kind, name, session) = (c"user".as_ptr(), c"jug-canary".as_ptr(), -3);
        let added = libc::syscall(libc::SYS_add_key, kind, name, c"wool".as_ptr(), 4usize, session);
        assert!(added > 0, "add_key: {}", std::io::Error::last_os_error());
    }
}

#[test]
fn the_callers_keys_are_invisible() {
    boxed!();
    with_a_key();
    let b = Bundle::new();
    let c = b.running();
    let search =
        ["/bin/probe", "syscall", &libc::SYS_request_key.to_string(), "s:user", "s:jug-canary", "0", "0"];
    assert_eq!(c.exec(&search).ok().json()["errno"], "ENOKEY");
    let keyring = c.exec_probe(&[], &[])["keyring"]["description"].clone();
    assert!(!keyring.as_str().unwrap_or_default().contains("the-callers-keys"), "{keyring}");
    c.stop();
    c.delete();
    b.set_args(&search);
    assert_eq!(b.run(&[]).ok().json()["errno"], "ENOKEY");
}

// R14, CVE-2025-23266: the container's environment in a hook on the host.

#[test]
fn the_containers_environment_does_not_reach_the_hooks() {
    boxed!();
    deviates!(
        "runc 1.1.5 is vulnerable: CVE-2025-23266 (createContainer hooks inherit the container's environment)"
    );
    let b = Bundle::new();
    let log = b.path("environ");
    b.edit(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "IMAGE=evil"]);
        let script =
            format!("exec 3< /proc/self/environ; /usr/bin/tr '\\0' '\\n' <&3 >> {log}; echo ran >> {log}");
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        spec["hooks"] =
            json!({ "createRuntime": hook, "createContainer": hook, "poststart": hook, "poststop": hook });
    });
    b.run_args(&["/bin/true"]).ok();
    assert_eq!(fs::read_to_string(&log).expect("read"), "ran\n".repeat(4));
}

// Environment and files that the runtime itself reads.

#[test]
fn the_callers_environment_stays_outside() {
    boxed!();
    let b = Bundle::new();
    b.set_args(&["/bin/probe"]);
    let hostile = |call: Call| {
        call.env("SECRET", "wool")
            .env("LD_PRELOAD", "/no/such.so")
            .env("GODEBUG", "")
            .env("JUG_INIT", "7")
            .env("LISTEN_FDS_NAMES", "x")
    };
    let report = hostile(b.verb("run", &[])).ok().json();
    let env = report["env"].to_string();
    assert!(!["SECRET", "LD_PRELOAD", "JUG_INIT", "LISTEN"].iter().any(|name| env.contains(name)), "{env}");
    b.set_args(&["/bin/probe", "sleep", "3600"]);
    let c = b.running();
    let report = hostile(c.call("exec", &[], &["/bin/probe"])).ok().json();
    assert!(!report["env"].to_string().contains("SECRET"), "{}", report["env"]);
}

#[test]
fn a_passwd_that_leads_out_is_read_inside() {
    boxed!();
    let b = Bundle::new();
    let outside = b.path("passwd");
    fs::write(&outside, "root:x:0:0::/from/the/host:/bin/sh\n").expect("write");
    fs::remove_file(b.rootfs().join("etc/passwd")).expect("rm");
    symlink(&outside, b.rootfs().join("etc/passwd")).expect("symlink");
    let env = b.probe(&[])["env"].to_string();
    assert!(!env.contains("/from/the/host"), "{env}");
}

#[test]
fn a_passwd_that_never_ends_does_not_hang_the_runtime() {
    boxed!();
    newer!("safe reading of /etc/passwd: 1.1.5 waits for a FIFO's writer");
    let b = Bundle::new();
    let _guard = SafeBox::enter(&b);
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).expect("rm");
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("mkfifo");
    let start = std::time::Instant::now();
    let out = boxed_run(&b, &["/bin/true"]);
    assert!(start.elapsed().as_secs() < if in_guest() { 20 } else { 3 }, "{out}");
    fs::remove_file(&passwd).expect("rm");
    symlink("/dev/zero", &passwd).expect("symlink");
    let start = std::time::Instant::now();
    let out = boxed_run(&b, &["/bin/true"]);
    assert!(start.elapsed().as_secs() < if in_guest() { 20 } else { 3 }, "{out}");
}

#[test]
fn a_pid_from_the_container_is_not_trusted() {
    boxed!();
    // The state is the runtime's; a container that writes its own /run or /tmp changes nothing of it.
    let b = Bundle::new();
    b.edit(|spec| spec["root"]["readonly"] = json!(false));
    b.set_args(&["/bin/sh", "-c", "echo 1 > /run/pid; mkdir -p /run/runc /run/jug; sleep 3600"]);
    let c = b.running();
    let meta = fs::metadata(b.root()).expect("the state root");
    let mut private = fs::read_dir(b.root()).expect("ls").flatten();
    assert!(
        private.all(|entry| entry.metadata().is_ok_and(|meta| meta.mode() & 0o022 == 0)),
        "{:o}",
        meta.mode()
    );
    assert!(c.pid() > 1);
}
