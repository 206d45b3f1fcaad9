//! A container's directory: what was asked for, and what became of it.
//!
//! ```text
//! ROOT/containers/ID/      locked (flock) by whoever runs or changes the container
//!     record               what was asked for, as JSON; without it the directory is nobody's and goes away
//!     config.json rootfs/  the bundle; rootfs is where the root is mounted, in a mount namespace of its own
//!     upper/ work/         what the container wrote
//!     points/              mount points, where the root is read-only
//!     volumes              the anonymous volumes that go with it, a name a line
//!     hosts hostname resolv.conf
//!     started exited       the last start, and how it ended: both carry the same attempt, or nobody knows the end
//!     log log.1 ...        what it said
//! ROOT/containers/.names/NAME  a link that says the ID: a name is taken by making it
//! ROOT/containers/.ids/ID      a link that says its range of ids, see `ranges`
//! ROOT/containers/.levels/PAIR a link that says whose these categories of SELinux are, see `selinux`
//! ```
//! No lock and no file is shared between containers, so that `ps` never waits. Status is observed: the runtime's record
//! names a process, the kernel says whether it lives, the lock whether somebody watches it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::{Place, io};
use super::selinux::{self, Labels};
use super::settings::Settings;
use super::spec::Maps;
use super::{names, quantity, ranges};
use crate::container as oci;
use crate::container::record::{Id, rfc3339};
use crate::error::{Error, Result};
use crate::image::store::Store;
use crate::sys::{fd, process};

const LONGEST: u64 = 4 << 20;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub id: String,
    pub name: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// The image as it was asked for, and its id; the directory of `--rootfs` otherwise.
    pub image: String,
    pub image_id: String,
    /// The whole command line; `entrypoint` is the part of it which the image, or `--entrypoint`, says.
    pub args: Vec<String>,
    pub entrypoint: Vec<String>,
    /// Layers of the root, the lowest first; none with `--rootfs`.
    pub layers: Vec<PathBuf>,
    /// The root of `--rootfs`.
    pub rootfs: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: String,
    /// Who the program is, as it was asked for or as the image says; empty for user 0.
    pub user: String,
    /// Volumes without a name, which go with the container.
    pub volumes: Vec<String>,
    /// Its cgroup is a scope of the caller's own systemd.
    pub scope: bool,
    /// The ids of a range of its own (`ranges`), under which the layers of its root are mounted; none else.
    pub maps: Maps,
    /// Its labels of SELinux.
    pub selinux: Labels,
    pub settings: Settings,
}

/// A start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Started {
    pub attempt: u64,
    pub at: String,
}

/// How a start ended. `error`: why there was no program at all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exited {
    pub attempt: u64,
    pub at: String,
    pub code: i32,
    pub error: Option<String>,
    /// The kernel killed something in it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    /// `known`: somebody saw the end; else the code is 255, as docker has it.
    Exited {
        code: i32,
        known: bool,
    },
}

impl Record {
    /// Whether an ordinary user's container is made in a user namespace that is there before it: that in which the root
    /// of an image was mounted, or that of the container whose namespaces it joins.
    pub fn needs_user_namespace(&self) -> bool {
        !self.layers.is_empty() || self.settings.others().next().is_some()
    }

    /// Whether it has that one and none of its own below it.
    pub fn borrows_user_namespace(&self) -> bool {
        self.needs_user_namespace() && self.maps.uid.is_empty()
    }
}

impl Status {
    /// docker's one word.
    pub fn word(&self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Exited { .. } => "exited",
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

#[derive(Debug)]
pub struct Container {
    pub place: Place,
    pub path: PathBuf,
    dir: File,
    pub record: Record,
}

impl Container {
    /// Makes the directory of a new container, locked, with a name of its own; it goes away unless `keep` is called.
    pub fn claim(place: &Place, name: Option<&str>) -> Result<Self> {
        place.make(&place.containers())?;
        place.make(&place.names())?;
        let id = names::id()?;
        let path = place.containers().join(&id);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io(format_args!("mkdir({path:?})")))?;
        // Whoever sweeps may take the still empty directory away between these calls.
        let dir = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::claim(place, name),
            other => other.map_err(io(format_args!("open({path:?})")))?,
        };
        fd::flock(dir.as_fd(), libc::LOCK_EX)?;
        let current =
            fs::metadata(&path).is_ok_and(|now| dir.metadata().is_ok_and(|then| then.ino() == now.ino()));
        if !current {
            return Self::claim(place, name);
        }
        let record = Record { id, created: rfc3339(process::now()), ..Record::default() };
        let mut container = Self { place: place.clone(), path, dir, record };
        if let Err(e) = container.take_name(name) {
            container.erase(false)?;
            return Err(e);
        }
        Ok(container)
    }

    fn take_name(&mut self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            names::check(name)?;
            self.record.name = name.to_owned();
            return claim_name(&self.place, name, &self.record.id);
        }
        for attempt in 0..100 {
            let name = names::words(attempt)?;
            match claim_name(&self.place, &name, &self.record.id) {
                Ok(()) => {
                    self.record.name = name;
                    return Ok(());
                }
                Err(e) if e.errno() == libc::EEXIST => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::new("no free name was found").next("give --name"))
    }

    /// Another name; the old one is free then.
    pub fn rename(&mut self, name: &str) -> Result<()> {
        names::check(name)?;
        claim_name(&self.place, name, &self.record.id)?;
        let old = std::mem::replace(&mut self.record.name, name.to_owned());
        self.write_record()?;
        free_name(&self.place, &old, &self.record.id);
        Ok(())
    }

    /// Writes down the volumes that go with the container, before they are made.
    pub fn claim_volumes(&mut self, names: Vec<String>) -> Result<()> {
        if !names.is_empty() {
            write_whole(&self.path, "volumes", names.join("\n").as_bytes(), false)?;
        }
        self.record.volumes = names;
        Ok(())
    }

    /// Durable, unless the container is not to stay anyway.
    pub fn write_record(&self) -> Result<()> {
        self.write("record", &self.record)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(|e| Error::new(format!("writing {name}: {e}")))?;
        write_whole(&self.path, name, &text, !self.record.settings.rm)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        read_json(&self.path.join(name))
    }

    pub fn id(&self) -> &str {
        &self.record.id
    }

    pub fn oci_id(&self) -> Result<Id> {
        Id::new(&self.record.id)
    }

    pub fn open(place: &Place, id: &str) -> Result<Option<Self>> {
        let path = place.containers().join(id);
        let Ok(dir) = File::open(&path) else { return Ok(None) };
        let Some(record) = read_json(&path.join("record"))? else { return Ok(None) };
        Ok(Some(Self { place: place.clone(), path, dir, record }))
    }

    /// By name, by id, or by the beginning of one id.
    pub fn find(place: &Place, word: &str) -> Result<Self> {
        let none = || Error::new(format!("no such container: {word}")).next("`jug ps -a` shows them all");
        if word.is_empty() || word.contains('/') || word.starts_with('.') {
            return Err(none());
        }
        if let Ok(id) = fs::read_link(place.names().join(word))
            && let Some(found) = Self::open(place, &id.to_string_lossy())?
        {
            return Ok(found);
        }
        let mut found = ids(place).into_iter().filter(|id| id.starts_with(word));
        match (found.next(), found.next()) {
            (Some(id), None) => Self::open(place, &id)?.ok_or_else(none),
            (Some(_), Some(_)) => Err(Error::new(format!("{word:?} is the beginning of more than one id"))),
            (None, _) => Err(none()),
        }
    }

    /// Every container, the newest first. What a killed engine left half made, or was to remove, is removed.
    pub fn all(place: &Place) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for id in ids(place) {
            match Self::open(place, &id)? {
                Some(container) if container.is_forsaken()? => drop(container.sweep()),
                Some(container) => all.push(container),
                None => sweep_unborn(place, &id),
            }
        }
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(all)
    }

    /// To be removed at its end, ended, and whoever should have done it is gone.
    fn is_forsaken(&self) -> Result<bool> {
        Ok(self.record.settings.rm
            && matches!(self.status()?, Status::Exited { .. })
            && !self.is_watched()?)
    }

    fn sweep(self) -> Result<()> {
        if self.lock()? { self.remove(true) } else { Ok(()) }
    }

    /// Takes the lock, if nobody has it. It goes with this value, and with processes that inherit it.
    pub fn lock(&self) -> Result<bool> {
        fd::flock(self.dir.as_fd(), libc::LOCK_EX | libc::LOCK_NB)
    }

    /// The descriptor that holds the lock.
    pub fn dir(&self) -> &File {
        &self.dir
    }

    /// Somebody runs it, or changes it.
    fn is_watched(&self) -> Result<bool> {
        // A descriptor of its own: the lock of this one must not be changed.
        let Ok(other) = File::open(&self.path) else { return Ok(false) };
        Ok(!fd::flock(other.as_fd(), libc::LOCK_SH | libc::LOCK_NB)?)
    }

    pub fn started(&self) -> Result<Option<Started>> {
        self.read("started")
    }

    /// The end of the last start, if it ended and somebody saw it.
    pub fn exited(&self) -> Result<Option<Exited>> {
        let attempt = self.started()?.map_or(0, |started| started.attempt);
        Ok(self.read::<Exited>("exited")?.filter(|exited| exited.attempt == attempt))
    }

    pub fn write_started(&self) -> Result<Started> {
        let attempt = self.started()?.map_or(0, |started| started.attempt) + 1;
        let started = Started { attempt, at: rfc3339(process::now()) };
        self.write("started", &started)?;
        Ok(started)
    }

    /// While the runtime still has its cgroup.
    pub fn write_exited(&self, code: i32, error: Option<String>) -> Result<()> {
        let attempt = self.started()?.map_or(0, |started| started.attempt);
        let oom_killed = self.oci()?.is_some_and(|oci| oci.was_out_of_memory());
        self.write("exited", &Exited { attempt, at: rfc3339(process::now()), code, error, oom_killed })
    }

    /// The runtime's view, while it has one.
    pub fn oci(&self) -> Result<Option<oci::Container>> {
        let Some(root) = self.place.records()? else { return Ok(None) };
        match oci::Container::load(&root, &self.oci_id()?) {
            Ok(container) => Ok(Some(container)),
            Err(e) if e.what().starts_with("container does not exist") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The first process, while it lives.
    pub fn pid(&self) -> Result<Option<i32>> {
        let Some(container) = self.oci()? else { return Ok(None) };
        Ok(container.process()?.map(|_| container.record.pid))
    }

    pub fn status(&self) -> Result<Status> {
        match self.oci()?.map(|container| container.status()).transpose()? {
            Some(oci::Status::Running | oci::Status::Created) => return Ok(Status::Running),
            Some(oci::Status::Paused) => return Ok(Status::Paused),
            Some(oci::Status::Creating | oci::Status::Stopped) | None => {}
        }
        if self.started()?.is_none() {
            return Ok(Status::Created);
        }
        if let Some(exited) = self.exited()? {
            return Ok(ended(&exited));
        }
        if self.is_watched()? {
            // Between two words: about to run, or about to say how it ended.
            return Ok(Status::Running);
        }
        Ok(self.exited()?.map_or(Status::Exited { code: 255, known: false }, |exited| ended(&exited)))
    }

    /// "Up 3 minutes" and the like.
    pub fn status_words(&self, status: &Status) -> Result<String> {
        let now = process::now().0;
        let since = |at: &str| quantity::ago(now - quantity::seconds_of(at).unwrap_or(now));
        let up = || -> Result<String> { Ok(since(&self.started()?.unwrap_or_default().at)) };
        Ok(match status {
            Status::Created => "Created".to_owned(),
            Status::Running => format!("Up {}", up()?),
            Status::Paused => format!("Up {} (Paused)", up()?),
            Status::Exited { code, .. } => match self.exited()? {
                Some(exited) => format!("Exited ({code}) {} ago", since(&exited.at)),
                None => format!("Exited ({code})"),
            },
        })
    }

    /// Removes a container that does not run, with whatever the runtime still has of it. The lock must be held.
    pub fn remove(self, volumes: bool) -> Result<()> {
        let root = self.place.records()?;
        oci::delete(root.as_ref(), &self.oci_id()?, true)?;
        self.erase(volumes)
    }

    /// Removes the directory and the name. The lock must be held, and the runtime must have nothing of it.
    pub fn erase(&self, volumes: bool) -> Result<()> {
        free_name(&self.place, &self.record.name, &self.record.id);
        if volumes {
            for name in &self.record.volumes {
                remove_tree(&self.place.volumes().join(name))?;
            }
        }
        remove_tree(&self.path)?;
        ranges::give_back(&self.place, &self.record.id);
        selinux::give_back(&self.place, &self.record.id);
        unpin(&self.place, &self.record.id)
    }
}

/// The container uses its image no more.
fn unpin(place: &Place, id: &str) -> Result<()> {
    // A store that was never made has nothing pinned.
    match fs::symlink_metadata(place.root.join("pins")) {
        Ok(_) => Store::open(&place.root)?.unpin(id),
        Err(_) => Ok(()),
    }
}

fn ended(exited: &Exited) -> Status {
    // Nothing ran: what docker calls created still.
    if exited.error.is_some() { Status::Created } else { Status::Exited { code: exited.code, known: true } }
}

/// The ids of all directories, sorted.
fn ids(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.containers()).into_iter().flatten().flatten();
    let mut ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    ids.retain(|id| id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
    ids.sort();
    ids
}

/// A directory without a record, that nobody holds: its maker was killed.
fn sweep_unborn(place: &Place, id: &str) {
    let path = place.containers().join(id);
    let Ok(dir) = File::open(&path) else { return };
    if !fd::flock(dir.as_fd(), libc::LOCK_EX | libc::LOCK_NB).unwrap_or(false) {
        return;
    }
    // It may have been finished meanwhile.
    if fs::symlink_metadata(path.join("record")).is_err() {
        // What it had claimed outside goes first.
        for name in fs::read_to_string(path.join("volumes")).unwrap_or_default().lines() {
            let _ = names::check(name).and_then(|()| remove_tree(&place.volumes().join(name)));
        }
        let links = fs::read_dir(place.names()).into_iter().flatten().flatten();
        links.for_each(|link| free_name(place, &link.file_name().to_string_lossy(), id));
        let _ = unpin(place, id).and_then(|()| remove_tree(&path));
        ranges::give_back(place, id);
        selinux::give_back(place, id);
    }
}

/// Makes the link that says whose the name is. EEXIST: somebody else's.
fn claim_name(place: &Place, name: &str, id: &str) -> Result<()> {
    let link = place.names().join(name);
    let make = || std::os::unix::fs::symlink(id, &link);
    match make() {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(io(format_args!("symlink({link:?})"))),
    }
    let owner = fs::read_link(&link).unwrap_or_default();
    let taken = |owner: &Path| {
        let call = format!(
            "the container name {name:?} is already in use by container {}",
            owner.to_string_lossy().get(..12).unwrap_or("?")
        );
        Error::call(call, libc::EEXIST).next("remove or rename that container, or take another name")
    };
    if fs::symlink_metadata(place.containers().join(&owner)).is_ok() {
        return Err(taken(&owner));
    }
    // Its container is gone. Only taking over is done under a lock, for which nobody else ever waits.
    let names = File::open(place.names()).map_err(io("open the names"))?;
    fd::flock(names.as_fd(), libc::LOCK_EX)?;
    if fs::read_link(&link).is_ok_and(|now| now == owner) {
        fs::remove_file(&link).map_err(io(format_args!("unlink({link:?})")))?;
    }
    make().map_err(|_| taken(&fs::read_link(&link).unwrap_or_default()))
}

fn free_name(place: &Place, name: &str, id: &str) {
    let link = place.names().join(name);
    if !name.is_empty() && fs::read_link(&link).is_ok_and(|owner| owner == Path::new(id)) {
        let _ = fs::remove_file(link);
    }
}

/// Writes a file whole or not at all.
pub fn write_whole(dir: &Path, name: &str, bytes: &[u8], durable: bool) -> Result<()> {
    let next = dir.join(format!(".{name}"));
    let failed = |e| io(format_args!("write({:?})", dir.join(name)))(e);
    let mut file = File::create(&next).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if durable {
        file.sync_all().map_err(failed)?;
    }
    fs::rename(&next, dir.join(name)).map_err(failed)?;
    if durable {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    use std::io::Read as _;
    let Ok(file) = File::open(path) else { return Ok(None) };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(io(format_args!("read({path:?})")))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| Error::new(format!("{} is damaged: {e}", path.display())))
}

/// Removes a tree of ours, whatever is in it; one that is gone is no error.
pub fn remove_tree(path: &Path) -> Result<()> {
    for _ in 0..3 {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Directories that their owner may not read (overlayfs makes one), or another id's, where we are not root.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                open_up(path);
                let whole = || fs::remove_dir_all(path).map_err(io(format_args!("rm -r {}", path.display())));
                let _ = super::rootless::apart(whole);
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => {}
            other => return other.map_err(io(format_args!("rm -r {}", path.display()))),
        }
    }
    fs::remove_dir_all(path).map_err(io(format_args!("rm -r {}", path.display())))
}

fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.metadata().is_ok_and(|meta| meta.mode() & libc::S_IFMT == libc::S_IFDIR) {
            let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
            open_up(&entry.path());
        }
    }
}
