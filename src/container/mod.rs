//! The life of a container.
//!
//! ```text
//! create:  plan -> claim the id -> make the cgroup -> open what the host has -> one clone -> map ids
//!                -> (child mounts) -> hooks -> (child pivots, is confined) -> record -> the child waits for start
//! run:     the same, and the child does not wait
//! start:   one byte; then the program runs, or says in its own words why not
//! exec:    join the PID namespace -> one clone into the cgroup -> (child joins the rest) -> the program
//! delete:  what the record names is undone, in the order in which it can be interrupted and begun again
//! ```
//! This room decides nothing (that is `plan`) and does nothing to a file system (that is `apply`).

pub mod born;
pub mod checkpoint;
pub mod events;
pub mod exec;
pub mod foreground;
pub mod notify;
pub mod record;
pub mod restore;
pub mod start;
pub mod status;
pub mod sync;
pub mod undo;
pub mod update;

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::apply::{self, opened};
use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::namespaces::Kind;
use crate::plan::{Options, Plan};
use crate::sys::clone::{Child, Side};
use crate::sys::{self, fd, path, process, socket, tty};

use self::notify::Relay;
use self::record::{Entry, Id, Phase, Record, Root, START};
pub use self::start::start;
pub use self::status::{Container, Status};
use self::sync::{Heard, Sync, Word};
use self::undo::Undo;

/// Where the parts of a new process that engines ask for are to go.
#[derive(Debug, Default, PartialEq)]
pub struct Handles {
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    /// The service manager's socket (sd_notify(3)), which hears of the container's readiness.
    pub notify_socket: Option<PathBuf>,
}

/// A container whose first process is ready, and what its maker still holds.
pub struct Made {
    pub container: Container,
    pub child: Child,
    /// The master of the terminal, when nobody else was given it.
    pub console: Option<OwnedFd>,
    /// What carries the program's readiness to the service manager, when it was started here.
    pub relay: Option<Relay>,
}

/// Makes a container and leaves its process waiting for [`start`].
pub fn create(root: &Root, id: &Id, bundle: &Bundle, options: &Options, handles: &Handles) -> Result<Made> {
    make(root, id, bundle, options, handles, false)
}

/// Makes a container and starts it.
pub fn run(root: &Root, id: &Id, bundle: &Bundle, options: &Options, handles: &Handles) -> Result<Made> {
    let made = make(root, id, bundle, options, handles, true)?;
    start::poststart(&made.container, bundle.spec.hooks().as_ref())?;
    Ok(made)
}

fn make(
    root: &Root,
    id: &Id,
    bundle: &Bundle,
    options: &Options,
    handles: &Handles,
    start: bool,
) -> Result<Made> {
    // Never freed: the process ends with it.
    let host = Host::look(&bundle.spec, options)?;
    let plan = ManuallyDrop::new(Plan::new(id.as_str(), bundle, options, &host)?);
    plan.warnings.iter().for_each(|w| crate::cli::log::warn(w));
    let notes = plan.seccomp.iter().flat_map(|s| &s.filter.warnings);
    notes.for_each(|note| crate::cli::log::debug(note));
    opened::check_root(&plan)?;
    crate::cli::log::debug(&format!("container {} is planned from {}", plan.id, plan.bundle.display()));
    moments(&[SEALED, BEGUN]);
    let entry = root.claim(id)?;
    let mut undo = Undo::new(intent(&plan)?, &entry, &plan.hooks)?;
    entry.write_config(&bundle.raw)?;
    let by_systemd = plan.cgroup.as_ref().is_some_and(|cgroup| cgroup.unit.is_some());
    let cgroup = plan.cgroup.as_ref().filter(|_| !by_systemd).map(cgroup::make).transpose()?.flatten();
    if cgroup.is_none() && !by_systemd {
        undo.record.cgroup = cgroup::Traces::default();
    }
    if let Some(rdt) = &plan.rdt {
        apply::rdt::make(rdt)?;
    }
    let relay = match &handles.notify_socket {
        Some(host) => notify::prepare(&entry, host, start)?,
        None => None,
    };
    let mut open = Opened::new(&plan, &entry, start)?;
    // What is moved to the child must not go with one that is killed at birth, and the child waits for it. systemd
    // makes a scope around a process that is there.
    let direct = plan.net_devices.is_empty() && !by_systemd;
    let born = match bear(&plan, &mut open, cgroup.as_ref(), &mut undo, handles, direct) {
        // The kernel kills a newborn at once where cgroup.kill was ever written to the caller's own cgroup or to an
        // empty target (it compares counters, 6.1 to 6.18): such a child is born outside and moved, the slow way.
        Err(_) if direct && cgroup.is_some() && undo.killed_at_birth() => {
            bear(&plan, &mut open, cgroup.as_ref(), &mut undo, handles, false)
        }
        other => other,
    };
    let (child, sync, console) = born?;
    if !undo.is_created() {
        limits(&plan.process, child.pid)?;
        hand_out(handles, &child)?;
        undo.created()?;
        sync.tell(Word::Keep, &open.agent_message(&plan, &undo.record)?)?;
    }
    moments(&["init: closing the pipe to signal completion"]);
    if start {
        match sync.hear()? {
            Heard::Silence => {}
            Heard::Word(word, ..) => {
                return Err(Error::new(format!("unexpected word {word:?} after the start")));
            }
        }
    }
    let record = undo.keep();
    entry.unlock()?;
    Ok(Made { container: Container { entry, record }, child, console, relay })
}

/// What runc's debug log says at the same moments: people look for these words.
const SEALED: &str = "runc exeseal: using /proc/self/exe clone";
pub const BEGUN: &str = "nsexec container setup";
pub const BORN: &str = "child process in init()";

pub fn moments(words: &[&str]) {
    words.iter().for_each(|word| crate::cli::log::debug(word));
}

/// What will be touched, before it is touched.
fn intent(plan: &Plan) -> Result<Record> {
    Ok(Record {
        phase: Phase::Creating,
        id: plan.id.clone(),
        oci_version: plan.oci_version.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.root.path.clone(),
        created: record::rfc3339(process::now()),
        owner: sys::cred::euid(),
        pid: 0,
        identity: 0,
        boot_id: record::boot_id()?,
        cgroup: plan.cgroup.as_ref().map(cgroup::traces).transpose()?.unwrap_or_default(),
        namespaces: plan.namespaces.flags(),
        hooks_begun: false,
        has_poststart: !plan.hooks.poststart.is_empty(),
        has_poststop: !plan.hooks.poststop.is_empty(),
        no_new_keyring: plan.options.no_new_keyring,
        annotations: plan.annotations.clone(),
        resources: None,
        preserve_fds: plan.options.preserve_fds,
        rdt: plan.rdt.as_ref().map(apply::rdt::traces).transpose()?,
    })
}

/// Everything that is opened before the clone.
struct Opened {
    /// This caller may not copy mounts: the child has to take them itself.
    rootless: bool,
    trees: Option<opened::Trees>,
    joined: apply::namespaces::Joined,
    start: Option<OwnedFd>,
    agent: Option<OwnedFd>,
}

impl Opened {
    fn new(plan: &Plan, entry: &Entry, start: bool) -> Result<Self> {
        let rootless = !opened::may_copy_mounts();
        let with_mounts = plan.builds_tree() && !rootless;
        Ok(Self {
            rootless,
            trees: if with_mounts { Some(opened::trees(plan, false)?) } else { None },
            joined: apply::namespaces::open(&plan.namespaces)?,
            start: if start { None } else { Some(start_barrier(entry)?) },
            agent: connect_agent(plan.seccomp.as_ref())?,
        })
    }

    /// The one clone. In the child this does not return. `direct`: born in its cgroup.
    fn clone(&mut self, plan: &Plan, cgroup: Option<&Cgroup>, direct: bool) -> Result<(Child, Sync)> {
        let (ours, theirs) = Sync::pair()?;
        let place = cgroup.filter(|_| direct).map(|c| &c.dir);
        match apply::namespaces::clone(&plan.namespaces, &self.joined, place, self.rootless)? {
            Side::Parent(child) => Ok((child, ours)),
            Side::Child => {
                drop(ours);
                let trees = self.trees.take();
                born::born(born::Newborn {
                    wait_for_move: !direct,
                    ..self.newborn(plan, trees, cgroup, &theirs)
                })
            }
        }
    }

    /// The one clone, for a child that needs nobody ([`Plan::may_borrow`]): this process sleeps until the program runs
    /// or the child has ended, and nothing of its memory is copied. The child finishes the record itself, before its
    /// program.
    fn lend(&self, plan: &Plan, cgroup: &Cgroup, undo: &mut Undo<'_>) -> Result<(Child, Sync)> {
        let (ours, theirs) = Sync::pair()?;
        let mut child = |pid| -> Infallible {
            ours.leave();
            // While the host's /proc is there to ask.
            let mut identified = Some(undo.see_oneself(pid));
            let mut keep = || {
                identified.take().transpose()?;
                limits(&plan.process, 0)?;
                undo.created()
            };
            let trees = self.trees.as_ref().map(opened::Trees::twin);
            let newborn = self.newborn(plan, trees, Some(cgroup), &theirs);
            born::born(born::Newborn { keep: Some(&mut keep), ..newborn })
        };
        let child = apply::namespaces::clone_asleep(&plan.namespaces, &cgroup.dir, &mut child)?;
        Ok((child, ours))
    }

    fn newborn<'a>(
        &'a self,
        plan: &'a Plan,
        trees: Option<opened::Trees>,
        cgroup: Option<&'a Cgroup>,
        sync: &'a Sync,
    ) -> born::Newborn<'a> {
        born::Newborn {
            plan,
            trees,
            joined: &self.joined,
            v1_tasks: cgroup.map(|c| c.v1_tasks.as_slice()).unwrap_or_default(),
            start: self.start.as_ref(),
            agent: self.agent.as_ref(),
            wait_for_move: false,
            rootless: self.rootless,
            sync,
            keep: None,
        }
    }

    fn agent_message(&self, plan: &Plan, record: &Record) -> Result<Vec<u8>> {
        match (&self.agent, plan.seccomp.as_ref().and_then(|s| s.listener.as_ref())) {
            (Some(_), Some(listener)) => {
                status::agent_message(record, record.pid, Status::Creating, &listener.metadata)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Clones the child and follows it until it is ready.
fn bear(
    plan: &Plan,
    open: &mut Opened,
    cgroup: Option<&Cgroup>,
    undo: &mut Undo<'_>,
    handles: &Handles,
    direct: bool,
) -> Result<(Child, Sync, Option<OwnedFd>)> {
    let borrows = direct && open.start.is_none() && plan.may_borrow() && *handles == Handles::default();
    let (child, sync) = match cgroup.filter(|_| borrows && open.trees.is_some()) {
        Some(cgroup) => open.lend(plan, cgroup, undo)?,
        None => open.clone(plan, cgroup, direct)?,
    };
    undo.child(&child)?;
    crate::cli::log::debug(&format!("container {} was born as process {}", plan.id, child.pid));
    moments(&[BORN]);
    if undo.is_created() {
        return Ok((child, sync, None));
    }
    if let (Some(cgroup), false) = (cgroup, direct) {
        cgroup::move_into(cgroup, child.pid)?;
    }
    if let Some(rdt) = &undo.record.rdt {
        apply::rdt::enter(rdt, child.pid)?;
    }
    if let Some(cgroup) = plan.cgroup.as_ref().filter(|cgroup| cgroup.unit.is_some()) {
        ask_systemd(cgroup, &child, undo)?;
    }
    let mapped = plan.namespaces.makes(Kind::User);
    if mapped {
        apply::ids::map(&plan.ids, &child)?;
    }
    if !plan.net_devices.is_empty() {
        undo.moved = Some(apply::network::move_in(&plan.net_devices, child.pid)?);
    }
    if mapped || !direct {
        sync.say(Word::Build)?;
    }
    if open.trees.is_some()
        && opened::cgroup_comes_later(plan)
        && let Some(tree) = opened::cgroup(plan)?
    {
        sync.hand(Word::Build, tree.as_fd())?;
    }
    let console = attend(plan, &sync, undo, handles)?;
    Ok((child, sync, console))
}

/// systemd makes a unit around a process that exists: so the child is born outside, and waits until it was moved.
fn ask_systemd(plan: &crate::plan::CgroupPlan, child: &Child, undo: &mut Undo<'_>) -> Result<()> {
    let Some(unit) = &plan.unit else { return Ok(()) };
    match cgroup::systemd::Manager::connect(unit.user)?.start(unit, child.pid) {
        Ok(()) => cgroup::adopt(plan, child.pid),
        Err(cgroup::systemd::Failure::Taken(e)) => {
            undo.disown_cgroup()?;
            Err(e)
        }
        Err(cgroup::systemd::Failure::Other(e)) => Err(e),
    }
}

/// The FIFO on which the created process waits. It is locked as long as the process has it open: until execve.
fn start_barrier(entry: &Entry) -> Result<OwnedFd> {
    path::mknodat(entry.dir(), Path::new(START), libc::S_IFIFO | 0o600, (0, 0))?;
    let fifo = path::openat(entry.dir(), Path::new(START), libc::O_RDWR | libc::O_NOFOLLOW, 0)?;
    fd::flock(fifo.as_fd(), libc::LOCK_EX | libc::LOCK_NB)?;
    Ok(fifo)
}

fn connect_agent(seccomp: Option<&crate::plan::SeccompPlan>) -> Result<Option<OwnedFd>> {
    match seccomp.and_then(|s| s.listener.as_ref()) {
        Some(listener) => socket::connect_stream(&listener.path).map(Some).map_err(|e| {
            e.context("/linux/seccomp/listenerPath: failed to connect with seccomp agent")
                .next("start the seccomp agent first")
        }),
        None => Ok(None),
    }
}

/// Follows the child through its making until it is ready. Returns the console unless a socket was given for it.
fn attend(plan: &Plan, sync: &Sync, undo: &mut Undo<'_>, handles: &Handles) -> Result<Option<OwnedFd>> {
    let mut console = None;
    loop {
        let heard = sync.hear()?;
        undo.spoken |= !matches!(heard, Heard::Silence);
        match heard {
            Heard::Word(Word::Ready, ..) => return Ok(console),
            Heard::Word(Word::Console, _, Some(master)) => match &handles.console_socket {
                Some(path) => send_console(path, master.as_fd())?,
                None => {
                    tty::leave_newlines(master.as_fd())?;
                    console = Some(master);
                }
            },
            Heard::Word(Word::Mounted, ..) => {
                undo.hooks_begin()?;
                let state = status::state_json(&undo.record, undo.record.pid, Status::Creating)?;
                apply::hooks::run(&plan.hooks.prestart, &state)?;
                apply::hooks::run(&plan.hooks.create_runtime, &state)?;
                sync.say(Word::Pivot)?;
            }
            Heard::Word(word, ..) => {
                return Err(Error::new(format!("unexpected word {word:?} from the container")));
            }
            Heard::Silence => return Err(undo.obituary()),
        }
    }
}

/// One message with exactly one descriptor, as every engine's console code reads it.
pub fn send_console(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let socket = socket::connect_stream(path).map_err(|e| e.context("--console-socket"))?;
    socket::send(socket.as_fd(), b"/dev/ptmx", Some(master))
}

/// What only the host's power may do to the child: raise limits, lower the OOM score. `pid` 0 is the caller.
pub fn limits(plan: &crate::plan::ProcessPlan, pid: i32) -> Result<()> {
    for limit in &plan.rlimits {
        process::set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(|e| match e.errno() {
            libc::EPERM => e
                .context("/process/rlimits")
                .why("raising a hard limit needs CAP_SYS_RESOURCE")
                .next("run with that capability, or ask for no more than the limits you have (ulimit -aH)"),
            _ => e.context("/process/rlimits"),
        })?;
    }
    if let Some(score) = plan.oom_score_adj {
        let file = path::open(Path::new(&format!("/proc/{pid}/oom_score_adj")), libc::O_WRONLY)?;
        match fd::write_all(file.as_fd(), score.to_string().as_bytes()) {
            Err(e) if matches!(e.errno(), libc::EACCES | libc::EPERM) && plan.oom_best_effort => {}
            other => other.map_err(|e| {
                e.context("/process/oomScoreAdj").why("lowering the score needs CAP_SYS_RESOURCE")
            })?,
        }
    }
    Ok(())
}

/// The pid file, whole or not at all, without a newline: readers parse it as it is; and the pidfd.
pub fn hand_out(handles: &Handles, child: &Child) -> Result<()> {
    if let Some(file) = &handles.pid_file {
        write_pid_file(file, child.pid)?;
    }
    if let Some(path) = &handles.pidfd_socket {
        let socket = socket::connect_stream(path).map_err(|e| e.context("--pidfd-socket"))?;
        socket::send(socket.as_fd(), b"pidfd", Some(child.pidfd.as_fd()))?;
    }
    Ok(())
}

fn write_pid_file(file: &Path, pid: i32) -> Result<()> {
    let name = file.file_name().ok_or_else(|| Error::new(format!("--pid-file: {file:?} is no file")))?;
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = path::open(parent, libc::O_RDONLY | libc::O_DIRECTORY).map_err(|e| e.context("--pid-file"))?;
    // It has no name until it is whole, so that a runtime that is killed leaves no half and no second file.
    let flags = libc::O_WRONLY | libc::O_TMPFILE;
    let out = match path::openat(dir.as_fd(), Path::new("."), flags, 0o644) {
        Ok(out) => out,
        Err(e) if matches!(e.errno(), libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => {
            return write_hidden_first(dir.as_fd(), Path::new(name), pid);
        }
        Err(e) => return Err(e.context("--pid-file")),
    };
    fd::write_all(out.as_fd(), pid.to_string().as_bytes())?;
    match path::link_open_file(out.as_fd(), dir.as_fd(), Path::new(name)) {
        // What an earlier container left.
        Err(e) if e.errno() == libc::EEXIST => {
            path::unlinkat(dir.as_fd(), Path::new(name), 0)?;
            path::link_open_file(out.as_fd(), dir.as_fd(), Path::new(name))
        }
        // No /proc.
        Err(e) if e.errno() == libc::ENOENT => write_hidden_first(dir.as_fd(), Path::new(name), pid),
        other => other,
    }
}

/// For file systems without O_TMPFILE: a file beside it is renamed.
fn write_hidden_first(dir: BorrowedFd<'_>, name: &Path, pid: i32) -> Result<()> {
    let new = PathBuf::from(format!(".{}", name.display()));
    let out = path::openat(dir, &new, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    fd::write_all(out.as_fd(), pid.to_string().as_bytes())?;
    path::renameat(dir, &new, name, 0)
}

/// Sends a signal to the first process, or to all.
pub fn kill(root: &Root, id: &Id, signal: i32, all: bool) -> Result<()> {
    let container = Container::load(root, id)?;
    let own_pids = container.record.namespaces & libc::CLONE_NEWPID != 0;
    let implied = signal == libc::SIGKILL && !own_pids;
    if (all || implied) && container.record.cgroup.places.is_empty() {
        crate::cli::log::warn(
            "failed to kill all processes, possibly due to lack of cgroup (Hint: enable cgroup v2 delegation)",
        );
    } else if all || implied {
        if signal == libc::SIGKILL {
            return cgroup::kill(&container.record.cgroup);
        }
        for pid in cgroup::pids(&container.record.cgroup)? {
            match process::kill(pid, signal) {
                Err(e) if e.errno() != libc::ESRCH => return Err(e),
                _ => {}
            }
        }
        return Ok(());
    }
    let pidfd = match container.process()? {
        Some(pidfd) => pidfd,
        None if all => return Ok(()),
        None => return Err(Error::new("container not running")),
    };
    process::pidfd_kill(pidfd.as_fd(), signal).map_err(|e| match e.errno() {
        libc::ESRCH => Error::new("container not running"),
        _ => e,
    })
}

/// Freezes (or thaws) every process of the container.
pub fn pause(root: &Root, id: &Id, freeze: bool) -> Result<()> {
    let container = Container::load(root, id)?;
    match (container.status()?, freeze) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            cgroup::freeze(&container.record.cgroup, freeze)
        }
        (_, true) => Err(Error::new("container not running")),
        (_, false) => Err(Error::new("container not paused")),
    }
}

/// Removes a container. With `force` a running one is killed, and a missing one is no error.
pub fn delete(root: Option<&Root>, id: &Id, force: bool) -> Result<()> {
    let entry = match root.map(|root| root.try_entry(id)).transpose()?.flatten() {
        Some(entry) => entry,
        None if force => return Ok(()),
        None => return Err(Error::new("container does not exist")),
    };
    undo::lock_for_delete(&entry, force)?;
    let Some(record) = entry.record()? else { return entry.erase() };
    let container = Container { entry, record };
    match container.status()? {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            return Err(Error::new(format!(
                "cannot delete container {} that is not stopped: {status}",
                id.as_str()
            ))
            .next("stop it first, or use delete --force"));
        }
    }
    undo::undo(&container)
}

/// The raw descriptor numbers `3..3+n` must be open, and become the program's.
pub fn check_preserved(n: u32) -> Result<()> {
    let end = i32::try_from(n).ok().and_then(|n| n.checked_add(3));
    for number in 3..end.ok_or_else(|| Error::new("--preserve-fds: too many"))? {
        if fd::inherited(number).is_none() {
            return Err(Error::new(format!(
                "please check that preserved-fd {} (of {n}) is present",
                number - 3
            ))
            .next("open the descriptors 3 and up, or lower --preserve-fds"));
        }
    }
    Ok(())
}
