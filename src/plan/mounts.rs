//! Mounts: options as words become attributes, propagation and file system data.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Mount, Spec};

use super::ids::{self, IdMaps, Range};
use super::namespaces::{Kind as Ns, Namespaces};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::sys::mount::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Relative to the container's root, cleaned of `..`.
    pub destination: PathBuf,
    pub kind: Kind,
    /// Attributes of the mount itself: set and cleared.
    pub set: u64,
    pub clear: u64,
    /// The same, for everything below it too.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// MS_SHARED and so on, each with MS_REC where asked, in the order given.
    pub propagation: Vec<u64>,
    /// Copy what the image has at the destination into the fresh tmpfs.
    pub copy_up: bool,
    pub idmap: Option<Idmap>,
    /// For errors: `/mounts/3`.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A host path, with what is mounted below it when `recursive`.
    Bind { source: PathBuf, recursive: bool },
    /// A new instance of a file system. An empty value is a flag.
    New { fstype: String, source: String, data: Vec<(String, String)> },
    /// The container's own view of cgroup2.
    Cgroup,
}

/// Owners seen through the mount are translated by these maps, or by the container's own; without any by those of the
/// user namespace that it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    pub uid: Vec<Range>,
    pub gid: Vec<Range>,
    pub recursive: bool,
}

impl MountPlan {
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }
}

/// Files of a procfs that lxcfs and friends may cover; nothing else below /proc may be mounted on.
const PROC_ALLOWED: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Whether a mount may lie at this place in /proc even though it is no procfs.
pub fn allowed_in_proc(destination: &Path) -> bool {
    PROC_ALLOWED.iter().any(|p| destination == Path::new(p))
}

/// `root` is where the container's root lies on the host: a destination that begins with it is meant below it.
pub fn plan(
    spec: &Spec,
    bundle: &Path,
    root: &Path,
    ns: &Namespaces,
    ids: &IdMaps,
) -> Result<Vec<MountPlan>> {
    let list = spec.mounts().as_deref().unwrap_or_default();
    if !ns.has(Ns::Mount) && ns.has(Ns::User) {
        return Err(Error::new("/linux/namespaces: a user namespace needs a mount namespace")
            .next("add {\"type\": \"mount\"}"));
    }
    let root = super::lexical(root);
    let joins = ns.joins(Ns::User);
    let place = (bundle, root.as_path());
    list.iter().enumerate().map(|(i, mount)| one(mount, format!("/mounts/{i}"), place, ids, joins)).collect()
}

/// `linux.mountLabel`: the SELinux context of every new file system that takes one. Neither procfs nor sysfs does; an
/// mqueue belongs to its namespace, was mounted with it, and takes none as an option any more.
pub fn label(mounts: &mut [MountPlan], linux: &Linux, host: &Host) -> Result<Option<String>> {
    let Some(label) = linux.mount_label().as_ref().filter(|label| !label.is_empty()) else { return Ok(None) };
    if !host.selinux {
        return Err(Error::new("/linux/mountLabel: SELinux is not enabled on this host")
            .next("remove /linux/mountLabel, or enable SELinux"));
    }
    for mount in mounts {
        if let Kind::New { fstype, data, .. } = &mut mount.kind
            && !["proc", "sysfs", "mqueue"].contains(&fstype.as_str())
            && !data.iter().any(|(key, _)| key == "context")
        {
            data.push(("context".to_owned(), label.clone()));
        }
    }
    Ok(Some(label.clone()))
}

fn one(
    mount: &Mount,
    at: String,
    (bundle, root): (&Path, &Path),
    ids: &IdMaps,
    joins_user: bool,
) -> Result<MountPlan> {
    let destination = super::lexical(mount.destination());
    let destination = match destination.strip_prefix(root) {
        Ok(below) if !root.as_os_str().is_empty() => below.to_owned(),
        _ => destination,
    };
    if destination.as_os_str().is_empty() && mount.typ().as_deref() != Some("bind") {
        return Err(Error::new(format!(
            "{at}/destination: mounting over the root of the container is not possible"
        )));
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let words = Words::read(options);
    let fstype = mount.typ().as_deref().unwrap_or("");
    let source = mount.source().clone().unwrap_or_default();
    let bind = words.bind || fstype == "bind" || fstype == "rbind";
    if destination.starts_with("proc") && !allowed_in_proc(&destination) {
        let plain_proc = destination == Path::new("proc") && (bind || fstype == "proc");
        if !plain_proc {
            return Err(Error::new(format!(
                "{at}/destination: \"/{}\" cannot be mounted because it is inside /proc",
                destination.display()
            )));
        }
    }
    let kind = if bind {
        if !words.data.is_empty() {
            let data: Vec<String> = words
                .data
                .iter()
                .map(|(k, v)| if v.is_empty() { k.clone() } else { format!("{k}={v}") })
                .collect();
            return Err(Error::new(format!(
                "{at}/options: bind mounts cannot have any filesystem-specific options applied: {}",
                data.join(",")
            )));
        }
        if source.as_os_str().is_empty() {
            return Err(Error::new(format!("{at}/source: a bind mount needs a source")));
        }
        let source = if source.is_absolute() { source } else { bundle.join(source) };
        Kind::Bind { source, recursive: words.bind_recursive || fstype == "rbind" }
    } else if fstype == "cgroup" || fstype == "cgroup2" {
        Kind::Cgroup
    } else if fstype.is_empty() || fstype == "none" {
        return Err(Error::new(format!("{at}/type: a mount that is no bind mount needs a file system type")));
    } else {
        let mut data = words.data;
        for flag in words.superblock {
            data.push((flag.to_owned(), String::new()));
        }
        Kind::New { fstype: fstype.to_owned(), source: source.to_string_lossy().into_owned(), data }
    };
    if words.copy_up && fstype != "tmpfs" {
        return Err(Error::new(format!("{at}/options: tmpcopyup is only possible on a tmpfs")));
    }
    let idmap = idmap(mount, words.idmap, &at, bind, ids, joins_user)?;
    Ok(MountPlan {
        destination,
        kind,
        set: words.set,
        clear: words.clear,
        recursive_set: words.recursive_set,
        recursive_clear: words.recursive_clear,
        propagation: words.propagation,
        copy_up: words.copy_up,
        idmap,
        at,
    })
}

fn idmap(
    mount: &Mount,
    word: Option<bool>,
    at: &str,
    bind: bool,
    ids: &IdMaps,
    joins_user: bool,
) -> Result<Option<Idmap>> {
    let own = |list: &Option<Vec<_>>, name: &str| ids::mount_ranges(list, &format!("{at}/{name}"));
    let (uid, gid) = (own(mount.uid_mappings(), "uidMappings")?, own(mount.gid_mappings(), "gidMappings")?);
    if uid.is_empty() && gid.is_empty() && word.is_none() {
        return Ok(None);
    }
    if !bind {
        return Err(Error::new(format!("{at}: only bind mounts can be idmapped")));
    }
    if ids.unprivileged {
        return Err(Error::new(format!("{at}: idmapped mounts need a privileged caller")));
    }
    if uid.is_empty() != gid.is_empty() {
        return Err(Error::new(format!("{at}: uidMappings and gidMappings go together")));
    }
    let recursive = word.unwrap_or(false);
    if !uid.is_empty() {
        return Ok(Some(Idmap { uid, gid, recursive }));
    }
    if ids.uid.is_empty() && !joins_user {
        return Err(Error::new(format!(
            "{at}/options: idmap without mappings needs a user namespace with mappings"
        )));
    }
    Ok(Some(Idmap { uid: ids.uid.clone(), gid: ids.gid.clone(), recursive }))
}

/// The options of one mount, sorted by what they are.
#[derive(Default)]
struct Words {
    bind: bool,
    bind_recursive: bool,
    set: u64,
    clear: u64,
    recursive_set: u64,
    recursive_clear: u64,
    propagation: Vec<u64>,
    superblock: Vec<&'static str>,
    data: Vec<(String, String)>,
    copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    idmap: Option<bool>,
}

/// Per-mount words: (word, attribute, sets it). The access time words share one field of several bits.
const ATTRIBUTES: [(&str, u64, bool); 18] = [
    ("ro", MOUNT_ATTR_RDONLY, true),
    ("rw", MOUNT_ATTR_RDONLY, false),
    ("nosuid", MOUNT_ATTR_NOSUID, true),
    ("suid", MOUNT_ATTR_NOSUID, false),
    ("nodev", MOUNT_ATTR_NODEV, true),
    ("dev", MOUNT_ATTR_NODEV, false),
    ("noexec", MOUNT_ATTR_NOEXEC, true),
    ("exec", MOUNT_ATTR_NOEXEC, false),
    ("nodiratime", MOUNT_ATTR_NODIRATIME, true),
    ("diratime", MOUNT_ATTR_NODIRATIME, false),
    ("nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, true),
    ("symfollow", MOUNT_ATTR_NOSYMFOLLOW, false),
    ("relatime", MOUNT_ATTR_RELATIME, true),
    ("norelatime", MOUNT_ATTR_RELATIME, false),
    ("noatime", MOUNT_ATTR_NOATIME, true),
    ("atime", MOUNT_ATTR_NOATIME, false),
    ("strictatime", MOUNT_ATTR_STRICTATIME, true),
    ("nostrictatime", MOUNT_ATTR_STRICTATIME, false),
];

/// Superblock words that fsconfig(2) takes as flags; the negative forms are the default of a new superblock.
const SUPERBLOCK: [(&str, &str); 16] = [
    ("sync", "sync"),
    ("async", ""),
    ("dirsync", "dirsync"),
    ("mand", "mand"),
    ("nomand", ""),
    ("lazytime", "lazytime"),
    ("nolazytime", ""),
    ("iversion", ""),
    ("noiversion", ""),
    ("silent", ""),
    ("loud", ""),
    ("defaults", ""),
    ("remount", ""),
    ("acl", ""),
    ("noacl", ""),
    ("quiet", ""),
];

/// `rshared` and so on as mount(2) flags.
pub fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "shared" => libc::MS_SHARED,
        "rshared" => libc::MS_SHARED | libc::MS_REC,
        "slave" => libc::MS_SLAVE,
        "rslave" => libc::MS_SLAVE | libc::MS_REC,
        "private" => libc::MS_PRIVATE,
        "rprivate" => libc::MS_PRIVATE | libc::MS_REC,
        "unbindable" => libc::MS_UNBINDABLE,
        "runbindable" => libc::MS_UNBINDABLE | libc::MS_REC,
        _ => return None,
    })
}

/// Every option word that is understood, sorted; others go to the file system as data.
pub fn known_options() -> Vec<String> {
    const PROPAGATION: [&str; 4] = ["shared", "slave", "private", "unbindable"];
    const OTHER: [&str; 5] = ["bind", "rbind", "tmpcopyup", "idmap", "ridmap"];
    let mut words: Vec<String> = OTHER.map(str::to_owned).to_vec();
    for word in PROPAGATION.into_iter().chain(ATTRIBUTES.iter().map(|(word, ..)| *word)) {
        words.push(word.to_owned());
        words.push(format!("r{word}"));
    }
    words.extend(SUPERBLOCK.iter().map(|(word, _)| (*word).to_owned()));
    words.sort();
    words
}

impl Words {
    fn read(options: &[String]) -> Self {
        let mut words = Self::default();
        for option in options {
            words.take(option);
        }
        words
    }

    fn take(&mut self, option: &str) {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.bind_recursive) = (true, true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            _ => {
                if let Some(flags) = propagation(option) {
                    self.propagation.push(flags);
                } else if let Some((_, bit, on)) = ATTRIBUTES.iter().find(|(word, ..)| *word == option) {
                    change(&mut self.set, &mut self.clear, *bit, *on);
                } else if let Some((_, bit, on)) =
                    option.strip_prefix('r').and_then(|o| ATTRIBUTES.iter().find(|(word, ..)| *word == o))
                {
                    change(&mut self.recursive_set, &mut self.recursive_clear, *bit, *on);
                } else if let Some((_, flag)) = SUPERBLOCK.iter().find(|(word, _)| *word == option) {
                    if !flag.is_empty() {
                        self.superblock.push(flag);
                    }
                } else if !option.is_empty() {
                    let (key, value) = option.split_once('=').unwrap_or((option, ""));
                    // mount(8) wants quotes around a label, for its commas; fsconfig(2) takes them for a part of it.
                    let value = if key.ends_with("context") { value.trim_matches('"') } else { value };
                    self.data.push((key.to_owned(), value.to_owned()));
                }
            }
        }
    }
}

/// The last word wins, as with mount(8). An access time mode is a field: setting one means clearing the field first.
fn change(set: &mut u64, clear: &mut u64, bit: u64, on: bool) {
    let is_atime = bit & !MOUNT_ATTR_ATIME == 0;
    if is_atime && on {
        *set &= !MOUNT_ATTR_ATIME;
        *clear |= MOUNT_ATTR_ATIME;
        *set |= bit;
    } else if is_atime {
        // As with mount(8), a mode that is only denied is no mode: what the source has stays.
        if *clear & MOUNT_ATTR_ATIME != 0 && *set & MOUNT_ATTR_ATIME == bit {
            *set &= !MOUNT_ATTR_ATIME;
            *clear &= !MOUNT_ATTR_ATIME;
        }
        *clear |= MOUNT_ATTR_NODIRATIME & !*set;
    } else if on {
        *set |= bit;
        *clear &= !bit;
    } else {
        *set &= !bit;
        *clear |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &[&str]) -> Words {
        Words::read(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_word_wins() {
        let w = words(&["ro", "nosuid", "rw"]);
        assert_eq!((w.set, w.clear), (MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY));
    }

    #[test]
    fn access_time_is_one_field() {
        let w = words(&["noatime", "strictatime"]);
        assert_eq!((w.set, w.clear), (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME));
        let w = words(&["rnoatime"]);
        assert_eq!((w.recursive_set, w.recursive_clear), (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME));
    }

    #[test]
    fn recursive_words_are_not_data() {
        let w = words(&["rro", "rnosymfollow", "rbind", "rslave", "size=64k", "relatime"]);
        assert_eq!(w.recursive_set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSYMFOLLOW);
        assert!(w.bind && w.bind_recursive);
        assert_eq!(w.propagation, [libc::MS_SLAVE | libc::MS_REC]);
        assert_eq!(w.data, [("size".to_owned(), "64k".to_owned())]);
    }
}
