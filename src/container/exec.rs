//! exec: one more process in a container that lives.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use super::record::{Id, Root};
use super::status::{self, Container, Status};
use super::sync::{Heard, Sync, Word};
use super::{BEGUN, BORN, Handles, hand_out, limits, moments, send_console};
use crate::apply::opened::may_copy_mounts;
use crate::apply::process::{Filter, become_program, prepare};
use crate::apply::root::RootDir;
use crate::apply::{console, namespaces};
use crate::bundle;
use crate::cgroup::{self, Cgroup};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::namespaces::Kind;
use crate::plan::{IdMaps, Namespaces, Options, Plan, ProcessPlan, SeccompPlan};
use crate::sys::clone::{Child, Side, clone3, setns};
use crate::sys::process::Exit;
use crate::sys::{fd, path, process, tty};

#[derive(Debug, Default)]
pub struct ExecOptions {
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// Sub-cgroup, relative to the container's.
    pub cgroup: Option<PathBuf>,
}

/// What an exec needs of its container, decided before anything happens.
struct ExecPlan {
    process: ProcessPlan,
    seccomp: Option<SeccompPlan>,
    /// CLONE_NEW* of the namespaces to join.
    flags: i32,
    keyring: Option<String>,
    keep: u32,
    /// Below the container's cgroup.
    sub_cgroup: PathBuf,
    /// The caller named it: then no other one will do.
    cgroup_is_given: bool,
    personality: Option<u64>,
    memory_policy: Option<(u32, Vec<usize>)>,
}

/// With runc's words in it.
const JOINING: &str = "joining the container's cgroup: adding pid of the new process to cgroups";

/// Starts another process in a container. `change` makes it from the config's own process.
pub fn exec(
    root: &Root,
    id: &Id,
    change: impl FnOnce(&Process) -> Result<Process>,
    options: &ExecOptions,
    handles: &Handles,
) -> Result<(Child, Option<OwnedFd>)> {
    let container = Container::load(root, id)?;
    match container.status()? {
        Status::Stopped | Status::Creating => return Err(Error::new("cannot exec in a stopped container")),
        Status::Paused if !options.ignore_paused => {
            return Err(Error::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    let init = container.process()?.ok_or_else(|| Error::new("cannot exec in a stopped container"))?;
    let (spec, _) = bundle::parse::<Spec>(&container.entry.config()?)?;
    let plan = plan(&container, &spec, change, options)?;
    let cgroup = find_cgroup(&container, options)?;
    let agent = super::connect_agent(plan.seccomp.as_ref())?;
    moments(&[BEGUN]);
    enter_pid_namespace(&plan, &init)?;
    let mut direct = true;
    let (child, made) = loop {
        let (child, sync) = clone(&plan, &init, cgroup.as_ref(), agent.as_ref(), &container, direct)?;
        let mut spoken = false;
        let made = attend(&plan, &sync, &child, handles, &container, agent.is_some(), &mut spoken);
        // See `container::make`: the kernel's trap for callers whose own cgroup was ever killed.
        if made.is_err() && !spoken && direct && cgroup.is_some() && died_by_kill(&child)? {
            direct = false;
            continue;
        }
        break (child, made);
    };
    if made.is_err() {
        let _ = process::pidfd_kill(child.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(child.pidfd.as_fd(), true);
    }
    made.map(|console| (child, console))
}

/// Whether a child that said nothing was killed. Its silence is heard a moment before its end is seen.
fn died_by_kill(child: &Child) -> Result<bool> {
    const A_MOMENT: i32 = 200;
    fd::poll(&[(child.pidfd.as_fd(), libc::POLLIN)], A_MOMENT)?;
    Ok(process::wait(child.pidfd.as_fd(), false)? == Some(Exit::Signal(libc::SIGKILL)))
}

fn plan(
    container: &Container,
    spec: &Spec,
    change: impl FnOnce(&Process) -> Result<Process>,
    options: &ExecOptions,
) -> Result<ExecPlan> {
    let own = spec.process().as_ref().ok_or_else(|| Error::new("the container's config has no process"))?;
    let process = change(own)?;
    let (apparmor, selinux) = crate::host::security_modules(&process);
    let capabilities = crate::host::grantable(&process)?;
    let host = Host { capabilities, apparmor, selinux, ..Host::look(spec, &Options::default())? };
    let mut ids = IdMaps::default();
    let mut seccomp = None;
    let (mut personality, mut memory_policy) = (None, None);
    if let Some(linux) = spec.linux() {
        personality = linux.personality().as_ref().map(crate::plan::personality).transpose()?;
        memory_policy =
            linux.memory_policy().as_ref().map(crate::plan::process::memory_policy).transpose()?;
        ids = IdMaps::new(linux, &Namespaces::new(linux)?, &host)?;
        seccomp = linux.seccomp().as_ref().map(Plan::seccomp).transpose()?;
    }
    let mut warnings = Vec::new();
    let mut process = ProcessPlan::new(&process, &ids, &host, &mut warnings)?;
    process.keep_groups |= crate::plan::process::keeps_groups(&container.record.annotations);
    warnings.iter().for_each(|w| crate::cli::log::warn(w));
    let keyring = (!container.record.no_new_keyring).then(|| container.record.id.clone());
    Ok(ExecPlan {
        process,
        seccomp,
        flags: container.record.namespaces,
        keyring,
        keep: options.preserve_fds,
        sub_cgroup: options.cgroup.as_deref().map(crate::plan::lexical).unwrap_or_default(),
        cgroup_is_given: options.cgroup.is_some(),
        personality,
        memory_policy,
    })
}

fn find_cgroup(container: &Container, options: &ExecOptions) -> Result<Option<Cgroup>> {
    let mut traces = container.record.cgroup.clone();
    if let (Some(sub), Some(place)) = (&options.cgroup, traces.places.first_mut()) {
        if sub.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            return Err(Error::new(format!("--cgroup: bad sub cgroup path: {}", sub.display())));
        }
        place.path.push(crate::plan::lexical(sub));
    }
    cgroup::open(&traces).map_err(|e| e.context(JOINING))
}

/// A rootless caller has power over the namespaces only from inside their user namespace.
fn outer_flags(plan: &ExecPlan) -> i32 {
    let user_first = !may_copy_mounts_at_start() && plan.flags & Kind::User.flag() != 0;
    plan.flags & (Kind::Pid.flag() | if user_first { Kind::User.flag() } else { 0 })
}

/// Asked before anything is joined: inside a user namespace the answer would be another one.
fn may_copy_mounts_at_start() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(may_copy_mounts)
}

/// The parent enters the PID namespace, which only children see.
fn enter_pid_namespace(plan: &ExecPlan, init: &OwnedFd) -> Result<()> {
    match outer_flags(plan) {
        0 => Ok(()),
        outer => setns(init.as_fd(), outer).map_err(|e| e.context("joining the container's namespaces")),
    }
}

/// The child is born in the cgroup (or moved there, when not `direct`) and joins the rest.
fn clone(
    plan: &ExecPlan,
    init: &OwnedFd,
    cgroup: Option<&Cgroup>,
    agent: Option<&OwnedFd>,
    container: &Container,
    direct: bool,
) -> Result<(Child, Sync)> {
    let outer = outer_flags(plan);
    let (ours, theirs) = Sync::pair()?;
    let dir = cgroup.filter(|_| direct).map(|c| c.dir.as_fd());
    let mut direct = direct;
    let side = match clone3(0, dir) {
        // A user in a session of their own may not enter the cgroups of their systemd: it fetches the process.
        Err(e) if is_denied(&e) && container.record.cgroup.unit.is_some() => {
            direct = false;
            clone3(0, None)?
        }
        // A cgroup that the container divided takes no process itself: then its init's own is the place.
        Err(e) if e.errno() == libc::EBUSY || e.errno() == libc::EOPNOTSUPP => {
            if plan.cgroup_is_given {
                return Err(e.context(JOINING));
            }
            let own = init_cgroup(container)?;
            clone3(0, Some(own.as_fd()))?
        }
        other => other?,
    };
    match side {
        Side::Parent(child) => {
            if let (Some(cgroup), false) = (cgroup, direct) {
                match (cgroup::move_into(cgroup, child.pid), &container.record.cgroup.unit) {
                    (Err(e), Some(unit)) if is_denied(&e) => {
                        cgroup::systemd::attach(unit, &plan.sub_cgroup, child.pid)?;
                    }
                    (moved, _) => moved?,
                }
                ours.say(Word::Build)?;
            }
            Ok((child, ours))
        }
        Side::Child => {
            drop(ours);
            born(plan, init, plan.flags & !outer, cgroup, agent, &theirs, direct)
        }
    }
}

fn is_denied(e: &Error) -> bool {
    matches!(e.errno(), libc::EACCES | libc::EPERM)
}

/// The cgroup that the container's first process is in now, from /proc/PID/cgroup.
fn init_cgroup(container: &Container) -> Result<OwnedFd> {
    let place =
        container.record.cgroup.places.first().ok_or_else(|| Error::new("the container has no cgroup"))?;
    let text = crate::host::read(format!("/proc/{}/cgroup", container.record.pid))?;
    let mount = path::open(&place.mount, libc::O_PATH | libc::O_DIRECTORY)?;
    let resolve = path::RESOLVE_BENEATH | path::RESOLVE_NO_SYMLINKS;
    path::openat2(
        mount.as_fd(),
        &crate::plan::lexical(crate::host::cgroup_of(&text)),
        libc::O_PATH | libc::O_DIRECTORY,
        0,
        resolve,
    )
}

/// The child's side: never returns.
fn born(
    plan: &ExecPlan,
    init: &OwnedFd,
    flags: i32,
    cgroup: Option<&Cgroup>,
    agent: Option<&OwnedFd>,
    sync: &Sync,
    direct: bool,
) -> ! {
    process::set_name("jug:exec");
    let inside = || {
        if !direct {
            sync.expect(Word::Build)?;
        }
        // Soon the container's processes see this one: what it has open is none of theirs (CVE-2016-9962).
        process::prctl(libc::PR_SET_DUMPABLE, 0)?;
        if let Some((initial, _)) = &plan.process.cpu_affinity
            && !initial.is_empty()
        {
            process::set_affinity(initial).map_err(|e| e.context("/process/execCPUAffinity/initial"))?;
        }
        for tasks in cgroup.map(|c| c.v1_tasks.as_slice()).unwrap_or_default() {
            fd::write_all(tasks.as_fd(), b"0")?;
        }
        if flags != 0 {
            setns(init.as_fd(), flags).map_err(|e| e.context("joining the container's namespaces"))?;
        }
        if plan.flags & Kind::User.flag() != 0 {
            namespaces::become_root_inside(plan.process.keep_groups)?;
        }
        process::setsid()?;
        if plan.process.terminal {
            let root = RootDir::new(path::open(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY)?);
            let (master, slave) = console::open(&root, &plan.process)?;
            sync.hand(Word::Console, master.as_fd())?;
            console::take(&slave)?;
        }
        let (personality, memory) = (plan.personality, plan.memory_policy.as_ref());
        let program = prepare(&plan.process, plan.keyring.as_deref(), personality, memory)?;
        match &plan.process.cpu_affinity {
            Some((_, last)) if !last.is_empty() => {
                process::set_affinity(last).map_err(|e| e.context("/process/execCPUAffinity/final"))?;
            }
            _ => process::reset_affinity(),
        }
        sync.say(Word::Ready)?;
        Ok(program)
    };
    let program = match inside() {
        Ok(program) => program,
        Err(e) => {
            sync.fail(&e);
            process::exit_now(255)
        }
    };
    let message = match sync.expect(Word::Keep) {
        Ok(message) => message,
        // Unsaid, it would look like a program that runs. If it is the runtime that is gone, nobody hears it.
        Err(e) => {
            sync.fail(&e);
            process::exit_now(255)
        }
    };
    let filter = plan
        .seccomp
        .as_ref()
        .map(|seccomp| Filter { plan: seccomp, agent: agent.map(|socket| (socket.as_fd(), message)) });
    sync.fail(&become_program(&plan.process, &program, filter.as_ref(), plan.keep, || Ok(())));
    process::exit_now(255)
}

/// The parent's side until the program runs.
fn attend(
    plan: &ExecPlan,
    sync: &Sync,
    child: &Child,
    handles: &Handles,
    container: &Container,
    agent: bool,
    spoken: &mut bool,
) -> Result<Option<OwnedFd>> {
    let mut console = None;
    if let Some(rdt) = &container.record.rdt {
        crate::apply::rdt::enter(rdt, child.pid)?;
    }
    loop {
        let heard = sync.hear()?;
        *spoken |= !matches!(heard, Heard::Silence);
        match heard {
            Heard::Word(Word::Ready, ..) => break,
            Heard::Word(Word::Console, _, Some(master)) => match &handles.console_socket {
                Some(path) => send_console(path, master.as_fd())?,
                None => {
                    tty::leave_newlines(master.as_fd())?;
                    console = Some(master);
                }
            },
            Heard::Word(word, ..) => {
                return Err(Error::new(format!("unexpected word {word:?} from the process")));
            }
            Heard::Silence => return Err(Error::new("the process died before it could become its program")),
        }
    }
    limits(&plan.process, child.pid)?;
    hand_out(handles, child)?;
    moments(&[BORN, "setns_init: about to exec"]);
    let metadata =
        plan.seccomp.as_ref().and_then(|s| s.listener.as_ref()).map_or("", |l| l.metadata.as_str());
    let message = if agent {
        status::agent_message(&container.record, child.pid, Status::Running, metadata)?
    } else {
        Vec::new()
    };
    sync.tell(Word::Keep, &message)?;
    match sync.hear()? {
        Heard::Silence => Ok(console),
        Heard::Word(word, ..) => Err(Error::new(format!("unexpected word {word:?} after the start"))),
    }
}
