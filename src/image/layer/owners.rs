//! The same files under other ids, where the kernel lets no mount show them so: an ordinary user may not map the ids of
//! the file system on which the store lies.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::name::MAX_DEPTH;
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

/// What each id becomes: first id, the one it becomes, how many.
#[derive(Debug)]
pub struct Owners {
    pub uid: Vec<(u32, u32, u32)>,
    pub gid: Vec<(u32, u32, u32)>,
}

/// The entries of an ACL that name a user or a group (posix_acl_xattr.h; acl(5)).
const ACL_USER: u16 = 2;
const ACL_GROUP: u16 = 8;

impl Owners {
    /// The ids that an owner and a group become; an error where there are none.
    pub fn of(&self, st: &libc::stat) -> Result<(u32, u32)> {
        Ok((self.user(st.st_uid)?, self.group(st.st_gid)?))
    }

    fn user(&self, id: u32) -> Result<u32> {
        translated(&self.uid, id).ok_or_else(|| unmapped("user", id))
    }

    fn group(&self, id: u32) -> Result<u32> {
        translated(&self.gid, id).ok_or_else(|| unmapped("group", id))
    }

    /// The value of an xattr, with the ids that an ACL names.
    pub fn xattr(&self, key: &[u8], mut value: Vec<u8>) -> Result<Vec<u8>> {
        if !key.starts_with(b"system.posix_acl_") {
            return Ok(value);
        }
        for entry in value.get_mut(4..).into_iter().flat_map(|entries| entries.chunks_exact_mut(8)) {
            let (words, id) = entry.split_at_mut(4);
            let old = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
            let new = match u16::from_le_bytes([words[0], words[1]]) {
                ACL_USER => self.user(old)?,
                ACL_GROUP => self.group(old)?,
                _ => continue,
            };
            id.copy_from_slice(&new.to_le_bytes());
        }
        Ok(value)
    }

    /// Gives a whole tree to them, the root itself too. Nothing is followed.
    pub fn give(&self, root: BorrowedFd<'_>) -> Result<()> {
        self.node(root, Path::new("."), &path::stat(root, Path::new("."))?)?;
        self.below(root, 0)
    }

    fn below(&self, dir: BorrowedFd<'_>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(format!("a directory is deeper than {MAX_DEPTH}")));
        }
        for name in path::list(dir)? {
            let name = Path::new(&name);
            let st = path::stat(dir, name)?;
            let done = self.node(dir, name, &st).and_then(|()| {
                if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
                    return Ok(());
                }
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                self.below(std::os::fd::AsFd::as_fd(&path::openat(dir, name, flags, 0)?), depth + 1)
            });
            done.map_err(|e| e.context(name.display()))?;
        }
        Ok(())
    }

    /// chown(2) takes set-user-ID and security.capability away.
    fn node(&self, dir: BorrowedFd<'_>, name: &Path, st: &libc::stat) -> Result<()> {
        let mut xattrs = Vec::new();
        for key in xattr::list(dir, name)? {
            if key == b"security.capability" || key.starts_with(b"system.posix_acl_") {
                let value = xattr::get(dir, name, &key)?.unwrap_or_default();
                xattrs.push((self.xattr(&key, value)?, key));
            }
        }
        let (uid, gid) = self.of(st)?;
        path::chownat(dir, name, uid, gid)?;
        if st.st_mode & 0o6000 != 0 && st.st_mode & libc::S_IFMT != libc::S_IFLNK {
            path::chmodat(dir, name, st.st_mode & 0o7777)?;
        }
        xattrs.iter().try_for_each(|(value, key)| xattr::set(dir, name, key, value))
    }
}

fn translated(map: &[(u32, u32, u32)], id: u32) -> Option<u32> {
    map.iter().find(|(from, _, size)| id >= *from && id - from < *size).map(|(from, to, _)| to + (id - from))
}

fn unmapped(what: &str, id: u32) -> Error {
    Error::new(format!("{what} {id} is not mapped in the container"))
        .next("have a larger range given to you in /etc/subuid and /etc/subgid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Owners {
        let map = vec![(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64_536)];
        Owners { uid: map.clone(), gid: map }
    }

    #[test]
    fn each_id_becomes_one() {
        let said = |id| kept().user(id).ok();
        assert_eq!([0, 999, 1000, 1001, 65_536].map(said), [1, 1000, 0, 1001, 65_536].map(Some));
        assert_eq!(said(65_537), None);
    }

    #[test]
    fn an_acl_names_others() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let acl = |user, group| {
            [
                2u32.to_le_bytes().to_vec(),
                entry(1, u32::MAX),
                entry(ACL_USER, user),
                entry(ACL_GROUP, group),
                entry(16, u32::MAX),
            ]
            .concat()
        };
        let own = kept();
        assert_eq!(own.xattr(b"system.posix_acl_access", acl(5, 1000)).unwrap(), acl(6, 0));
        assert_eq!(own.xattr(b"user.x", acl(5, 1000)).unwrap(), acl(5, 1000));
        assert!(own.xattr(b"system.posix_acl_default", acl(70_000, 0)).is_err());
    }
}
