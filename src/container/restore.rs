//! restore: a container that `checkpoint` dumped runs again, through criu.
//!
//! It goes like create: intent, cgroup, one process that is born in it, or that systemd makes a unit around. That
//! process is criu, in a mount namespace of its own, where alone the root is a mount as criu needs it: a SIGKILL leaves
//! no mount behind. criu makes the container's first process a child of the runtime, and says its number before it lets
//! it go on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::checkpoint::{DESCRIPTORS, bound, configuration, namespace_key};
use super::record::{Id, Phase, Root};
use super::status::{self, Container, Status};
use super::undo::Undo;
use super::{Handles, Made, ask_systemd, hand_out, intent, notify, send_console};
use crate::apply::root::RootDir;
use crate::apply::{self, opened};
use crate::bundle::Bundle;
use crate::cgroup;
use crate::criu::options::Places;
use crate::criu::{self, FIRST_INHERITED, Kind as Request, Notice, Options, Service, options};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::namespaces::Kind;
use crate::plan::{Plan, mounts};
use crate::protobuf::Message;
use crate::sys::clone::{Child, unshare};
use crate::sys::mount::SetAttr;
use crate::sys::{cwd, fd, mount, path, process};

const LOG: &str = "restore.log";
const LONGEST_DESCRIPTORS: usize = 64 << 10;

/// Makes a container from the images of a checkpoint. It runs when this returns.
pub fn restore(
    root: &Root,
    id: &Id,
    bundle: &Bundle,
    plan_options: &crate::plan::Options,
    options: &Options,
    handles: &Handles,
) -> Result<Made> {
    criu::find()?;
    let places = Places::open(options, false, LOG)?;
    let plan = Plan::new(id.as_str(), bundle, plan_options, &Host::look(&bundle.spec, plan_options)?)?;
    plan.warnings.iter().for_each(|w| crate::cli::log::warn(w));
    opened::check_root(&plan)?;
    let entry = root.claim(id)?;
    let mut undo = Undo::new(intent(&plan)?, &entry, &plan.hooks)?;
    entry.write_config(&bundle.raw)?;
    let (by_systemd, by_us) = plan.cgroup.iter().partition::<Vec<_>, _>(|cgroup| cgroup.unit.is_some());
    let cgroup = by_us.first().map(|plan| cgroup::make(plan)).transpose()?.flatten();
    if cgroup.is_none() && by_systemd.is_empty() {
        undo.record.cgroup = cgroup::Traces::default();
    }
    if let Some(host) = &handles.notify_socket {
        notify::prepare(&entry, host, false)?;
    }
    let mut opts = restore_fields(options, &plan)?;
    let mut kept = joined(&mut opts, &plan)?;
    inherit_descriptors(&mut opts, &places, &mut kept)?;
    let inherited: Vec<BorrowedFd<'_>> = kept.iter().map(AsFd::as_fd).collect();
    let service = Service::start(cgroup.as_ref(), Some(&places), &inherited, || own_mounts(&plan))?;
    undo.child(service.child())?;
    by_systemd.iter().try_for_each(|plan| ask_systemd(plan, service.child(), &mut undo))?;
    cgroup_roots(&mut opts, service.pid())?;
    let mut request = Message::default();
    request.message(2, &opts);
    let mut restored = Restored::default();
    service
        .perform(Request::Restore, &mut request, |notice| restored.hear(notice, &plan, &mut undo, handles))
        .map(drop)
        .and_then(|()| service.end(true))
        .map_err(|error| places.explain(error))?;
    let child = restored.child.ok_or_else(|| Error::new("criu did not say which process it restored"))?;
    hand_out(handles, &child)?;
    undo.record.phase = Phase::Created;
    entry.write(&undo.record)?;
    let record = undo.keep();
    entry.unlock()?;
    Ok(Made { container: Container { entry, record }, child, console: restored.console, relay: None })
}

/// What criu tells on its way.
#[derive(Default)]
struct Restored {
    child: Option<Child>,
    console: Option<OwnedFd>,
}

impl Restored {
    fn hear(&mut self, notice: Notice, plan: &Plan, undo: &mut Undo<'_>, handles: &Handles) -> Result<()> {
        match (notice.script.as_str(), notice.fd) {
            ("setup-namespaces", _) => setup(plan, undo, notice.pid),
            ("post-restore", _) => {
                let gone = || Error::new("the restored process is gone");
                let pidfd = process::pidfd_open(notice.pid)?.ok_or_else(gone)?;
                let child = Child { pid: notice.pid, pidfd };
                undo.child(&child)?;
                self.child = Some(child);
                Ok(())
            }
            ("orphan-pts-master", Some(master)) => match &handles.console_socket {
                Some(path) => send_console(path, master.as_fd()),
                None => {
                    self.console = Some(master);
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }
}

/// The namespaces are there and nothing runs in them yet: the moment of the hooks that give a container its network.
fn setup(plan: &Plan, undo: &mut Undo<'_>, pid: i32) -> Result<()> {
    if plan.namespaces.makes(Kind::Network) {
        apply::namespaces::loopback_up_in(pid)?;
    }
    if plan.hooks.prestart.is_empty() && plan.hooks.create_runtime.is_empty() {
        return Ok(());
    }
    undo.hooks_begin()?;
    let state = status::state_json(&undo.record, pid, Status::Creating)?;
    apply::hooks::run(&plan.hooks.prestart, &state)?;
    apply::hooks::run(&plan.hooks.create_runtime, &state)
}

fn restore_fields(options: &Options, plan: &Plan) -> Result<Message> {
    let mut opts = options.fields(LOG);
    opts.flag(6, true).text(13, plan.root.path.as_os_str().as_bytes()).flag(26, true);
    if let Some(profile) = &options.lsm_profile {
        opts.text(53, profile);
    }
    if let Some(context) = &options.lsm_mount_context {
        opts.text(63, context);
    }
    configuration(&mut opts, &plan.annotations);
    for (inside, source) in places_of_binds(plan)? {
        options::external_mount(&mut opts, inside.as_os_str().as_bytes(), source.as_os_str().as_bytes());
    }
    if !plan.masked.is_empty() {
        options::external_mount(&mut opts, "/dev/null", "/dev/null");
    }
    Ok(opts)
}

/// Where each bind goes, with links followed inside the root; what is missing to mount onto is made, as create does.
fn places_of_binds(plan: &Plan) -> Result<Vec<(PathBuf, PathBuf)>> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = RootDir::new(path::open(&plan.root.path, flags)?);
    let prefix = path::name_of(root.fd())?;
    let mut covered: Vec<&Path> = Vec::new();
    for m in &plan.mounts {
        // Below another mount criu restores it, or it lies in a source of the host's and is there.
        if !covered.iter().any(|above| m.destination.starts_with(above)) {
            let is_file = match &m.kind {
                mounts::Kind::Bind { source, .. } => !is_directory(source)?,
                _ => false,
            };
            if is_file {
                root.make_file(&m.destination)?
            } else {
                root.make_dir(&m.destination)?
            };
        }
        covered.push(&m.destination);
    }
    let mut list = Vec::new();
    for (inside, source) in bound(plan) {
        let found = root.open_existing(&inside)?.map(|target| path::name_of(target.as_fd())).transpose()?;
        let below = found.and_then(|name| name.strip_prefix(&prefix).map(Path::to_owned).ok());
        list.push((Path::new("/").join(below.unwrap_or(inside)), source));
    }
    Ok(list)
}

fn is_directory(path: &Path) -> Result<bool> {
    let open = path::open(path, libc::O_PATH)?;
    Ok(path::stat(open.as_fd(), Path::new(""))?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// What was a pipe of the dumped process becomes this process's own stdio; the host's null device is this host's.
fn inherit_descriptors(opts: &mut Message, places: &Places, kept: &mut Vec<OwnedFd>) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW;
    let file = path::openat(places.images.as_fd(), Path::new(DESCRIPTORS), flags, 0)
        .map_err(|e| e.context("--image-path"))?;
    let bytes = fd::read_to_end(file.as_fd(), LONGEST_DESCRIPTORS)?;
    let names: Vec<String> =
        serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("{DESCRIPTORS}: {e}")))?;
    for (number, name) in names.iter().enumerate().take(3).filter(|(_, name)| name.starts_with("pipe:")) {
        options::inherit(opts, name, number as i64);
    }
    for name in names.iter().skip(3) {
        options::inherit(opts, name, i64::from(FIRST_INHERITED) + kept.len() as i64);
        kept.push(path::open(Path::new("/dev/null"), libc::O_RDWR)?);
    }
    Ok(())
}

/// Namespaces by path: network and PID are inherited as descriptors from 4 on, the others criu joins by their path.
fn joined(opts: &mut Message, plan: &Plan) -> Result<Vec<OwnedFd>> {
    let mut inherited = Vec::new();
    for (kind, file) in &plan.namespaces.join {
        match kind {
            Kind::Network | Kind::Pid => {
                options::inherit(
                    opts,
                    namespace_key(*kind),
                    i64::from(FIRST_INHERITED) + inherited.len() as i64,
                );
                let open = path::open(file, libc::O_RDONLY);
                inherited
                    .push(open.map_err(|e| e.context(format_args!("/linux/namespaces: {kind} namespace")))?);
            }
            Kind::Cgroup | Kind::Time => {
                return Err(Error::new(format!(
                    "/linux/namespaces: a {kind} namespace by path cannot be restored: criu cannot join it"
                )));
            }
            Kind::User | Kind::Ipc | Kind::Uts | Kind::Mount => {
                let mut entry = Message::default();
                entry.text(1, kind.file()).text(2, file.as_os_str().as_bytes());
                opts.message(39, &entry);
            }
        }
    }
    Ok(inherited)
}

/// criu was born in the container's cgroup: where it is, there the processes of the images go.
fn cgroup_roots(opts: &mut Message, pid: i32) -> Result<()> {
    for line in crate::host::read(format!("/proc/{pid}/cgroup"))?.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (parts.next(), parts.next()) {
            let mut root = Message::default();
            root.text(1, controllers).text(2, path);
            opts.message(25, &root);
        }
    }
    Ok(())
}

/// In criu's process: a mount namespace in which the root file system is a mount.
fn own_mounts(plan: &Plan) -> Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    // As slaves they hand nothing to the host, and criu can make the container's mounts slaves of the host's again.
    mount::set_propagation(Path::new("/"), libc::MS_SLAVE | libc::MS_REC)?;
    let tree = mount::open_tree(cwd(), &plan.root.path, true, false)?;
    if plan.root.readonly {
        // criu brings back the attributes of every mount but the root's.
        let change = SetAttr { set: mount::MOUNT_ATTR_RDONLY, ..SetAttr::default() };
        mount::set_attributes(tree.as_fd(), change, false)?;
    }
    mount::attach_at(tree.as_fd(), &plan.root.path)
}
