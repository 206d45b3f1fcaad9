//! The smallest initramfs around a program, or one that holds a whole tree: "newc" of cpio, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst has it.
//! It must not know what is in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;

/// Larger is no payload for a machine whose memory is measured.
const LARGEST: usize = 1 << 30;

#[derive(Default)]
pub struct Archive(Vec<u8>);

struct Owner {
    mode: u32,
    user: u32,
    group: u32,
}

impl Owner {
    fn root(mode: u32) -> Self {
        Self { mode, user: 0, group: 0 }
    }
}

impl Archive {
    /// What a machine needs to come up with that program.
    pub fn machine(&mut self, program: &[u8]) {
        for dir in ["dev", "proc", "sys", "scratch"] {
            self.directory(dir);
        }
        // Without it init has no output: console_on_rootfs().
        self.entry(b"dev/console", &Owner::root(0o020_600), [5, 1], &[]);
        self.entry(b"init", &Owner::root(0o100_755), [0, 0], program);
    }

    /// The directories, files and links below `root`; what is a device there, the machine makes itself.
    pub fn tree(&mut self, root: &Path, below: impl AsRef<OsStr>) -> io::Result<()> {
        let dir = root.join(below.as_ref());
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let (meta, path) = (entry.metadata()?, entry.path());
            let name = path.strip_prefix(root).map_err(io::Error::other)?;
            let owner = Owner { mode: meta.mode(), user: meta.uid(), group: meta.gid() };
            let bytes = match () {
                () if meta.is_symlink() => fs::read_link(&path)?.as_os_str().as_bytes().to_vec(),
                () if meta.is_file() => fs::read(&path)?,
                () if meta.is_dir() => Vec::new(),
                () => continue,
            };
            if self.0.len() + bytes.len() > LARGEST {
                return Err(io::Error::other("the image is too large for an initramfs: more than 1 GiB"));
            }
            // The payload is init already, and the kernel makes what lies in /dev.
            if !matches!(name.to_str(), Some("init" | "payload" | "dev" | "proc" | "sys" | "scratch")) {
                self.entry(name.as_os_str().as_bytes(), &owner, [0, 0], &bytes);
                if meta.is_dir() {
                    self.tree(root, name)?;
                }
            }
        }
        Ok(())
    }

    pub fn directory(&mut self, name: &str) {
        self.entry(name.as_bytes(), &Owner::root(DIRECTORY), [0, 0], &[]);
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name.as_bytes(), &Owner::root(0o100_644), [0, 0], bytes);
    }

    pub fn end(mut self) -> Vec<u8> {
        self.entry(b"TRAILER!!!", &Owner::root(0), [0, 0], &[]);
        self.0
    }

    fn entry(&mut self, name: &[u8], owner: &Owner, device: [u32; 2], bytes: &[u8]) {
        let number = self.0.len() as u32;
        let [major, minor] = device;
        let (mode, size, length) = (owner.mode, bytes.len() as u32, name.len() as u32 + 1);
        let fields = [number, mode, owner.user, owner.group, 1, 0, size, 0, 0, major, minor, length, 0];
        self.0.extend(b"070701");
        for field in fields {
            self.0.extend(format!("{field:08x}").bytes());
        }
        self.0.extend(name);
        self.0.push(0);
        self.pad();
        self.0.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Another reader of the format finds what was written.
    #[test]
    fn cpio_reads_the_initramfs() {
        let dir = std::env::temp_dir().join(format!("jug-initramfs-{}", std::process::id()));
        fs::create_dir_all(dir.join("etc")).expect("mkdir");
        fs::write(dir.join("etc/name"), "value").expect("write");
        std::os::unix::fs::symlink("name", dir.join("etc/link")).expect("symlink");
        let mut archive = Archive::default();
        archive.machine(b"12345");
        archive.tree(&dir, "").expect("a tree");
        fs::remove_dir_all(&dir).expect("rm");
        let mut cpio = Command::new("busybox");
        cpio.args(["cpio", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = cpio.spawn() else {
            let _ = writeln!(std::io::stderr(), "SKIP cpio_reads_the_initramfs: no busybox here");
            return;
        };
        child.stdin.take().expect("a pipe").write_all(&archive.end()).expect("write");
        let names = String::from_utf8(child.wait_with_output().expect("wait").stdout).expect("text");
        let mut names: Vec<&str> = names.lines().collect();
        assert_eq!(names[..6], ["dev", "proc", "sys", "scratch", "dev/console", "init"]);
        names[6..].sort_unstable();
        assert_eq!(names[6..], ["etc", "etc/link", "etc/name"]);
    }
}
