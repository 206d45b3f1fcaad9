//! The SELinux labels of a container, as Podman and Docker choose them: the types that the host's policy has for
//! containers, and two categories that no other container of this root has. A host without SELinux, or whose policy
//! says nothing of containers, has no labels.
//!
//! `ROOT/containers/.levels/c1,c2` is a link that says whose the pair is: taken by making it, as a name is.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::container::Container;
use super::names;
use super::place::{Place, io};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{path, xattr};

/// Each is empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    pub process: String,
    /// Of the container's files.
    pub mount: String,
}

/// Who else may use what is relabelled for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// `:z`: every container.
    Shared,
    /// `:Z`: this one alone.
    Private,
}

/// The level of files that no confined container may use: its pair is given to none.
const NOBODYS: &str = "s0:c1022,c1023";
const CATEGORIES: u16 = 1024;

/// Directories that are the host's own: with another label, the host would stop working (go-selinux has the same list).
const NEVER: &str = "/ /bin /boot /dev /etc /etc/passwd /etc/pki /etc/shadow /home /lib /lib64 /media /opt /proc /root \
                     /run /sbin /srv /sys /tmp /usr /var /var/lib /var/log";

/// The labels of a new container.
pub fn choose(place: &Place, id: &str, settings: &Settings) -> Result<Labels> {
    let mut options = Vec::new();
    for option in settings.securities("label") {
        options.push(parsed(option)?);
    }
    if !host::has_selinux() {
        if options.iter().any(Option::is_some) {
            return Err(Error::new("--security-opt label: SELinux is not enabled on this host")
                .next("leave it out, or use label=disable"));
        }
        return Ok(Labels::default());
    }
    let Some((mut process, mut mount)) = defaults() else { return Ok(Labels::default()) };
    let of_host = |mode: &Option<String>| mode.as_deref() == Some("host");
    let open = settings.privileged || of_host(&settings.pid) || of_host(&settings.ipc);
    if open || options.contains(&None) {
        mount.level = NOBODYS.to_owned();
        return Ok(Labels { process: String::new(), mount: mount.text() });
    }
    let mut options: Vec<(String, String)> = options.into_iter().flatten().collect();
    for other in [&settings.pid, &settings.ipc]
        .into_iter()
        .filter_map(|mode| mode.as_deref()?.strip_prefix("container:"))
    {
        options.extend(of_other(&Container::find(place, other)?.record.selinux.process));
    }
    let says_level = options.iter().any(|(key, _)| key == "level");
    if !process.level.is_empty() && !says_level {
        process.level = claim(place, id)?;
        mount.level.clone_from(&process.level);
    }
    for (key, value) in options {
        match key.as_str() {
            "user" => (process.user, mount.user) = (value.clone(), value),
            "level" => (process.level, mount.level) = (value.clone(), value),
            "role" => process.role = value,
            "type" => process.kind = value,
            _ => mount.kind = value,
        }
    }
    Ok(Labels { process: process.text(), mount: mount.text() })
}

/// A `--security-opt label=`; `None` is `disable`.
fn parsed(option: &str) -> Result<Option<(String, String)>> {
    match option.split_once(':') {
        None if option == "disable" => Ok(None),
        Some((key @ ("user" | "role" | "type" | "level" | "filetype"), value)) if !value.is_empty() => {
            Ok(Some((key.to_owned(), value.to_owned())))
        }
        _ => Err(Error::new(format!("--security-opt label={option}: is unknown"))
            .next("use disable, or user, role, type, level or filetype with a colon and a value")),
    }
}

/// The options that give the label of another container, whose processes or queues this one is to see.
fn of_other(label: &str) -> Vec<(String, String)> {
    let Some(context) = Context::new(label) else { return Vec::new() };
    let all =
        [("user", context.user), ("role", context.role), ("type", context.kind), ("level", context.level)];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// `user:role:type[:level]`.
struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Context {
    fn new(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { user, role, kind, level: parts.next().unwrap_or_default() })
    }

    fn text(&self) -> String {
        let Self { user, role, kind, level } = self;
        if level.is_empty() {
            format!("{user}:{role}:{kind}")
        } else {
            format!("{user}:{role}:{kind}:{level}")
        }
    }
}

/// The labels of processes and files that the host has for containers.
fn defaults() -> Option<(Context, Context)> {
    let context = |key| Context::new(&host::container_context(key)?);
    Some((context("process")?, context("file")?))
}

/// Two categories that nobody has.
fn claim(place: &Place, id: &str) -> Result<String> {
    place.make(&place.levels())?;
    for _ in 0..10_000 {
        let [a, b, c, d] = names::random::<4>()?;
        let (one, other) = (u16::from_le_bytes([a, b]) % CATEGORIES, u16::from_le_bytes([c, d]) % CATEGORIES);
        let pair = format!("c{},c{}", one.min(other), one.max(other));
        let level = format!("s0:{pair}");
        if one == other || level == NOBODYS {
            continue;
        }
        match std::os::unix::fs::symlink(id, place.levels().join(pair)) {
            Ok(()) => return Ok(level),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io("claiming categories of SELinux")(e)),
        }
    }
    Err(Error::new("no free pair of SELinux categories was found").next("remove containers"))
}

/// The container is no more.
pub fn give_back(place: &Place, id: &str) {
    let links = fs::read_dir(place.levels()).into_iter().flatten().flatten().map(|link| link.path());
    for link in links.filter(|link| fs::read_link(link).is_ok_and(|owner| owner == Path::new(id))) {
        let _ = fs::remove_file(link);
    }
}

impl Labels {
    /// Whether the container's processes have a label that is not their maker's.
    pub fn confine(&self) -> bool {
        !self.process.is_empty()
    }

    /// Gives what is at a path, and all below it, the label of the container's files.
    pub fn relabel(&self, path: &Path, reach: Reach) -> Result<()> {
        let Some(mut label) = Context::new(&self.mount) else { return Ok(()) };
        if reach == Reach::Shared && !label.level.is_empty() {
            label.level = "s0".to_owned();
        }
        let top = path::open(path, libc::O_PATH)?;
        let real = path::name_of(top.as_fd())?;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let never = |path: &Path| {
            NEVER.split(' ').any(|name| path == Path::new(name)) || home.as_deref() == Some(path)
        };
        if never(&real) || never(path) {
            return Err(Error::new(format!("SELinux relabeling of {} is not allowed", real.display()))
                .why("programs of the host could no longer use it")
                .next("bind a directory below it, or use --security-opt label=disable"));
        }
        let done = label_tree(&top, label.text().as_bytes());
        match done.map_err(|e| e.context(format_args!("relabelling {}", path.display()))) {
            // No labels are kept there; all files have that of the mount.
            Err(e) if e.errno() == libc::EOPNOTSUPP => Ok(()),
            other => other,
        }
    }
}

/// The top comes last. No link is followed: who writes below may be a container.
fn label_tree(top: &OwnedFd, label: &[u8]) -> Result<()> {
    if path::stat(top.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        label_below(
            path::openat(top.as_fd(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?.as_fd(),
            label,
        )?;
    }
    xattr::set_of(top.as_fd(), xattr::SELINUX, label)
}

fn label_below(dir: BorrowedFd<'_>, label: &[u8]) -> Result<()> {
    let gone = |e: Error| if e.errno() == libc::ENOENT { Ok(()) } else { Err(e) };
    for name in path::list(dir)? {
        let name = Path::new(&name);
        match path::openat(dir, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0) {
            Ok(below) => label_below(below.as_fd(), label)?,
            Err(e) if matches!(e.errno(), libc::ENOTDIR | libc::ELOOP | libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
        xattr::set(dir, name, xattr::SELINUX, label).or_else(gone)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        assert_eq!(parsed("disable").unwrap(), None);
        assert_eq!(parsed("level:s0:c1,c2").unwrap(), Some(("level".to_owned(), "s0:c1,c2".to_owned())));
        for bad in ["nested", "type", "type:", "colour:red"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contexts_are_read() {
        for text in ["u:r:t", "u:r:t:s0:c1,c2"] {
            assert_eq!(Context::new(text).unwrap().text(), text);
        }
        assert!(Context::new("").is_none());
    }
}
