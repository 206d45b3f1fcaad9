//! The seal: the runtime binary as seen from inside a container must be a file that nobody can write (CVE-2019-5736).
//!
//! The verbs that enter a container run from a detached read-only bind of the binary: no `/proc/*/exe` inside then
//! names a writable host file, and since the mount belongs to no namespace it can be neither remounted nor cloned.
//! [`jug_entry`] is the ELF entry point of `jug-oci`. It runs before libc starts and moves the fresh process over to
//! that bind where it stands: each segment is mapped anew from there, and prctl(PR_SET_MM_MAP) makes it `exe`, which
//! the kernel allows only when no mapping of the old file is left (CONFIG_CHECKPOINT_RESTORE). That is a fifth of what
//! a second exec costs. Where the kernel says no, it is execveat(2) of the bind: before libc too, so that its start-up
//! (43 CPUID instructions, each a VM exit in a guest) is paid only once.
//! Nothing here may call libc, nor be something that the compiler could turn into a call of libc: memory functions are
//! not relocated yet. What could not be done, [`ensure`] does later, or refuses.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

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

/// `stack` is what the kernel left for a new program: argc, argv, null, envp, null, auxv (execve(2), System V ABI).
extern "C" fn before_libc(stack: *const usize) {
    // SAFETY: the kernel built this stack and its terminators; only those words and strings are read. The system calls
    // get pointers to constants or to that stack. Volatile reads keep the loops from becoming libc calls.
    unsafe {
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
        let tree = syscall(libc::SYS_open_tree, cwd, exe, clone_cloexec, 0, 0, 0);
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
            0,
        ) == 0
            && !move_over(tree, argc, argv, envp)
        {
            syscall(libc::SYS_execveat, tree, empty, argv as usize, envp as usize, at_empty_path, 0);
        }
        syscall(libc::SYS_close, tree, 0, 0, 0, 0, 0);
    }
}

/// Maps each segment anew from the file of `tree`, and makes that file this process's `exe`. `false`: the kernel will
/// not, and nothing has changed but where the pages come from.
///
/// # Safety
/// Only for a program that has not run yet, so that its data is what the file says, with the stack as execve(2) left it.
unsafe fn move_over(tree: usize, argc: usize, argv: *const usize, envp: *const usize) -> bool {
    // SAFETY: the stack is walked between its terminators; the auxiliary vector has the address and number of this
    // program's own headers; the map is as long as the kernel is told.
    unsafe {
        let auxv = auxiliary_vector(envp);
        let (headers, count) = (auxiliary(auxv, libc::AT_PHDR), auxiliary(auxv, libc::AT_PHNUM));
        let page = auxiliary(auxv, libc::AT_PAGESZ);
        let file = open_again(tree);
        if file < 0 {
            return false;
        }
        let (mut code, mut data) = ((0, 0), (0, 0));
        let mut good = true;
        let mut i = 0;
        while good && i < count {
            let header = (headers as *const libc::Elf64_Phdr).add(i);
            let field = |field: *const u64| field.read_volatile() as usize;
            let flags = (&raw const (*header).p_flags).read_volatile();
            if (&raw const (*header).p_type).read_volatile() == libc::PT_LOAD {
                good = map_anew(header, flags, file as usize, page);
                let start = field(&raw const (*header).p_vaddr);
                let part = (start, start + field(&raw const (*header).p_filesz));
                if flags & libc::PF_X != 0 {
                    code = part;
                } else if flags & libc::PF_W != 0 {
                    data = part;
                }
            }
            i += 1;
        }
        // struct prctl_mm_map (linux/prctl.h). The addresses only stay what they are.
        let program_break = syscall(libc::SYS_brk, 0, 0, 0, 0, 0, 0) as usize;
        let environment = end_of_text(argv.add(argc - 1).read_volatile());
        let last = auxv.sub(2);
        let end = if last < envp { environment } else { end_of_text(last.read_volatile()) };
        let mut map = core::mem::MaybeUninit::<[u64; 13]>::uninit();
        let words = map.as_mut_ptr().cast::<u64>();
        let word = |i: usize, value: usize| words.add(i).write_volatile(value as u64);
        word(0, code.0);
        word(1, code.1);
        word(2, data.0);
        word(3, data.1);
        word(4, program_break);
        word(5, program_break);
        word(6, argv.sub(1) as usize);
        word(7, argv.read_volatile());
        word(8, environment);
        word(9, environment);
        word(10, end);
        // The auxiliary vector stays as well: a null pointer, of size 0. Behind the size, the descriptor.
        word(11, 0);
        word(12, (file as usize) << 32);
        good = good
            && syscall(libc::SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, words as usize, size_of_val(&map), 0, 0)
                == 0;
        syscall(libc::SYS_close, file as usize, 0, 0, 0, 0, 0);
        good
    }
}

const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;

/// One segment, from the same place of `file`; what the kernel clears behind its end is cleared again.
///
/// # Safety
/// As [`move_over`]: the segment must be this program's, untouched, and `file` hold the same bytes.
unsafe fn map_anew(header: *const libc::Elf64_Phdr, flags: u32, file: usize, page: usize) -> bool {
    // SAFETY: the new mapping has the address, the length, the bytes and the protection of the one it replaces.
    unsafe {
        let address = (&raw const (*header).p_vaddr).read_volatile() as usize;
        let offset = (&raw const (*header).p_offset).read_volatile() as usize;
        let in_file = (&raw const (*header).p_filesz).read_volatile() as usize;
        let in_memory = (&raw const (*header).p_memsz).read_volatile() as usize;
        let skew = address & (page - 1);
        let bit = |has: u32, gives: i32| if flags & has != 0 { gives as usize } else { 0 };
        let protection = bit(libc::PF_R, libc::PROT_READ)
            | bit(libc::PF_W, libc::PROT_WRITE)
            | bit(libc::PF_X, libc::PROT_EXEC);
        let start = address - skew;
        let how = (libc::MAP_PRIVATE | libc::MAP_FIXED) as usize;
        if syscall(libc::SYS_mmap, start, in_file + skew, protection, how, file, offset - skew)
            != start as isize
        {
            return false;
        }
        let mut at = address + in_file;
        let end = if in_memory > in_file { at.next_multiple_of(page) } else { at };
        while at < end {
            (at as *mut u8).write_volatile(0);
            at += 1;
        }
        true
    }
}

/// The file of an O_PATH descriptor, open for reading: by its link in /proc.
///
/// # Safety
/// None beyond that of a system call.
unsafe fn open_again(descriptor: usize) -> isize {
    let mut name = core::mem::MaybeUninit::<[u8; 40]>::uninit();
    // SAFETY: 14 bytes, at most 20 digits and a NUL fit into 40.
    unsafe {
        let at = name.as_mut_ptr().cast::<u8>();
        let prefix = c"/proc/self/fd/".as_ptr().cast::<u8>();
        let mut i = 0;
        while i < 14 {
            at.add(i).write_volatile(prefix.add(i).read_volatile());
            i += 1;
        }
        let mut digit = 1;
        while descriptor / digit >= 10 {
            digit *= 10;
        }
        while digit > 0 {
            at.add(i).write_volatile(b'0' + (descriptor / digit % 10) as u8);
            digit /= 10;
            i += 1;
        }
        at.add(i).write_volatile(0);
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
        syscall(libc::SYS_openat, libc::AT_FDCWD as usize, at as usize, flags, 0, 0, 0)
    }
}

/// The address behind the NUL of a text.
///
/// # Safety
/// `text` must be the address of a NUL-terminated string.
unsafe fn end_of_text(text: usize) -> usize {
    let mut at = text as *const u8;
    // SAFETY: nothing behind the NUL is read.
    unsafe {
        while at.read_volatile() != 0 {
            at = at.add(1);
        }
        at.add(1) as usize
    }
}

/// # Safety
/// `envp` must be the environment of a fresh program, followed by its auxiliary vector.
unsafe fn auxiliary_vector(envp: *const usize) -> *const usize {
    let mut at = envp;
    // SAFETY: the environment ends with a null.
    unsafe {
        while at.read_volatile() != 0 {
            at = at.add(1);
        }
        at.add(1)
    }
}

/// The value of a kind of the auxiliary vector (getauxval(3)), 0 when it is not there.
///
/// # Safety
/// `auxv` must be one, ended by AT_NULL (0).
unsafe fn auxiliary(auxv: *const usize, kind: libc::c_ulong) -> usize {
    let mut at = auxv;
    // SAFETY: nothing behind AT_NULL is read.
    unsafe {
        while at.read_volatile() != 0 {
            if at.read_volatile() == kind as usize {
                return at.add(1).read_volatile();
            }
            at = at.add(2);
        }
    }
    0
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
    // SAFETY: AT_EXECFN is the address of a NUL-terminated string.
    unsafe {
        let name = auxiliary(auxiliary_vector(envp), libc::AT_EXECFN);
        name != 0 && begins(name as *const u8, c"/dev/fd/".as_ptr().cast())
    }
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
unsafe fn syscall(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11 (syscall(2)).
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number as isize => ret, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// # Safety
/// As the system call with these arguments.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret;
    // SAFETY: the kernel keeps all registers but x0 (syscall(2)).
    unsafe {
        core::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => ret, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, in("x5") f, options(nostack));
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
    let texts = |list: Vec<std::ffi::OsString>| -> Result<Vec<CString>> {
        list.into_iter().map(|s| super::c_bytes(&s.into_vec())).collect()
    };
    let args = texts(std::env::args_os().collect())?;
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
