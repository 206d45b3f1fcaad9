//! Trees that are the same for the same seed, with everything that a layer can hold.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use jug::sys::{path, xattr};

/// xorshift64*: enough for shapes, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }

    /// Short, long, with blanks and newlines, and with bytes that are no text.
    fn name(&mut self, n: usize) -> Vec<u8> {
        let mut name = format!("{n}").into_bytes();
        match self.roll(6) {
            0 => name.extend(vec![b'n'; 180]),
            1 => name.extend(b" with blanks\nand a newline"),
            2 => name.extend("äöü".as_bytes()),
            3 => name.extend(b"\xff\xfe"),
            _ => {}
        }
        name
    }
}

/// Makes a tree of some 60 files in `root`, which is made.
pub fn tree(root: &Path, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    fs::create_dir_all(root).expect("mkdir");
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for n in 0..60 {
        let name = dice.name(n);
        let dir = dirs[dice.roll(dirs.len() as u64) as usize].clone();
        let full = dir.join(std::ffi::OsStr::from_bytes(&name));
        match dice.roll(10) {
            0 | 1 => {
                fs::create_dir(&full).expect("mkdir");
                dirs.push(full);
            }
            2 => {
                let len = if dice.roll(3) == 0 { 150 } else { 9 };
                let target = "../".repeat(3) + &"t".repeat(len);
                symlink(target, &full).expect("symlink");
                lchown(&full, Some(dice.roll(3) as u32), Some(1)).expect("lchown");
                times_of_link(&dir, &name, &mut dice);
            }
            3 if !files.is_empty() => {
                let from = &files[dice.roll(files.len() as u64) as usize];
                fs::hard_link(from, &full).expect("link");
            }
            4 => special(&dir, &name, &mut dice),
            _ => {
                file(&full, &mut dice);
                files.push(full);
            }
        }
    }
    // The deepest first: what is made in a directory changes its time.
    for dir in dirs.iter().rev() {
        lchown(dir, Some(dice.roll(2) as u32 * 70_000), None).expect("chown");
        let mode = [0o755, 0o700, 0o1777, 0o2755, 0o555, 0o000][dice.roll(6) as usize];
        fs::set_permissions(dir, Permissions::from_mode(mode)).expect("chmod");
    }
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for dir in &dirs {
        let handle = File::open(dir).expect("open");
        if dice.roll(3) == 0 {
            xattr::fset(handle.as_fd(), b"user.dir", &dice.bytes(9)).expect("setxattr");
        }
        handle.set_times(times(&mut dice)).expect("utimes");
    }
}

fn times(dice: &mut Dice) -> FileTimes {
    let time =
        UNIX_EPOCH + Duration::new(1_500_000_000 + dice.roll(1 << 20), dice.roll(1_000_000_000) as u32);
    let time = if dice.roll(10) == 0 { UNIX_EPOCH - Duration::new(1000, 500_000_000) } else { time };
    FileTimes::new().set_modified(time).set_accessed(time)
}

fn times_of_link(dir: &Path, name: &[u8], dice: &mut Dice) {
    let dir = File::open(dir).expect("open");
    let time = (1_600_000_000 + dice.roll(1 << 20) as i64, dice.roll(1_000_000_000) as u32);
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    path::set_times(dir.as_fd(), name, time, time).expect("utimensat");
}

fn special(dir: &Path, name: &[u8], dice: &mut Dice) {
    let handle = File::open(dir).expect("open");
    let file = Path::new(std::ffi::OsStr::from_bytes(name));
    let (kind, device) = match dice.roll(3) {
        0 => (libc::S_IFIFO, (0, 0)),
        1 => (libc::S_IFCHR, (1 + dice.roll(200) as u32, dice.roll(300) as u32)),
        _ => (libc::S_IFBLK, (7, dice.roll(9) as u32)),
    };
    path::mknodat(handle.as_fd(), file, kind | 0o640, device).expect("mknod");
    path::chmodat(handle.as_fd(), file, 0o640).expect("chmod");
    times_of_link(dir, name, dice);
}

fn file(full: &Path, dice: &mut Dice) {
    let mut file = File::create(full).expect("create");
    let len = [0, 1, 511, 512, 513, 20_000][dice.roll(6) as usize];
    let bytes = dice.bytes(len);
    file.write_all(&bytes).expect("write");
    if dice.roll(4) == 0 {
        // Holes, at the end too.
        for _ in 0..dice.roll(4) {
            let at = dice.roll(4) * 65_536;
            file.seek(SeekFrom::Start(at)).expect("lseek");
            file.write_all(&bytes[..bytes.len().min(5000)]).expect("write");
        }
        file.set_len(300_000).expect("ftruncate");
    }
    let (uid, gid) = ([0, 1000, 65_534, 3_000_000_000][dice.roll(4) as usize], dice.roll(3) as u32);
    lchown(full, Some(uid), Some(gid)).expect("chown");
    let mode = [0o644, 0o4755, 0o2755, 0o600, 0o000, 0o6711][dice.roll(6) as usize];
    fs::set_permissions(full, Permissions::from_mode(mode)).expect("chmod");
    if dice.roll(3) == 0 {
        let value = dice.bytes(100);
        xattr::fset(file.as_fd(), b"user.some", &value).expect("setxattr");
    }
    if dice.roll(5) == 0 {
        // cap_net_raw+ep, version 2 (linux/capability.h).
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::fset(file.as_fd(), b"security.capability", &value).expect("setxattr");
    }
    if dice.roll(5) == 0 {
        // user::rwx, user:7:r--, group::r--, mask::rw-, other::--- (linux/posix_acl_xattr.h).
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in
            [(1u16, 7u16, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
        {
            acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        xattr::fset(file.as_fd(), b"system.posix_acl_access", &acl).expect("setxattr");
    }
    file.set_times(times(dice)).expect("utimes");
}
