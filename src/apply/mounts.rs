//! Mounts: each is made detached, given its attributes, and attached by descriptor inside the container's root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::opened::Trees;
use super::root::RootDir;
use super::{copy_up, devices};
use crate::error::{Error, Result};
use crate::plan::mounts::{Kind, allowed_in_proc};
use crate::plan::namespaces::Kind as Ns;
use crate::plan::{MountPlan, Plan};
use crate::sys::mount::{self, SetAttr};
use crate::sys::path;

const PROC_MAGIC: i64 = 0x9fa0;
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
    let mut dev = None;
    for (plan_mount, source) in plan.mounts.iter().zip(std::mem::take(&mut trees.sources)) {
        let tree = one(plan, plan_mount, source, trees, &root).map_err(|e| {
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
        if plan_mount.destination.as_os_str() == "dev" {
            dev = Some((tree, plan_mount));
        }
    }
    devices::make(plan, trees, &root)?;
    ensure_cwd(plan, &root);
    // Only now, with its nodes in it, may a read-only /dev become so.
    if let Some((tree, plan_mount)) = dev
        && plan_mount.set & mount::MOUNT_ATTR_RDONLY != 0
        && matches!(&plan_mount.kind, Kind::New { .. })
    {
        let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
        mount::set_attributes(tree.as_fd(), change, false)?;
    }
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

/// One mount of the list, attached; returns its root directory.
fn one(
    plan: &Plan,
    m: &MountPlan,
    source: Option<OwnedFd>,
    trees: &mut Trees,
    root: &RootDir,
) -> Result<OwnedFd> {
    let (tree, target) = match &m.kind {
        Kind::Bind { .. } => {
            let tree = source.ok_or_else(|| Error::new("the source of the bind mount was not opened"))?;
            let is_dir = path::stat(tree.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let target =
                if is_dir { root.make_dir(&m.destination)? } else { root.make_file(&m.destination)? };
            set_bind_attributes(&tree, m)?;
            (tree, target)
        }
        Kind::New { fstype, source, data } => {
            let target = target_of(fstype, m, root)?;
            (new(fstype, source, data, m, &target)?, target)
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
    Ok(tree)
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

fn new(
    fstype: &str,
    source: &str,
    data: &[(String, String)],
    m: &MountPlan,
    target: &OwnedFd,
) -> Result<OwnedFd> {
    let context = mount::fsopen(fstype)?;
    if !source.is_empty() {
        context.set("source", source)?;
    }
    let mut has_mode = false;
    for (key, value) in data {
        has_mode |= key == "mode";
        if value.is_empty() { context.flag(key) } else { context.set(key, value) }
            .map_err(|e| e.next(format!("check {}/options", m.at)))?;
    }
    let tmpfs = fstype == "tmpfs";
    if tmpfs && !has_mode {
        let mode = path::stat(target.as_fd(), Path::new(""))?.st_mode & 0o7777;
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

/// A remount of a bind mount sets exactly the given flags, as mount(8) and runc do; flags that a user namespace has
/// locked stay.
fn set_bind_attributes(tree: &OwnedFd, m: &MountPlan) -> Result<()> {
    if m.set | m.clear != 0 {
        let exact = SetAttr { set: m.set, clear: m.clear | (PER_MOUNT & !m.set), propagation: 0 };
        match mount::set_attributes(tree.as_fd(), exact, false) {
            Err(e) if e.errno() == libc::EPERM => {
                let asked = SetAttr { set: m.set, clear: m.clear, propagation: 0 };
                mount::set_attributes(tree.as_fd(), asked, false)
                    .map_err(|e| e.why("a mount flag of the source is locked in this user namespace"))?;
            }
            other => other?,
        }
    }
    if m.recursive_set | m.recursive_clear != 0 {
        let change = SetAttr { set: m.recursive_set, clear: m.recursive_clear, propagation: 0 };
        mount::set_attributes(tree.as_fd(), change, true)?;
    }
    Ok(())
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

/// `root.readonly`: only the root mount itself, after everything is in it.
pub fn seal_root(plan: &Plan, root: &RootDir) -> Result<()> {
    if plan.root.readonly {
        let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
        mount::set_attributes(root.fd(), change, false)?;
    }
    Ok(())
}
