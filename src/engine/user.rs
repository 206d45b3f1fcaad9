//! Who the program is: `USER[:GROUP]` by the names and numbers of the root file system's own /etc/passwd and
//! /etc/group. Those files are the image's: they are opened inside the root, must be regular, and have a longest size
//! (CVE-2024-40635, CVE-2026-30892: an id is a decimal number below 2^32-1, or it is a name).

use std::os::fd::AsFd;
use std::path::Path;

use super::place::io;
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::host;
use crate::sys::{fd, path};

/// The longest passwd or group file that is read, in bytes, and the longest list of groups.
const LONGEST: usize = 4 << 20;
const MOST_GROUPS: usize = 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

/// `said` as docker reads it; empty: user 0. `more` are groups by name or number.
pub fn resolve(root: &RootDir, said: &str, more: &[String]) -> Result<User> {
    find(said, more, &|name| lines_of(root, name))
}

fn find(said: &str, more: &[String], read: &dyn Fn(&str) -> Result<String>) -> Result<User> {
    let (name, group) = match said.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (said, None),
    };
    let passwd = read("etc/passwd")?;
    let groups = read("etc/group")?;
    let entries = || passwd.lines().filter_map(Entry::parse);
    let by_name = entries().find(|entry| entry.name == name && !name.is_empty());
    let (uid, entry) = match (by_name, number(name)) {
        (Some(entry), _) => (entry.uid, Some(entry)),
        (None, Some(uid)) => (uid, entries().find(|entry| entry.uid == uid)),
        (None, None) if name.is_empty() => (0, entries().find(|entry| entry.uid == 0)),
        (None, None) => {
            return Err(Error::new(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    let group_id = |name: &str| match (group_named(&groups, name), number(name)) {
        (Some(gid), _) | (None, Some(gid)) => Ok(gid),
        (None, None) => {
            Err(Error::new(format!("unable to find group {name}: no matching entries in group file")))
        }
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => group_id(group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // The groups that list the user count only where no group was asked for, as in docker.
    let listed = entry
        .as_ref()
        .filter(|_| group.is_none())
        .map(|entry| member_of(&groups, entry.name))
        .unwrap_or_default();
    let mut all = listed;
    for name in more {
        all.push(group_id(name)?);
    }
    all.sort_unstable();
    all.dedup();
    all.truncate(MOST_GROUPS);
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).map(str::to_owned);
    Ok(User { uid, gid, groups: all, home })
}

/// The highest id that the root's own files name. Not that of nobody, which most images name and few use.
pub fn highest(root: &RootDir) -> Result<u32> {
    const NOBODY: u32 = 65_534;
    let (passwd, groups) = (lines_of(root, "etc/passwd")?, lines_of(root, "etc/group")?);
    let users = passwd.lines().filter_map(Entry::parse).flat_map(|entry| [entry.uid, entry.gid]);
    let groups = groups.lines().filter_map(|line| number(line.split(':').nth(2)?));
    Ok(users.chain(groups).filter(|id| *id != NOBODY).max().unwrap_or(0))
}

/// Gives the caller's name to these ids in the root's own files, where they have none, as Podman does with keep-id.
pub fn introduce(root: &RootDir, (uid, gid): (u32, u32)) -> Result<()> {
    let (passwd, groups) = (lines_of(root, "etc/passwd")?, lines_of(root, "etc/group")?);
    let host = host::read("/etc/passwd").unwrap_or_default();
    let own = host.lines().filter_map(Entry::parse).find(|entry| entry.uid == host::caller());
    let number = uid.to_string();
    let is_taken = |name: &str| {
        passwd.lines().filter_map(Entry::parse).any(|entry| entry.name == name)
            || group_named(&groups, name).is_some()
    };
    let name = own.map(|entry| entry.name).filter(|name| !is_taken(name)).unwrap_or(&number);
    if !passwd.lines().filter_map(Entry::parse).any(|entry| entry.uid == uid) {
        append(root, "etc/passwd", &passwd, &format!("{name}:*:{uid}:{gid}:{name}:/:/bin/sh\n"))?;
    }
    if !groups.lines().any(|line| line.split(':').nth(2) == Some(&gid.to_string())) {
        append(root, "etc/group", &groups, &format!("{name}:*:{gid}:\n"))?;
    }
    Ok(())
}

/// A line more in a file whose text is this. A root without that file knows no names at all.
fn append(root: &RootDir, name: &str, text: &str, line: &str) -> Result<()> {
    let Some(file) = root.open_existing(Path::new(name))? else { return Ok(()) };
    drop(file);
    let file = root.open(Path::new(name), libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK)?;
    let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, format!("{before}{line}").as_bytes()).map_err(io(name))
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Self { name, uid: number(uid)?, gid: number(gid)?, home })
    }
}

fn group_named(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name && !name.is_empty()).then(|| number(fields.nth(1)?))?
    })
}

fn member_of(groups: &str, user: &str) -> Vec<u32> {
    let listed = groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = number(fields.next()?)?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    });
    listed.take(MOST_GROUPS).collect()
}

/// Decimal, and an id that a process can have: 2^32-1 means "no change" (setresuid(2)).
fn number(text: &str) -> Option<u32> {
    let decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u32>().ok().filter(|id| decimal && *id < u32::MAX)
}

/// The text of a regular file of the root; a missing one is empty.
fn lines_of(root: &RootDir, name: &str) -> Result<String> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let said = |e: Error| e.context(format!("/{name} of the root file system"));
    let file = match root.open(Path::new(name), flags) {
        Ok(file) => file,
        Err(e) if matches!(e.errno(), libc::ENOENT | libc::ENOTDIR) => return Ok(String::new()),
        Err(e) => return Err(said(e)),
    };
    if path::stat(file.as_fd(), Path::new("")).map_err(said)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(said(Error::new("it is no regular file")));
    }
    let bytes = fd::read_to_end(file.as_fd(), LONGEST).map_err(said)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(said: &str, more: &[&str]) -> Result<User> {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nlamb:x:1000:1001:l:/lamb:/bin/sh\n7up:x:7:7::/:\n";
        let group = "root:x:0:\nlamb:x:1001:\nflock:x:2000:lamb,root\nwool:x:3000:lamb\n";
        let more: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
        find(said, &more, &|name| Ok(if name == "etc/passwd" { passwd } else { group }.to_owned()))
    }

    #[test]
    fn names_and_numbers() {
        for (said, uid, gid, groups) in [
            ("", 0, 0, vec![2000]),
            ("lamb", 1000, 1001, vec![2000, 3000]),
            ("1000", 1000, 1001, vec![2000, 3000]),
            ("lamb:flock", 1000, 2000, vec![]),
            ("1000:5", 1000, 5, vec![]),
            ("42", 42, 0, vec![]),
            (":flock", 0, 2000, vec![]),
            ("1:", 1, 0, vec![]),
            ("7up", 7, 7, vec![]),
            ("4294967294", 4_294_967_294, 0, vec![]),
        ] {
            let found = user(said, &[]).unwrap();
            assert_eq!((found.uid, found.gid, found.groups), (uid, gid, groups), "{said:?}");
        }
        assert_eq!(user("42", &["wool", "9"]).unwrap().groups, [9, 3000]);
    }

    #[test]
    fn what_is_neither_is_nobody() {
        for bad in
            ["-1", "4294967295", "4294967296", " 1", "0x1", "nobody", "lamb:none", "lamb:-1", "١", "+1"]
        {
            assert!(user(bad, &[]).is_err(), "{bad:?}");
        }
    }
}
