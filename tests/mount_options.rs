//! config.md#linux-mount-options: every word of the table is taken, and means what it says.

mod support;

use support::*;

/// A tmpfs at /mnt with these options, as the container sees it.
#[track_caller]
fn mounted(options: &[&str]) -> Value {
    let b = Bundle::new();
    b.add_mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options }));
    mount_at(&b.probe(&[]), "/mnt").clone()
}

/// Words that take something away, or ask for what is so anyway; and words that mountinfo shows nowhere.
const SILENT: [&str; 21] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "iversion",
    "loud",
    "mand",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "rw",
    "silent",
    "suid",
    "strictatime",
    "private",
    "rprivate",
    "symfollow",
];

/// Words that mountinfo shows as they are.
const SHOWN: [&str; 10] =
    ["dirsync", "lazytime", "noatime", "nodev", "nodiratime", "noexec", "nosuid", "relatime", "ro", "sync"];

#[test]
fn every_word_that_leaves_no_trace_is_taken() {
    // runc 1.1.5 takes this one for data of the tmpfs.
    for word in SILENT.into_iter().filter(|word| !(is_peer() && *word == "defaults")) {
        let mount = mounted(&[word]);
        assert!(!has(&mount, word) || ["rw", "mand"].contains(&word), "{word} is data of the tmpfs: {mount}");
    }
}

#[test]
fn every_word_that_is_a_flag_is_one() {
    for word in SHOWN {
        assert!(has(&mounted(&[word]), word), "{word}");
    }
}

#[test]
fn every_recursive_word_is_taken() {
    newer!("1.1: recursive options, on bind mounts");
    for word in [
        "rro",
        "rrw",
        "rnosuid",
        "rsuid",
        "rnodev",
        "rdev",
        "rnoexec",
        "rexec",
        "rnodiratime",
        "rdiratime",
        "rrelatime",
        "rnorelatime",
        "rnoatime",
        "ratime",
        "rstrictatime",
        "rnostrictatime",
        "rnosymfollow",
        "rsymfollow",
    ] {
        let b = Bundle::new();
        std::fs::create_dir(b.path("host")).expect("mkdir");
        let source = b.path("host");
        b.add_mount(
            json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", word] }),
        );
        let report = b.probe(&[]);
        let mount = mount_at(&report, "/mnt");
        let flag = &word[1..];
        if ["ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime", "relatime"].contains(&flag) {
            assert!(has(mount, flag), "{word}: {mount}");
        }
    }
}

#[test]
fn the_propagation_words_are_taken() {
    for word in ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"] {
        let mount = mounted(&[word]);
        let fields = mount.to_string();
        let word = word.trim_start_matches('r');
        if word == "shared" || word == "unbindable" {
            assert!(fields.contains(word), "{word}: {fields}");
        }
    }
}

#[test]
fn features_tells_of_every_word() {
    newer!("1.2: mountOptions with all words");
    let features = runtime_call(&["features"]).output().ok().json();
    let told: Vec<&str> =
        features["mountOptions"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let own = ["bind", "rbind", "tmpcopyup", "idmap", "ridmap", "nosymfollow", "suid", "rshared", "rslave"];
    for word in SILENT.iter().chain(&SHOWN).chain(&own) {
        assert!(told.contains(word), "features does not tell of {word}");
    }
}

/// A bind mount of a directory whose mount on the host has `host` as flags; returns the options seen inside.
fn seen_inside(b: &Bundle, host: &[&str], options: &[&str]) -> Result<Vec<String>, String> {
    let source = b.path("flagged");
    std::fs::create_dir_all(&source).expect("mkdir");
    let mount = |args: &[&str]| {
        let done = std::process::Command::new("mount").args(args).arg(&source).status().expect("mount");
        assert!(done.success(), "mount {args:?}");
    };
    mount(&["-t", "tmpfs", "flagged"]);
    mount(&["-o", &format!("remount,bind,{}", host.join(","))]);
    b.remove_mount("/mnt");
    b.add_mount(json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options }));
    let out = b.run_args(&["/bin/cat", "/proc/mounts"]);
    let done = std::process::Command::new("umount").arg(&source).status().expect("umount");
    assert!(done.success(), "umount");
    if out.code != 0 {
        return Err(out.stderr);
    }
    let line =
        out.stdout.lines().find(|line| line.split(' ').nth(1) == Some("/mnt")).expect("/mnt").to_owned();
    Ok(line.split(' ').nth(3).expect("options").split(',').map(str::to_owned).collect())
}

fn has_all(found: &[String], wanted: &[&str], unwanted: &[&str]) {
    for word in wanted {
        assert!(found.iter().any(|f| f == word), "{word} in {found:?}");
    }
    for word in unwanted {
        assert!(!found.iter().any(|f| f == word), "no {word} in {found:?}");
    }
}

#[test]
fn a_bind_mount_with_options_has_those_and_keeps_the_access_time() {
    newer!("1.2: the flags of bind mounts");
    let b = Bundle::new();
    let host = ["ro", "noexec", "noatime"];
    has_all(&seen_inside(&b, &host, &["bind"]).expect("run"), &host, &[]);
    has_all(
        &seen_inside(&b, &host, &["bind", "nodev"]).expect("run"),
        &["rw", "nodev", "noatime"],
        &["noexec"],
    );
    has_all(&seen_inside(&b, &host, &["bind", "atime"]).expect("run"), &["rw", "noatime"], &["noexec"]);
    has_all(&seen_inside(&b, &host, &["bind", "relatime"]).expect("run"), &["relatime"], &["noatime"]);
    let host = ["noexec", "nodiratime"];
    has_all(&seen_inside(&b, &host, &["bind", "ro"]).expect("run"), &["ro", "nodiratime"], &["noexec"]);
    has_all(&seen_inside(&b, &host, &["bind", "noatime"]).expect("run"), &["noatime"], &["nodiratime"]);
}

#[test]
fn in_a_user_namespace_the_flags_of_the_source_are_locked() {
    newer!("1.2: the flags of bind mounts");
    let b = Bundle::new();
    b.add_namespace("user");
    b.edit(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    let host = ["ro", "nosuid"];
    has_all(&seen_inside(&b, &host, &["bind", "nodev"]).expect("run"), &["ro", "nosuid", "nodev"], &[]);
    let is_refused = |host: &[&str], options: &[&str]| {
        let refused = seen_inside(&b, host, options).expect_err(options[1]);
        let words = "unable to start container process: error during container init: error mounting";
        assert!(refused.contains(words) && refused.contains("operation not permitted"), "{refused}");
    };
    is_refused(&host, &["bind", "rw"]);
    // Access times: what the source has may be named, and another mode may not.
    has_all(
        &seen_inside(&b, &["noatime"], &["bind", "noatime", "ro"]).expect("run"),
        &["noatime", "ro"],
        &[],
    );
    has_all(&seen_inside(&b, &["noatime"], &["bind", "atime"]).expect("run"), &["noatime"], &[]);
    has_all(&seen_inside(&b, &["nodiratime"], &["bind", "diratime"]).expect("run"), &["nodiratime"], &[]);
    is_refused(&["noatime"], &["bind", "relatime"]);
    is_refused(&["noatime"], &["bind", "strictatime"]);
    is_refused(&["relatime"], &["bind", "noatime"]);
    is_refused(&["strictatime"], &["bind", "nodiratime"]);
}
