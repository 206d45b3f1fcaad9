//! `--userns auto`: a range of subordinate ids for each container, as Podman has it. The ids come from those that
//! /etc/subuid and /etc/subgid give to the user `containers`, or else to root. A range is as large as the image wants
//! it, and is the container's from its making to its removal; no two containers of a root have an id in common.
//!
//! `ROOT/containers/.ids/ID` is a link that says `FIRST_UID:FIRST_GID:SIZE`. Choosing is done under a lock, which
//! nobody holds for longer than that. A link whose container is gone says nothing.

use std::fs::{self, File};
use std::os::fd::AsFd;

use super::ids;
use super::place::{Place, io};
use super::settings::Settings;
use super::spec::Maps;
use super::user::{self, User};
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::fd;

/// Podman's: the smallest range that nobody asked for by its size, and the largest.
const LEAST: u32 = 1024;
const MOST: u32 = 65_536;

/// Who has the subordinate ids for containers of root.
const OWNERS: [&str; 2] = ["containers", "root"];

/// What `--userns auto[:size=N]` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto {
    size: Option<u32>,
}

/// `None`: another mode was asked for, or none.
pub fn asked(settings: &Settings) -> Result<Option<Auto>> {
    let mode = settings.userns.as_deref().unwrap_or("");
    let Some(options) = mode.strip_prefix("auto") else { return Ok(None) };
    let auto = match options.split_once("size=") {
        None if options.is_empty() => Auto { size: None },
        Some((":", size)) if size.parse::<u32>().is_ok_and(|size| size > 0) => {
            Auto { size: size.parse().ok() }
        }
        _ => {
            return Err(Error::new(format!("--userns: {mode:?} is not auto or auto:size=N"))
                .next("use auto, and options uidmapping and gidmapping not at all"));
        }
    };
    if host::is_rootless() {
        return Err(Error::new("--userns auto: is for root")
            .why("only root of the machine can show the files of an image under other ids (mount_setattr(2))")
            .next("leave it out: your containers are in a user namespace, with ids of your own range"));
    }
    Ok(Some(auto))
}

/// Claims a range for the container. `highest`: the highest id that a file of the image has.
pub fn claim(place: &Place, id: &str, auto: Auto, root: &RootDir, user: &User, highest: u32) -> Result<Maps> {
    let in_use = user.groups.iter().chain([&user.uid, &user.gid]).max().copied().unwrap_or(0);
    let size = match auto.size {
        Some(size) if in_use < size => size,
        Some(size) => {
            return Err(Error::new(format!("--userns auto: id {in_use} is not among {size}"))
                .next("give a larger size, or none"));
        }
        None => {
            let wanted = in_use.max(user::highest(root)?).max(highest).saturating_add(1).max(LEAST);
            if wanted > MOST {
                return Err(Error::new(format!(
                    "--userns auto: the image needs {wanted} ids, more than {MOST}"
                ))
                .next(format!("give auto:size={wanted}, where /etc/subuid and /etc/subgid have so many")));
            }
            wanted
        }
    };
    let dir = place.ranges();
    place.make(&dir)?;
    let lock = File::open(&dir).map_err(io("open the ranges of ids"))?;
    fd::flock(lock.as_fd(), libc::LOCK_EX)?;
    let taken = taken(place)?;
    let uid = free(&given("/etc/subuid")?, taken.iter().map(|t| (t.0, t.2)), size);
    let gid = free(&given("/etc/subgid")?, taken.iter().map(|t| (t.1, t.2)), size);
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(Error::new(format!("--userns auto: no {size} ids in a row are free"))
            .why(format!("{} containers have ranges of /etc/subuid and /etc/subgid", taken.len()))
            .next(
                "remove containers, or give the user containers more (usermod --add-subuids, --add-subgids)",
            ));
    };
    let link = dir.join(id);
    let said = format!("{uid}:{gid}:{size}");
    std::os::unix::fs::symlink(said, &link).map_err(io(format_args!("symlink({link:?})")))?;
    Ok(Maps { uid: vec![(0, uid, size)], gid: vec![(0, gid, size)] })
}

/// The container is gone, and its ids are anybody's.
pub fn give_back(place: &Place, id: &str) {
    let _ = fs::remove_file(place.ranges().join(id));
}

/// First uid, first gid and size of every container's range. The lock must be held.
fn taken(place: &Place) -> Result<Vec<(u32, u32, u32)>> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(place.ranges()).map_err(io("list the ranges of ids"))? {
        let link = entry.map_err(io("list the ranges of ids"))?;
        if fs::symlink_metadata(place.containers().join(link.file_name())).is_err() {
            let _ = fs::remove_file(link.path());
            continue;
        }
        let said = fs::read_link(link.path()).unwrap_or_default();
        let said = said.to_string_lossy();
        let mut numbers = said.split(':').map(|number| number.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        if let (Some(uid), Some(gid), Some(size)) = (next(), next(), next()) {
            taken.push((uid, gid, size));
        }
    }
    Ok(taken)
}

/// What a table gives: first id and size of each range.
fn given(table: &str) -> Result<Vec<(u32, u32)>> {
    OWNERS
        .iter()
        .map(|owner| ids::ranges_of(table, &[(*owner).to_owned()]))
        .find(|list| !list.is_empty())
        .ok_or_else(|| {
            Error::new(format!("--userns auto: {table} gives no ids to the user containers"))
                .next(format!("add a line to it, such as {}:2147483647:2147483648", OWNERS[0]))
        })
}

/// The lowest place for `size` ids in a row.
fn free(given: &[(u32, u32)], taken: impl Iterator<Item = (u32, u32)>, size: u32) -> Option<u32> {
    let mut taken: Vec<(u64, u64)> =
        taken.map(|(first, n)| (first.into(), u64::from(first) + u64::from(n))).collect();
    taken.sort_unstable();
    given.iter().find_map(|&(first, n)| {
        let (mut at, end) = (u64::from(first), u64::from(first) + u64::from(n));
        for &(begin, behind) in &taken {
            if begin < at + u64::from(size) && at < behind {
                at = behind;
            }
        }
        (at + u64::from(size) <= end).then(|| u32::try_from(at).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told() {
        let asked = |mode: &str| asked(&Settings { userns: Some(mode.to_owned()), ..Settings::default() });
        assert_eq!(asked("host").unwrap(), None);
        assert_eq!(asked("").unwrap(), None);
        for bad in
            ["auto:", "auto:size=", "auto:size=0", "auto:size=x", "autosize=5", "auto:uidmapping=0:1:2"]
        {
            assert!(asked(bad).is_err(), "{bad}");
        }
        if !host::is_rootless() {
            assert_eq!(asked("auto").unwrap(), Some(Auto { size: None }));
            assert_eq!(asked("auto:size=5000").unwrap(), Some(Auto { size: Some(5000) }));
        }
    }

    #[test]
    fn the_lowest_free_place() {
        let given = [(100, 50), (1000, 100)];
        for (taken, size, place) in [
            (&[][..], 10, Some(100)),
            (&[(100, 10)], 10, Some(110)),
            (&[(110, 10)], 10, Some(100)),
            (&[(105, 10)], 10, Some(115)),
            (&[(130, 10), (100, 10)], 20, Some(110)),
            (&[(130, 10), (100, 10)], 21, Some(1000)),
            (&[(90, 60)], 1, Some(1000)),
            (&[], 101, None),
            (&[(100, 50), (1000, 100)], 1, None),
        ] {
            assert_eq!(free(&given, taken.iter().copied(), size), place, "{taken:?} {size}");
        }
        assert_eq!(free(&[(u32::MAX - 9, 10)], [].into_iter(), 10), Some(u32::MAX - 9));
    }
}
