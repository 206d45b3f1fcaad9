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
