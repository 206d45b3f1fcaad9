//! The child's side of create and run: from the clone to the program, or to its own account of why not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::status::{self, Status};
use super::sync::{Sync, Word};
use crate::apply::namespaces::Joined;
use crate::apply::opened::{self, Trees};
use crate::apply::process::{Filter, become_program, prepare};
use crate::apply::program::Program;
use crate::apply::root::RootDir;
use crate::apply::{console, hooks, mounts, namespaces, paths, sysctl};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::sys::{fd, path, process, signal};

/// What the child has been born with.
pub struct Newborn<'a> {
    pub plan: &'a Plan,
    pub trees: Option<Trees>,
    pub joined: &'a Joined,
    pub v1_tasks: &'a [OwnedFd],
    pub start: Option<&'a OwnedFd>,
    pub agent: Option<&'a OwnedFd>,
    /// Born outside its cgroup: the parent moves it there and says so.
    pub wait_for_move: bool,
    pub rootless: bool,
    pub sync: &'a Sync,
    /// What is left to do before the program may run, where the maker sleeps until then; otherwise the maker does it,
    /// and says so.
    pub keep: Option<&'a mut dyn FnMut() -> Result<()>>,
}

/// Where the child's words go when it fails: to the runtime that makes it, later to the one that starts it.
enum Listener<'a> {
    Maker(&'a Sync),
    Starter(BorrowedFd<'static>),
}

/// Never returns: the process becomes its program or ends.
pub fn born(mut newborn: Newborn<'_>) -> ! {
    process::set_name("jug:init");
    let plan = newborn.plan;
    let program = match build(&mut newborn) {
        Ok(program) => program,
        Err(e) => end(&Listener::Maker(newborn.sync), &e),
    };
    let kept = match &mut newborn.keep {
        None => newborn.sync.expect(Word::Keep),
        Some(keep) => newborn.sync.still_there().and_then(|()| keep()).map(|()| Vec::new()),
    };
    let message = match kept {
        Ok(message) => message,
        // The maker is gone, and this container was never made; or it could not be heard, which `run` has to know.
        Err(e) => end(&Listener::Maker(newborn.sync), &e),
    };
    let keep = plan.options.preserve_fds;
    let (listener, agent) = match newborn.start {
        None => (Listener::Maker(newborn.sync), newborn.agent.map(AsFd::as_fd)),
        Some(start) => match wait_for_start(start, newborn.agent, keep) {
            Ok((barrier, agent)) => (Listener::Starter(barrier), agent),
            Err(_) => process::exit_now(1),
        },
    };
    let error = live(plan, &program, agent.map(|socket| (socket, message)), keep);
    end(&listener, &error)
}

fn end(listener: &Listener<'_>, error: &Error) -> ! {
    match listener {
        Listener::Maker(sync) => sync.fail(error),
        Listener::Starter(fifo) => {
            let _ = fd::write_all(*fifo, &[&b"E"[..], &error.encode()].concat());
        }
    }
    process::exit_now(1)
}

/// The container's inside, one step a line.
fn build(newborn: &mut Newborn<'_>) -> Result<Program> {
    let (plan, sync, mut trees) = (newborn.plan, newborn.sync, newborn.trees.take());
    if newborn.wait_for_move && !plan.namespaces.makes(Kind::User) {
        sync.expect(Word::Build)?;
    }
    for tasks in newborn.v1_tasks {
        fd::write_all(tasks.as_fd(), b"0")?;
    }
    process::reset_affinity();
    namespaces::settle(plan, newborn.joined, newborn.rootless, sync)?;
    if let Some(trees) = trees.as_mut().filter(|_| opened::cgroup_comes_later(plan)) {
        trees.cgroup = Some(sync.take(Word::Build)?);
    }
    if !newborn.rootless {
        // In a PID namespace that is joined, others see this process: what it has open is none of theirs.
        process::prctl(libc::PR_SET_DUMPABLE, 0)?;
    }
    process::setsid()?;
    path::umask(0);
    if plan.builds_tree() {
        inside(plan, trees, sync)?;
    } else {
        outside(plan, sync)?;
    }
    let program = finish(plan)?;
    if newborn.keep.is_none() {
        sync.say(Word::Ready)?;
    }
    Ok(program)
}

fn inside(plan: &Plan, trees: Option<Trees>, sync: &Sync) -> Result<()> {
    let mut trees = match trees {
        Some(trees) => trees,
        None => opened::trees(plan, true)?,
    };
    // runc's words for whatever fails while the root is made.
    let root = mounts::build(plan, &mut trees).map_err(|e| e.context("error during container init"))?;
    hooks_before_pivot(plan, sync)?;
    mounts::pivot(plan, &root)?;
    terminal(plan, &root, sync)?;
    names(plan)?;
    mounts::seal_root(plan, &root)?;
    sysctl::set(&plan.sysctl)?;
    paths::make_readonly(plan, &root)?;
    paths::mask(plan, &mut trees, &root)
}

/// Without a mount namespace and without mounts the container lives in the host's tree, below its root only by
/// chroot(2).
fn outside(plan: &Plan, sync: &Sync) -> Result<()> {
    hooks_before_pivot(plan, sync)?;
    path::chroot(&plan.root.path)?;
    path::chdir(std::path::Path::new("/"))?;
    let root = RootDir::new(path::open(std::path::Path::new("/"), libc::O_PATH | libc::O_DIRECTORY)?);
    terminal(plan, &root, sync)?;
    names(plan)?;
    sysctl::set(&plan.sysctl)
}

fn hooks_before_pivot(plan: &Plan, sync: &Sync) -> Result<()> {
    if plan.hooks_before_pivot() {
        sync.say(Word::Mounted)?;
        sync.expect(Word::Pivot)?;
    }
    if plan.hooks.create_container.is_empty() {
        return Ok(());
    }
    // Seen from inside, as the specification says for hooks of the container's namespace.
    let state = status::plan_state_json(plan, process::pid(), Status::Creating)?;
    hooks::run_at(&plan.root.path, &plan.hooks.create_container, &state)
}

fn terminal(plan: &Plan, root: &RootDir, sync: &Sync) -> Result<()> {
    if !plan.process.terminal {
        return Ok(());
    }
    let (master, slave) = console::open(root, &plan.process)?;
    sync.hand(Word::Console, master.as_fd())?;
    if plan.builds_tree() {
        console::bind(root, &slave)?;
    }
    console::take(&slave)
}

fn names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        process::set_hostname(name)?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domainname(name)?;
    }
    Ok(())
}

fn finish(plan: &Plan) -> Result<Program> {
    let keyring = (!plan.options.no_new_keyring).then_some(plan.id.as_str());
    prepare(&plan.process, keyring, plan.personality, plan.memory_policy.as_ref())
}

/// Waits for the byte of `start`, with nothing open but stdio, what the program keeps, the barrier and the agent.
fn wait_for_start(
    start: &OwnedFd,
    agent: Option<&OwnedFd>,
    keep: u32,
) -> Result<(BorrowedFd<'static>, Option<BorrowedFd<'static>>)> {
    let first = 3 + keep as i32;
    // Out of the way first: either may already stand where the other has to go. None of these numbers is ever closed by
    // its owner: the process leaves by exec or _exit.
    let above = |fd: &OwnedFd| fd::duplicate_above(fd.as_fd(), first + 2).map(std::mem::ManuallyDrop::new);
    let (barrier, agent) = (above(start)?, agent.map(above).transpose()?);
    fd::place(barrier.as_fd(), first)?;
    let agent = match agent {
        Some(agent) => {
            fd::place(agent.as_fd(), first + 1)?;
            Some(fd::placed(first + 1))
        }
        None => None,
    };
    fd::close_between(first + 1 + i32::from(agent.is_some()), u32::MAX)?;
    signal::end_on_request();
    let mut byte = [0];
    fd::read(fd::placed(first), &mut byte)?;
    Ok((fd::placed(first), agent))
}

/// After the start: the last hooks, then the program. Returns why not.
fn live(plan: &Plan, program: &Program, agent: Option<(BorrowedFd<'_>, Vec<u8>)>, keep: u32) -> Error {
    let pid = process::pid();
    let hooks = || -> Result<()> {
        if plan.hooks.start_container.is_empty() {
            return Ok(());
        }
        // The messenger of a listener was not to leave a zombie.
        signal::keep_children();
        let mut list = plan.hooks.start_container.clone();
        // They are the container's own programs, so they may have its environment where the config gives them none.
        for hook in list.iter_mut().filter(|hook| hook.env.is_empty()) {
            hook.env = program.environment();
        }
        // One that does not read its stdin must not end this process.
        signal::ignore_pipe();
        hooks::run(&list, &status::plan_state_json(plan, pid, Status::Created)?)?;
        signal::reset()
    };
    let filter = plan.seccomp.as_ref().map(|seccomp| Filter { plan: seccomp, agent });
    become_program(&plan.process, program, filter.as_ref(), keep, hooks)
}
