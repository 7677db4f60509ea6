#include "src/os/watch.h"

#include "src/os/sys.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

// libc's own sigaction, which the program's calls do not reach while we export one.
int __sigaction(int number, const struct sigaction *set, struct sigaction *old);

enum { ERROR_WRITE = 2 };

static _Atomic(watch_fn *) watcher;
static struct sigaction ours; // written before `watcher` is

// Back to the instruction with the default action: it faults again, and the kernel ends the process
// with the address and the code that belong to it. A signal that somebody sent does not repeat.
static void end_by_default(siginfo_t *info) {
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    (void)__sigaction(SIGSEGV, &standard, NULL);
    if (info->si_code <= 0) {
        syscall(SYS_rt_tgsigqueueinfo, sys_process_id(), sys_thread_id(), SIGSEGV, info);
    }
}

static void on_fault(int number, siginfo_t *info, void *opaque) {
    const int saved = errno;
    const ucontext_t *context = opaque;
    (void)number;
    watch_fn *fn = atomic_load_explicit(&watcher, memory_order_acquire);
    if (info->si_code > 0 && fn != NULL) {
        const struct watch_fault fault = {
            .address = (uintptr_t)info->si_addr,
            .pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP],
            .is_write = (context->uc_mcontext.gregs[REG_ERR] & ERROR_WRITE) != 0,
        };
        fn(&fault);
    }
    end_by_default(info);
    errno = saved;
}

bool watch_is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_fault;
}

static bool is_default(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) == 0 && action->sa_handler == SIG_DFL;
}

// acquire: pairs with the release in watch_install.
const struct sigaction *watch_instead_of(const struct sigaction *set) {
    bool is_watching = atomic_load_explicit(&watcher, memory_order_acquire) != NULL;
    return is_watching && set != NULL && is_default(set) ? &ours : set;
}

bool watch_install(watch_fn *fn) {
    const int saved = errno;
    struct sigaction now;
    bool is_there = false;
    if (atomic_load_explicit(&watcher, memory_order_acquire) == NULL) {
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
        atomic_store_explicit(&watcher, fn, memory_order_release);
    }
    if (__sigaction(SIGSEGV, NULL, &now) == 0) {
        is_there =
            watch_is_ours(&now) || (is_default(&now) && __sigaction(SIGSEGV, &ours, NULL) == 0);
    }
    errno = saved;
    return is_there;
}
