//! What the unpack worker gives up before it looks at the first byte of an image.
//!
//! In order: memory, descriptors and cores are bounded; of the capabilities only those that make files stay; Landlock
//! takes every file away that is not below the staging directory, and seccomp every system call that is not listed
//! here. Each step that fails ends the worker, with one exception: where the kernel has no Landlock that can allow
//! hard links (ABI 2, Linux 5.19; or it is not switched on, as in the tests' guest), the filter stands alone. What
//! the worker may then still open it cannot tell anybody: it has no socket but the one to its parent.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use nix::sys::resource::{Resource, getrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Error, Result};
use crate::sys::{cred, landlock, path, process};

/// Memory that the worker may write: a zstd window, the pieces on their way, and a table of files.
const MEMORY: u64 = 192 << 20;
const DESCRIPTORS: u64 = 1024;

/// capabilities(7): chown, any mode and owner, device nodes, file capabilities, and `trusted.*` xattrs
/// (CAP_SYS_ADMIN, of which the filter leaves nothing else).
const CAPABILITIES: [caps::Capability; 7] = [
    caps::Capability::CAP_CHOWN,
    caps::Capability::CAP_DAC_OVERRIDE,
    caps::Capability::CAP_FOWNER,
    caps::Capability::CAP_FSETID,
    caps::Capability::CAP_MKNOD,
    caps::Capability::CAP_SETFCAP,
    caps::Capability::CAP_SYS_ADMIN,
];

/// Everything but the filter, which waits until all threads are there; for this thread and those that it starts.
pub fn files_and_privileges(staging: BorrowedFd<'_>) -> Result<()> {
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    path::umask(0);
    process::set_rlimit(0, libc::RLIMIT_CORE, 0, 0)?;
    process::set_rlimit(0, libc::RLIMIT_DATA, MEMORY, MEMORY)?;
    let (_, most) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| Error::call("getrlimit(RLIMIT_NOFILE)", e as i32))?;
    process::set_rlimit(0, libc::RLIMIT_NOFILE, DESCRIPTORS.min(most), DESCRIPTORS.min(most))?;
    let (_, permitted, _) = cred::capget()?;
    let keep = CAPABILITIES.iter().fold(0, |set, cap| set | 1 << cap.index()) & permitted;
    cred::capset(keep, keep, 0)?;
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    match landlock::abi() {
        abi @ 2.. => landlock::restrict_to(staging, landlock::READ_AND_CHANGE, abi),
        _ => Ok(()),
    }
}

/// The filter, on every thread of the process (SECCOMP_FILTER_FLAG_TSYNC). Any other call kills the process.
pub fn system_calls() -> Result<()> {
    let wrong = |e: &dyn std::fmt::Display| Error::new(format!("the unpack worker's filter: {e}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    // A thread names itself when it begins, and nothing else is left of prctl(2).
    let name = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64);
    let name = SeccompRule::new(vec![name.map_err(|e| wrong(&e))?]).map_err(|e| wrong(&e))?;
    rules.insert(libc::SYS_prctl, vec![name]);
    let arch = std::env::consts::ARCH.try_into().map_err(|e| wrong(&e))?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    let program: BpfProgram =
        filter.map_err(|e| wrong(&e))?.try_into().map_err(|e: seccompiler::BackendError| wrong(&e))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| wrong(&e))
}

/// What unpacking needs: no socket, no program, no process, no mount, no clock but to read it.
const CALLS: [i64; 55] = [
    // The blob, the files, the parent's socket.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_sendmsg,
    // Names below the staging directory.
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_lgetxattr,
    libc::SYS_llistxattr,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // How a panic ends.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
];
