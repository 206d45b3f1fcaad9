//! The drivers that a stock kernel has as modules and a machine with a disk or a balloon needs: found beside the
//! kernel, unpacked, and put behind an initramfs, where the payload loads them. It must not fetch anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs_builder::initramfs::Archive;

/// In the order in which they are loaded: who finds the devices, and what they are.
pub const DISK: [&str; 2] = ["drivers/virtio/virtio_mmio", "drivers/block/virtio_blk"];
pub const ALL: [&str; 3] = [DISK[0], DISK[1], "drivers/virtio/virtio_balloon"];

/// Writes `initrd` with these modules of `kernel` behind it into `dir`; the reason, if there are none.
pub fn with_modules(kernel: &Path, wanted: &[&str], initrd: &Path, dir: &Path) -> Result<PathBuf, String> {
    let mut archive = Archive::new(Vec::new());
    archive.directory("modules").map_err(|why| why.to_string())?;
    for (at, module) in wanted.iter().enumerate() {
        let bytes = find(kernel, module, dir).ok_or_else(|| {
            let name = module.rsplit('/').next().unwrap_or(module);
            format!("no {name}.ko of {} beside it", kernel.display())
        })?;
        archive.file(&format!("modules/{at}.ko"), &bytes).map_err(|why| why.to_string())?;
    }
    // The kernel takes one archive behind another: Documentation/driver-api/early-userspace/buffer-format.rst.
    let modules = archive.end().map_err(|why| why.to_string())?;
    let whole = fs::read(initrd).map(|first| [first, modules].concat());
    let path = dir.join(format!("initrd-with-{}-modules", wanted.len()));
    whole.and_then(|whole| fs::write(&path, whole)).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(path)
}

/// In `modules` beside the kernel, as `jug bench` fetches it, or in the root of `disk`, as scripts/vm makes it.
fn find(kernel: &Path, module: &str, dir: &Path) -> Option<Vec<u8>> {
    let beside = kernel.parent()?;
    let name = module.rsplit('/').next()?;
    let (packed, whole) = (dir.join("module.xz"), dir.join("module.ko"));
    for ending in ["ko", "ko.xz"] {
        let file = beside.join("modules").join(format!("{name}.{ending}"));
        match fs::read(&file) {
            Ok(bytes) if ending == "ko" => return Some(bytes),
            Ok(bytes) => fs::write(&packed, bytes).ok()?,
            Err(_) => continue,
        }
        return unpacked(&packed, &whole);
    }
    from_disk(&beside.join("disk"), module, &packed)?;
    unpacked(&packed, &whole)
}

fn unpacked(packed: &Path, whole: &Path) -> Option<Vec<u8>> {
    let script = r#"xz -dc <"$1" >"$2""#;
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(packed).arg(whole).status().ok()?;
    status.success().then(|| fs::read(whole).ok()).flatten()
}

/// debugfs(8) reads a file system that is not mounted.
fn from_disk(disk: &Path, module: &str, to: &Path) -> Option<()> {
    fs::metadata(disk).ok()?;
    let ask = |words: &str| Command::new("debugfs").args(["-R", words]).arg(disk).output().ok();
    let listed = String::from_utf8(ask("ls -p /usr/lib/modules")?.stdout).ok()?;
    // /inode/mode/user/group/name/size/
    let names = listed.lines().filter_map(|line| line.split('/').nth(5));
    let release = names.into_iter().find(|name| !name.is_empty() && !name.starts_with('.'))?;
    let _ = fs::remove_file(to);
    ask(&format!("dump /usr/lib/modules/{release}/kernel/{module}.ko.xz {}", to.display()))?;
    fs::metadata(to).is_ok_and(|meta| meta.len() > 0).then_some(())
}
