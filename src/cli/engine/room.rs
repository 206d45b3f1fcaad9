//! `jug system df` and `prune`: how much room images, containers and volumes take, and what of it nobody needs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use serde_json::{Value, json};

use super::Global;
use super::each::place;
use super::format::Format;
use super::rmi::PruneFlags;
use super::shown::{print, size, tell};
use crate::engine::container::{Container, remove_tree};
use crate::engine::life;
use crate::engine::place::Place;
use crate::engine::volumes::{self, Source};
use crate::error::Result;
use crate::image::store::Store;
use crate::sys::path;

/// Show how much room is used
#[derive(Debug, clap::Args)]
pub struct Df {
    /// `table`, `json`, or a Go template such as '{{.Type}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Remove what nobody uses: containers that do not run, images without a name, and downloads that were broken off
#[derive(Debug, clap::Args)]
pub struct Prune {
    #[command(flatten)]
    flags: PruneFlags,
    /// Also volumes without a name that no container has
    #[arg(long)]
    volumes: bool,
}

impl Df {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let (store, place) = (global.store()?, place(global)?);
        let mut rows = images(&store)?;
        rows.splice(1..1, [containers(&place)?, volumes_of(&place)?]);
        let columns = [
            ("TYPE", "Type"),
            ("TOTAL", "TotalCount"),
            ("ACTIVE", "Active"),
            ("SIZE", "Size"),
            ("RECLAIMABLE", "Reclaimable"),
        ];
        print(&Format::parse(self.format.as_deref())?.list(&rows, &columns)?)?;
        Ok(0)
    }
}

fn row(kind: &str, count: usize, active: usize, bytes: u64, free: u64) -> Value {
    let free = free.min(bytes);
    let share = (free * 100).checked_div(bytes).unwrap_or(0);
    json!({
        "Type": kind, "TotalCount": count.to_string(), "Active": active.to_string(), "Size": size(bytes),
        "Reclaimable": format!("{} ({share}%)", size(free)),
    })
}

fn images(store: &Store) -> Result<Vec<Value>> {
    let (usage, images, pins) = (store.usage()?, store.images()?, store.pins()?);
    let used = images.iter().filter(|image| pins.iter().any(|pin| pin.image == image.id)).count();
    let free: u64 = store.unused(true)?.iter().map(|image| image.size).sum();
    let free_blobs = if used == 0 { usage.blobs } else { usage.garbage };
    Ok(vec![
        row("Images", images.len(), used, usage.layers, free),
        row("Blobs", images.len(), used, usage.blobs, free_blobs),
        row("Broken-off downloads", 0, 0, usage.partial, usage.partial),
    ])
}

/// What containers have written into their roots.
fn containers(place: &Place) -> Result<Value> {
    let all = Container::all(place)?;
    let (mut active, mut bytes, mut free) = (0, 0, 0);
    for container in &all {
        let written = bytes_of(&container.path.join("upper"))?;
        let is_up = container.status()?.is_up();
        active += usize::from(is_up);
        bytes += written;
        free += if is_up { 0 } else { written };
    }
    Ok(row("Containers", all.len(), active, bytes, free))
}

fn volumes_of(place: &Place) -> Result<Value> {
    let (names, used) = (names_in(&place.volumes())?, used_volumes(place)?);
    let (mut active, mut bytes, mut free) = (0, 0, 0);
    for name in &names {
        let own = bytes_of(&place.volumes().join(name))?;
        let is_used = used.contains(name);
        active += usize::from(is_used);
        bytes += own;
        free += if is_used { 0 } else { own };
    }
    Ok(row("Local Volumes", names.len(), active, bytes, free))
}

/// The volumes that any container has, running or not, or is about to have.
pub fn used_volumes(place: &Place) -> Result<HashSet<OsString>> {
    let mut used = HashSet::new();
    for id in names_in(&place.containers())? {
        let claimed = std::fs::read_to_string(place.containers().join(&id).join("volumes"));
        used.extend(claimed.unwrap_or_default().lines().map(OsString::from));
    }
    for container in Container::all(place)? {
        used.extend(container.record.volumes.iter().map(OsString::from));
        for mount in volumes::wanted(&container.record.settings, &[])? {
            if let Source::Volume(name) = mount.source {
                used.insert(name.into());
            }
        }
    }
    Ok(used)
}

/// The names in a directory of ours; none where it is not there.
pub fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    match path::open(dir, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(dir) => path::list(dir.as_fd()),
        Err(e) if e.errno() == libc::ENOENT => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Bytes on the disk of everything below a directory. A container may be changing it meanwhile.
fn bytes_of(dir: &Path) -> Result<u64> {
    match path::open(dir, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) {
        Ok(dir) => bytes_below(dir.as_fd(), &mut HashSet::new(), 0),
        Err(e) if e.errno() == libc::ENOENT => Ok(0),
        Err(e) => Err(e),
    }
}

/// Deeper than any path can be named.
const DEEPEST: usize = 512;

fn bytes_below(dir: BorrowedFd<'_>, seen: &mut HashSet<u64>, depth: usize) -> Result<u64> {
    let mut bytes = 0;
    for name in path::list(dir)? {
        let name = Path::new(&name);
        let Ok(st) = path::stat(dir, name) else { continue };
        // A file with several names counts once.
        if st.st_nlink < 2 || st.st_mode & libc::S_IFMT == libc::S_IFDIR || seen.insert(st.st_ino) {
            bytes += st.st_blocks as u64 * 512;
        }
        if st.st_mode & libc::S_IFMT == libc::S_IFDIR && depth < DEEPEST {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let Ok(inner) = path::openat(dir, name, flags, 0) else { continue };
            bytes += bytes_below(inner.as_fd(), seen, depth + 1)?;
        }
    }
    Ok(bytes)
}

impl Prune {
    pub fn perform(self, global: &Global) -> Result<u8> {
        let (store, place) = (global.store()?, place(global)?);
        let volumes = if self.volumes { ", volumes without a name that no container has" } else { "" };
        let more = format!(", containers that do not run{volumes}, and downloads that were broken off");
        self.flags.perform(&store, &more, || {
            Ok(prune_containers(&place)? + if self.volumes { prune_volumes(&place, false)? } else { 0 })
        })
    }
}

/// Removes the containers that do not run; returns the bytes that they had written. One that was started meanwhile
/// stays.
fn prune_containers(place: &Place) -> Result<u64> {
    let (mut bytes, mut gone) = (0, String::new());
    for container in Container::all(place)? {
        if container.status()?.is_up() {
            continue;
        }
        let (id, written) = (container.id().to_owned(), bytes_of(&container.path.join("upper"))?);
        match life::remove(container, false, false) {
            Ok(()) => {
                bytes += written;
                gone += &format!("{id}\n");
            }
            Err(e) => tell(&format!("Error: container {id}: {e}")),
        }
    }
    if !gone.is_empty() {
        print(&format!("Deleted Containers:\n{gone}"))?;
    }
    Ok(bytes)
}

/// Removes volumes that nobody has and whose name is an id (whoever makes one has claimed it before), or `all`; gives
/// their bytes.
pub fn prune_volumes(place: &Place, all: bool) -> Result<u64> {
    let names = names_in(&place.volumes())?;
    let used = used_volumes(place)?;
    let (mut bytes, mut gone) = (0, String::new());
    for name in names.iter().filter(|name| !used.contains(*name)) {
        let text = name.to_string_lossy();
        if all || text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let path = place.volumes().join(name);
            bytes += bytes_of(&path)?;
            remove_tree(&path)?;
            gone += &format!("{text}\n");
        }
    }
    if !gone.is_empty() {
        print(&format!("Deleted Volumes:\n{gone}"))?;
    }
    Ok(bytes)
}
