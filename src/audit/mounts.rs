//! The root and the mounts of the process: each of the plan is there with its flags, and no other is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Report;
use super::reader::{Reader, mount_of};
use crate::apply::root::RootDir;
use crate::error::Result;
use crate::plan::mounts::{Kind, MountPlan};
use crate::plan::namespaces::Kind as Ns;
use crate::plan::{Plan, devices};
use crate::sys::mount as attr;
use crate::sys::path;

/// One line of proc_pid_mountinfo(5).
#[derive(Debug)]
pub struct Found {
    pub id: u64,
    /// Relative to the root of the process, without the leading slash.
    point: PathBuf,
    options: Vec<String>,
    shared: bool,
    fstype: String,
    superblock: Vec<String>,
}

impl Found {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

pub fn read(reader: &Reader) -> Result<Vec<Found>> {
    Ok(parse_all(&reader.text("mountinfo")?))
}

pub fn parse_all(mountinfo: &str) -> Vec<Found> {
    mountinfo.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Found> {
    let (mount, file_system) = line.split_once(" - ")?;
    let fields: Vec<&str> = mount.split(' ').collect();
    let mut behind = file_system.split(' ');
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Found {
        id: fields.first()?.parse().ok()?,
        point: crate::plan::lexical(Path::new(&unescape(fields.get(4)?))),
        options: list(fields.get(5)?),
        shared: fields.iter().skip(6).any(|field| field.starts_with("shared:")),
        fstype: behind.next()?.to_owned(),
        superblock: list(behind.nth(1).unwrap_or_default()),
    })
}

/// Blanks, tabs, newlines and backslashes stand as octal numbers in mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (octal, plain)| text.replace(octal, plain))
}

pub fn compare(plan: &Plan, reader: &Reader, report: &mut Report) -> Result<()> {
    if !plan.namespaces.has(Ns::Mount) {
        return Ok(());
    }
    let found = read(reader)?;
    root(plan, &found, report);
    // A name of the config may be a link of the image: then the kernel says which mount is meant.
    let inside = reader.root()?;
    let mut expected: BTreeMap<PathBuf, usize> = BTreeMap::from([(PathBuf::new(), 1)]);
    for m in &plan.mounts {
        let point = place(&found, &inside, &m.destination);
        *expected.entry(point).or_default() += 1;
    }
    let later =
        |m: &MountPlan, rest: &[MountPlan]| rest.iter().any(|other| other.destination == m.destination);
    for (i, m) in plan.mounts.iter().enumerate() {
        if !later(m, &plan.mounts[i + 1..]) {
            mount(plan, m, &place(&found, &inside, &m.destination), &found, report);
        }
    }
    let nodes = nodes(plan);
    nodes.iter().for_each(|node| *expected.entry(node.clone()).or_default() += 1);
    covers(plan, &found, &inside, &mut expected, report)?;
    if plan.namespaces.joins(Ns::Mount) {
        return Ok(());
    }
    added(plan, &found, &expected, report);
    Ok(())
}

/// Where the destination of a mount is: by its own name, or where the links of the image lead.
fn place(found: &[Found], inside: &RootDir, destination: &Path) -> PathBuf {
    if found.iter().any(|f| f.point == destination) {
        return destination.to_owned();
    }
    let meant = inside.open(destination, libc::O_PATH).ok().and_then(|file| mounted_here(found, &file));
    meant.map_or_else(|| destination.to_owned(), |f| f.point.clone())
}

/// The mount whose root an open file is.
fn mounted_here<'f>(found: &'f [Found], file: &OwnedFd) -> Option<&'f Found> {
    let id = mount_of(file).ok()?;
    found.iter().find(|f| f.id == id).filter(|_| path::is_mount_root(file.as_fd()))
}

fn root(plan: &Plan, found: &[Found], report: &mut Report) {
    let Some(root) = found.iter().rfind(|f| f.point.as_os_str().is_empty()) else {
        return report.differs("root", "a mount", "none");
    };
    let shown = |readonly: bool| if readonly { "ro" } else { "rw" };
    // The mount that the root was copied from may have been read-only already.
    if plan.root.readonly {
        report.fact("root", shown(true), shown(root.has("ro")));
    }
    let planned = plan.root.propagation & libc::MS_SHARED != 0;
    if planned != root.shared {
        let shown = |shared: bool| if shared { "shared" } else { "not shared" };
        report.differs("root propagation", shown(planned), shown(root.shared));
    }
}

/// The flags of a mount that mountinfo shows, in its words, and which attribute each is.
const FLAGS: [(&str, u64); 6] = [
    ("ro", attr::MOUNT_ATTR_RDONLY),
    ("nosuid", attr::MOUNT_ATTR_NOSUID),
    ("nodev", attr::MOUNT_ATTR_NODEV),
    ("noexec", attr::MOUNT_ATTR_NOEXEC),
    ("nodiratime", attr::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", attr::MOUNT_ATTR_NOSYMFOLLOW),
];

fn mount(plan: &Plan, m: &MountPlan, point: &Path, found: &[Found], report: &mut Report) {
    let what = format!("mount /{}", m.destination.display());
    let Some(is) = found.iter().rfind(|f| f.point == point) else {
        return report.differs(what, kind(m), "none");
    };
    match &m.kind {
        Kind::New { fstype, data, .. } => {
            report.fact(&what, fstype, &is.fstype);
            sizes(&what, data, is, report);
        }
        Kind::Cgroup => report.fact(&what, "cgroup2", &is.fstype),
        Kind::Bind { .. } => {}
    }
    let set = m.set | m.recursive_set;
    let asked = m.set | m.clear | m.recursive_set | m.recursive_clear;
    let is_new = !m.is_bind();
    // A remount of a bind mount sets exactly its flags, but a user namespace keeps those that it found.
    let exact = is_new || m.set | m.clear != 0 && !plan.namespaces.has(Ns::User);
    let (mut planned, mut shown) = (Vec::new(), Vec::new());
    for (word, bit) in FLAGS {
        if exact || asked & bit != 0 {
            planned.extend((set & bit != 0).then_some(word));
            shown.extend(is.has(word).then_some(word));
        }
    }
    if exact && is_new || asked & attr::MOUNT_ATTR_ATIME != 0 {
        planned.push(match set & attr::MOUNT_ATTR_ATIME {
            attr::MOUNT_ATTR_NOATIME => "noatime",
            attr::MOUNT_ATTR_STRICTATIME => "strictatime",
            _ => "relatime",
        });
        let other = if is.has("relatime") { "relatime" } else { "strictatime" };
        shown.push(if is.has("noatime") { "noatime" } else { other });
    }
    report.fact(&format!("{what} flags"), planned.join(","), shown.join(","));
}

fn kind(m: &MountPlan) -> String {
    match &m.kind {
        Kind::New { fstype, .. } => fstype.clone(),
        Kind::Cgroup => "cgroup2".to_owned(),
        Kind::Bind { source, .. } => format!("bind of {}", source.display()),
    }
}

/// Limits of a tmpfs, which the kernel shows in its own units.
fn sizes(what: &str, data: &[(String, String)], is: &Found, report: &mut Report) {
    for (key, value) in data.iter().filter(|(key, _)| key == "size" && is.fstype == "tmpfs") {
        let found = is.superblock.iter().find_map(|option| option.strip_prefix("size="));
        let (planned, found) = (bytes(value), found.and_then(bytes));
        if let Some(planned) = planned {
            let planned = planned.next_multiple_of(4096);
            report.fact(
                &format!("{what} {key}"),
                planned,
                found.map_or("none".to_owned(), |n| n.to_string()),
            );
        }
    }
}

/// `64k`, `1m` and so on in bytes; `None` for a share of the memory.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Device nodes that are bind mounts; a terminal is one always.
fn nodes(plan: &Plan) -> Vec<PathBuf> {
    let mut nodes = Vec::new();
    if plan.bind_devices {
        if plan.setup_dev {
            nodes.extend(devices::DEFAULT.iter().map(|(name, ..)| Path::new("dev").join(name)));
        }
        let made = plan.devices.iter().filter(|d| !(plan.setup_dev && devices::is_default(&d.path)));
        nodes.extend(made.map(|d| d.path.clone()));
    }
    if plan.process.terminal {
        nodes.push(PathBuf::from("dev/console"));
    }
    nodes
}

/// Read-only and masked paths: those that exist.
fn covers(
    plan: &Plan,
    found: &[Found],
    inside: &RootDir,
    expected: &mut BTreeMap<PathBuf, usize>,
    report: &mut Report,
) -> Result<()> {
    let mut on =
        |list: &[PathBuf], what: &str, fault: &dyn Fn(&Found, &libc::stat, bool) -> Option<&'static str>| {
            for path in list {
                let Ok(Some(file)) = inside.open_existing(path) else { continue };
                let st = path::stat(file.as_fd(), Path::new(""))?;
                let id = mount_of(&file)?;
                let Some(mount) = found.iter().find(|f| f.id == id) else { continue };
                let cover = mounted_here(found, &file);
                if let Some(cover) = cover {
                    if what == "read-only" {
                        copied(expected, &cover.point);
                    }
                    *expected.entry(cover.point.clone()).or_default() += 1;
                }
                if let Some(fault) = fault(mount, &st, cover.is_some()) {
                    report.differs(format!("{what} path /{}", path.display()), what, fault);
                }
            }
            Result::Ok(())
        };
    on(&plan.readonly, "read-only", &|mount, _, _| (!mount.has("ro")).then_some("it can be written"))?;
    on(&plan.masked, "masked", &|mount, st, covered| {
        let null = st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == libc::makedev(1, 3);
        // The root itself may be a tmpfs, and read-only.
        let empty = covered && mount.fstype == "tmpfs" && mount.has("ro");
        (!null && !empty).then_some("it can be seen")
    })
}

/// A read-only path is a copy of what was there, with all that was mounted below.
fn copied(expected: &mut BTreeMap<PathBuf, usize>, point: &Path) {
    let below = expected.iter_mut().filter(|(p, _)| p.starts_with(point) && *p != point);
    below.for_each(|(_, count)| *count *= 2);
}

/// Mounts that the plan does not name. Below a recursive bind lies what the host has there, which nobody wrote down.
fn added(plan: &Plan, found: &[Found], expected: &BTreeMap<PathBuf, usize>, report: &mut Report) {
    let recursive: Vec<&PathBuf> = plan
        .mounts
        .iter()
        .filter(|m| matches!(m.kind, Kind::Bind { recursive: true, .. }))
        .map(|m| &m.destination)
        .collect();
    let mut seen: BTreeMap<&Path, usize> = BTreeMap::new();
    for mount in found {
        let count = seen.entry(&mount.point).or_default();
        *count += 1;
        let known = expected.get(&mount.point).copied().unwrap_or(0);
        let below = recursive.iter().any(|p| mount.point.starts_with(p) && mount.point != **p);
        if *count > known && !below {
            let shown = format!("{} ({})", mount.fstype, mount.options.join(","));
            report.differs(format!("mount /{}", mount.point.display()), "none", shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue";
        let found = parse(line).unwrap();
        assert_eq!((found.id, found.point, found.shared), (36, PathBuf::from("mnt 2"), true));
        assert_eq!((found.options.len(), found.fstype.as_str()), (2, "ext3"));
        assert_eq!(found.superblock, ["rw", "errors=continue"]);
        assert!(parse("").is_none() && parse("x - y").is_none());
    }

    #[test]
    fn sizes_have_units() {
        let got = ["64k", "65536", "1M", "2g", "50%", "x"].map(bytes);
        assert_eq!(got, [Some(65536), Some(65536), Some(1 << 20), Some(2 << 30), None, None]);
    }
}
