// The program's handling of SIGSEGV, while Firn's handler sits in its place (engine `protect` of
// os/fault.h and os/veil.h, and `signal` of the cold tier, cold/mark.h; else nothing here is ever in use, and each call
// goes straight to the kernel).
//
// A fault that is not ours reaches the program as if Firn were absent: its handler, with the flags and
// the mask it asked for, or the default action with the right address in the core dump.
//
// SIGSEGV must never be blocked for real while the heap has pages that only a handler can open. So
// masks are kept in two forms. The program's: as it set and reads it. The real one: without SIGSEGV,
// and with the shadow signal instead, which no program uses; what a siglongjmp or the return from a
// handler restores is then right without our help.
#ifndef FIRN_OS_SIGNALS_H
#define FIRN_OS_SIGNALS_H

#include "src/base/compiler.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

// Whether a fault at `address` was ours and is dealt with. In the context of the signal.
typedef bool signals_claim_fn(uintptr_t address);

// For a claim of such a fault: its page may have been made accessible between the fault and our look at its state. So a
// touch that nothing explains is tried again; unless it was tried already and no page has become accessible since (`epoch`
// has not grown), or that went on for too long: that one the program has to answer for. *last: one a thread, of each claim.
struct signals_touch {
    uintptr_t address; // 0: none
    uint64_t epoch;
    unsigned count;
};
bool signals_is_late(struct signals_touch *last, uintptr_t address, uint64_t epoch);

// Takes SIGSEGV over, and from now on asks `claim`, too: of two at most. Idempotent. Preserves errno.
void signals_arm(signals_claim_fn *claim);
// Whether our handler is in its place and no thread blocks SIGSEGV; a handler that was put there past
// the functions below (by a raw system call) becomes the program's, and ours is put back. False:
// nothing may be protected now. Looks at other threads once a second at most. Preserves errno.
bool signals_is_ready(void);
// Whether a thread blocks it at this moment (and not only while it starts or ends), past the functions below: one of
// libc's helpers, which it starts with every signal blocked. For who keeps pages protected for long. Looks at all
// threads each time.
bool signals_is_blocked(void);
// The handler and what the program wanted are inherited. Until this is called the child's calls below
// go straight to the kernel.
void signals_after_fork_in_child(void);
// The same in a child that no handler of a fork saw, by any thread of it.
void signals_after_unseen_fork(void);
// Times another handler was found in our place.
uint64_t signals_replaced(void);

// sigaction, sigprocmask and sigsuspend, for the exported functions: errno, and -1 for an error.
int signals_action(int number, const struct sigaction *set, struct sigaction *old);
int signals_mask(int how, const sigset_t *set, sigset_t *old);
int signals_suspend(const sigset_t *set);
// In a new thread, whose mask may have come with its attributes: SIGSEGV is not blocked for real.
void signals_adopt(void);
// What to give to a call that sleeps with another mask (ppoll and its like), after which a handler may run with that:
// the mask, or *real without SIGSEGV.
const sigset_t *signals_while_asleep(const sigset_t *mask, sigset_t *real);

#endif
