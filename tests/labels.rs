//! AppArmor and SELinux: config.md `process.apparmorProfile` and `process.selinuxLabel`, config-linux.md#mount-label. A
//! host without them is an error that names the property; with them, see `apparmor` and `selinux`.

mod support;

use support::*;

const CONTEXT: &str = "system_u:object_r:container_file_t:s0:c1,c2";

#[test]
fn a_profile_without_apparmor_is_an_error() {
    if Feature::AppArmor.is_present() {
        say_skip("SKIP", "AppArmor is enabled here");
        return;
    }
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!("lamb"));
    b.run(&[]).exits(1).says("pparmor");
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!("jug-no-such-profile"));
    b.run(&[]).exits(1).says("jug-no-such-profile");
}

#[test]
fn the_unconfined_profile_can_be_asked_for() {
    needs!(Feature::AppArmor);
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
    assert_eq!(b.probe(&[])["label"]["apparmor"], "unconfined");
}

#[test]
fn a_process_label_without_selinux_is_an_error() {
    if Feature::Selinux.is_present() {
        say_skip("SKIP", "SELinux is enabled here");
        return;
    }
    let b = Bundle::new();
    b.edit(|spec| spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0:c1,c2"));
    b.run(&[]).exits(1).says("elinux");
}

#[test]
fn a_mount_label_without_selinux_is_an_error() {
    if Feature::Selinux.is_present() {
        say_skip("SKIP", "SELinux is enabled here");
        return;
    }
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["mountLabel"] = json!(CONTEXT));
    let out = b.verb("create", &[]).output().exits(1);
    if !is_peer() {
        out.says("/linux/mountLabel: SELinux is not enabled");
    }
}

#[test]
fn an_empty_mount_label_is_none() {
    let b = Bundle::new();
    b.edit(|spec| spec["linux"]["mountLabel"] = json!(""));
    b.run_args(&["/bin/true"]).ok();
}
