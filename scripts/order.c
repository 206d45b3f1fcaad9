/* Prints the address of each instruction that a program and its children execute, each once, in order: for
 * scripts/order. A child is followed until it executes another program. x86_64 only, like the machine it is run on. */
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* The program is not position-independent: its code lies in the first 16 MB behind this address. */
#define BASE 0x200000
#define LENGTH (16 << 20)

static unsigned char seen[LENGTH];
static pid_t children[16];
static int born;

/* A created container waits for its start: it is stopped, so that it can be let go of. */
static void let_go(void) {
    for (int i = 0; i < born; i++) {
        if (children[i] == 0 || kill(children[i], SIGSTOP) < 0) continue;
        int status;
        while (waitpid(children[i], &status, __WALL) > 0 && WIFSTOPPED(status) && WSTOPSIG(status) != SIGSTOP)
            ptrace(PTRACE_SINGLESTEP, children[i], 0, 0);
        ptrace(PTRACE_DETACH, children[i], 0, 0);
    }
}

static void forget(pid_t pid) {
    for (int i = 0; i < born; i++)
        if (children[i] == pid) children[i] = 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    int status;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0,
           PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) break;
        if (!WIFSTOPPED(status)) {
            forget(pid);
            if (pid != first) continue;
            let_go();
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_EXEC && pid != first) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            forget(pid);
            continue;
        }
        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
            unsigned long child = 0;
            ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
            if (born < (int)(sizeof children / sizeof *children)) children[born++] = child;
        }
        if (signal == SIGTRAP) {
            long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0) - BASE;
            if (at >= 0 && at < LENGTH && !seen[at]) {
                seen[at] = 1;
                printf("%ld\n", at + BASE);
            }
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
    return 1;
}
