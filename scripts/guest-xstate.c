/* Lets user-mode Linux 6.1 run on CPUs whose register state is larger than it knows, such as those with AMX.
 *
 * linux.uml saves a guest process's vector registers in 2,696 bytes, and the host refuses to take back less than the
 * whole state: "userspace - ptrace set fp regs failed, errno = 14". This library stands before ptrace(2) and fills up
 * what is missing: the components that do not fit are declared to be in their initial state, which they are, since a
 * guest process has no way to ask for them. Loaded by scripts/guest with LD_PRELOAD. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE_BV 512 /* where the XSAVE header names the components in use (Intel SDM vol. 1, 13.4.2) */
#define AMX (3ull << 17)

/* Static, since the callers' stacks are small; only one thread of linux.uml traces. */
static char whole[1 << 16] __attribute__((aligned(64)));
static size_t size;

static long set_xstate(long pid, const struct iovec *part) {
    if (!size) {
        struct iovec all = {whole, sizeof whole};
        long rc = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all);
        if (rc < 0) return rc;
        size = all.iov_len;
    }
    if (part->iov_len >= size) return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, part);
    memset(whole, 0, size);
    memcpy(whole, part->iov_base, part->iov_len);
    uint64_t used;
    memcpy(&used, whole + XSTATE_BV, sizeof used);
    used &= ~AMX;
    memcpy(whole + XSTATE_BV, &used, sizeof used);
    struct iovec all = {whole, size};
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...) {
    __builtin_va_list args;
    __builtin_va_start(args, request);
    long pid = __builtin_va_arg(args, int);
    void *addr = __builtin_va_arg(args, void *);
    void *data = __builtin_va_arg(args, void *);
    __builtin_va_end(args);
    if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE) return set_xstate(pid, data);
    /* glibc hands back what PEEK reads; the raw call stores it where data points. */
    long word;
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, addr, &word) < 0 ? -1 : word;
    return syscall(SYS_ptrace, request, pid, addr, data);
}
