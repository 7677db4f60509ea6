#include "src/os/signals.h"

#include "src/os/clock.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/os/threads.h"
#include "src/os/watch.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// libc's own, under names that we do not export: the program's calls come here, ours get there, and
// what was a cancellation point stays one.
int __sigaction(int number, const struct sigaction *set, struct sigaction *old);
int __sigsuspend(const sigset_t *set);

enum {
    SHADOW = SIGSTKFLT, // "unused" by the kernel since ever
    SIGNALS = 64,
    RESCAN_LEAST_NS = 4000000,
    RESCAN_MOST_NS = 1000000000,
    REPLACED_MOST = 100 // a runtime that insists on its place: leave it
};

// A kernel mask: bit n-1 is signal n.
#define BIT(number) ((uint64_t)1 << ((number)-1))
#define ALL_BUT_FAULTS (~(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP)))
// glibc keeps these for itself and takes them out of every mask.
#define RESERVED (BIT(32) | BIT(33))

enum { CLAIMS = 2 };
static _Atomic(signals_claim_fn *) claim_fns[CLAIMS];
static _Atomic int armed_process; // 0: not armed

// The program's action for SIGSEGV, and which other actions' masks name SIGSEGV or the shadow.
// Written under action_lock; read by handlers through `version`, which is odd meanwhile.
static _Atomic uint32_t action_lock;
static _Atomic uint32_t version;
static struct {
    _Atomic uintptr_t handler;
    _Atomic int flags;
    _Atomic uint64_t mask;
} wanted;
static uint64_t masks_fault, masks_shadow;

static atomic_bool is_scanned;
static _Atomic uint64_t rescan_ns, rescan_step_ns; // when to look again, and how long after that
static _Atomic uint64_t replaced;

// What the real mask's shadow bit stands for in this thread. Without that bit it is void.
static FIRN_TLS struct {
    bool is_known, blocks_fault, blocks_shadow;
    bool is_pending; // a SIGSEGV that somebody sent, not a fault, while it was blocked
} thread;

// ---- masks ------------------------------------------------------------------------------------

static uint64_t bits_of(const sigset_t *set) {
    uint64_t bits;
    memcpy(&bits, set, sizeof bits);
    return bits;
}

static void put_bits(sigset_t *set, uint64_t bits) {
    memcpy(set, &bits, sizeof bits);
}

static int raw_mask(int how, const uint64_t *set, uint64_t *old) {
    return (int)syscall(SYS_rt_sigprocmask, how, set, old, sizeof *set);
}

static uint64_t to_real(uint64_t program) {
    return (program & BIT(SIGSEGV)) != 0 ? (program & ~BIT(SIGSEGV)) | BIT(SHADOW) : program;
}

// A thread that was created with the shadow in its mask knows nothing about it: its creator blocked
// everything, most likely.
static uint64_t to_program(uint64_t real) {
    if ((real & BIT(SHADOW)) == 0) {
        return real;
    }
    bool blocks_fault = !thread.is_known || thread.blocks_fault;
    bool blocks_shadow = !thread.is_known || thread.blocks_shadow;
    return (real & ~BIT(SHADOW)) | (blocks_fault ? BIT(SIGSEGV) : 0) |
           (blocks_shadow ? BIT(SHADOW) : 0);
}

static void note_mask(uint64_t program) {
    thread.is_known = true;
    thread.blocks_fault = (program & BIT(SIGSEGV)) != 0;
    thread.blocks_shadow = (program & BIT(SHADOW)) != 0;
}

// A child of vfork has its own mask and actions and our memory: what it sets is not ours to note.
static bool is_elsewhere(void) {
    return atomic_load_explicit(&armed_process, memory_order_acquire) != sys_process_id();
}

static int change(int how, uint64_t now, uint64_t set, uint64_t *next) {
    switch (how) {
    case SIG_BLOCK:
        *next = now | set;
        return 0;
    case SIG_UNBLOCK:
        *next = now & ~set;
        return 0;
    case SIG_SETMASK:
        *next = set;
        return 0;
    default:
        errno = EINVAL;
        return -1;
    }
}

// Nothing may come between the note and the mask: a handler would see one without the other.
static int mask_armed(int how, const sigset_t *set, sigset_t *old) {
    const uint64_t everything = ALL_BUT_FAULTS;
    uint64_t real;
    raw_mask(SIG_SETMASK, &everything, &real);
    uint64_t now = to_program(real);
    uint64_t next = now;
    int result = set != NULL ? change(how, now, bits_of(set) & ~RESERVED, &next) : 0;
    if (set != NULL && result == 0) {
        note_mask(next);
        real = to_real(next);
    }
    bool is_due = thread.is_pending && (next & BIT(SIGSEGV)) == 0;
    if (is_due) {
        thread.is_pending = false;
        syscall(SYS_tgkill, sys_process_id(), sys_thread_id(), SIGSEGV);
    }
    raw_mask(SIG_SETMASK, &real, NULL);
    if (old != NULL && result == 0) {
        memset(old, 0, sizeof *old);
        put_bits(old, now);
    }
    return result;
}

int signals_mask(int how, const sigset_t *set, sigset_t *old) {
    uint64_t asked = set != NULL ? bits_of(set) & ~RESERVED : 0;
    uint64_t before = 0;
    if (atomic_load_explicit(&armed_process, memory_order_acquire) != 0 && !is_elsewhere()) {
        return mask_armed(how, set, old);
    }
    int result = raw_mask(how, set != NULL ? &asked : NULL, &before);
    if (old != NULL && result == 0) {
        memset(old, 0, sizeof *old);
        put_bits(old, before);
    }
    // Armed by another thread in between, which may not have seen what we did.
    if (result == 0 && set != NULL && (asked & BIT(SIGSEGV)) != 0 &&
        atomic_load_explicit(&armed_process, memory_order_acquire) != 0 && !is_elsewhere()) {
        sigset_t again;
        memset(&again, 0, sizeof again);
        put_bits(&again, asked);
        return mask_armed(how, &again, NULL);
    }
    return result;
}

// A handler that runs meanwhile sees the mask of the call. One that leaves by siglongjmp leaves a note
// behind that the mask it restores makes void.
int signals_suspend(const sigset_t *set) {
    if (atomic_load_explicit(&armed_process, memory_order_acquire) == 0 || is_elsewhere()) {
        return __sigsuspend(set);
    }
    sigset_t real = *set;
    bool is_known = thread.is_known, blocks_fault = thread.blocks_fault;
    bool blocks_shadow = thread.blocks_shadow;
    put_bits(&real, to_real(bits_of(set)));
    note_mask(bits_of(set));
    int result = __sigsuspend(&real);
    thread.is_known = is_known;
    thread.blocks_fault = blocks_fault;
    thread.blocks_shadow = blocks_shadow;
    return result;
}

void signals_adopt(void) {
    uint64_t real;
    if (atomic_load_explicit(&armed_process, memory_order_acquire) != 0 &&
        raw_mask(SIG_SETMASK, NULL, &real) == 0 && (real & BIT(SIGSEGV)) != 0) {
        sigset_t set;
        memset(&set, 0, sizeof set);
        put_bits(&set, real);
        (void)signals_mask(SIG_SETMASK, &set, NULL);
    }
}

const sigset_t *signals_while_asleep(const sigset_t *mask, sigset_t *real) {
    if (mask == NULL || (bits_of(mask) & BIT(SIGSEGV)) == 0 ||
        atomic_load_explicit(&armed_process, memory_order_acquire) == 0) {
        return mask;
    }
    memset(real, 0, sizeof *real);
    put_bits(real, bits_of(mask) & ~BIT(SIGSEGV));
    return real;
}

// ---- actions ------------------------------------------------------------------------------------

static void on_fault(int number, siginfo_t *info, void *context);

static bool is_handler(const struct sigaction *a) {
    return a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN;
}

// With every other signal blocked: who holds it is never interrupted by one that wants it.
static uint64_t lock_actions(void) {
    const uint64_t everything = ALL_BUT_FAULTS;
    uint64_t before;
    raw_mask(SIG_SETMASK, &everything, &before);
    while (atomic_exchange_explicit(&action_lock, 1, memory_order_acquire) != 0) {
        sys_yield();
    }
    return before;
}

static void unlock_actions(uint64_t before) {
    atomic_store_explicit(&action_lock, 0, memory_order_release);
    raw_mask(SIG_SETMASK, &before, NULL);
}

static void set_wanted(const struct sigaction *a) {
    atomic_fetch_add_explicit(&version, 1, memory_order_acq_rel);
    atomic_store_explicit(&wanted.handler, (uintptr_t)a->sa_handler, memory_order_release);
    atomic_store_explicit(&wanted.flags, a->sa_flags, memory_order_release);
    atomic_store_explicit(&wanted.mask, bits_of(&a->sa_mask), memory_order_release);
    atomic_fetch_add_explicit(&version, 1, memory_order_release);
}

// Acquire on each field: the second look at the version comes after them.
static struct sigaction get_wanted(void) {
    struct sigaction copy;
    uint32_t before;
    memset(&copy, 0, sizeof copy);
    do {
        before = atomic_load_explicit(&version, memory_order_acquire);
        uintptr_t handler = atomic_load_explicit(&wanted.handler, memory_order_acquire);
        memcpy(&copy.sa_handler, &handler, sizeof handler);
        copy.sa_flags = atomic_load_explicit(&wanted.flags, memory_order_acquire);
        put_bits(&copy.sa_mask, atomic_load_explicit(&wanted.mask, memory_order_acquire));
    } while (before % 2 != 0 || before != atomic_load_explicit(&version, memory_order_relaxed));
    return copy;
}

// Ours, on the stack that the program's own would have. Nothing interrupts it until it is known that the fault is
// the program's: run_handler sets the mask of that.
static int install(const struct sigaction *program) {
    struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    put_bits(&ours.sa_mask, ALL_BUT_FAULTS);
    if (is_handler(program)) {
        ours.sa_flags |= program->sa_flags & (SA_ONSTACK | SA_RESTART);
    } else {
        ours.sa_flags |= SA_ONSTACK | SA_RESTART;
    }
    return __sigaction(SIGSEGV, &ours, NULL);
}

static bool is_ours(const struct sigaction *a) {
    return (a->sa_flags & SA_SIGINFO) != 0 && a->sa_sigaction == on_fault;
}

static void note_action(int number, uint64_t mask, uint64_t *in, int masked) {
    *in = (mask & BIT(masked)) != 0 ? *in | BIT(number) : *in & ~BIT(number);
}

static int act_on_fault(const struct sigaction *set, struct sigaction *old) {
    struct sigaction before = get_wanted();
    if (set != NULL) {
        set_wanted(set);
        if (install(set) != 0) {
            return -1;
        }
    }
    if (old != NULL) {
        *old = before;
    }
    return 0;
}

static int act_on_other(int number, const struct sigaction *set, struct sigaction *old) {
    struct sigaction real, before;
    if (set != NULL) {
        real = *set;
        put_bits(&real.sa_mask, to_real(bits_of(&set->sa_mask)));
    }
    if (__sigaction(number, set != NULL ? &real : NULL, &before) != 0) {
        return -1;
    }
    if (old != NULL) {
        uint64_t mask = bits_of(&before.sa_mask);
        if ((masks_fault & BIT(number)) != 0) {
            mask |= BIT(SIGSEGV);
            mask &= (masks_shadow & BIT(number)) != 0 ? ~(uint64_t)0 : ~BIT(SHADOW);
        }
        *old = before;
        put_bits(&old->sa_mask, mask);
    }
    if (set != NULL) {
        note_action(number, bits_of(&set->sa_mask), &masks_fault, SIGSEGV);
        note_action(number, bits_of(&set->sa_mask), &masks_shadow, SHADOW);
    }
    return 0;
}

// To the program it is what it stands for.
static void hide_watcher(struct sigaction *old) {
    if (old != NULL && watch_is_ours(old)) {
        memset(old, 0, sizeof *old);
        old->sa_handler = SIG_DFL;
    }
}

// A child of vfork that sets what an exec would set anyway touches our memory until then.
static bool is_reset_in_vfork(int number, const struct sigaction *set) {
    return number == SIGSEGV && set != NULL && set->sa_handler == SIG_DFL &&
           atomic_load_explicit(&armed_process, memory_order_acquire) != 0 && is_elsewhere();
}

int signals_action(int number, const struct sigaction *set, struct sigaction *old) {
    if (is_reset_in_vfork(number, set)) {
        set = NULL;
    }
    if (number == SIGSEGV) {
        set = watch_instead_of(set);
    }
    if (number < 1 || number > SIGNALS ||
        atomic_load_explicit(&armed_process, memory_order_acquire) == 0 || is_elsewhere()) {
        int result = __sigaction(number, set, old);
        hide_watcher(result == 0 ? old : NULL);
        return result;
    }
    uint64_t mask = lock_actions();
    int result = number == SIGSEGV ? act_on_fault(set, old) : act_on_other(number, set, old);
    unlock_actions(mask);
    hide_watcher(result == 0 ? old : NULL);
    return result;
}

// ---- a fault that is not ours -------------------------------------------------------------------

// Back to the instruction, with the default action: it faults again, and the kernel ends the process
// with the address and the code that belong to it. What was sent by somebody is sent again.
static void end_by_default(siginfo_t *info) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    (void)__sigaction(SIGSEGV, &standard, NULL);
    if (info->si_code <= 0) {
        syscall(SYS_rt_tgsigqueueinfo, sys_process_id(), sys_thread_id(), SIGSEGV, info);
    }
}

static void call_program(const struct sigaction *a, siginfo_t *info, ucontext_t *context) {
    if ((a->sa_flags & SA_SIGINFO) != 0) {
        a->sa_sigaction(SIGSEGV, info, context);
    } else {
        a->sa_handler(SIGSEGV);
    }
}

// The kernel would take the handler away before it runs.
static void reset(void) {
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    uint64_t mask = lock_actions();
    set_wanted(&standard);
    (void)install(&standard);
    unlock_actions(mask);
}

static void run_handler(const struct sigaction *a, siginfo_t *info, ucontext_t *context) {
    const uint64_t everything = ALL_BUT_FAULTS;
    uint64_t before = to_program(bits_of(&context->uc_sigmask));
    uint64_t during = before | bits_of(&a->sa_mask);
    if ((a->sa_flags & SA_NODEFER) == 0) {
        during |= BIT(SIGSEGV);
    }
    if (((unsigned)a->sa_flags & (unsigned)SA_RESETHAND) != 0) {
        reset();
    }
    put_bits(&context->uc_sigmask, before);
    note_mask(during);
    uint64_t real = to_real(during);
    raw_mask(SIG_SETMASK, &real, NULL);
    call_program(a, info, context);
    // It may have changed the mask that is restored on return.
    raw_mask(SIG_SETMASK, &everything, NULL);
    uint64_t after = bits_of(&context->uc_sigmask);
    note_mask(after);
    put_bits(&context->uc_sigmask, to_real(after));
}

static void pass_on(siginfo_t *info, ucontext_t *context) {
    struct sigaction a = get_wanted();
    bool is_sent = info->si_code <= 0;
    bool is_blocked = (to_program(bits_of(&context->uc_sigmask)) & BIT(SIGSEGV)) != 0;
    if (is_sent && is_blocked) {
        thread.is_pending = true;
    } else if (is_sent && a.sa_handler == SIG_IGN) {
        return;
    } else if (is_blocked || !is_handler(&a)) {
        end_by_default(info); // also a fault that is ignored or blocked: the kernel's rule
    } else {
        run_handler(&a, info, context);
    }
}

bool signals_is_late(struct signals_touch *last, uintptr_t address, uint64_t epoch) {
    enum { MOST = 64 };
    if (last->address != address) {
        last->address = address;
        last->count = 0;
    } else if (last->epoch == epoch || last->count >= MOST) {
        last->address = 0;
        return false;
    }
    last->epoch = epoch;
    last->count++;
    return true;
}

static bool is_claimed(uintptr_t address) {
    for (unsigned i = 0; i < CLAIMS; i++) {
        signals_claim_fn *claim = atomic_load_explicit(&claim_fns[i], memory_order_acquire);
        if (claim != NULL && claim(address)) {
            return true;
        }
    }
    return false;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    const int saved = errno;
    (void)number;
    bool is_dealt_with = info->si_code > 0 && is_claimed((uintptr_t)info->si_addr);
    errno = saved;
    if (!is_dealt_with) {
        pass_on(info, context);
    }
}

// ---- taking over ----------------------------------------------------------------------------------

// Actions set before us: their masks go real.
static void convert_actions(void) {
    for (int number = 1; number <= SIGNALS; number++) {
        struct sigaction a;
        if (number != SIGSEGV && __sigaction(number, NULL, &a) == 0 && is_handler(&a) &&
            (bits_of(&a.sa_mask) & BIT(SIGSEGV)) != 0) {
            (void)act_on_other(number, &a, NULL);
        }
    }
}

// With action_lock.
static void add_claim(signals_claim_fn *claim) {
    unsigned i = 0;
    while (i < CLAIMS - 1 && claim_fns[i] != NULL && claim_fns[i] != claim) {
        i++;
    }
    atomic_store_explicit(&claim_fns[i], claim, memory_order_release);
}

void signals_arm(signals_claim_fn *claim) {
    const int saved = errno;
    uint64_t mask = lock_actions();
    add_claim(claim);
    if (atomic_load_explicit(&armed_process, memory_order_relaxed) == 0) {
        struct sigaction program;
        atomic_store_explicit(&armed_process, sys_process_id(), memory_order_seq_cst);
        convert_actions();
        if (__sigaction(SIGSEGV, NULL, &program) == 0) {
            set_wanted(&program);
            (void)install(&program);
        }
    }
    unlock_actions(mask);
    errno = saved;
}

static bool is_in_place(void) {
    struct sigaction now;
    if (__sigaction(SIGSEGV, NULL, &now) != 0) {
        return false;
    }
    if (is_ours(&now)) {
        return true;
    }
    if (atomic_fetch_add_explicit(&replaced, 1, memory_order_relaxed) >= REPLACED_MOST) {
        return false;
    }
    uint64_t mask = lock_actions();
    // DFL where the program wanted a handler is our own doing, for a fault that did not come again.
    struct sigaction program = get_wanted();
    if (is_handler(&now) || !is_handler(&program)) {
        program = now;
        set_wanted(&program);
    }
    bool is_done = install(&program) == 0;
    unlock_actions(mask);
    return is_done;
}

// Threads that blocked SIGSEGV before we were armed, and those they created. From then on none can, but
// for the moments in which libc blocks everything: hence the first looks follow each other closely.
static bool is_unblocked(void) {
    if (atomic_load_explicit(&is_scanned, memory_order_acquire)) {
        return true;
    }
    uint64_t now = clock_coarse_ns();
    uint64_t step = atomic_load_explicit(&rescan_step_ns, memory_order_relaxed);
    if (now < atomic_load_explicit(&rescan_ns, memory_order_relaxed)) {
        return false;
    }
    step = step == 0 ? RESCAN_LEAST_NS : step < RESCAN_MOST_NS ? step * 2 : RESCAN_MOST_NS;
    atomic_store_explicit(&rescan_step_ns, step, memory_order_relaxed);
    atomic_store_explicit(&rescan_ns, now + step, memory_order_relaxed);
    bool is_clean = !threads_any_blocks(BIT(SIGSEGV));
    atomic_store_explicit(&is_scanned, is_clean, memory_order_release);
    return is_clean;
}

bool signals_is_ready(void) {
    const int saved = errno;
    bool is_ready = atomic_load_explicit(&armed_process, memory_order_acquire) != 0 &&
                    !is_elsewhere() && is_unblocked() && is_in_place();
    errno = saved;
    return is_ready;
}

bool signals_is_blocked(void) {
    enum { TRIES = 4, BETWEEN_NS = 8000000 };
    bool is_any = threads_any_blocks(BIT(SIGSEGV));
    for (unsigned i = 1; i < TRIES && is_any; i++) {
        thread_sleep(BETWEEN_NS);
        is_any = threads_any_blocks(BIT(SIGSEGV));
    }
    return is_any;
}

void signals_after_fork_in_child(void) {
    if (atomic_load_explicit(&armed_process, memory_order_relaxed) == 0) {
        return;
    }
    uint32_t even = (atomic_load_explicit(&version, memory_order_relaxed) + 1) & ~1u;
    atomic_store_explicit(&version, even, memory_order_relaxed);
    atomic_store_explicit(&action_lock, 0, memory_order_relaxed);
    atomic_store_explicit(&is_scanned, false, memory_order_relaxed);
    atomic_store_explicit(&rescan_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&rescan_step_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&armed_process, sys_process_id(), memory_order_release);
}

void signals_after_unseen_fork(void) {
    if (is_elsewhere()) {
        signals_after_fork_in_child();
    }
}

uint64_t signals_replaced(void) {
    return atomic_load_explicit(&replaced, memory_order_relaxed);
}
