//! config.md as found on disk: bad input costs neither time nor memory, and the error says where the fault lies.
mod support;
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

/// How one `run` ended that must not cost much.
struct Cost {
    code: i32,
    text: String,
    time: Duration,
    kilobytes: i64,
}

/// `run` of the bundle, with the most memory it ever had resident: wait4(2).
#[allow(clippy::zombie_processes, reason = "wait4(2) reaps it: only that call tells what it cost")]
fn cost(b: &Bundle) -> Cost {
    let mut said: fs::File = nix::sys::memfd::memfd_create("stderr", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .expect("memfd_create(2)")
        .into();
    let mut command = Command::new(runtime());
    command.arg("--root").arg(b.root()).args(["run", "--bundle", &format!("/tmp/{}", b.tag()), &b.id()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone().expect("dup"));
    let start = Instant::now();
    let child = command.spawn().expect("the runtime");
    let pid = i32::try_from(child.id()).expect("a pid");
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let deadline = start + patience();
    loop {
        // SAFETY: both pointers are to live variables of the types that wait4(2) fills in; the pid is our own child's.
        let got = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        assert!(got >= 0, "wait4: {}", std::io::Error::last_os_error());
        if got == pid {
            break;
        }
        if Instant::now() > deadline {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                .expect("kill");
            panic!("the runtime hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let time = start.elapsed();
    // SAFETY: an rusage is integers, zeroed at first and filled in by wait4(2).
    let usage = unsafe { usage.assume_init() };
    let mut text = String::new();
    said.rewind().expect("seek");
    said.read_to_string(&mut text).expect("UTF-8");
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
    Cost { code, text, time, kilobytes: usage.ru_maxrss }
}

/// The bundle with these bytes as its config.json is refused within a second and 256 MiB; the error text.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let b = Bundle::new();
    fs::write(b.path("config.json"), bytes).expect("write");
    refused_as_it_is(&b)
}

#[track_caller]
fn refused_as_it_is(b: &Bundle) -> String {
    let cost = cost(b);
    assert_eq!(cost.code, 1, "{}", cost.text);
    assert!(!cost.text.trim().is_empty(), "an error without a word");
    assert!(cost.text.len() < 64 << 10, "an error of {} bytes", cost.text.len());
    let limit = Duration::from_secs(if in_guest() { 20 } else { 1 });
    // A busy machine may make a peer late; jug has no excuse.
    assert!(cost.time < limit || is_peer(), "took {:?}", cost.time);
    assert!(cost.kilobytes < 256 << 10, "{} kB", cost.kilobytes);
    assert!(cgroups(b.tag()).is_empty());
    cost.text
}

fn default_bytes() -> Vec<u8> {
    serde_json::to_vec(&default_spec()).expect("JSON")
}

#[test]
fn a_truncated_config_is_refused() {
    let whole = default_bytes();
    for length in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for text in ["sheep", "[]", "7", "\"config\"", "{\"process\": ", "}", "{} {}"] {
        refused(text.as_bytes());
    }
}

#[test]
fn an_error_names_the_file() {
    deviates!("runc's JSON errors do not say which file");
    let text = refused(b"{\"process\": ");
    assert!(text.contains("config.json"), "{text}");
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    deviates!("Go replaces such bytes, jug refuses them");
    let mut bytes = default_bytes();
    let at = bytes.windows(4).position(|window| window == b"runc").expect("the hostname");
    bytes[at] = 0xff;
    refused(&bytes);
}

#[test]
fn binary_rubbish_is_refused() {
    let bytes: Vec<u8> = (0..65536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    refused(&bytes);
    refused(&[0; 4096]);
    refused(&[b"\xef\xbb\xbf", default_bytes().as_slice()].concat());
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 200_000;
        let text = format!("{{\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
        refused(text.as_bytes());
    }
}

#[test]
fn a_config_of_100_megabytes_is_refused() {
    deviates!("runc reads whatever there is");
    let b = Bundle::new();
    let mut file = std::io::BufWriter::new(fs::File::create(b.path("config.json")).expect("create"));
    let (head, tail) = (br#"{"ociVersion":"1.0.2","annotations":{"org.example.wool":""#, br#""}}"#);
    file.write_all(head).expect("write");
    let wool = [b'w'; 1 << 16];
    (0..1600).for_each(|_| file.write_all(&wool).expect("write"));
    file.write_all(tail).expect("write");
    file.flush().expect("write");
    let text = refused_as_it_is(&b);
    assert!(text.contains("config.json"), "{text}");
}

#[test]
fn a_config_of_a_megabyte_is_taken() {
    let b = Bundle::new();
    b.edit(|spec| spec["annotations"] = json!({ "org.example.wool": "w".repeat(1 << 20) }));
    b.run_args(&["/bin/true"]).ok();
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    deviates!("duplicate keys are refused in jug; in runc the last one wins");
    let text = String::from_utf8(default_bytes()).expect("UTF-8");
    let doubled = text.replacen("\"hostname\":", "\"hostname\":\"first\",\"hostname\":", 1);
    assert_ne!(text, doubled);
    assert!(refused(doubled.as_bytes()).contains("hostname"));
    let nested = text.replacen("\"cwd\":", "\"cwd\":\"/etc\",\"cwd\":", 1);
    assert!(refused(nested.as_bytes()).contains("cwd"));
}

#[test]
fn a_missing_config_is_an_error_that_names_it() {
    let b = Bundle::new();
    fs::remove_file(b.path("config.json")).expect("rm");
    assert!(refused_as_it_is(&b).contains("config.json"));
}

#[test]
fn a_missing_bundle_is_an_error_that_names_it() {
    let b = Bundle::new();
    b.call(&["run", "--bundle", "/no/such/bundle", &b.id()]).output().fails("/no/such/bundle");
}

#[test]
fn a_config_that_is_a_directory_is_refused() {
    let b = Bundle::new();
    fs::remove_file(b.path("config.json")).expect("rm");
    fs::create_dir(b.path("config.json")).expect("mkdir");
    refused_as_it_is(&b);
}

#[test]
fn a_config_that_is_a_fifo_does_not_hang() {
    deviates!("runc waits for a writer for ever");
    let b = Bundle::new();
    fs::remove_file(b.path("config.json")).expect("rm");
    nix::unistd::mkfifo(b.path("config.json").as_str(), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .expect("mkfifo");
    refused_as_it_is(&b);
}

/// Values of the wrong type: where, what, and under which JSON pointer the error must say so.
#[test]
fn wrong_types_are_refused_by_their_pointer() {
    let cases = [
        ("/process/args", json!("sh"), "/process/args"),
        ("/process/args/0", json!(7), "/process/args/0"),
        ("/process/env", json!({ "A": "b" }), "/process/env"),
        ("/process/cwd", json!(7), "/process/cwd"),
        ("/process/terminal", json!("yes"), "/process/terminal"),
        ("/process/user/uid", json!("root"), "/process/user/uid"),
        ("/process/user/uid", json!(-1), "/process/user/uid"),
        ("/process/user/uid", json!(1u64 << 32), "/process/user/uid"),
        ("/process/user/gid", json!(1.5), "/process/user/gid"),
        ("/process/rlimits/0/soft", json!(-1), "/process/rlimits/0/soft"),
        ("/process/capabilities", json!(["CAP_KILL"]), "/process/capabilities"),
        ("/hostname", json!(["a"]), "/hostname"),
        ("/root/path", json!(null), "/root/path"),
        ("/root/readonly", json!("true"), "/root/readonly"),
        ("/mounts", json!({}), "/mounts"),
        ("/mounts/1/options", json!("ro"), "/mounts/1/options"),
        ("/linux/namespaces", json!("pid"), "/linux/namespaces"),
        ("/linux/namespaces/0/type", json!(7), "/linux/namespaces/0/type"),
        ("/linux/maskedPaths", json!("/proc"), "/linux/maskedPaths"),
        ("/linux/resources/devices", json!({}), "/linux/resources/devices"),
    ];
    for (at, value, pointer) in cases {
        if is_peer() && at == "/root/path" {
            // Go reads null as "nothing said".
            continue;
        }
        let mut spec = default_spec();
        *spec.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value.clone();
        let text = refused(&serde_json::to_vec(&spec).expect("JSON"));
        // runc names Go's types and fields, not the place.
        assert!(is_peer() || text.contains(pointer), "{at} = {value}: {text}");
    }
}

#[test]
fn unknown_properties_are_ignored() {
    let b = Bundle::new();
    b.edit(|spec| {
        for at in [
            "",
            "/process",
            "/process/user",
            "/root",
            "/linux",
            "/linux/resources",
            "/mounts/0",
            "/linux/namespaces/0",
        ] {
            let place = spec.pointer_mut(at).and_then(Value::as_object_mut).expect("an object");
            place.insert("sheepName".into(), json!({ "first": ["Dolly", 5, null] }));
        }
        spec["windows"] = json!({ "layerFolders": [] });
        spec["solaris"] = json!({ "limitpriv": "default" });
    });
    assert_eq!(b.probe(&[])["pid"], 1);
}

#[test]
fn no_process_is_an_error() {
    let b = Bundle::new();
    b.edit(|spec| {
        spec.as_object_mut().expect("spec").remove("process");
    });
    b.run(&[]).fails("process");
}

#[test]
fn no_arguments_are_an_error() {
    let b = Bundle::new();
    b.run_args(&[]).fails("args");
    b.edit(|spec| {
        spec["process"].as_object_mut().expect("process").remove("args");
    });
    b.run(&[]).fails("args");
}

#[test]
fn cwd_must_be_absolute() {
    for cwd in ["", "relative", "./x"] {
        let b = Bundle::new();
        b.edit(|spec| spec["process"]["cwd"] = json!(cwd));
        let out = b.run(&[]).exits(1);
        assert!(out.error().to_lowercase().contains("cwd"), "{out}");
    }
}

#[test]
fn a_version_that_is_none_is_refused() {
    newer!("a check of ociVersion");
    for version in ["banana", "", "1", "2.0.0"] {
        let b = Bundle::new();
        b.edit(|spec| spec["ociVersion"] = json!(version));
        b.run_args(&["/bin/true"]).fails("ociVersion");
    }
}

#[test]
fn every_version_1_is_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1+dev", "1.3.0"] {
        let b = Bundle::new();
        b.edit(|spec| spec["ociVersion"] = json!(version));
        b.run_args(&["/bin/true"]).ok();
    }
}

#[test]
fn an_environment_entry_without_a_name_is_refused() {
    for entry in ["SECRET", "=value", "*"] {
        let b = Bundle::new();
        b.edit(|spec| spec["process"]["env"] = json!(["PATH=/bin", entry]));
        b.run_args(&["/bin/true"]).exits(1);
    }
}

#[test]
fn a_nul_byte_is_refused() {
    for at in ["/process/args/0", "/process/env/0", "/process/cwd"] {
        let b = Bundle::new();
        b.edit(|spec| *spec.pointer_mut(at).expect(at) = json!("/bin/A=\0x"));
        b.run(&[]).exits(1);
    }
}

#[test]
fn an_unusable_id_map_number_is_refused() {
    let b = Bundle::new();
    b.add_namespace("user");
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 1u64 << 32, "size": 1 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    b.run_args(&["/bin/true"]).exits(1);
}

// Programs that the kernel cannot execute, although they are there.

#[test]
fn a_missing_interpreter_is_named() {
    let b = Bundle::new();
    b.script("bin/greet", "#!/bin/nowhere\n");
    let out = b.run_args(&["/bin/greet"]).fails("no such file");
    assert!(out.error().contains("/bin/greet"), "{out}");
    deviates!("runc repeats the kernel's words alone; jug names the interpreter");
    out.says("/bin/nowhere");
}

#[test]
fn a_carriage_return_after_the_interpreter_is_explained() {
    let b = Bundle::new();
    b.script("bin/greet", "#!/bin/sh\r\necho hello\r\n");
    let out = b.run_args(&["/bin/greet"]).fails("no such file");
    deviates!("runc repeats the kernel's words alone; jug sees the carriage return");
    assert!(
        ["CR", "carriage return", "\\r", "Windows", "DOS"].iter().any(|word| out.error().contains(word)),
        "{out}"
    );
}

#[test]
fn a_program_for_another_machine_is_explained() {
    let b = Bundle::new();
    let path = b.own_copy("/bin/busybox");
    let mut bytes = fs::read(&path).expect("read");
    // e_machine of the ELF header: AArch64, or x86-64 where that is the machine itself.
    let other: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    bytes[18..20].copy_from_slice(&other.to_le_bytes());
    fs::write(&path, bytes).expect("write");
    let out = b.run_args(&["/bin/busybox"]).fails("exec format error");
    deviates!("runc repeats the kernel's words alone; jug names both machines");
    let text = out.error().to_lowercase();
    assert!(text.contains("aarch64") || text.contains("arm64") || text.contains("x86"), "{out}");
}

#[test]
fn a_text_without_a_shebang_is_an_exec_format_error() {
    let b = Bundle::new();
    b.script("bin/greet", "echo hello\n");
    b.run_args(&["/bin/greet"]).fails("exec format error");
}

#[test]
fn a_missing_loader_is_named() {
    let b = Bundle::new();
    // Any dynamic program of the host: its loader is not in the bundle.
    let program = ["/usr/bin/env", "/bin/ls"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .expect("a program");
    let to = b.rootfs().join("bin/dynamic");
    install(program, &to);
    let out = b.run_args(&["/bin/dynamic"]).fails("no such file");
    deviates!("runc repeats the kernel's words alone; jug names the loader");
    assert!(out.error().contains("ld-linux"), "{out}");
}
