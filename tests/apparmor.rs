//! config.md#linux-process, apparmorProfile: where AppArmor is active (`scripts/test --vm`).
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use support::*;

/// A profile in the kernel, for as long as this lives.
struct Profile(String);

impl Profile {
    /// Allows everything but what `rules` denies.
    fn load(b: &Bundle, flags: &str, rules: &str) -> Self {
        let profile = Self(b.tag().to_owned());
        profile.parser(&["--replace"], flags, rules);
        profile
    }

    fn parser(&self, options: &[&str], flags: &str, rules: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted{flags}) {{\n file,\n capability,\n network,\n \
             mount,\n umount,\n pivot_root,\n signal,\n ptrace,\n unix,\n {rules}\n}}\n",
            self.0
        );
        let mut parser = Command::new("apparmor_parser")
            .args(["--skip-cache", "--quiet"])
            .args(options)
            .stdin(Stdio::piped())
            .spawn()
            .expect("apparmor_parser");
        parser.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write");
        assert!(parser.wait().expect("wait").success(), "{text}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser(&["--remove"], "", "");
    }
}

const LABEL: [&str; 2] = ["cat", "/proc/self/attr/current"];

#[test]
fn a_process_has_its_profile() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    let profile = Profile::load(&b, "", "");
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!(profile.0));
    assert_eq!(b.run_args(&LABEL).ok().stdout.trim(), format!("{} (enforce)", profile.0));
}

#[test]
fn a_profile_denies() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    b.file("etc/secret", "hidden");
    let profile = Profile::load(&b, "", "deny /etc/secret r,");
    b.set_args(&["cat", "/etc/secret"]).run(&[]).ok();
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!(profile.0));
    let out = b.run(&[]).exits(1);
    assert!(out.stderr.contains("Permission denied"), "{out}");
}

#[test]
fn a_profile_that_complains_allows() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    let profile = Profile::load(&b, ",complain", "");
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!(profile.0));
    assert_eq!(b.run_args(&LABEL).ok().stdout.trim(), format!("{} (complain)", profile.0));
}

#[test]
fn without_a_profile_a_process_is_unconfined() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    assert_eq!(b.run_args(&LABEL).ok().stdout.trim(), "unconfined");
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
    assert_eq!(b.run(&[]).ok().stdout.trim(), "unconfined");
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!("jug-no-such-profile"));
    b.run(&[]).exits(1).says("apparmor");
    b.container().verb("state", &[]).fails("does not exist");
}

#[test]
fn exec_has_the_profile_of_the_container_or_its_own() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    let profile = Profile::load(&b, "", "");
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!(profile.0));
    let c = b.running();
    assert_eq!(c.exec(&LABEL).ok().stdout.trim(), format!("{} (enforce)", profile.0));
    // A confined runtime would need a rule for the change; this one is not confined.
    assert_eq!(c.exec_with(&["--apparmor", "unconfined"], &LABEL).ok().stdout.trim(), "unconfined");
}

#[test]
fn the_profile_holds_under_a_seccomp_filter_and_without_privileges() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    let profile = Profile::load(&b, "", "");
    b.edit(|spec| {
        spec["process"]["apparmorProfile"] = json!(profile.0);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
        });
    });
    assert_eq!(b.run_args(&LABEL).ok().stdout.trim(), format!("{} (enforce)", profile.0));
}
