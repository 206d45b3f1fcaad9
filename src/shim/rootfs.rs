//! The root file system as containerd's snapshotter describes it: mounts that the shim makes below the bundle, in the
//! host's mount namespace, and takes away again. Their sources are containerd's own; nothing of the image is walked.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::layers::{self, Layers, Maps};
use super::message::Mount;
use crate::error::{Error, Result};
use crate::sys;

/// mount(2) takes one page of data.
const DATA: usize = 4095;

/// The flags of mount(8): name, bit, and whether it clears the bit.
const FLAGS: [(&str, u64, bool); 21] = [
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("suid", libc::MS_NOSUID, true),
    ("nodev", libc::MS_NODEV, false),
    ("dev", libc::MS_NODEV, true),
    ("noexec", libc::MS_NOEXEC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
    ("async", libc::MS_SYNCHRONOUS, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("noatime", libc::MS_NOATIME, false),
    ("atime", libc::MS_NOATIME, true),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("diratime", libc::MS_NODIRATIME, true),
    ("relatime", libc::MS_RELATIME, false),
    ("norelatime", libc::MS_RELATIME, true),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("nostrictatime", libc::MS_STRICTATIME, true),
    ("bind", libc::MS_BIND, false),
    ("rbind", libc::MS_BIND | libc::MS_REC, false),
];

/// Makes all of them at `rootfs`, or none.
pub fn mount(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    for mount in mounts {
        if let Err(e) = mount_one(mount, rootfs) {
            let _ = unmount(rootfs);
            return Err(e.context("mounting the root file system"));
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, rootfs: &Path) -> Result<()> {
    // Below the root everything is the image's: the way there is the kernel's to keep inside (openat2(2)).
    let below = match mount.target.trim_start_matches('/') {
        "" => None,
        below => {
            let root = sys::path::open(rootfs, libc::O_PATH | libc::O_DIRECTORY)?;
            let inside = sys::path::RESOLVE_IN_ROOT | sys::path::RESOLVE_NO_MAGICLINKS;
            Some(sys::path::openat2(root.as_fd(), Path::new(below), libc::O_PATH, 0, inside)?)
        }
    };
    let target = below.as_ref().map_or(rootfs.to_owned(), own_name);
    let (flags, mut data, maps) = parse(&mount.options)?;
    let bind = flags & libc::MS_BIND != 0;
    if !maps.is_empty() && !bind && mount.kind != "overlay" {
        return Err(Error::new(format!("a snapshot of kind {:?} with id maps is not supported", mount.kind))
            .next("set the snapshotter's slow_chown, so that containerd changes the owners itself"));
    }
    let userns = if maps.is_empty() { None } else { Some(maps.namespace()?) };
    let bundle = rootfs.parent().unwrap_or(rootfs);
    let (mut _layers, mut _open) = (None, Vec::new());
    if let Some(userns) = userns.as_ref().filter(|_| !bind) {
        (data, _layers) = with_mapped_layers(&data, bundle, userns)?;
    }
    (data, _open) = shortened(data)?;
    match userns.filter(|_| bind) {
        Some(userns) => {
            let tree = layers::mapped(Path::new(&mount.source), flags & libc::MS_REC != 0, &userns)?;
            sys::mount::attach_at(tree.as_fd(), &target)?;
        }
        None => {
            let kind = if bind { "" } else { &mount.kind };
            sys::mount::mount(&mount.source, &target, kind, flags, &data)?;
        }
    }
    // A bind takes its flags only when it is mounted again (mount(2), "Remounting").
    let more = flags & !(libc::MS_BIND | libc::MS_REC);
    if bind && more != 0 {
        sys::mount::mount("", &target, "", more | libc::MS_BIND | libc::MS_REMOUNT, "")?;
    }
    Ok(())
}

/// The overlay's data with its lower layers mapped; they go with what is returned.
fn with_mapped_layers(data: &str, bundle: &Path, userns: &OwnedFd) -> Result<(String, Option<Layers>)> {
    let mut layers = None;
    let mut parts = Vec::new();
    for part in data.split(',') {
        let Some(lower) = part.strip_prefix("lowerdir=") else {
            parts.push(part.to_owned());
            continue;
        };
        let mounted = Layers::mount(bundle, &lower.split(':').collect::<Vec<_>>(), userns)?;
        let paths: Vec<_> = mounted.paths.iter().map(|path| path.display().to_string()).collect();
        parts.push(format!("lowerdir={}", paths.join(":")));
        layers = Some(mounted);
    }
    Ok((parts.join(","), layers))
}

/// A path of this process's to what it has open.
fn own_name(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Options to flags, data and the maps of a user namespace.
fn parse(options: &[String]) -> Result<(u64, String, Maps)> {
    let (mut flags, mut data, mut maps) = (0, Vec::new(), Maps::default());
    for option in options {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, bit, false)) => flags |= bit,
            Some((_, bit, true)) => flags &= !bit,
            None if option == "loop" => {
                return Err(Error::new("a snapshot on a loop device is not supported"));
            }
            None if maps.take(option)? => {}
            // For containerd itself, not for the kernel.
            None if option.starts_with("X-containerd.") || option == "defaults" => {}
            None => data.push(option.as_str()),
        }
    }
    Ok((flags, data.join(","), maps))
}

/// Many layers have more names than mount(2) takes: then each goes by the number of its open directory.
fn shortened(data: String) -> Result<(String, Vec<OwnedFd>)> {
    if data.len() <= DATA {
        return Ok((data, Vec::new()));
    }
    let mut open = Vec::new();
    let mut parts = Vec::new();
    for part in data.split(',') {
        let Some(layers) = part.strip_prefix("lowerdir=") else {
            parts.push(part.to_owned());
            continue;
        };
        let mut names = Vec::new();
        for layer in layers.split(':') {
            let dir = sys::path::open(Path::new(layer), libc::O_PATH | libc::O_DIRECTORY)?;
            names.push(own_name(&dir).display().to_string());
            open.push(dir);
        }
        parts.push(format!("lowerdir={}", names.join(":")));
    }
    Ok((parts.join(","), open))
}

/// Takes away whatever is mounted at `rootfs`, also what was mounted over it.
pub fn unmount(rootfs: &Path) -> Result<()> {
    for _ in 0..64 {
        let gone = match sys::mount::unmount(rootfs, 0) {
            // Somebody is in it, or something is mounted below: it goes when they do.
            Err(e) if e.errno() == libc::EBUSY => sys::mount::unmount(rootfs, libc::MNT_DETACH)?,
            other => other?,
        };
        if !gone {
            return Ok(());
        }
    }
    Err(Error::new(format!("{} is mounted again and again", rootfs.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let options = ["rw", "rbind", "ro", "index=off", "lowerdir=/a:/b"].map(str::to_owned);
        let (flags, data, maps) = parse(&options).unwrap();
        assert_eq!(flags, libc::MS_BIND | libc::MS_REC | libc::MS_RDONLY);
        assert_eq!(data, "index=off,lowerdir=/a:/b");
        assert!(maps.is_empty() && !parse(&["uidmap=0:1:1".to_owned()]).unwrap().2.is_empty());
        assert!(parse(&["loop".to_owned()]).is_err());
    }

    #[test]
    fn many_layers_fit() {
        let layers = vec!["/proc/self/task/../task/../task/../task/../task"; 120].join(":");
        let (data, open) = shortened(format!("index=off,lowerdir={layers},upperdir=/u")).unwrap();
        assert!(data.len() <= DATA && open.len() == 120, "{}", data.len());
        assert!(data.starts_with("index=off,lowerdir=/proc/self/fd/") && data.ends_with(",upperdir=/u"));
    }
}
