//! What the child needs of the host, opened before the clone, so that after it no host path is looked up any more.
//!
//! A caller with CAP_SYS_ADMIN over its mount namespace takes detached copies of the mounts it needs. One without (a
//! rootless caller) cannot: then the child does the very same thing, first of all, in its new namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::apply::ids;
use crate::error::{Error, Result};
use crate::plan::mounts::Kind;
use crate::plan::namespaces::Kind as Ns;
use crate::plan::{MountPlan, Plan, devices};
use crate::sys::fd;
use crate::sys::mount::{self, SetAttr};

/// Detached mounts of the host's.
#[derive(Debug)]
pub struct Trees {
    pub root: OwnedFd,
    /// One for each bind mount of the plan whose source is the host's, in its order; `None` for the others.
    pub sources: Vec<Option<OwnedFd>>,
    /// /dev/null, for masked files.
    pub null: Option<OwnedFd>,
    /// Nodes for a /dev in a user namespace, where mknod(2) is not allowed: (path below the root, mount).
    pub nodes: Vec<(PathBuf, OwnedFd)>,
    /// The cgroup directory, for a `cgroup` mount without a cgroup namespace.
    pub cgroup: Option<OwnedFd>,
}

impl Trees {
    /// The same, for a child that has this memory but descriptors of its own.
    pub fn twin(&self) -> Self {
        Self {
            root: fd::twin(&self.root),
            sources: self.sources.iter().map(|source| source.as_ref().map(fd::twin)).collect(),
            null: self.null.as_ref().map(fd::twin),
            nodes: self.nodes.iter().map(|(path, node)| (path.clone(), fd::twin(node))).collect(),
            cgroup: self.cgroup.as_ref().map(fd::twin),
        }
    }
}

/// Whether this process may copy mounts of its own namespace.
pub fn may_copy_mounts() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    crate::sys::cred::capget().is_ok_and(|(effective, ..)| effective & CAP_SYS_ADMIN != 0)
}

/// Whether the container's cgroup is bound into it: for a `cgroup` mount without a cgroup namespace.
fn shows_cgroup(plan: &Plan) -> bool {
    !plan.namespaces.has(Ns::Cgroup) && plan.mounts.iter().any(|m| m.kind == Kind::Cgroup)
}

/// Whether that cgroup is not there before the clone, since systemd makes it around the child.
pub fn cgroup_comes_later(plan: &Plan) -> bool {
    plan.cgroup.as_ref().is_some_and(|cgroup| cgroup.unit.is_some()) && shows_cgroup(plan)
}

/// The container's cgroup, which exists now, if it is to be seen inside. One that could not be made and is not needed
/// is that of its maker, where the container stays.
pub fn cgroup(plan: &Plan) -> Result<Option<OwnedFd>> {
    let Some(cgroup) = plan.cgroup.as_ref().filter(|_| shows_cgroup(plan)) else { return Ok(None) };
    let open = |path: &Path| mount::open_tree(crate::sys::cwd(), &cgroup.mount.join(path), false, false);
    let tree = match open(&cgroup.path) {
        Err(e) if cgroup.optional && e.errno() == libc::ENOENT => {
            let own = crate::host::read("/proc/self/cgroup")?;
            open(&crate::plan::lexical(crate::host::cgroup_of(&own)))?
        }
        other => other?,
    };
    isolate(&tree, plan)?;
    Ok(Some(tree))
}

/// Takes the copies. `idmap` turns the maps of an idmapped mount into a user namespace. `born`: the child takes them
/// itself.
pub fn trees(plan: &Plan, born: bool) -> Result<Trees> {
    let host = crate::sys::cwd();
    let root = mount::open_tree(host, &plan.root.path, true, false).map_err(|e| rootfs_error(e, plan))?;
    isolate(&root, plan)?;
    if plan.root.propagation & libc::MS_SHARED != 0 {
        // A shared mount cannot be pivoted to: it is made shared after that.
        let change = SetAttr { propagation: libc::MS_PRIVATE, ..SetAttr::default() };
        mount::set_attributes(root.as_fd(), change, false)?;
    }
    let mut sources = Vec::with_capacity(plan.mounts.len());
    for m in &plan.mounts {
        let Kind::Bind { source, recursive } = &m.kind else {
            sources.push(None);
            continue;
        };
        let later = source_inside(plan, m).is_some();
        sources.push(if later { None } else { Some(source_tree(host, source, *recursive, m, plan)?) });
    }
    let nodes = if plan.bind_devices { device_nodes(plan)? } else { Vec::new() };
    let null = if plan.masked.is_empty() { None } else { Some(node(Path::new("/dev/null"))?) };
    let cgroup = if born || !cgroup_comes_later(plan) { cgroup(plan)? } else { None };
    Ok(Trees { root, sources, null, nodes, cgroup })
}

/// A source below the container's own root, relative to it: it may be what an earlier mount shows there, and is opened
/// by the child when its turn comes. (A child in a user namespace could not map the owners of it.)
pub fn source_inside<'a>(plan: &Plan, m: &'a MountPlan) -> Option<&'a Path> {
    let Kind::Bind { source, .. } = &m.kind else { return None };
    let inside = source.strip_prefix(&plan.root.path).ok()?;
    let plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (plain && !inside.as_os_str().is_empty() && (m.idmap.is_none() || !plan.namespaces.has(Ns::User)))
        .then_some(inside)
}

/// A detached copy of the source of a bind mount.
pub fn source_tree(
    dir: BorrowedFd<'_>,
    source: &Path,
    recursive: bool,
    m: &MountPlan,
    plan: &Plan,
) -> Result<OwnedFd> {
    let tree = mount::open_tree(dir, source, recursive, false)
        .map_err(|e| e.context(format_args!("{}/source {}", m.at, source.display())))?;
    isolate(&tree, plan)?;
    if let Some(map) = &m.idmap {
        let joined = plan.namespaces.join.iter().find(|(kind, _)| *kind == Ns::User);
        let userns = match joined.filter(|_| map.uid.is_empty()) {
            Some((_, path)) => crate::sys::path::open(path, libc::O_RDONLY)?,
            None => ids::namespace_with(&map.uid, &map.gid)?,
        };
        mount::set_idmap(tree.as_fd(), userns.as_fd(), map.recursive).map_err(|e| {
            e.context(format_args!("{}: idmapped mount", m.at))
                .why("the file system of the source may not support idmapped mounts")
        })?;
    }
    Ok(tree)
}

/// A copy of a shared mount is a peer of it: what the container mounts there would appear on the host. So copies become
/// slaves, unless the config says that the root is shared.
fn isolate(tree: &OwnedFd, plan: &Plan) -> Result<()> {
    if plan.root.propagation & libc::MS_SHARED != 0 && plan.namespaces.has(Ns::Mount) {
        return Ok(());
    }
    let change = SetAttr { propagation: libc::MS_SLAVE, ..SetAttr::default() };
    mount::set_attributes(tree.as_fd(), change, true)
}

fn device_nodes(plan: &Plan) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let mut nodes = Vec::new();
    if plan.setup_dev {
        for (name, ..) in devices::DEFAULT {
            let path = Path::new("/dev").join(name);
            nodes.push((Path::new("dev").join(name), node(&path)?));
        }
    }
    for device in plan.devices.iter().filter(|d| !(plan.setup_dev && devices::is_default(&d.path))) {
        nodes.push((device.path.clone(), node(&Path::new("/").join(&device.path))?));
    }
    Ok(nodes)
}

fn node(path: &Path) -> Result<OwnedFd> {
    mount::open_tree(crate::sys::cwd(), path, false, true).map_err(|e| e.context("device of the host"))
}

fn rootfs_error(e: Error, plan: &Plan) -> Error {
    let path = plan.root.path.display();
    match e.errno() {
        libc::ENOENT => Error::call(format_args!("/root/path: invalid rootfs: {path}"), libc::ENOENT)
            .next("make the directory, or correct root.path in config.json"),
        _ => e.context(format_args!("/root/path {path}")),
    }
}

/// Checks what open_tree(2) would take without complaint: a root that is a file.
pub fn check_root(plan: &Plan) -> Result<()> {
    match crate::sys::path::open(&plan.root.path, libc::O_PATH | libc::O_DIRECTORY) {
        Ok(_) => Ok(()),
        Err(e) => Err(rootfs_error(e, plan)),
    }
}
