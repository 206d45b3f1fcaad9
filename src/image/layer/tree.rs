//! The digest of a tree as it stands on disk: names, kinds, modes, owners, times, xattrs and contents. It is written
//! down when a layer was unpacked, and computed again when somebody doubts it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::image::{Digest, Sha256Digest};
use sha2::{Digest as _, Sha256};

use super::content;
use super::decompress::hex;
use super::dirs::open_own;
use super::name::MAX_DEPTH;
use crate::error::{Error, Result};
use crate::sys::{path, xattr};

/// The digest of everything below `root` and of the root itself; nothing is followed. `known` are digests of contents
/// by inode, which need not be read again.
pub fn digest(root: BorrowedFd<'_>, known: &HashMap<u64, [u8; 32]>) -> Result<Digest> {
    let mut walk = Walk { known, all: Sha256::new() };
    walk.node(root, Path::new(""))?;
    walk.below(root, 0)?;
    let digest: std::result::Result<Sha256Digest, _> = hex(&walk.all.finalize()).parse();
    Ok(digest.map_err(|e| Error::new(format!("a digest that is none: {e}")))?.into())
}

struct Walk<'a> {
    known: &'a HashMap<u64, [u8; 32]>,
    all: Sha256,
}

impl Walk<'_> {
    fn below(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new("a directory of the tree is too deep"));
        }
        let mut names = path::list(dir)?;
        names.sort();
        self.number(names.len() as u64);
        for name in &names {
            let name = Path::new(name);
            self.bytes(name.as_os_str().as_bytes());
            let st = self.node(dir, name).map_err(|e| e.context(name.display()))?;
            if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let (inner, closed) = open_own(dir, name, flags)?;
                let done = self.below(inner.as_fd(), depth + 1).map_err(|e| e.context(name.display()));
                closed.map_or(Ok(()), |mode| path::fchmod(inner.as_fd(), mode)).and(done)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, dir: BorrowedFd<'_>, name: &Path) -> Result<libc::stat> {
        let st = path::stat(dir, name)?;
        for n in [
            st.st_mode.into(),
            st.st_uid.into(),
            st.st_gid.into(),
            st.st_rdev,
            st.st_mtime as u64,
            st.st_mtime_nsec as u64,
        ] {
            self.number(n);
        }
        // The label is this machine's, and may be changed by its administrator.
        let keys = xattr::list(dir, name)?.into_iter().filter(|key| key != xattr::SELINUX);
        for key in keys {
            let value = xattr::get(dir, name, &key)?.unwrap_or_default();
            self.bytes(&key);
            self.bytes(&value);
        }
        match st.st_mode & libc::S_IFMT {
            libc::S_IFLNK => self.bytes(path::readlinkat(dir, name)?.as_os_str().as_bytes()),
            libc::S_IFREG => {
                let digest = match self.known.get(&st.st_ino) {
                    Some(known) => *known,
                    None => {
                        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
                        let (file, closed) = open_own(dir, name, flags)?;
                        closed.map_or(Ok(()), |mode| path::fchmod(file.as_fd(), mode))?;
                        let file = File::from(file);
                        content::of(&file, u64::try_from(st.st_size).unwrap_or(0))?
                    }
                };
                self.bytes(&digest);
            }
            _ => {}
        }
        Ok(st)
    }

    fn number(&mut self, n: u64) {
        self.all.update(n.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.all.update(bytes);
    }
}
