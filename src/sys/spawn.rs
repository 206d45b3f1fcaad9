//! Starting a program in a process of its own (posix_spawn(3)): for rooms that run other programs and never clone a
//! container. What the program gets is exactly what is named: its descriptors and a fresh signal mask.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use super::c_bytes;
use crate::error::{Error, Result};

/// Starts `program` with `args` (the first is its name) and this process's environment, and `more` of it. Each of
/// `files` becomes the number beside it; 0 to 2 are inherited otherwise, everything else is close-on-exec. Returns the
/// child, which the caller must wait for.
pub fn spawn(
    program: &Path,
    args: &[impl AsRef<[u8]>],
    more: &[(&str, &str)],
    files: &[(BorrowedFd<'_>, RawFd)],
) -> Result<i32> {
    let path = super::c_path(program)?;
    let args = args.iter().map(|arg| c_bytes(arg.as_ref())).collect::<Result<Vec<CString>>>()?;
    let mut args: Vec<*mut libc::c_char> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    args.push(std::ptr::null_mut());
    let more = more
        .iter()
        .map(|(key, value)| c_bytes(format!("{key}={value}").as_bytes()))
        .collect::<Result<Vec<_>>>()?;
    let mut env: Vec<*mut libc::c_char> = more.iter().map(|entry| entry.as_ptr().cast_mut()).collect();
    env.extend(environment());
    env.push(std::ptr::null_mut());
    // Out of the way of the numbers that are given out: one of them may be the source of another.
    let copies = files
        .iter()
        .map(|(fd, number)| Ok((super::fd::duplicate_above(*fd, 16)?, *number)))
        .collect::<Result<Vec<_>>>()?;
    let mut setup = Setup::new()?;
    for (copy, number) in &copies {
        setup.duplicate(copy.as_fd(), *number)?;
    }
    let mut pid = 0;
    // SAFETY: all pointers are NUL-terminated strings in arrays that end with null, and live across the call.
    let errno = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            setup.actions.as_ptr(),
            setup.attributes.as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
        )
    };
    if errno == 0 { Ok(pid) } else { Err(Error::call(format_args!("posix_spawn({program:?})"), errno)) }
}

/// Makes `command` execute this file with these arguments and this environment, in their order and nothing else,
/// whatever it holds itself; where it starts, its streams and its process group stay the command's.
pub fn become_exactly(
    command: &mut std::process::Command,
    path: &Path,
    args: &[String],
    env: &[&String],
) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let path = super::c_path(path)?;
    let args = args.iter().map(|arg| c_bytes(arg.as_bytes())).collect::<Result<Vec<_>>>()?;
    let env = env.iter().map(|entry| c_bytes(entry.as_bytes())).collect::<Result<Vec<_>>>()?;
    let become_it =
        move || Err(std::io::Error::from_raw_os_error(super::process::execve(&path, &args, &env).errno()));
    // SAFETY: the process that forks has one thread, so that whatever the closure does, it finds no lock taken.
    unsafe { command.pre_exec(become_it) };
    Ok(())
}

/// Makes what `command` starts the group of processes that the terminal on its stdin, if there is one, listens to, with
/// no signal blocked. The caller has blocked all: a group that is not in front is stopped when it asks to be.
pub fn in_front(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    let step_forward = || {
        // SAFETY: calls without memory of ours; where stdin is no terminal there is nobody to tell.
        unsafe {
            libc::setpgid(0, 0);
            libc::tcsetpgrp(0, libc::getpgrp());
        }
        super::signal::reset().map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
    };
    // SAFETY: the process that forks has one thread, so that whatever the closure does, it finds no lock taken.
    unsafe { command.pre_exec(step_forward) };
}

/// The entries of this process's environment, as exec takes them.
fn environment() -> Vec<*mut libc::c_char> {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: environ(7) is an array that ends with null; nothing changes the environment while it is read, since there
    // is one thread.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            entries.push(*entry);
            entry = entry.add(1);
        }
    }
    entries
}

struct Setup {
    actions: MaybeUninit<libc::posix_spawn_file_actions_t>,
    attributes: MaybeUninit<libc::posix_spawnattr_t>,
}

impl Setup {
    fn new() -> Result<Self> {
        let mut setup = Self { actions: MaybeUninit::uninit(), attributes: MaybeUninit::uninit() };
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let flags = (libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF) as libc::c_short;
        // SAFETY: each object is initialised by the first call that takes it; the sets are filled before they are read.
        unsafe {
            libc::posix_spawn_file_actions_init(setup.actions.as_mut_ptr());
            libc::posix_spawnattr_init(setup.attributes.as_mut_ptr());
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            libc::posix_spawnattr_setsigmask(setup.attributes.as_mut_ptr(), none.as_ptr());
            libc::posix_spawnattr_setsigdefault(setup.attributes.as_mut_ptr(), all.as_ptr());
            libc::posix_spawnattr_setflags(setup.attributes.as_mut_ptr(), flags);
        }
        Ok(setup)
    }

    fn duplicate(&mut self, fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
        // SAFETY: initialised in new.
        let errno = unsafe {
            libc::posix_spawn_file_actions_adddup2(self.actions.as_mut_ptr(), fd.as_raw_fd(), number)
        };
        if errno == 0 { Ok(()) } else { Err(Error::call("posix_spawn_file_actions_adddup2()", errno)) }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // SAFETY: both were initialised in new, and are used no more.
        unsafe {
            libc::posix_spawn_file_actions_destroy(self.actions.as_mut_ptr());
            libc::posix_spawnattr_destroy(self.attributes.as_mut_ptr());
        }
    }
}
