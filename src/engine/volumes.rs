//! What is mounted into a container beside its root: `--volume`, `--mount`, `--tmpfs`, and the volumes of the image.
//! Volumes are directories below the engine's own root; paths of the image are looked up inside its root only.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::names;
use super::place::{Place, io};
use super::selinux::{Labels, Reach};
use super::settings::Settings;
use crate::apply::copy_up;
use crate::apply::root::RootDir;
use crate::error::{Error, Result};
use crate::plan::lexical;
use crate::sys::path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the host.
    Bind(PathBuf),
    /// A volume by its name.
    Volume(String),
    /// A new one, whose name is an id.
    Anonymous(String),
    Tmpfs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: Source,
    /// Absolute, without `.` and `..`.
    pub target: String,
    pub options: Vec<String>,
    pub read_only: bool,
    /// What the image has there is not copied into a new volume.
    pub no_copy: bool,
    /// Its files get the container's label of SELinux.
    pub relabel: Option<Reach>,
}

/// Everything that was asked for, and the image's volumes where nothing else is; a target counts once.
pub fn wanted(settings: &Settings, of_image: &[String]) -> Result<Vec<Mount>> {
    let mut all = Vec::new();
    for text in &settings.volume {
        all.push(by_volume_flag(text)?);
    }
    for text in &settings.mount {
        all.push(by_mount_flag(text)?);
    }
    for text in &settings.tmpfs {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut mount = Mount::new(Source::Tmpfs, target)?;
        mount.options = words(options);
        all.push(mount);
    }
    for (i, mount) in all.iter().enumerate() {
        if all[..i].iter().any(|earlier: &Mount| earlier.target == mount.target) {
            return Err(Error::new(format!("duplicate mount point: {}", mount.target)));
        }
    }
    for target in of_image {
        let mount = Mount::new(Source::Anonymous(names::id()?), target)?;
        if !all.iter().any(|other| other.target == mount.target) {
            all.push(mount);
        }
    }
    // What lies above is mounted first.
    all.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(all)
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

impl Mount {
    fn new(source: Source, target: &str) -> Result<Self> {
        let clean = lexical(Path::new(target));
        if !target.starts_with('/') || clean.as_os_str().is_empty() || target.contains('\0') {
            return Err(Error::new(format!("invalid mount path: {target:?} must be absolute, and below /")));
        }
        let target = format!("/{}", clean.to_string_lossy());
        Ok(Self { source, target, options: Vec::new(), read_only: false, no_copy: false, relabel: None })
    }

    fn take(&mut self, option: &str) -> Result<()> {
        match option {
            "ro" | "rro" | "readonly" => self.read_only = true,
            // The last three speak to Docker's virtual machine on other systems.
            "rw" | "copy" | "cached" | "consistent" | "delegated" => {}
            "z" => self.relabel = Some(Reach::Shared),
            "Z" => self.relabel = Some(Reach::Private),
            "nocopy" => self.no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "exec" | "noexec"
            | "dev" | "nodev" | "suid" | "nosuid" | "rbind" | "bind" | "idmap" => {
                self.options.push(option.to_owned())
            }
            other => {
                return Err(Error::new(format!("{}: unknown mount option {other:?}", self.target)).next(
                    "options are ro, rw, nocopy, bind, rbind, exec, suid, dev and their no-, z, Z, and propagations",
                ));
            }
        }
        Ok(())
    }
}

/// A path of the caller's, or the name of a volume.
fn source_of(text: &str) -> Result<Source> {
    if text.starts_with(['/', '.']) {
        let absolute = std::path::absolute(text).map_err(io(format_args!("the path {text:?}")))?;
        return Ok(Source::Bind(absolute));
    }
    names::check(text)
        .map_err(|_| Error::new(format!("{text:?} is neither a path of the host nor a name for a volume")))?;
    Ok(Source::Volume(text.to_owned()))
}

fn by_volume_flag(text: &str) -> Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (Source::Anonymous(names::id()?), target, ""),
        [source, target] => (source_of(source)?, target, ""),
        [source, target, options] => (source_of(source)?, target, options),
        _ => return Err(Error::new(format!("--volume: {text:?} is not SOURCE:PATH:OPTIONS"))),
    };
    let mut mount = Mount::new(source, target)?;
    words(options).iter().try_for_each(|option| mount.take(option))?;
    Ok(mount)
}

fn by_mount_flag(text: &str) -> Result<Mount> {
    let (mut kind, mut source, mut target, mut options) = ("volume", None, None, Vec::new());
    let mut writable_below = false;
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        let yes = matches!(value, "true" | "1");
        match (key, value) {
            ("type", _) => kind = value,
            ("source" | "src", _) => source = Some(value),
            ("target" | "destination" | "dst", _) => target = Some(value),
            ("readonly" | "ro", _) => options.extend(yes.then_some("ro")),
            ("bind-propagation", _) => options.push(value),
            ("bind-nonrecursive", _) => options.extend(yes.then_some("bind")),
            ("bind-recursive", "disabled") => options.push("bind"),
            ("bind-recursive", "writable") => writable_below = true,
            ("bind-recursive", "enabled" | "readonly") | ("consistency", _) => {}
            ("volume-nocopy", _) => options.extend(yes.then_some("nocopy")),
            ("relabel", "shared") => options.push("z"),
            ("relabel", "private") => options.push("Z"),
            ("tmpfs-size" | "tmpfs-mode", _) => options.push(part),
            // Podman's way.
            _ if key == part => options.push(part),
            _ => return Err(Error::new(format!("--mount: unknown key {key:?} in {text:?}"))),
        }
    }
    let target = target.ok_or_else(|| Error::new(format!("--mount: {text:?} has no target")))?;
    let source = match (kind, source) {
        ("bind", Some(path)) => Source::Bind(std::path::absolute(path).map_err(io("--mount"))?),
        ("volume", Some(name)) => source_of(name)?,
        ("volume", None) => Source::Anonymous(names::id()?),
        ("tmpfs", None) => Source::Tmpfs,
        _ => {
            return Err(Error::new(format!(
                "--mount: {text:?}: type is bind, volume or tmpfs, with a source or not"
            )));
        }
    };
    let mut mount = Mount::new(source, target)?;
    for option in options {
        match option.split_once('=') {
            Some(("tmpfs-size", size)) => mount.options.push(format!("size={size}")),
            Some((_, mode)) => mount.options.push(format!("mode={mode}")),
            None => mount.take(option)?,
        }
    }
    if writable_below && std::mem::take(&mut mount.read_only) {
        mount.options.push("ro".to_owned());
    }
    Ok(mount)
}

/// The names of the volumes that go with the container.
pub fn anonymous(mounts: &[Mount]) -> Vec<String> {
    let name = |mount: &Mount| match &mount.source {
        Source::Anonymous(name) => Some(name.clone()),
        _ => None,
    };
    mounts.iter().filter_map(name).collect()
}

/// Makes the volumes that are new, filled with what the image has there, and gives the mounts for config.json. `idmap`:
/// the container's ids are not the image's, under which a volume is kept, so that containers with other ids share it.
pub fn make(
    place: &Place,
    mounts: &[Mount],
    root: &RootDir,
    idmap: bool,
    labels: &Labels,
) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    for mount in mounts {
        let mut options = mount.options.clone();
        let (kind, source) = match &mount.source {
            Source::Tmpfs => {
                options.extend(
                    ["nosuid", "nodev", "noexec"]
                        .map(str::to_owned)
                        .into_iter()
                        .filter(|word| !mount.options.iter().any(|option| *option == word[2..])),
                );
                options.retain(|option| !["suid", "dev", "exec"].contains(&option.as_str()));
                // A new directory is everybody's, as /tmp; one of the image keeps its mode.
                let there = root.open_existing(&lexical(Path::new(&mount.target)))?.is_some();
                if !there && !options.iter().any(|option| option.starts_with("mode=")) {
                    options.push("mode=1777".to_owned());
                }
                ("tmpfs", "tmpfs".to_owned())
            }
            Source::Bind(path) => {
                path::open(path, libc::O_PATH).map_err(|e| {
                    e.context(format!("the source of {}", mount.target))
                        .next("make it first, or correct the path")
                })?;
                ("bind", path.to_string_lossy().into_owned())
            }
            Source::Volume(name) | Source::Anonymous(name) => {
                options.extend(idmap.then(|| "idmap".to_owned()));
                ("bind", volume(place, name, mount, root, labels)?.to_string_lossy().into_owned())
            }
        };
        if let ("bind", Some(reach)) = (kind, mount.relabel) {
            labels.relabel(Path::new(&source), reach)?;
        }
        if kind == "bind" {
            if !options.iter().any(|option| option == "bind") {
                options.push("rbind".to_owned());
            }
            if !options
                .iter()
                .any(|option| ["private", "shared", "slave"].iter().any(|word| option.ends_with(word)))
            {
                options.push("rprivate".to_owned());
            }
        }
        if mount.read_only {
            options.push(if kind == "bind" { "rro" } else { "ro" }.to_owned());
        }
        entries
            .push(json!({ "destination": mount.target, "type": kind, "source": source, "options": options }));
    }
    Ok(entries)
}

/// The directory of a volume. An empty one gets the owner, the mode and the content of what the image has at the
/// target, as with Docker.
fn volume(place: &Place, name: &str, mount: &Mount, root: &RootDir, labels: &Labels) -> Result<PathBuf> {
    let data = place.volumes().join(name).join("_data");
    place.make(&place.volumes().join(name))?;
    match fs::DirBuilder::new().mode(0o755).create(&data) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = path::open(&data, libc::O_RDONLY | libc::O_DIRECTORY)?;
            if !path::list(there.as_fd())?.is_empty() {
                return Ok(data);
            }
        }
        other => other.map_err(io(format_args!("mkdir({data:?})")))?,
    }
    if !mount.no_copy {
        fill(&data, mount, root).map_err(|e| e.context(format!("filling the volume {name}")))?;
    }
    // Any container may be the next to use it.
    labels.relabel(&data, Reach::Shared)?;
    Ok(data)
}

fn fill(data: &Path, mount: &Mount, root: &RootDir) -> Result<()> {
    let target = lexical(Path::new(&mount.target));
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let from = match root.open(&target, flags) {
        Ok(from) => from,
        Err(e) if matches!(e.errno(), libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        Err(e) => return Err(e.context(format!("the image's {}", mount.target))),
    };
    let into = path::open(data, flags)?;
    let st = path::stat(from.as_fd(), Path::new(""))?;
    copy_up::copy(from.as_fd(), into.as_fd())?;
    path::fchown(into.as_fd(), st.st_uid, st.st_gid)?;
    path::fchmod(into.as_fd(), st.st_mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_mean_mounts() {
        let bind = by_volume_flag("/a:/b/../c:ro").unwrap();
        assert_eq!(
            (bind.source, bind.target.as_str(), bind.read_only),
            (Source::Bind("/a".into()), "/c", true)
        );
        assert_eq!(by_volume_flag("data:/d").unwrap().source, Source::Volume("data".into()));
        assert!(matches!(by_volume_flag("/d").unwrap().source, Source::Anonymous(_)));
        let tmpfs = by_mount_flag("type=tmpfs,target=/t,tmpfs-size=1m").unwrap();
        assert_eq!((tmpfs.source, tmpfs.options), (Source::Tmpfs, vec!["size=1m".to_owned()]));
        assert!(by_volume_flag("/a:/b:cached,ro").unwrap().read_only);
        let below = |how| by_mount_flag(&format!("type=bind,src=/a,dst=/b,ro,bind-recursive={how}")).unwrap();
        assert_eq!((below("writable").read_only, below("writable").options), (false, vec!["ro".to_owned()]));
        assert_eq!((below("disabled").read_only, below("disabled").options), (true, vec!["bind".to_owned()]));
        let bare = by_mount_flag("type=bind,src=/a,dst=/b,nosuid,ro=false,consistency=cached").unwrap();
        assert_eq!((bare.read_only, bare.options), (false, vec!["nosuid".to_owned()]));
        for bad in ["a:b", "/a:/", "x y:/d", "/a:/b:ro:rw", "/a:/b:what", "/a:/.."] {
            assert!(by_volume_flag(bad).is_err(), "{bad}");
        }
        for bad in ["type=bind,target=/x", "type=tmpfs,target=/x,what", "type=tmpfs,target=/x,what=1"] {
            assert!(by_mount_flag(bad).is_err(), "{bad}");
        }
    }
}
