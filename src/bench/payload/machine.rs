//! The first process of a machine: what it needs before the payload can live there, and the way from an initramfs to a
//! root on a disk. It must not know what the payload does.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::kernel;

/// virtio's and user-mode Linux's. Which is which the machine finds out: monitors name them in an order of their own.
const DISKS: [&str; 4] = ["/dev/vda", "/dev/vdb", "/dev/ubda", "/dev/ubdb"];

/// Mounts what every program expects, loads the drivers of an initramfs, and brings up the loopback device.
pub fn begin() {
    kernel::mount("proc", "proc", "/proc");
    kernel::mount("sysfs", "sysfs", "/sys");
    kernel::mount("devtmpfs", "devtmpfs", "/dev");
    kernel::find_console();
    if std::env::args().next().is_some_and(|name| name == "/init") {
        load_modules();
    }
    // The disk to write to, where there is one: that of the root is read-only, and refuses this.
    let _ = disks().any(|disk| kernel::mount(disk, "ext4", "/scratch"));
    kernel::bring_up_loopback();
}

/// Makes the disk that holds the payload the root, frees the initramfs, and goes on as that payload: what
/// switch_root(8) does. A machine without such a disk ends.
pub fn switch(word: &str) -> i32 {
    kernel::mount("devtmpfs", "devtmpfs", "/dev");
    load_modules();
    let holds_payload = |disk: &str| {
        let mounted = kernel::mount_read_only(disk, "ext4", "/disk");
        mounted && (Path::new("/disk/payload").exists() || !kernel::unmount("/disk"))
    };
    if !disks().any(holds_payload) {
        eprintln!("no disk holds the payload: is virtio_blk in the kernel, or a module beside it?");
        kernel::end_machine();
        return 1;
    }
    // What was unpacked is memory until its last name is gone; this program's own, when it becomes another one.
    let _ = fs::remove_dir_all("/modules").and_then(|()| fs::remove_file("/init"));
    kernel::make_root("/disk");
    let why = Command::new("/payload").args(["machine", word]).exec();
    eprintln!("/payload: {why}");
    127
}

/// Those that are there: of others the kernel complains to the console.
fn disks() -> impl Iterator<Item = &'static str> {
    DISKS.into_iter().filter(|disk| Path::new(disk).exists())
}

/// In the order of their names.
fn load_modules() {
    let found = fs::read_dir("/modules").into_iter().flatten().flatten();
    let mut modules: Vec<_> = found.map(|entry| entry.path()).collect();
    modules.sort();
    modules.iter().flat_map(fs::File::open).for_each(|file| kernel::load_module(&file));
}
