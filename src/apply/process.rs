//! Becoming the program: the tail that create and exec share.
//!
//! Two steps. [`prepare`] does what must be seen to succeed before the container counts as created: keyring, groups of
//! attributes, the program found. [`become_program`] gives up privileges in the one order that works and execs.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::program::{self, Program};
use super::sysctl::Proc;
use crate::error::{Error, Result};
use crate::plan::{ProcessPlan, SeccompPlan};
use crate::sys::{cred, fd, path, process, seccomp, signal};

/// The filter, and where a listener of it goes: the agent's socket and the message that belongs to it.
pub struct Filter<'a> {
    pub plan: &'a SeccompPlan,
    pub agent: Option<(BorrowedFd<'a>, Vec<u8>)>,
}

/// Personality, memory policy, priorities, keyring, and the program of `plan`, found inside.
pub fn prepare(
    plan: &ProcessPlan,
    keyring: Option<&str>,
    personality: Option<u64>,
    memory: Option<&(u32, Vec<usize>)>,
) -> Result<Program> {
    if let Some(persona) = personality {
        process::set_personality(persona).map_err(|e| e.context("/linux/personality"))?;
    }
    if let Some((mode, nodes)) = memory {
        process::set_mempolicy(*mode, nodes).map_err(|e| e.context("/linux/memoryPolicy"))?;
    }
    if let Some(id) = keyring {
        let name =
            CString::new(format!("_ses.{id}")).map_err(|_| Error::new("a NUL byte in the container ID"))?;
        if let Some(label) = &plan.selinux {
            // Else the program could not use its own keyring. execve(2) forgets it.
            Proc::open()?
                .write(Path::new("thread-self/attr/keycreate"), label)
                .map_err(|e| refused(e, label))?;
        }
        process::join_session_keyring(&name)?;
    }
    if let Some((class, data)) = plan.io_priority {
        process::set_ioprio(class, data).map_err(|e| e.context("/process/ioPriority"))?;
    }
    if let Some(scheduler) = plan.scheduler {
        process::set_scheduler(scheduler).map_err(|e| e.context("/process/scheduler"))?;
    }
    path::umask(plan.umask);
    program::find(plan)
}

/// Gives the program's user the inherited stdio, so that it can open /dev/stdout again, as runc does. Never the host's
/// null device, nor a file that somebody redirected to.
pub fn own_stdio(plan: &ProcessPlan) -> Result<()> {
    for number in 0..3 {
        let Some(stdio) = fd::inherited(number) else { continue };
        let st = path::stat(stdio, Path::new(""))?;
        let is_null = st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == libc::makedev(1, 3);
        let is_file = st.st_mode & libc::S_IFMT == libc::S_IFREG;
        if st.st_uid == plan.uid || is_null || is_file {
            continue;
        }
        match path::fchown(stdio, plan.uid, st.st_gid) {
            // Not ours to give (another user's pipe, a read-only file system, an id that is not mapped).
            Err(e) if matches!(e.errno(), libc::EPERM | libc::EINVAL | libc::EROFS) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The security labels that take effect with the next exec.
pub fn label(plan: &ProcessPlan) -> Result<()> {
    if let Some(profile) = &plan.apparmor {
        let proc = Proc::open()?;
        let text = format!("exec {profile}");
        proc.write(Path::new("thread-self/attr/apparmor/exec"), &text)
            .or_else(|_| proc.write(Path::new("thread-self/attr/exec"), &text))
            .map_err(|e| {
                e.context(format_args!("/process/apparmorProfile {profile:?}"))
                    .why("AppArmor is not enabled on this host, or the profile is not loaded")
            })?;
    }
    if let Some(label) = &plan.selinux {
        Proc::open()?.write(Path::new("thread-self/attr/exec"), label).map_err(|e| refused(e, label))?;
    }
    Ok(())
}

/// A label of SELinux that the kernel does not take.
fn refused(error: Error, label: &str) -> Error {
    let error = error.context(format_args!("/process/selinuxLabel {label:?}"));
    match error.errno() {
        libc::EINVAL => error.why("the policy of this host has no such user, role, type or level"),
        libc::EACCES => error.why("the policy of this host does not let the caller set it"),
        _ => error,
    }
}

/// From here on nothing is given back. Each step needs a privilege that a later one takes away; a failure ends the
/// process. `hooks` are the last before the program, and as confined as it. Returns only the reason why it did not
/// become the program.
pub fn become_program(
    plan: &ProcessPlan,
    program: &Program,
    filter: Option<&Filter<'_>>,
    keep_fds: u32,
    hooks: impl FnOnce() -> Result<()>,
) -> Error {
    match confine(plan, filter, keep_fds).and_then(|()| hooks()) {
        Ok(()) => {
            let error = program.exec();
            program.explain(error)
        }
        Err(e) => e,
    }
}

fn confine(plan: &ProcessPlan, filter: Option<&Filter<'_>>, keep_fds: u32) -> Result<()> {
    label(plan)?;
    fence(keep_fds)?;
    if !plan.no_new_privileges {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go: what follows is under the filter,
        // as it is with runc, and may use only calls that every profile in the field allows. close_range(2) is younger
        // than many of them.
        load(filter)?;
    }
    let entered = enter(&plan.cwd);
    capabilities_and_user(plan)?;
    match entered {
        // Where its user may go and root may not: an identity that a file system knows, or another user's directory.
        Err(e) if matches!(e.errno(), libc::EACCES | libc::EPERM) => enter(&plan.cwd)?,
        entered => entered?,
    }
    if plan.no_new_privileges {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        load(filter)?;
    }
    Ok(())
}

/// Signals to their defaults, and of the descriptors from 3 on only the kept ones go on through execve. What is opened
/// behind it closes itself there (O_CLOEXEC).
fn fence(keep_fds: u32) -> Result<()> {
    signal::reset()?;
    fd::cloexec_from(3 + keep_fds as i32)?;
    for kept in (3..3 + keep_fds as i32).filter_map(fd::inherited) {
        fd::set_cloexec(kept, false)?;
    }
    Ok(())
}

/// Bounding set while CAP_SETPCAP is there, ids while CAP_SETUID is, then the sets; ambient last, since it needs both
/// the permitted and the inheritable (capabilities(7)).
fn capabilities_and_user(plan: &ProcessPlan) -> Result<()> {
    let caps = &plan.capabilities;
    cred::limit_bounding_set(caps.bounding)?;
    process::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    own_stdio(plan)?;
    if !plan.keep_groups {
        match cred::setgroups(&plan.groups) {
            // Denied in the user namespace (user_namespaces(7)): then nobody there has groups to drop.
            Err(e) if e.errno() == libc::EPERM && plan.groups.is_empty() => {}
            other => other?,
        }
    }
    cred::setresgid(plan.gid)?;
    cred::setresuid(plan.uid)?;
    process::prctl(libc::PR_SET_KEEPCAPS, 0)?;
    cred::capset(caps.effective, caps.permitted, caps.inheritable)
        .map_err(|e| e.context("/process/capabilities"))?;
    cred::set_ambient(caps.ambient)
}

fn load(filter: Option<&Filter<'_>>) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    let compiled = &filter.plan.filter;
    match &filter.agent {
        Some((socket, message)) => {
            seccomp::load_and_hand_over(&compiled.program, compiled.flags, socket.as_fd(), message)
        }
        None => seccomp::load(&compiled.program, compiled.flags).map(drop),
    }
}

/// Enters the working directory, and makes sure that it lies inside (CVE-2024-21626).
fn enter(cwd: &Path) -> Result<()> {
    path::chdir(cwd)
        .map_err(|e| e.context(format_args!("chdir to cwd ({cwd:?}) set in config.json failed")))?;
    if path::getcwd()?.first() != Some(&b'/') {
        return Err(Error::new(format!(
            "current working directory {cwd:?} is outside of container mount namespace root"
        ))
        .why("a leaked descriptor of the host was used as a path"));
    }
    Ok(())
}
