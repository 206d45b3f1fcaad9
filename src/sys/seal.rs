//! The seal: the runtime binary as seen from inside a container must be a file that nobody can write (CVE-2019-5736).
//!
//! The verbs that enter a container run from a detached read-only bind of the binary: no `/proc/*/exe` inside then
//! names a writable host file, and since the mount belongs to no namespace it can be neither remounted nor cloned.
//! [`jug_entry`] is the ELF entry point of `jug-oci`. It runs before libc starts and goes through the execveat(2) at
//! once, so that a sealed start pays for libc's start-up only once.
//! It must not call anything of libc, nor anything that the compiler could turn into a call of libc: memory functions
//! are not relocated yet. What it could not do, [`ensure`] does later, or refuses.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{cred, path, process};
use crate::error::{Error, Result};

const SELF_EXE: &str = "/proc/self/exe";
const MEMFD_NAME: &str = "/memfd:";

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl jug_entry",
    ".type jug_entry,@function",
    "jug_entry:",
    "mov rbx, rsp",
    "mov r12, rdx",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {seal}",
    "mov rsp, rbx",
    "mov rdx, r12",
    "xor ebp, ebp",
    "jmp _start",
    seal = sym before_libc,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl jug_entry",
    ".type jug_entry,@function",
    "jug_entry:",
    "mov x19, sp",
    "mov x20, x0",
    "mov x0, sp",
    "bl {seal}",
    "mov sp, x19",
    "mov x0, x20",
    "b _start",
    seal = sym before_libc,
);

#[repr(C)]
struct MountAttr {
    set: u64,
    clr: u64,
    propagation: u64,
    userns: u64,
}

/// Where the kernel left the arguments; null in programs whose entry point is C's.
static STACK: AtomicPtr<usize> = AtomicPtr::new(std::ptr::null_mut());

/// The arguments of this program. Rust's start-up, which `jug-oci` does without, is what `std::env` has them from, but
/// for glibc.
pub fn args() -> Vec<OsString> {
    let stack = STACK.load(Ordering::Relaxed);
    if stack.is_null() {
        return std::env::args_os().collect();
    }
    // SAFETY: the kernel built this stack, argc strings among it, and nobody writes to it.
    let text = |i| unsafe { CStr::from_ptr(stack.add(1 + i).read() as *const libc::c_char) };
    // SAFETY: as above.
    (0..unsafe { stack.read() }).map(|i| OsStr::from_bytes(text(i).to_bytes()).to_owned()).collect()
}

/// `stack` is what the kernel left for a new program: argc, argv, null, envp, null, auxv (execve(2), System V ABI).
extern "C" fn before_libc(stack: *const usize) {
    // SAFETY: the kernel built this stack and its terminators; only those words and strings are read. The system calls
    // get pointers to constants or to that stack. Volatile reads keep the loops from becoming libc calls.
    unsafe {
        STACK.store(stack.cast_mut(), Ordering::Relaxed);
        let argc = stack.read_volatile();
        let argv = stack.add(1);
        let envp = stack.add(argc + 2);
        if !enters_a_container(argc, argv) || is_second_run(envp) {
            return;
        }
        let exe = c"/proc/self/exe".as_ptr() as usize;
        let empty = c"".as_ptr() as usize;
        let cwd = libc::AT_FDCWD as usize;
        let clone_cloexec = 1 | libc::O_CLOEXEC as usize;
        let tree = syscall(libc::SYS_open_tree, cwd, exe, clone_cloexec, 0, 0);
        if tree < 0 {
            return;
        }
        let read_only = MountAttr { set: super::mount::MOUNT_ATTR_RDONLY, clr: 0, propagation: 0, userns: 0 };
        let (tree, at_empty_path) = (tree as usize, libc::AT_EMPTY_PATH as usize);
        if syscall(
            libc::SYS_mount_setattr,
            tree,
            empty,
            at_empty_path,
            (&raw const read_only) as usize,
            size_of::<MountAttr>(),
        ) == 0
        {
            syscall(libc::SYS_execveat, tree, empty, argv as usize, envp as usize, at_empty_path);
        }
        syscall(libc::SYS_close, tree, 0, 0, 0, 0);
    }
}

/// # Safety
/// `argv` must point to `argc` pointers to NUL-terminated strings.
unsafe fn enters_a_container(argc: usize, argv: *const usize) -> bool {
    let mut i = 1;
    while i < argc {
        // SAFETY: i < argc.
        let arg = unsafe { argv.add(i).read_volatile() } as *const u8;
        // SAFETY: arg is NUL-terminated, as are the constants.
        if unsafe {
            same(arg, c"create".as_ptr().cast())
                || same(arg, c"run".as_ptr().cast())
                || same(arg, c"exec".as_ptr().cast())
        } {
            return true;
        }
        i += 1;
    }
    false
}

/// execveat(2) of a bare descriptor makes AT_EXECFN `/dev/fd/N`: then the seal was tried already.
///
/// # Safety
/// `envp` must be the environment of a fresh program, followed by its auxiliary vector.
unsafe fn is_second_run(envp: *const usize) -> bool {
    let mut at = envp;
    // SAFETY: the environment ends with a null, the auxiliary vector with AT_NULL (0).
    unsafe {
        while at.read_volatile() != 0 {
            at = at.add(1);
        }
        at = at.add(1);
        while at.read_volatile() != 0 {
            if at.read_volatile() == libc::AT_EXECFN as usize {
                return begins(at.add(1).read_volatile() as *const u8, c"/dev/fd/".as_ptr().cast());
            }
            at = at.add(2);
        }
    }
    false
}

/// # Safety
/// Both must be NUL-terminated.
unsafe fn same(a: *const u8, b: *const u8) -> bool {
    let mut i = 0;
    loop {
        // SAFETY: no byte behind the first NUL of either string is read.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return false;
        }
        if x == 0 {
            return true;
        }
        i += 1;
    }
}

/// # Safety
/// Both must be NUL-terminated.
unsafe fn begins(text: *const u8, prefix: *const u8) -> bool {
    let mut i = 0;
    loop {
        // SAFETY: no byte behind the first NUL of either string is read.
        let (x, y) = unsafe { (text.add(i).read_volatile(), prefix.add(i).read_volatile()) };
        if y == 0 {
            return true;
        }
        if x != y {
            return false;
        }
        i += 1;
    }
}

/// # Safety
/// As the system call with these arguments.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let ret;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11 (syscall(2)).
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number as isize => ret, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// # Safety
/// As the system call with these arguments.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let ret;
    // SAFETY: the kernel keeps all registers but x0 (syscall(2)).
    unsafe {
        core::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => ret, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, options(nostack));
    }
    ret
}

/// Makes sure that this process runs from a file that no container can write, or that it may not matter; else an error.
///
/// The rare callers that may not make the mount (no CAP_SYS_ADMIN) get a sealed copy in memory, unless the binary
/// belongs to somebody whom an unprivileged container can never be.
pub fn ensure() -> Result<()> {
    let exe = Path::new(SELF_EXE);
    if path::on_read_only_mount(exe) {
        return Ok(());
    }
    let file = path::open(exe, libc::O_RDONLY)
        .map_err(|e| e.why("/proc is not mounted here").next("mount a proc file system on /proc"))?;
    if process::is_sealed_memfd(file.as_fd()) {
        return Ok(());
    }
    let owner = path::stat(file.as_fd(), Path::new(""))?.st_uid;
    if cred::euid() != 0 && owner != cred::euid() {
        return Ok(());
    }
    if path::readlinkat(super::cwd(), exe)
        .is_ok_and(|target| target.to_string_lossy().starts_with(MEMFD_NAME))
    {
        return Err(Error::new("the runtime binary runs from a memory file that is not sealed"));
    }
    let copy = process::sealed_copy(file.as_fd())?;
    let texts = |list: Vec<OsString>| -> Result<Vec<CString>> {
        list.into_iter().map(|s| super::c_bytes(&s.into_vec())).collect()
    };
    let args = texts(args())?;
    let env = texts(
        std::env::vars_os()
            .map(|(mut key, value)| {
                key.push("=");
                key.push(value);
                key
            })
            .collect(),
    )?;
    Err(process::execve_fd(copy.as_fd(), &args, &env).context("sealing the runtime binary"))
}
