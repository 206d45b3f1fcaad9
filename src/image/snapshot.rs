//! Layers become a root file system: a detached overlay mount, which belongs to no namespace until it is attached,
//! and is gone when nobody holds it any more.
//!
//! Layers are named as /proc/self/fd/N, so that hundreds of them fit where paths would not. What an image could say
//! to overlayfs is left out when it is unpacked, and not listened to here: no redirects, no metadata-only copies.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::{clone, mount, path};

/// The kernel's own limit (OVL_MAX_STACK).
const MAX_LAYERS: usize = 500;

/// Where the changes of a container go. Both lie on one file system, and `work` is empty.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Options<'a> {
    /// Changes need not survive a crash of the machine: no sync at all.
    pub volatile: bool,
    /// The user namespace whose ids the layers shall appear under.
    pub id_map: Option<BorrowedFd<'a>>,
    /// The caller is not root of the machine: `user.overlay.*` instead of `trusted.overlay.*`.
    pub rootless: bool,
}

/// Mounts layers (bottom first; directories, or files that are EROFS images of `image::layer`) and, with `upper`, a
/// place for changes. Without one the mount is read-only; one layer alone is then a bind of its directory.
pub fn mount(layers: &[PathBuf], upper: Option<&Upper<'_>>, options: &Options<'_>) -> Result<OwnedFd> {
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(Error::new(format!(
            "a snapshot of {} layers: there can be 1 to {MAX_LAYERS}",
            layers.len()
        )));
    }
    let dir = |path: &Path| path::open(path, libc::O_PATH | libc::O_DIRECTORY);
    let opened: Vec<(OwnedFd, bool)> =
        layers.iter().rev().map(|layer| opened(layer)).collect::<Result<_>>()?;
    let (lowers, images): (Vec<OwnedFd>, Vec<bool>) = opened.into_iter().unzip();
    let places = upper.map(|upper| Ok((dir(upper.upper)?, dir(upper.work)?))).transpose()?;
    let overlay = Overlay { lowers, places, options: *options, images: images.contains(&true) };
    match &overlay.lowers[..] {
        [only] if overlay.places.is_none() => overlay.bind(only),
        _ => overlay.mount(),
    }
}

/// A layer's directory; or the root of its EROFS image, mounted for nobody else, and then `true`.
fn opened(layer: &Path) -> Result<(OwnedFd, bool)> {
    let fd = path::open(layer, libc::O_PATH)?;
    if path::stat(fd.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Ok((fd, false));
    }
    let image = mount::fsopen("erofs")?;
    image.set("source", &by_fd(&fd))?;
    let mounted = image.mount(mount::MOUNT_ATTR_RDONLY).map_err(|e| match e.errno() {
        libc::ENOTBLK => e.why("only Linux 6.12 and newer mount an image that is a file"),
        _ => e,
    });
    Ok((mounted?, true))
}

struct Overlay<'a> {
    /// Top first, as overlayfs counts them.
    lowers: Vec<OwnedFd>,
    /// The upper directory and the work directory.
    places: Option<(OwnedFd, OwnedFd)>,
    options: Options<'a>,
    /// Whether a layer is an image, and so has no path.
    images: bool,
}

impl Overlay<'_> {
    fn bind(&self, layer: &OwnedFd) -> Result<OwnedFd> {
        let tree = self.mapped(layer)?;
        let read_only = mount::SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..Default::default() };
        mount::set_attributes(tree.as_fd(), read_only, false)?;
        Ok(tree)
    }

    /// A detached mount of a layer, under the ids that are wanted.
    fn mapped(&self, layer: &OwnedFd) -> Result<OwnedFd> {
        let tree = mount::open_tree(layer.as_fd(), Path::new(""), false, false)?;
        if let Some(userns) = self.options.id_map {
            mount::set_idmap(tree.as_fd(), userns, false)?;
        }
        Ok(tree)
    }

    fn mount(&self) -> Result<OwnedFd> {
        match self.mount_detached() {
            // Before Linux 6.8 all layers must fit into one value of 255 bytes, and before 6.15 none may be detached.
            // An image is a mount already, of which only a newer kernel makes a layer.
            Err(e) if e.errno() == libc::EINVAL && !self.images => self.mount_apart().map_err(|again| {
                if again.errno() == libc::EINVAL && again.what() != e.what() { e } else { again }
            }),
            other => other,
        }
    }

    fn mount_detached(&self) -> Result<OwnedFd> {
        let mapped: Vec<OwnedFd> = match self.options.id_map {
            Some(_) => self.lowers.iter().map(|layer| self.mapped(layer)).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let overlay = mount::fsopen("overlay")?;
        for layer in if mapped.is_empty() { &self.lowers } else { &mapped } {
            overlay.set("lowerdir+", &by_fd(layer))?;
        }
        for (key, value) in self.settings() {
            match value {
                Some(value) => overlay.set(key, &value)?,
                None => overlay.flag(key)?,
            }
        }
        overlay.mount(if self.places.is_none() { mount::MOUNT_ATTR_RDONLY } else { 0 })
    }

    /// The same with mount(2), in a mount namespace that a thread has to itself, so that nobody else ever sees it:
    /// there the layers can be mounted where they lie.
    fn mount_apart(&self) -> Result<OwnedFd> {
        std::thread::scope(|scope| scope.spawn(|| self.mount_in_own_namespace()).join())
            .map_err(|_| Error::new("the thread that mounts has failed"))?
    }

    fn mount_in_own_namespace(&self) -> Result<OwnedFd> {
        clone::unshare(libc::CLONE_FS | libc::CLONE_NEWNS)?;
        mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)?;
        // The directories again, as this namespace has them; and through what is mounted on them.
        let seen = |dir: &OwnedFd| path::open(&path::name_of(dir.as_fd())?, libc::O_PATH | libc::O_DIRECTORY);
        let here = |dir: &OwnedFd| -> Result<OwnedFd> {
            if self.options.id_map.is_some() {
                mount::attach(self.mapped(&seen(dir)?)?.as_fd(), seen(dir)?.as_fd())?;
            }
            seen(dir)
        };
        let lowers: Vec<OwnedFd> = self.lowers.iter().map(here).collect::<Result<_>>()?;
        let places = match &self.places {
            Some((upper, work)) => Some((seen(upper)?, seen(work)?)),
            None => None,
        };
        let overlay = Overlay { lowers, places, options: self.options, images: false };
        let lowers: Vec<String> = overlay.lowers.iter().map(by_fd).collect();
        let mut words = vec![format!("lowerdir={}", lowers.join(":"))];
        words.extend(overlay.settings().into_iter().map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        }));
        let words = words.join(",");
        if words.len() >= 4096 {
            return Err(Error::new(format!("{} layers are too many for this kernel", self.lowers.len()))
                .next("Linux 6.8 and newer take 500"));
        }
        // Any directory will do to mount it on, as nobody comes by here.
        let place = path::name_of(overlay.lowers[0].as_fd())?;
        mount::mount_new("overlay", &place, &words)?;
        let place = path::open(&place, libc::O_PATH | libc::O_DIRECTORY)?;
        let tree = mount::open_tree(place.as_fd(), Path::new(""), false, false)?;
        if self.places.is_none() {
            let read_only = mount::SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..Default::default() };
            mount::set_attributes(tree.as_fd(), read_only, false)?;
        }
        Ok(tree)
    }

    /// Everything but the lower layers.
    fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        let mut settings = vec![
            ("redirect_dir", Some("nofollow".to_owned())),
            ("metacopy", Some("off".to_owned())),
            ("index", Some("off".to_owned())),
        ];
        if let Some((upper, work)) = &self.places {
            settings.extend([("upperdir", Some(by_fd(upper))), ("workdir", Some(by_fd(work)))]);
            settings.extend(self.options.volatile.then_some(("volatile", None)));
        }
        settings.extend(self.options.rootless.then_some(("userxattr", None)));
        settings
    }
}

fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of older kernels, which this one would not go by itself.
    #[test]
    fn a_thread_of_its_own_mounts_as_well() {
        if crate::host::is_rootless() {
            return;
        }
        let root = std::env::temp_dir().join(format!("jug-snapshot-{}", std::process::id()));
        let dirs: Vec<PathBuf> = (0..60).map(|n| root.join(n.to_string())).collect();
        for dir in &dirs {
            std::fs::create_dir_all(dir.join(dir.file_name().unwrap())).unwrap();
        }
        let open = |dir: &PathBuf| path::open(dir, libc::O_PATH | libc::O_DIRECTORY).unwrap();
        let lowers = dirs.iter().rev().map(open).collect();
        let overlay = Overlay { lowers, places: None, options: Options::default(), images: false };
        let tree = overlay.mount_apart();
        let names = tree.and_then(|tree| path::list(tree.as_fd()));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(names.unwrap().len(), 60);
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains("jug-snapshot-"));
    }
}
