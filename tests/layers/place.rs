//! Where the tests of layers unpack: a blob, a staging directory, and canaries around it that nothing may touch.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use jug::error::Result;
use jug::image::layer::{Applied, Blob, Form, Ids, Wanted, adopt, unpack};
use jug::sys::xattr;
use oci_spec::image::Digest;
use sha2::Digest as _;

pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/jug-test-layers-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("staging")).expect("mkdir");
        fs::create_dir_all(dir.join("outside/inner")).expect("mkdir");
        fs::write(dir.join("outside/canary"), "alive").expect("write");
        fs::write(dir.join("outside/inner/canary"), "alive").expect("write");
        fs::set_permissions(dir.join("outside/canary"), fs::Permissions::from_mode(0o640)).expect("chmod");
        Self { dir }
    }

    pub fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn empty_staging(&self) {
        let _ = fs::remove_dir_all(self.staging());
        fs::create_dir(self.staging()).expect("mkdir");
    }

    /// Unpacks `blob`, whose uncompressed bytes are `tar`.
    pub fn unpack_blob(&self, blob: &[u8], tar: &[u8]) -> Result<Applied> {
        fs::write(self.dir.join("blob"), blob).expect("write");
        let blob = Blob { file: File::open(self.dir.join("blob")).expect("open"), growing: None };
        self.unpack_from(blob, &digest(tar))
    }

    pub fn unpack_from(&self, blob: Blob, diff_id: &Digest) -> Result<Applied> {
        let staging = File::open(self.staging()).expect("open");
        let wanted = Wanted { diff_id, form: Form::Directory, ids: Ids::Kept };
        let applied = unpack(blob, staging.as_fd(), &wanted)?;
        // There are no layers below, from which a link could have its file.
        adopt(staging.as_fd(), &[], &applied.borrowed, &[])?;
        Ok(applied)
    }

    /// Unpacks; whatever comes of it, nothing outside the staging directory may have changed.
    pub fn unpack(&self, tar: &[u8]) -> Result<Applied> {
        let before = listing(&self.dir.join("outside"));
        let result = self.unpack_blob(tar, tar);
        assert_eq!(listing(&self.dir.join("outside")), before, "something outside has changed");
        result
    }

    pub fn listing(&self) -> Vec<String> {
        listing(&self.staging())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn digest(bytes: &[u8]) -> Digest {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().expect("a digest")
}

/// A sum that a test without optimization computes quickly: eight bytes at a time (FNV-1a).
fn sum(bytes: &[u8]) -> u64 {
    let word = |word: &[u8]| word.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    bytes
        .chunks(8)
        .map(word)
        .fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29))
}

/// One line for each file: everything that a layer says about it. The root has the name `.`.
pub fn listing(root: &Path) -> Vec<String> {
    let mut lines = vec![line(root, Path::new("."), root)];
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(root.join(&dir)).expect("readdir") {
            let path = dir.join(entry.expect("readdir").file_name());
            let full = root.join(&path);
            lines.push(line(&full, &path, root));
            if fs::symlink_metadata(&full).expect("lstat").is_dir() {
                waiting.push(path);
            }
        }
    }
    lines.sort();
    lines
}

fn line(full: &Path, path: &Path, root: &Path) -> String {
    let meta = fs::symlink_metadata(full).expect("lstat");
    let dir = File::open(if full == root { root } else { full.parent().expect("a parent") }).expect("open");
    let name = if full == root { Path::new("") } else { Path::new(full.file_name().expect("a name")) };
    let xattrs: Vec<String> = xattr::list(dir.as_fd(), name)
        .expect("listxattr")
        .into_iter()
        .map(|key| {
            let value = xattr::get(dir.as_fd(), name, &key).expect("getxattr").unwrap_or_default();
            format!("{}={}", key.escape_ascii(), value.escape_ascii())
        })
        .collect();
    let content = match meta.mode() & libc::S_IFMT {
        libc::S_IFREG => format!("{} {:x}", meta.len(), sum(&fs::read(full).expect("read"))),
        libc::S_IFLNK => {
            format!("-> {}", fs::read_link(full).expect("readlink").as_os_str().as_bytes().escape_ascii())
        }
        libc::S_IFCHR | libc::S_IFBLK => format!("device {:#x}", meta.rdev()),
        _ => String::new(),
    };
    format!(
        "{} {:o} {}:{} {}.{:09} links {} [{}] {content}",
        path.as_os_str().as_bytes().escape_ascii(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        if meta.is_dir() { 0 } else { meta.nlink() },
        xattrs.join(" ")
    )
}
