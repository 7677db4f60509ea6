// The calls by which a program sets its handlers and its mask. They reach the kernel unchanged until
// the engine `protect` sits in SIGSEGV's place (src/os/signals.h), and that happens, where
// userfaultfd is refused, when fragmented memory is first given back.
//
// Not among them: sigaltstack, whose stacks are the program's alone (records.c has it, for the cold tier);
// sigwait and its like, which block nothing; siglongjmp, which restores the real mask as it was.
#include "src/os/signals.h"

#include "src/base/compiler.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

__sighandler_t __sysv_signal(int number, __sighandler_t handler);

static atomic_ullong interrupting; // signals after siginterrupt(n, 1): bit n-1

FIRN_EXPORT int sigaction(int number, const struct sigaction *restrict set,
                          struct sigaction *restrict old) {
    return signals_action(number, set, old);
}

FIRN_EXPORT int sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict old) {
    return signals_mask(how, set, old);
}

FIRN_EXPORT int pthread_sigmask(int how, const sigset_t *restrict set, sigset_t *restrict old) {
    int saved = errno;
    int error = signals_mask(how, set, old) == 0 ? 0 : errno;
    errno = saved;
    return error;
}

// A copy, as all of these hand the kernel: it cannot fetch a page that the cold tier took away.
FIRN_EXPORT int sigsuspend(const sigset_t *set) {
    sigset_t copy = *set;
    return signals_suspend(&copy);
}

static __sighandler_t set_handler(int number, __sighandler_t handler, int flags,
                                  bool masks_itself) {
    struct sigaction set = {.sa_handler = handler, .sa_flags = flags};
    struct sigaction old;
    if (handler == SIG_ERR || number < 1 || number >= NSIG) {
        errno = EINVAL;
        return SIG_ERR;
    }
    sigemptyset(&set.sa_mask);
    if (masks_itself) {
        sigaddset(&set.sa_mask, number);
    }
    return signals_action(number, &set, &old) == 0 ? old.sa_handler : SIG_ERR;
}

static __sighandler_t set_bsd(int number, __sighandler_t handler) {
    bool is_interrupting =
        number >= 1 && number < NSIG && (atomic_load(&interrupting) >> (number - 1) & 1) != 0;
    return set_handler(number, handler, is_interrupting ? 0 : SA_RESTART, true);
}

FIRN_EXPORT __sighandler_t signal(int number, __sighandler_t handler) {
    return set_bsd(number, handler);
}

__sighandler_t bsd_signal(int number, __sighandler_t handler);
FIRN_EXPORT __sighandler_t bsd_signal(int number, __sighandler_t handler) {
    return set_bsd(number, handler);
}

FIRN_EXPORT __sighandler_t ssignal(int number, __sighandler_t handler) {
    return set_bsd(number, handler);
}

FIRN_EXPORT __sighandler_t sysv_signal(int number, __sighandler_t handler) {
    return set_handler(number, handler, (int)SA_RESETHAND | SA_NODEFER, false);
}

FIRN_EXPORT __sighandler_t __sysv_signal(int number, __sighandler_t handler) {
    return set_handler(number, handler, (int)SA_RESETHAND | SA_NODEFER, false);
}

FIRN_EXPORT int siginterrupt(int number, int is_on) {
    struct sigaction a;
    if (signals_action(number, NULL, &a) != 0) {
        return -1;
    }
    unsigned long long bit = 1ull << (number - 1);
    if (is_on != 0) {
        atomic_fetch_or(&interrupting, bit);
        a.sa_flags &= ~SA_RESTART;
    } else {
        atomic_fetch_and(&interrupting, ~bit);
        a.sa_flags |= SA_RESTART;
    }
    return signals_action(number, &a, NULL);
}

// The System V calls, and 4.2BSD's with a mask in an int.

static int mask_one(int how, int number, sigset_t *old) {
    sigset_t set;
    sigemptyset(&set);
    return sigaddset(&set, number) == 0 ? signals_mask(how, &set, old) : -1;
}

FIRN_EXPORT int sighold(int number) {
    return mask_one(SIG_BLOCK, number, NULL);
}

FIRN_EXPORT int sigrelse(int number) {
    return mask_one(SIG_UNBLOCK, number, NULL);
}

FIRN_EXPORT int sigignore(int number) {
    struct sigaction set = {.sa_handler = SIG_IGN};
    return signals_action(number, &set, NULL);
}

FIRN_EXPORT __sighandler_t sigset(int number, __sighandler_t handler) {
    sigset_t before;
    struct sigaction set = {.sa_handler = handler}, old;
    bool is_hold = handler == SIG_HOLD;
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    if (signals_action(number, is_hold ? NULL : &set, &old) != 0 ||
        mask_one(is_hold ? SIG_BLOCK : SIG_UNBLOCK, number, &before) != 0) {
        return SIG_ERR;
    }
    return sigismember(&before, number) == 1 ? SIG_HOLD : old.sa_handler;
}

static int mask_bits(int how, int bits, bool is_change) {
    sigset_t set, old;
    sigemptyset(&set);
    for (int number = 1; number < 32; number++) {
        if (((unsigned)bits >> (number - 1) & 1) != 0) {
            sigaddset(&set, number);
        }
    }
    if (signals_mask(how, is_change ? &set : NULL, &old) != 0) {
        return -1;
    }
    unsigned before = 0;
    for (int number = 1; number < 32; number++) {
        before |= sigismember(&old, number) == 1 ? 1u << (number - 1) : 0;
    }
    return (int)before;
}

FIRN_EXPORT int sigblock(int bits) {
    return mask_bits(SIG_BLOCK, bits, true);
}

FIRN_EXPORT int sigsetmask(int bits) {
    return mask_bits(SIG_SETMASK, bits, true);
}

FIRN_EXPORT int siggetmask(void) {
    return mask_bits(SIG_BLOCK, 0, false);
}
