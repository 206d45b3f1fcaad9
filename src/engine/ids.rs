//! The ids of a container: the host's, or a user namespace's. An unprivileged user always gets one: with the ranges
//! that /etc/subuid and /etc/subgid give, where newuidmap(1) is there to map them, or with the one id that is one's
//! own.

use super::settings::Settings;
use super::spec::Maps;
use super::user::User;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{cred, path};
use std::path::Path;

/// First id inside, first id outside, how many.
type Map = Vec<(u32, u32, u32)>;

/// Ids that a container of its own needs, as everywhere.
const RANGE: u32 = 65_536;

pub fn maps(settings: &Settings, user: &User) -> Result<Maps> {
    if let Some(kept) = kept(settings)? {
        let maps = keep(kept)?;
        holds(&maps, user, settings)?;
        return Ok(maps);
    }
    let mode = settings.userns.as_deref().unwrap_or("");
    let rootless = cred::euid() != 0;
    match (mode, rootless) {
        ("" | "host" | "private", false) if host::is_rootless() => {
            holds(&here(), user, settings)?;
            Ok(Maps::default())
        }
        ("" | "host", false) => Ok(Maps::default()),
        ("" | "host" | "private", true) => {
            let (uid, gid) = own();
            let maps = Maps { uid, gid };
            holds(&maps, user, settings)?;
            Ok(maps)
        }
        ("nomap", _) if host::is_rootless() => Err(Error::new("--userns nomap: is not possible")
            .why("the files that jug makes for a container belong to you, and nobody inside could read them")
            .next("leave it out: what runs as another user than root has an id of your range")),
        ("nomap", false) => {
            Err(Error::new("--userns nomap: is for unprivileged callers").next("leave it out, or use auto"))
        }
        (other, _) => Err(Error::new(format!("--userns: {other:?} is not supported"))
            .next("use host, auto, or as an unprivileged user keep-id")),
    }
}

/// The ids that an ordinary user has inside, where `keep-id` is asked for: one's own or, as in Podman, those of
/// `keep-id:uid=N,gid=N`.
pub fn kept(settings: &Settings) -> Result<Option<(u32, u32)>> {
    let words = match settings.userns.as_deref().and_then(|mode| mode.strip_prefix("keep-id")) {
        Some("") => "",
        Some(words) if words.starts_with(':') => &words[1..],
        _ => return Ok(None),
    };
    if !host::is_rootless() {
        return Err(
            Error::new("--userns keep-id: is for unprivileged callers").next("leave it out, or use auto")
        );
    }
    let mut kept = match (cred::euid(), here()) {
        (0, Maps { uid, gid }) => match (uid.first(), gid.first()) {
            (Some((_, uid, _)), Some((_, gid, _))) => (*uid, *gid),
            _ => (0, 0),
        },
        (uid, _) => (uid, cred::egid()),
    };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=').map(|(key, id)| (key, id.parse())) {
            Some(("uid", Ok(id))) => kept.0 = id,
            Some(("gid", Ok(id))) => kept.1 = id,
            _ => {
                return Err(Error::new(format!("--userns: {word:?} is not uid=N or gid=N")));
            }
        }
    }
    Ok(Some(kept))
}

/// The maps of keep-id, onto the ids of the user namespace in which this process is.
pub fn keep((uid, gid): (u32, u32)) -> Result<Maps> {
    let (own, ranges) = match cred::euid() {
        // The caller is root here, and the range follows.
        0 => {
            let range = |map: Map| match map[..] {
                [(0, _, 1), (first, _, size), ..] => vec![(first, size)],
                _ => Vec::new(),
            };
            let Maps { uid, gid } = here();
            ((0, 0), (range(uid), range(gid)))
        }
        own => ((own, cred::egid()), (subordinate("/etc/subuid", own), subordinate("/etc/subgid", own))),
    };
    match (ranges.0.first(), ranges.1.first()) {
        (Some(uids), Some(gids)) => {
            Ok(Maps { uid: around(uid, own.0, *uids), gid: around(gid, own.1, *gids) })
        }
        _ => Err(Error::new("--userns keep-id: root inside would be nobody")
            .why("you have one id only, and it is taken by your own; the container is made by root inside")
            .next(
                "leave it out, or have a range given to you (usermod --add-subuids) and newuidmap installed",
            )),
    }
}

/// What every user namespace of the caller maps, users and groups: the caller is root inside, the range follows.
pub fn own() -> (Map, Map) {
    let (uid, gid) = (cred::euid(), cred::egid());
    (own_first(uid, &subordinate("/etc/subuid", uid)), own_first(gid, &subordinate("/etc/subgid", uid)))
}

/// The maps of the user namespace in which this process is.
pub fn here() -> Maps {
    Maps { uid: map_of("/proc/self/uid_map"), gid: map_of("/proc/self/gid_map") }
}

/// A map as the kernel shows it; empty for a process that is gone.
pub fn map_of(file: &str) -> Map {
    let text = host::read(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        Some((words.next()??, words.next()??, words.next()??))
    });
    lines.collect()
}

/// The caller is root inside; the range follows.
fn own_first(own: u32, range: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
    let mut maps = vec![(0, own, 1)];
    let mut next = 1;
    for (first, size) in range {
        maps.push((next, *first, *size));
        next += size;
    }
    maps
}

/// One id, `here`, is `inside`; the range is around it.
fn around(inside: u32, here: u32, (first, size): (u32, u32)) -> Map {
    let below = inside.min(size);
    let mut maps = Vec::new();
    if below > 0 {
        maps.push((0, first, below));
    }
    maps.push((inside, here, 1));
    if size > below {
        maps.push((inside + 1, first + below, size - below));
    }
    maps
}

/// The ranges of the table that are the caller's, by name or number; none without newuidmap(1).
fn subordinate(table: &str, uid: u32) -> Vec<(u32, u32)> {
    let program = |name: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|dir| path::executable(&Path::new(dir).join(name)).is_ok())
    };
    if !program("newuidmap") || !program("newgidmap") {
        return Vec::new();
    }
    let passwd = host::read("/etc/passwd").unwrap_or_default();
    let names = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let who: Vec<String> = names.chain([uid.to_string()]).collect();
    ranges_of(table, &who).into_iter().take(1).map(|(first, size)| (first, size.min(RANGE))).collect()
}

/// The ranges that a table of subordinate ids (subuid(5)) gives to one of these, first id and size each.
pub fn ranges_of(table: &str, who: &[String]) -> Vec<(u32, u32)> {
    let text = host::read(table).unwrap_or_default();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (first, size): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (who.iter().any(|own| own == name) && size > 0 && first.checked_add(size).is_some())
            .then_some((first, size))
    });
    ranges.collect()
}

/// The program's user must be somebody inside.
fn holds(maps: &Maps, user: &User, settings: &Settings) -> Result<()> {
    let inside = |list: &[(u32, u32, u32)], id: u32| {
        list.iter().any(|(first, _, size)| id >= *first && id - first < *size)
    };
    if let ([(_, _, 1)], [group, ..]) = (maps.gid.as_slice(), settings.group_add.as_slice()) {
        return Err(Error::new(format!("--group-add {group}: you have one group only"))
            .why("who has a map of one id may not set groups")
            .next(
                "leave it out, or have a range given to you (usermod --add-subgids) and newgidmap installed",
            ));
    }
    if inside(&maps.uid, user.uid) && inside(&maps.gid, user.gid) {
        return Ok(());
    }
    Err(Error::new(format!("user {}:{} is not mapped in the container", user.uid, user.gid))
        .why("only ids that /etc/subuid and /etc/subgid give you, and your own, exist in your containers")
        .next("run as root inside, or have a range given to you (usermod --add-subuids) and newuidmap installed"))
}
