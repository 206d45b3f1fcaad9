//! Mounts: each is made detached, given its attributes, and attached by descriptor inside the container's root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::opened::{self, Trees};
use super::root::RootDir;
use super::{copy_up, devices};
use crate::error::{Error, Result};
use crate::plan::mounts::{Kind, allowed_in_proc};
use crate::plan::namespaces::Kind as Ns;
use crate::plan::{MountPlan, Plan};
use crate::sys::mount::{self, SetAttr};
use crate::sys::{fd, path, xattr};

const PROC_MAGIC: i64 = 0x9fa0;
/// Longest mountinfo that is read, in bytes.
const MOUNTINFO_LIMIT: usize = 16 << 20;
const PER_MOUNT: u64 = mount::MOUNT_ATTR_RDONLY
    | mount::MOUNT_ATTR_NOSUID
    | mount::MOUNT_ATTR_NODEV
    | mount::MOUNT_ATTR_NOEXEC
    | mount::MOUNT_ATTR_NODIRATIME
    | mount::MOUNT_ATTR_NOSYMFOLLOW;

/// Puts the root tree in place and everything of the plan on it. The new root is not yet `/`.
///
/// It is attached on top of `/`, where no host path need be looked up; only for createContainer hooks, which find the
/// container by its host path, and for MS_MOVE it is attached there.
///
/// Without a mount namespace it is attached nowhere: the host does not see it, and it ends with its last process.
pub fn build(plan: &Plan, trees: &mut Trees) -> Result<RootDir> {
    let nowhere = !plan.namespaces.has(Ns::Mount);
    if !nowhere {
        mount::set_propagation(Path::new("/"), libc::MS_SLAVE | libc::MS_REC)?;
        let elsewhere = !plan.hooks.create_container.is_empty() || plan.options.no_pivot;
        let at = if elsewhere { &plan.root.path } else { Path::new("/") };
        mount::attach_at(trees.root.as_fd(), at)?;
    }
    let root =
        RootDir::new(trees.root.try_clone().map_err(|e| Error::call("dup", e.raw_os_error().unwrap_or(0)))?);
    for (plan_mount, source) in plan.mounts.iter().zip(std::mem::take(&mut trees.sources)) {
        one(plan, plan_mount, source, trees, &root).map_err(|e| {
            let e = match e.errno() {
                libc::EINVAL if nowhere => e
                    .why("a mount without a mount namespace needs Linux 6.15")
                    .next("add {\"type\": \"mount\"} to /linux/namespaces"),
                _ => e,
            };
            e.context(format_args!(
                "error mounting {:?} to rootfs at \"/{}\"",
                shown(plan_mount),
                plan_mount.destination.display()
            ))
        })?;
    }
    devices::make(plan, trees, &root)?;
    ensure_cwd(plan, &root);
    Ok(root)
}

fn shown(m: &MountPlan) -> String {
    match &m.kind {
        Kind::Bind { source, .. } => source.display().to_string(),
        Kind::New { fstype, .. } => fstype.clone(),
        Kind::Cgroup => "cgroup".to_owned(),
    }
}

/// A missing working directory is made, as runc does; that it cannot be made shows when it is entered.
fn ensure_cwd(plan: &Plan, root: &RootDir) {
    let cwd = crate::plan::lexical(&plan.process.cwd);
    if !cwd.as_os_str().is_empty() {
        let _ = root.make_dir(&cwd);
    }
}

/// One mount of the list.
fn one(plan: &Plan, m: &MountPlan, source: Option<OwnedFd>, trees: &mut Trees, root: &RootDir) -> Result<()> {
    let (tree, target) = match &m.kind {
        Kind::Bind { source: path, recursive } => {
            let tree = match (source, opened::source_inside(plan, m)) {
                (Some(tree), _) => tree,
                (None, Some(inside)) => {
                    let there = root.open(inside, libc::O_PATH)?;
                    opened::source_tree(there.as_fd(), Path::new(""), *recursive, m, plan)?
                }
                (None, None) => return Err(Error::new(format!("{} was not opened", path.display()))),
            };
            let is_dir = path::stat(tree.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let target =
                if is_dir { root.make_dir(&m.destination)? } else { root.make_file(&m.destination)? };
            set_bind_attributes(&tree, m, plan.namespaces.has(Ns::User))?;
            (tree, target)
        }
        Kind::New { fstype, source, data } => {
            let inherits = fstype == "tmpfs"
                && !data.iter().any(|(key, _)| key == "mode")
                && root.open_existing(&m.destination)?.is_some();
            let target = target_of(fstype, m, root)?;
            let tree = new(fstype, source, data, m, inherits.then_some(&target))?;
            if let Some(label) = plan.mount_label.as_deref().filter(|_| fstype == "mqueue") {
                let dir = path::openat(tree.as_fd(), Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                xattr::fset(dir.as_fd(), xattr::SELINUX, label.as_bytes())
                    .map_err(|e| e.context(format_args!("/linux/mountLabel {label:?}")))?;
            }
            (tree, target)
        }
        Kind::Cgroup => {
            let target = root.make_dir(&m.destination)?;
            (cgroup(plan, m, trees)?, target)
        }
    };
    // Whatever the names said: only a procfs, or a file meant to be covered, may lie on a procfs.
    let is_proc_itself = matches!(&m.kind, Kind::New { fstype, .. } if fstype == "proc")
        || m.destination.as_os_str() == "proc";
    if !is_proc_itself && path::fs_magic(target.as_fd())? == PROC_MAGIC && !allowed_in_proc(&m.destination) {
        return Err(Error::new(format!("\"/{}\" leads into /proc", m.destination.display()))
            .why("a symbolic link of the image redirects the mount"));
    }
    if m.is_bind() && m.destination.as_os_str() == "proc" && path::fs_magic(tree.as_fd())? != PROC_MAGIC {
        return Err(Error::new("only a procfs may be mounted over /proc")
            .why("labels, limits and sysctls are written through it"));
    }
    if m.copy_up {
        copy_up::copy(target.as_fd(), tree.as_fd())?;
        if m.set & mount::MOUNT_ATTR_RDONLY != 0 {
            mount::set_attributes(
                tree.as_fd(),
                SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() },
                false,
            )?;
        }
    }
    mount::attach(tree.as_fd(), target.as_fd())?;
    for flags in &m.propagation {
        let change = SetAttr { propagation: flags & !libc::MS_REC, ..SetAttr::default() };
        mount::set_attributes(tree.as_fd(), change, flags & libc::MS_REC != 0)?;
    }
    Ok(())
}

/// /proc and /sys must be ordinary directories of the image: behind a link, confinement would be written elsewhere.
fn target_of(fstype: &str, m: &MountPlan, root: &RootDir) -> Result<OwnedFd> {
    if fstype != "proc" && fstype != "sysfs" {
        return root.make_dir(&m.destination);
    }
    match root.open_plain_dir(&m.destination) {
        Err(e) if e.errno() == libc::ENOENT => {
            root.make_dir(&m.destination)?;
            root.open_plain_dir(&m.destination)
        }
        other => other,
    }
    .map_err(|e| match e.errno() {
        libc::ELOOP | libc::ENOTDIR => {
            Error::new(format!("filesystem {fstype:?} must be mounted on ordinary directory")).why(format!(
                "\"/{}\" of the root file system is or goes through a symbolic link",
                m.destination.display()
            ))
        }
        _ => e,
    })
}

/// A file system of its own. `like` is a directory whose mode it takes.
fn new(
    fstype: &str,
    source: &str,
    data: &[(String, String)],
    m: &MountPlan,
    like: Option<&OwnedFd>,
) -> Result<OwnedFd> {
    let context = mount::fsopen(fstype)?;
    if !source.is_empty() {
        context.set("source", source)?;
    }
    for (key, value) in data {
        if value.is_empty() { context.flag(key) } else { context.set(key, value) }.map_err(
            |e| match &**key {
                "context" => e
                    .why("the policy of this host does not know the label")
                    .next(format!("check /linux/mountLabel and {}/options", m.at)),
                _ => e.next(format!("check {}/options", m.at)),
            },
        )?;
    }
    let tmpfs = fstype == "tmpfs";
    if let Some(like) = like {
        let mode = path::stat(like.as_fd(), Path::new(""))?.st_mode & 0o7777;
        context.set("mode", &format!("{mode:o}"))?;
    }
    let mut attributes = (m.set | m.recursive_set) & (PER_MOUNT | mount::MOUNT_ATTR_ATIME);
    if attributes & mount::MOUNT_ATTR_RDONLY != 0 {
        if tmpfs {
            // Filled first (nodes of /dev, copied-up files), made read-only afterwards.
            let filled_later = m.copy_up || m.destination.as_os_str() == "dev";
            if filled_later {
                attributes &= !mount::MOUNT_ATTR_RDONLY;
            }
        } else {
            context.flag("ro")?;
        }
    }
    context.mount(attributes).map_err(|e| match e.errno() {
        libc::EPERM => e.why(format!(
            "this user namespace may not mount {fstype}: sysfs needs a network namespace of the container's own, \
             mqueue an ipc namespace, proc a pid namespace"
        )),
        libc::ENODEV => e.why(format!("the kernel has no file system {fstype:?}")),
        _ => e,
    })
}

/// A remount of a bind mount sets exactly the given flags, as mount(8) and runc do, but leaves the access time alone
/// where no mode of it is given.
///
/// In a user namespace the flags that the source has against the container and its access time are locked
/// (mount_namespaces(7)): they stay, and who asks for another is refused. The copy was taken outside, so the kernel
/// would not see to it.
fn set_bind_attributes(tree: &OwnedFd, m: &MountPlan, in_userns: bool) -> Result<()> {
    if m.set | m.clear != 0 {
        let timed = m.clear & mount::MOUNT_ATTR_ATIME != 0 || m.set & mount::MOUNT_ATTR_NODIRATIME != 0;
        let of_time = mount::MOUNT_ATTR_ATIME | mount::MOUNT_ATTR_NODIRATIME;
        let mut clear = (m.clear | PER_MOUNT) & !m.set & !of_time;
        if timed {
            clear |= mount::MOUNT_ATTR_ATIME | (mount::MOUNT_ATTR_NODIRATIME & !m.set);
        }
        if in_userns {
            let refused = |why| {
                Err(Error::call("mount flags that are locked in a user namespace", libc::EPERM).why(why))
            };
            let (locked, time) = locked_attributes(tree)?;
            if locked & m.clear & !m.set != 0 {
                return refused(
                    "the source is mounted with one of ro, nosuid, nodev, noexec, which the options take away",
                );
            }
            if timed && m.set & of_time != time {
                return refused(
                    "the options ask for another access time (noatime, relatime, strictatime) than the source has",
                );
            }
            clear &= !locked;
        }
        mount::set_attributes(tree.as_fd(), SetAttr { set: m.set, clear, propagation: 0 }, false)
            .map_err(|e| e.why("a mount flag of the source is locked in this user namespace"))?;
    }
    if m.recursive_set | m.recursive_clear != 0 {
        let change = SetAttr { set: m.recursive_set, clear: m.recursive_clear, propagation: 0 };
        mount::set_attributes(tree.as_fd(), change, true)?;
    }
    Ok(())
}

/// Those of the attributes that the kernel locks which this mount has, and its access time.
fn locked_attributes(tree: &OwnedFd) -> Result<(u64, u64)> {
    const LOCKABLE: [(u64, u64); 4] = [
        (libc::ST_RDONLY, mount::MOUNT_ATTR_RDONLY),
        (libc::ST_NOSUID, mount::MOUNT_ATTR_NOSUID),
        (libc::ST_NODEV, mount::MOUNT_ATTR_NODEV),
        (libc::ST_NOEXEC, mount::MOUNT_ATTR_NOEXEC),
    ];
    let flags = path::fs_flags(tree.as_fd())?;
    let has = |bit: u64| flags & bit != 0;
    let mode = if has(libc::ST_NOATIME) {
        mount::MOUNT_ATTR_NOATIME
    } else if has(path::ST_RELATIME) {
        mount::MOUNT_ATTR_RELATIME
    } else {
        mount::MOUNT_ATTR_STRICTATIME
    };
    let directories = if has(libc::ST_NODIRATIME) { mount::MOUNT_ATTR_NODIRATIME } else { 0 };
    let locked = LOCKABLE.iter().filter(|(st, _)| has(*st)).map(|(_, attribute)| attribute).sum();
    Ok((locked, mode | directories))
}

/// With a cgroup namespace a new cgroup2 instance shows the container its own subtree; without one the directory is
/// bound.
fn cgroup(plan: &Plan, m: &MountPlan, trees: &mut Trees) -> Result<OwnedFd> {
    let attributes = m.set & (PER_MOUNT | mount::MOUNT_ATTR_ATIME);
    if plan.namespaces.has(Ns::Cgroup) {
        return mount::fsopen("cgroup2")?.mount(attributes);
    }
    let tree = trees.cgroup.take().ok_or_else(|| {
        Error::new(format!("{}: the container has no cgroup to show", m.at))
            .next("add a cgroup namespace, or remove the cgroup mount")
    })?;
    mount::set_attributes(tree.as_fd(), SetAttr { set: m.set, ..SetAttr::default() }, false)?;
    Ok(tree)
}

/// Makes the new root `/` and lets go of the host's (pivot_root(2)).
pub fn pivot(plan: &Plan, root: &RootDir) -> Result<()> {
    path::fchdir(root.fd())?;
    if !plan.namespaces.has(Ns::Mount) {
        path::chroot(Path::new("."))?;
        return path::chdir(Path::new("/"));
    }
    if plan.options.no_pivot {
        cover_full_mounts(plan)?;
        path::fchdir(root.fd())?;
        mount::move_here_to_root()?;
        path::chroot(Path::new("."))?;
    } else {
        mount::pivot_here().map_err(|e| match e.errno() {
            libc::EINVAL => e
                .why("the root of the host is an initramfs, or a shared mount")
                .next("pass --no-pivot where the host runs from an initramfs"),
            _ => e,
        })?;
        // The old root lies on top of the new one at `.` now.
        mount::detach_here()?;
    }
    path::chdir(Path::new("/"))?;
    let kind = plan.root.propagation & !libc::MS_REC;
    if kind != libc::MS_SLAVE {
        let change = SetAttr { propagation: kind, ..SetAttr::default() };
        mount::set_attributes(root.fd(), change, plan.root.propagation & libc::MS_REC != 0)?;
    }
    Ok(())
}

/// Without a pivot the host's mounts stay below the root, out of sight. A full procfs or sysfs among them would still
/// let a user namespace inside mount its own without the covers of the container's (the kernel's mount_too_revealing).
fn cover_full_mounts(plan: &Plan) -> Result<()> {
    let file = path::open(Path::new("/proc/self/mountinfo"), libc::O_RDONLY)?;
    let info = fd::read_to_end(file.as_fd(), MOUNTINFO_LIMIT)?;
    for (point, ..) in crate::host::mounts(&String::from_utf8_lossy(&info))
        .filter(|(_, fstype, _)| ["proc", "sysfs"].contains(fstype))
    {
        let point = Path::new(point);
        if point.starts_with(&plan.root.path) {
            continue;
        }
        match mount::unmount(point, libc::MNT_DETACH) {
            Ok(true) => {}
            // Locked, as it came from a more privileged namespace: then it is covered.
            _ => mount::mount_new("tmpfs", point, "")?,
        }
    }
    Ok(())
}

/// A read-only /dev becomes so with its nodes and the console in it; `root.readonly`: only the root mount itself, after
/// everything is in it.
pub fn seal_root(plan: &Plan, root: &RootDir) -> Result<()> {
    let dev = plan.mounts.iter().rfind(|m| m.destination.as_os_str() == "dev");
    if dev.is_some_and(|m| m.set & mount::MOUNT_ATTR_RDONLY != 0 && matches!(m.kind, Kind::New { .. })) {
        let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
        let dev = root.open(Path::new("dev"), libc::O_PATH | libc::O_DIRECTORY)?;
        mount::set_attributes(dev.as_fd(), change, false)?;
    }
    if plan.root.readonly {
        let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
        mount::set_attributes(root.fd(), change, false)?;
    }
    Ok(())
}
