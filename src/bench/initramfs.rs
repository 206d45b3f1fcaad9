//! The smallest initramfs around a program: "newc" of cpio, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst has it.
//! It must not know what the program does.

#[derive(Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// What a machine needs to come up with that program.
    pub fn machine(&mut self, program: &[u8]) {
        for dir in ["dev", "proc", "sys", "scratch"] {
            self.directory(dir);
        }
        // Without it init has no output: console_on_rootfs().
        self.entry("dev/console", 0o020_600, [5, 1], &[]);
        self.entry("init", 0o100_755, [0, 0], program);
    }

    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, [0, 0], &[]);
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_644, [0, 0], bytes);
    }

    pub fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, [0, 0], &[]);
        self.0
    }

    /// Everything is root's.
    fn entry(&mut self, name: &str, mode: u32, device: [u32; 2], bytes: &[u8]) {
        let number = self.0.len() as u32;
        let [major, minor] = device;
        let (size, length) = (bytes.len() as u32, name.len() as u32 + 1);
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0];
        self.0.extend(b"070701");
        for field in fields {
            self.0.extend(format!("{field:08x}").bytes());
        }
        self.0.extend(name.as_bytes());
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
        let mut archive = Archive::default();
        archive.machine(b"12345");
        archive.file("module", b"123");
        let mut cpio = Command::new("busybox");
        cpio.args(["cpio", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = cpio.spawn() else {
            let _ = writeln!(std::io::stderr(), "SKIP cpio_reads_the_initramfs: no busybox here");
            return;
        };
        child.stdin.take().expect("a pipe").write_all(&archive.end()).expect("write");
        let names = String::from_utf8(child.wait_with_output().expect("wait").stdout).expect("text");
        let names: Vec<&str> = names.lines().collect();
        assert_eq!(names, ["dev", "proc", "sys", "scratch", "dev/console", "init", "module"]);
    }
}
