//! Layers become a root file system: a detached overlay mount, which belongs to no namespace until it is attached,
//! and is gone when nobody holds it any more.
//!
//! Layers are named as /proc/self/fd/N, so that hundreds of them fit where paths would not. What an image could say
//! to overlayfs is left out when it is unpacked, and not listened to here: no redirects, no metadata-only copies.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::host;
use crate::sys::{clone, loopdev, mount, path};

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
    /// Another one for the topmost layer.
    pub id_map_of_top: Option<BorrowedFd<'a>>,
    /// The caller is not root of the machine: `user.overlay.*` instead of `trusted.overlay.*`.
    pub rootless: bool,
    /// The label of SELinux that everything in an overlay has.
    pub label: Option<&'a str>,
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
    let id_map = |n| options.id_map_of_top.filter(|_| n == 0).or(options.id_map);
    let mut lowers: Vec<Lower<'_>> = layers
        .iter()
        .rev()
        .enumerate()
        .map(|(n, layer)| Lower::open(layer, id_map(n)))
        .collect::<Result<_>>()?;
    let places = upper.map(|upper| Ok((dir(upper.upper)?, dir(upper.work)?))).transpose()?;
    if places.is_none() && lowers.len() == 1 {
        return lowers.remove(0).alone();
    }
    Overlay { lowers, places, options: *options }.mount()
}

/// The root of one layer, to be read.
pub fn root_of(layer: &Path) -> Result<OwnedFd> {
    let root = Lower::open(layer, None)?.root;
    path::openat(root.as_fd(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

/// Whether layers that are images can be mounted by this process; the error says why not.
pub fn takes_images() -> Result<()> {
    if host::is_rootless() {
        return Err(Error::new("layers as EROFS images need root")
            .why("the kernel mounts EROFS in no user namespace")
            .next("leave --layers erofs out"));
    }
    mount::fsopen("erofs").map(drop).map_err(explained)
}

fn explained(error: Error) -> Error {
    match error.errno() {
        libc::ENODEV => error
            .why("this kernel has no EROFS (CONFIG_EROFS_FS)")
            .next("leave --layers erofs out, or boot a kernel that has it"),
        _ => error,
    }
}

/// A layer that is at hand.
struct Lower<'a> {
    /// Its directory; or the root of its image, mounted for nobody else, under the ids that are wanted.
    root: OwnedFd,
    /// Of an image, the directory in which it lies.
    place: Option<PathBuf>,
    /// The ids that a directory shall have yet.
    id_map: Option<BorrowedFd<'a>>,
}

impl<'a> Lower<'a> {
    fn open(layer: &Path, id_map: Option<BorrowedFd<'a>>) -> Result<Self> {
        let fd = path::open(layer, libc::O_PATH)?;
        if path::stat(fd.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Ok(Self { root: fd, place: None, id_map });
        }
        let root = mounted(&fd, layer)?;
        if let Some(userns) = id_map {
            mount::set_idmap(root.as_fd(), userns, false)?;
        }
        Ok(Self { root, place: layer.parent().map(Path::to_owned), id_map: None })
    }

    /// The layer as a read-only mount.
    fn alone(self) -> Result<OwnedFd> {
        if self.place.is_some() {
            return Ok(self.root);
        }
        let tree = mapped(self.root.as_fd(), self.id_map)?;
        let read_only = mount::SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..Default::default() };
        mount::set_attributes(tree.as_fd(), read_only, false)?;
        Ok(tree)
    }
}

/// An image as a detached mount: of the file itself where the kernel can (Linux 6.12), else of a loop device.
fn mounted(image: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    match mount_of(image) {
        Err(e) if e.errno() == libc::ENOTBLK => {
            let file = path::open(path, libc::O_RDONLY | libc::O_NOFOLLOW)?;
            mount_of(&loopdev::read_only(file.as_fd())?)
        }
        other => other,
    }
}

/// `source` is a file or a block device.
fn mount_of(source: &OwnedFd) -> Result<OwnedFd> {
    let context = mount::fsopen("erofs").map_err(explained)?;
    context.set("source", &by_fd(source))?;
    // Else a device that can only be read is refused.
    context.flag("ro")?;
    if let Some(label) = host::layer_label() {
        context.set("context", &label)?;
    }
    context.mount(mount::MOUNT_ATTR_RDONLY)
}

/// A detached mount of a directory, under the ids that are wanted.
pub fn mapped(dir: BorrowedFd<'_>, id_map: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let tree = mount::open_tree(dir, Path::new(""), false, false)?;
    if let Some(userns) = id_map {
        mount::set_idmap(tree.as_fd(), userns, false).map_err(|e| {
            e.why("the file system of the store may not take idmapped mounts")
                .next("leave --userns out, or put the store on ext4, xfs or btrfs")
        })?;
    }
    Ok(tree)
}

struct Overlay<'a> {
    /// Top first, as overlayfs counts them.
    lowers: Vec<Lower<'a>>,
    /// The upper directory and the work directory.
    places: Option<(OwnedFd, OwnedFd)>,
    options: Options<'a>,
}

impl Overlay<'_> {
    fn mount(&self) -> Result<OwnedFd> {
        match self.mount_detached() {
            // Before Linux 6.8 all layers must fit into one value of 255 bytes, and before 6.15 none may be detached.
            Err(e) if e.errno() == libc::EINVAL => self.mount_apart().map_err(|again| {
                if again.errno() == libc::EINVAL && again.what() != e.what() { e } else { again }
            }),
            other => other,
        }
    }

    fn mount_detached(&self) -> Result<OwnedFd> {
        let of_map =
            |lower: &Lower<'_>| lower.id_map.map(|map| mapped(lower.root.as_fd(), Some(map))).transpose();
        let mapped: Vec<Option<OwnedFd>> = self.lowers.iter().map(of_map).collect::<Result<_>>()?;
        let overlay = mount::fsopen("overlay")?;
        for (lower, mapped) in self.lowers.iter().zip(&mapped) {
            overlay.set("lowerdir+", &by_fd(mapped.as_ref().unwrap_or(&lower.root)))?;
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
        let here = |lower: &Lower<'_>| -> Result<Lower<'_>> {
            let root = match &lower.place {
                // An image is mounted already, and over its own directory nobody misses anything.
                Some(place) => {
                    mount::attach_at(lower.root.as_fd(), place)?;
                    path::open(place, libc::O_PATH | libc::O_DIRECTORY)?
                }
                None => {
                    if lower.id_map.is_some() {
                        let tree = mapped(seen(&lower.root)?.as_fd(), lower.id_map)?;
                        mount::attach(tree.as_fd(), seen(&lower.root)?.as_fd())?;
                    }
                    seen(&lower.root)?
                }
            };
            Ok(Lower { root, place: None, id_map: None })
        };
        let lowers: Vec<Lower<'_>> = self.lowers.iter().map(here).collect::<Result<_>>()?;
        let places = match &self.places {
            Some((upper, work)) => Some((seen(upper)?, seen(work)?)),
            None => None,
        };
        let overlay = Overlay { lowers, places, options: self.options };
        let lowers: Vec<String> = overlay.lowers.iter().map(|lower| by_fd(&lower.root)).collect();
        let mut words = vec![format!("lowerdir={}", lowers.join(":"))];
        words.extend(overlay.settings().into_iter().map(|(key, value)| match value {
            // For its commas.
            Some(value) if key == "context" => format!("{key}=\"{value}\""),
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        }));
        let words = words.join(",");
        if words.len() >= 4096 {
            return Err(Error::new(format!("{} layers are too many for this kernel", self.lowers.len()))
                .next("Linux 6.8 and newer take 500"));
        }
        // Any directory will do to mount it on, as nobody comes by here.
        let place = path::name_of(overlay.lowers[0].root.as_fd())?;
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
        settings.extend(self.options.label.map(|label| ("context", Some(label.to_owned()))));
        settings
    }
}

fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        /// Directories that are layers, each with a file of its own number.
        fn new(name: &str, layers: usize) -> (Self, Vec<PathBuf>) {
            let root = std::env::temp_dir().join(format!("jug-snapshot-{name}-{}", std::process::id()));
            let dirs: Vec<PathBuf> = (0..layers).map(|n| root.join(n.to_string())).collect();
            for dir in &dirs {
                std::fs::create_dir_all(dir.join(dir.file_name().unwrap())).unwrap();
            }
            (Self(root), dirs)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// The way of older kernels, which this one would not go by itself.
    fn mounted_apart(layers: &[PathBuf]) -> Result<Vec<std::ffi::OsString>> {
        let lowers = layers.iter().rev().map(|layer| Lower::open(layer, None)).collect::<Result<_>>()?;
        let overlay = Overlay { lowers, places: None, options: Options::default() };
        let tree = overlay.mount_apart()?;
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains("jug-snapshot-"));
        path::list(path::openat(tree.as_fd(), Path::new("."), libc::O_RDONLY, 0)?.as_fd())
    }

    /// The directory as an image in a directory of its own.
    fn image_of(dir: &Path) -> PathBuf {
        let place = dir.with_extension("image");
        std::fs::create_dir(&place).unwrap();
        let image = place.join("layer.erofs");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&image).unwrap();
        crate::image::erofs::write(path::open(dir, libc::O_RDONLY).unwrap().as_fd(), &file).unwrap();
        image
    }

    fn images_are_taken() -> bool {
        if let Err(why) = takes_images() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "SKIP erofs: {why}");
            return false;
        }
        true
    }

    #[test]
    fn a_thread_of_its_own_mounts_as_well() {
        if host::is_rootless() {
            return;
        }
        let (_place, dirs) = Place::new("apart", 60);
        assert_eq!(mounted_apart(&dirs).unwrap().len(), 60);
    }

    #[test]
    fn a_thread_of_its_own_mounts_images_too() {
        if !images_are_taken() {
            return;
        }
        let (_place, mut dirs) = Place::new("images", 5);
        for n in [1, 3, 4] {
            dirs[n] = image_of(&dirs[n]);
        }
        assert_eq!(mounted_apart(&dirs).unwrap().len(), 5);
    }

    /// What Linux before 6.12 has instead of a mount of the file; it is gone with the mount.
    #[test]
    fn an_image_on_a_loop_device() {
        let is_there = |path: &Path| path::stat(crate::sys::cwd(), path).is_ok();
        if !images_are_taken() || !is_there(Path::new("/dev/loop-control")) {
            return;
        }
        let (_place, dirs) = Place::new("loop", 1);
        let image = image_of(&dirs[0]);
        let device = loopdev::read_only(path::open(&image, libc::O_RDONLY).unwrap().as_fd()).unwrap();
        let name = path::name_of(device.as_fd()).unwrap();
        let tree = mount_of(&device).unwrap();
        drop(device);
        let backing = Path::new("/sys/block").join(name.file_name().unwrap()).join("loop/backing_file");
        assert!(std::fs::read_to_string(&backing).unwrap().contains("layer.erofs"));
        let dir = path::openat(tree.as_fd(), Path::new("."), libc::O_RDONLY, 0).unwrap();
        assert_eq!(path::list(dir.as_fd()).unwrap(), ["0"]);
        drop((dir, tree));
        for _ in 0..500 {
            if !is_there(&backing) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{} is still there", backing.display());
    }
}
