//! Names for the system calls that a runtime makes, to be read by people.

macro_rules! table {
    ($($constant:ident)*) => {
        &[$((libc::$constant, stringify!($constant))),*]
    };
}

#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
const NAMES: &[(i64, &str)] = table! {
    SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect
    SYS_munmap SYS_brk SYS_rt_sigaction SYS_rt_sigprocmask SYS_ioctl SYS_pread64 SYS_readv SYS_writev SYS_access
    SYS_pipe SYS_select SYS_mremap SYS_madvise SYS_dup SYS_dup2 SYS_pause SYS_getpid SYS_socket SYS_connect
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_socketpair SYS_setsockopt SYS_getsockopt SYS_clone
    SYS_fork SYS_vfork SYS_execve SYS_exit SYS_wait4 SYS_kill SYS_uname SYS_fcntl SYS_flock SYS_fsync
    SYS_ftruncate SYS_getdents SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_mkdir SYS_rmdir SYS_link
    SYS_unlink SYS_symlink SYS_readlink SYS_chmod SYS_fchmod SYS_chown SYS_fchown SYS_umask SYS_getrlimit
    SYS_getuid SYS_getgid SYS_setuid SYS_setgid SYS_geteuid SYS_getegid SYS_setsid SYS_setgroups SYS_capget
    SYS_capset SYS_rt_sigtimedwait SYS_sigaltstack SYS_personality SYS_statfs SYS_fstatfs SYS_prctl
    SYS_arch_prctl SYS_setrlimit SYS_chroot SYS_mount SYS_umount2 SYS_sethostname SYS_setdomainname SYS_gettid
    SYS_futex SYS_sched_setaffinity SYS_sched_getaffinity SYS_getdents64 SYS_set_tid_address SYS_clock_gettime
    SYS_clock_nanosleep SYS_exit_group SYS_tgkill SYS_waitid SYS_keyctl SYS_openat SYS_mkdirat SYS_mknodat
    SYS_fchownat SYS_newfstatat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_readlinkat
    SYS_setpriority SYS_setresuid SYS_setresgid SYS_fchmodat SYS_faccessat SYS_ppoll SYS_set_robust_list
    SYS_utimensat SYS_signalfd4 SYS_dup3 SYS_pipe2 SYS_prlimit64 SYS_setns SYS_syncfs SYS_getrandom
    SYS_memfd_create SYS_bpf SYS_execveat SYS_statx SYS_pidfd_send_signal SYS_pidfd_open SYS_clone3
    SYS_close_range SYS_openat2 SYS_faccessat2 SYS_mount_setattr SYS_open_tree SYS_move_mount SYS_fsopen
    SYS_fsconfig SYS_fsmount SYS_pivot_root SYS_unshare SYS_seccomp SYS_rseq SYS_add_key SYS_request_key
};

#[cfg(not(target_arch = "x86_64"))]
const NAMES: &[(i64, &str)] = table! {};

/// The call's name, or its number.
pub fn name(number: i64) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("call {number}"), |(_, name)| name.trim_start_matches("SYS_").to_owned())
}
