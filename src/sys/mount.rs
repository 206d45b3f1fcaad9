//! Mounts: the descriptor-based mount API, where a mount exists detached before it is attached by fd.
//!
//! Sources: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::fd::owned;
use super::{c_bytes, c_path, check, shown};
use crate::error::{Error, Result};

pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
pub const MOUNT_ATTR_RELATIME: u64 = 0x00;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A file system being configured (fsopen(2)).
pub struct FsContext {
    fd: OwnedFd,
    name: String,
}

pub fn fsopen(name: &str) -> Result<FsContext> {
    let c = c_bytes(name.as_bytes())?;
    // SAFETY: c is a valid NUL-terminated string; 1 is FSOPEN_CLOEXEC.
    let fd = check!(unsafe { libc::syscall(libc::SYS_fsopen, c.as_ptr(), 1) }, "fsopen({name:?})")?;
    Ok(FsContext { fd: owned(fd), name: name.to_owned() })
}

impl FsContext {
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, key, Some(value))
    }

    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, key, None)
    }

    /// Makes the superblock and a detached mount of it with these attributes (fsmount(2)).
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, "", None)?;
        let fd = check!(
            // SAFETY: plain call; 1 is FSMOUNT_CLOEXEC.
            unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), 1, attributes) },
            "fsmount({:?}, {attributes:#x})",
            self.name
        );
        Ok(owned(fd.map_err(|e| self.explain(e))?))
    }

    fn config(&self, command: u32, key: &str, value: Option<&str>) -> Result<()> {
        let k = c_bytes(key.as_bytes())?;
        let v = value.map(|v| c_bytes(v.as_bytes())).transpose()?;
        let key_ptr = if key.is_empty() { std::ptr::null() } else { k.as_ptr() };
        let value_ptr = v.as_ref().map_or(std::ptr::null(), |v| v.as_ptr());
        let ret = check!(
            // SAFETY: the pointers are NUL-terminated strings that live across the call, or null where the command has
            // none.
            unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, key_ptr, value_ptr, 0) },
            "fsconfig({:?}, {}{}{})",
            self.name,
            if command == FSCONFIG_CMD_CREATE { "create" } else { key },
            if value.is_some() { "=" } else { "" },
            value.unwrap_or("")
        );
        ret.map(drop).map_err(|e| self.explain(e))
    }

    /// The kernel's own words about the failure, which it queues on the descriptor.
    fn explain(&self, error: Error) -> Error {
        use std::os::fd::AsFd;
        let mut buf = [0u8; 1024];
        match super::fd::read(self.fd.as_fd(), &mut buf) {
            Ok(n) if n > 2 => {
                error.why(format!("the kernel says: {}", String::from_utf8_lossy(&buf[2..n]).trim_end()))
            }
            _ => error,
        }
    }
}

/// A detached copy of the mount at `path` below `dir` (an empty path: of `dir` itself), with everything mounted below
/// it when `recursive` (open_tree(2)).
pub fn open_tree(dir: BorrowedFd<'_>, path: &Path, recursive: bool, nofollow: bool) -> Result<OwnedFd> {
    let c = c_path(path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if nofollow {
        flags |= libc::AT_SYMLINK_NOFOLLOW as u32;
    }
    let fd = check!(
        // SAFETY: c is a valid NUL-terminated string.
        unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c.as_ptr(), flags) },
        "open_tree({}, {path:?}, {}OPEN_TREE_CLONE)",
        shown(dir),
        if recursive { "AT_RECURSIVE|" } else { "" }
    )?;
    Ok(owned(fd))
}

/// Attaches the detached mount `tree` onto the file or directory `target` (move_mount(2)).
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    move_mount(tree, target, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
}

/// Attaches the detached mount `tree` on top of a trusted absolute path.
pub fn attach_at(tree: BorrowedFd<'_>, path: &Path) -> Result<()> {
    move_mount(tree, super::cwd(), &c_path(path)?, MOVE_MOUNT_F_EMPTY_PATH)
}

fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<()> {
    check!(
        // SAFETY: both strings are NUL-terminated; the flags say that the source string is empty.
        unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                tree.as_raw_fd(),
                c"".as_ptr(),
                target.as_raw_fd(),
                path.as_ptr(),
                flags,
            )
        },
        "move_mount({}, {}, {path:?})",
        shown(tree),
        shown(target)
    )?;
    Ok(())
}

/// What mount_setattr(2) changes: attribute bits set and cleared, and a propagation type (MS_SHARED ... or 0).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SetAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

pub fn set_attributes(mount: BorrowedFd<'_>, change: SetAttr, recursive: bool) -> Result<()> {
    setattr(
        mount,
        MountAttr { set: change.set, clr: change.clear, propagation: change.propagation, userns_fd: 0 },
        recursive,
    )
}

/// Translates the owners seen through a detached mount by the maps of a user namespace.
pub fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    setattr(
        mount,
        MountAttr { set: MOUNT_ATTR_IDMAP, userns_fd: userns.as_raw_fd() as u64, ..Default::default() },
        recursive,
    )
}

fn setattr(mount: BorrowedFd<'_>, attr: MountAttr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    check!(
        // SAFETY: attr lives across the call and the size is its own.
        unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const attr,
                size_of::<MountAttr>(),
            )
        },
        "mount_setattr({}, set {:#x}, clear {:#x}, propagation {:#x}{})",
        shown(mount),
        attr.set,
        attr.clr,
        attr.propagation,
        if recursive { ", AT_RECURSIVE" } else { "" }
    )?;
    Ok(())
}

/// mount(2) of a new file system at a trusted path, for options that fsconfig(2) has no room or no word for.
pub fn mount_new(kind: &str, target: &Path, options: &str) -> Result<()> {
    let (kind, target, options) = (c_bytes(kind.as_bytes())?, c_path(target)?, c_bytes(options.as_bytes())?);
    check!(
        // SAFETY: all strings are NUL-terminated and live across the call.
        unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) },
        "mount({kind:?}, {target:?}, {options:?})"
    )?;
    Ok(())
}

/// Changes the propagation type of the mount at a trusted absolute path (mount(2) with MS_SLAVE, MS_PRIVATE, ...).
pub fn set_propagation(path: &Path, flags: u64) -> Result<()> {
    let c = c_path(path)?;
    check!(
        // SAFETY: the strings are NUL-terminated or null; the kernel ignores source, type and data here.
        unsafe { libc::mount(std::ptr::null(), c.as_ptr(), std::ptr::null(), flags, std::ptr::null()) },
        "mount(\"\", {path:?}, propagation {flags:#x})"
    )?;
    Ok(())
}

/// Makes the current directory the root and stacks the old root on top of it (pivot_root(2), NOTES: pivot_root(".",
/// ".")).
pub fn pivot_here() -> Result<()> {
    check!(
        // SAFETY: both are constant NUL-terminated strings.
        unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) },
        "pivot_root(\".\", \".\")"
    )?;
    Ok(())
}

/// Detaches what is mounted on the current directory (umount2(2) with MNT_DETACH).
pub fn detach_here() -> Result<()> {
    // SAFETY: a constant NUL-terminated string.
    check!(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }, "umount2(\".\", MNT_DETACH)")?;
    Ok(())
}

/// mount(2) MS_MOVE of the current directory onto `/`, for roots that cannot be pivoted (initramfs).
pub fn move_here_to_root() -> Result<()> {
    check!(
        // SAFETY: constant NUL-terminated strings; type and data are ignored for MS_MOVE.
        unsafe {
            libc::mount(c".".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null())
        },
        "mount(\".\", \"/\", MS_MOVE)"
    )?;
    Ok(())
}

/// mount(2), with the data of the file system as one text.
pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> Result<()> {
    let (from, to) = (c_bytes(source.as_bytes())?, c_path(target)?);
    let (name, text) = (c_bytes(kind.as_bytes())?, c_bytes(data.as_bytes())?);
    check!(
        // SAFETY: all are NUL-terminated strings that live across the call; an empty type or data is none.
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), name.as_ptr(), flags, text.as_ptr().cast()) },
        "mount({source:?}, {target:?}, {kind:?}, {flags:#x}, {data:?})"
    )?;
    Ok(())
}

/// umount2(2), without following a link. `Ok(false)`: nothing was mounted there.
pub fn unmount(target: &Path, flags: i32) -> Result<bool> {
    let path = c_path(target)?;
    match check!(
        // SAFETY: a valid NUL-terminated string.
        unsafe { libc::umount2(path.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) },
        "umount2({target:?}, {flags})"
    ) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.errno(), libc::EINVAL | libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
