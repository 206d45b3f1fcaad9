//! The plan as text: what a person reviews, and what the golden files of `oci-examples` hold.
//!
//! Everything that decides about confinement stands here, in a fixed order, without anything of the moment (no pids, no
//! times): the same config on the same kind of host prints the same text.

use std::fmt::Write as _;

use super::cgroup::CgroupPlan;
use super::hooks::Hook;
use super::mounts::Kind;
use super::process::{self, ProcessPlan};
use super::{MountPlan, Plan};
use crate::sys::mount as attr;

pub fn show(plan: &Plan) -> String {
    let mut out = Text::default();
    out.line("container", &plan.id);
    let readonly = if plan.root.readonly { ", read-only" } else { "" };
    let root = plan.root.path.strip_prefix(&plan.bundle).unwrap_or(&plan.root.path);
    out.line("root", format!("{}{readonly}, {}", root.display(), propagation(plan.root.propagation)));
    namespaces(plan, &mut out);
    for (name, list) in [("uid map", &plan.ids.uid), ("gid map", &plan.ids.gid)] {
        for r in list {
            out.line(name, format!("{} is host {}, {} ids", r.container, r.host, r.size));
        }
    }
    out.maybe("hostname", plan.hostname.as_ref());
    out.maybe("domainname", plan.domainname.as_ref());
    if let Some(cgroup) = &plan.cgroup {
        limits(cgroup, &mut out);
    }
    plan.mounts.iter().for_each(|m| out.line("mount", mount(m, plan)));
    out.maybe("mount label", plan.mount_label.as_ref());
    out.line("/dev", if plan.setup_dev { "default devices and links" } else { "as the mount has it" });
    for d in &plan.devices {
        out.line(
            "device",
            format!(
                "/{} {}:{} mode {:o} owner {}:{}",
                d.path.display(),
                d.major,
                d.minor,
                d.mode,
                d.uid,
                d.gid
            ),
        );
    }
    plan.masked.iter().for_each(|p| out.line("masked", format!("/{}", p.display())));
    plan.readonly.iter().for_each(|p| out.line("read-only", format!("/{}", p.display())));
    plan.sysctl
        .iter()
        .for_each(|(name, value)| out.line("sysctl", format!("{} = {value}", name.replace('/', "."))));
    for device in &plan.net_devices {
        out.line("net device", format!("{} as {}", device.host, device.name));
    }
    if let Some(rdt) = &plan.rdt {
        let group = if rdt.group.is_empty() { "/" } else { &rdt.group };
        let monitored = if rdt.monitoring.is_some() { ", monitored" } else { "" };
        out.line("resctrl", format!("{group}: {}{monitored}", rdt.schemata.join(" ")));
    }
    if let Some(persona) = plan.personality {
        out.line("personality", format!("{persona:#x}"));
    }
    if let Some(seccomp) = &plan.seccomp {
        let listener =
            seccomp.listener.as_ref().map_or(String::new(), |l| format!(", notifies {}", l.path.display()));
        let filter = &seccomp.filter;
        out.line(
            "seccomp",
            format!("{} instructions, flags {:#x}{listener}", filter.program.len(), filter.flags),
        );
    } else {
        out.line("seccomp", "none");
    }
    hooks(plan, &mut out);
    program(&plan.process, &mut out);
    plan.warnings.iter().for_each(|w| out.line("warning", w));
    out.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name:<16} {value}");
    }

    fn maybe(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }
}

fn namespaces(plan: &Plan, out: &mut Text) {
    let new: Vec<String> = plan.namespaces.new.iter().map(ToString::to_string).collect();
    out.line(
        "namespaces",
        if new.is_empty() { "none of its own".to_owned() } else { format!("new {}", new.join(" ")) },
    );
    for (kind, path) in &plan.namespaces.join {
        out.line("namespace", format!("{kind} joined at {}", path.display()));
    }
    for (clock, seconds, nanoseconds) in &plan.namespaces.time_offsets {
        out.line("clock", format!("{clock} {seconds:+} s {nanoseconds} ns"));
    }
}

fn limits(cgroup: &CgroupPlan, out: &mut Text) {
    out.line("cgroup", format!("/{}", cgroup.path.display()));
    if let Some(unit) = &cgroup.unit {
        out.line(
            "unit",
            format!("{} of the {} systemd", unit.name, if unit.user { "user's" } else { "system's" }),
        );
        unit.properties.iter().for_each(|(name, value)| out.line("property", format!("{name} = {value:?}")));
    }
    for w in &cgroup.writes {
        out.line("limit", format!("{} = {}", w.file, w.value));
    }
    if let Some(owner) = cgroup.owner {
        out.line("cgroup owner", owner);
    }
    for v1 in &cgroup.v1 {
        for w in &v1.writes {
            out.line("limit (v1)", format!("{} = {}", w.file, w.value));
        }
    }
    let program = cgroup.device_program.as_ref().map(|p| format!(", {} BPF instructions", p.len()));
    let rules = cgroup.devices.iter().filter(|r| r.allow).count();
    out.line(
        "device filter",
        program
            .map_or("none".to_owned(), |p| format!("{rules} allowing of {} rules{p}", cgroup.devices.len())),
    );
}

fn mount(m: &MountPlan, plan: &Plan) -> String {
    let what = match &m.kind {
        Kind::Bind { source, recursive } => {
            let source = source.strip_prefix(&plan.bundle).unwrap_or(source);
            format!("{} of {}", if *recursive { "recursive bind" } else { "bind" }, source.display())
        }
        Kind::New { fstype, data, .. } => {
            let data: Vec<String> =
                data.iter().map(|(k, v)| if v.is_empty() { k.clone() } else { format!("{k}={v}") }).collect();
            if data.is_empty() { fstype.clone() } else { format!("{fstype} ({})", data.join(",")) }
        }
        Kind::Cgroup => "cgroup2".to_owned(),
    };
    let mut text = format!("/{}: {what}", m.destination.display());
    for (name, bits) in [
        ("set", m.set),
        ("clear", m.clear),
        ("set below", m.recursive_set),
        ("clear below", m.recursive_clear),
    ] {
        if bits != 0 {
            let _ = write!(text, ", {name} {}", attributes(bits));
        }
    }
    m.propagation.iter().for_each(|p| text += &format!(", {}", propagation(*p)));
    if m.copy_up {
        text += ", with what the image has there";
    }
    if m.idmap.is_some() {
        text += ", idmapped";
    }
    text
}

fn attributes(bits: u64) -> String {
    const NAMES: [(u64, &str); 7] = [
        (attr::MOUNT_ATTR_RDONLY, "ro"),
        (attr::MOUNT_ATTR_NOSUID, "nosuid"),
        (attr::MOUNT_ATTR_NODEV, "nodev"),
        (attr::MOUNT_ATTR_NOEXEC, "noexec"),
        (attr::MOUNT_ATTR_ATIME, "atime"),
        (attr::MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (attr::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    ];
    let mut names = Vec::new();
    for (bit, name) in NAMES {
        match bits & bit {
            0 => {}
            attr::MOUNT_ATTR_NOATIME if bit == attr::MOUNT_ATTR_ATIME => names.push("noatime"),
            attr::MOUNT_ATTR_STRICTATIME if bit == attr::MOUNT_ATTR_ATIME => names.push("strictatime"),
            _ => names.push(name),
        }
    }
    names.join(",")
}

fn propagation(flags: u64) -> &'static str {
    let recursive = flags & libc::MS_REC != 0;
    match (flags & !libc::MS_REC, recursive) {
        (libc::MS_SHARED, false) => "shared",
        (libc::MS_SHARED, true) => "rshared",
        (libc::MS_SLAVE, false) => "slave",
        (libc::MS_SLAVE, true) => "rslave",
        (libc::MS_PRIVATE, false) => "private",
        (libc::MS_PRIVATE, true) => "rprivate",
        (_, false) => "unbindable",
        (_, true) => "runbindable",
    }
}

fn hooks(plan: &Plan, out: &mut Text) {
    let h = &plan.hooks;
    let lists: [&[Hook]; 6] =
        [&h.prestart, &h.create_runtime, &h.create_container, &h.start_container, &h.poststart, &h.poststop];
    for hook in lists.into_iter().flatten() {
        out.line(
            "hook",
            format!("{}: {} {}", hook.name, hook.path.display(), hook.args[1..].join(" ")).trim_end(),
        );
    }
}

fn program(p: &ProcessPlan, out: &mut Text) {
    out.line("program", p.args.join(" "));
    out.line("working dir", p.cwd.display());
    p.env.iter().for_each(|e| out.line("env", e));
    let groups: Vec<String> = p.groups.iter().map(ToString::to_string).collect();
    let groups = if p.keep_groups { "the caller's".to_owned() } else { format!("[{}]", groups.join(" ")) };
    out.line("user", format!("{}:{} groups {groups} umask {:04o}", p.uid, p.gid, p.umask));
    out.line("terminal", if p.terminal { "yes" } else { "no" });
    out.line("no new privs", if p.no_new_privileges { "yes" } else { "no" });
    let caps = &p.capabilities;
    for (name, set) in [
        ("caps bounding", caps.bounding),
        ("caps effective", caps.effective),
        ("caps permitted", caps.permitted),
        ("caps inheritable", caps.inheritable),
        ("caps ambient", caps.ambient),
    ] {
        out.line(name, if set == 0 { "none".to_owned() } else { process::names(set) });
    }
    p.rlimits
        .iter()
        .for_each(|l| out.line("rlimit", format!("{} soft {} hard {}", l.resource, l.soft, l.hard)));
    if let Some(score) = p.oom_score_adj {
        out.line("oom score adj", score);
    }
    out.maybe("apparmor", p.apparmor.as_ref());
    out.maybe("selinux", p.selinux.as_ref());
}
