// Which ranges are staged is a small table that the SIGSEGV handler reads; the engines with a
// userfaultfd need it only to undo their work in a forked child.
//
// Order, on which the handler relies: a range is in the table before it is protected, and is accessible
// again before it leaves the table and the epoch moves on.
#include "src/os/fault.h"

#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/futex.h"
#include "src/os/kernel.h"
#include "src/os/map.h"
#include "src/os/pin.h"
#include "src/os/signals.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/os/uffd.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

enum { OWN_STACK_BYTES = 32 << 10 };

struct staged {
    _Atomic uintptr_t address; // 0: free
    _Atomic size_t bytes;
};

static struct staged staged[FAULT_RANGES];
static _Atomic unsigned ranges; // in the table
// Grows with every range that stops being staged; who waits, waits for that.
static _Atomic uint32_t epoch = 1;
static _Atomic uint32_t waiters;

static enum fault_engine wanted;
static _Atomic int engine_now; // enum fault_engine
static atomic_bool is_starting;
static uintptr_t managed_base;
static size_t managed_bytes;

static _Atomic uint64_t stages, refused, waits;

static FIRN_TLS struct signals_touch last_touch;

// ---- processes ----------------------------------------------------------------------------------

// A copy of the process has no thread that would publish what is staged. The copy is told from the
// original by a page that the kernel wipes, where it can; a vfork child shares it, and is not taken
// for one. Else by the process number, which a vfork child must not be judged by: it waits, as its
// parent would.
static _Alignas(FIRN_PAGE) union {
    _Atomic uint32_t is_original;
    char page[FIRN_PAGE];
} process;
static bool has_mark;

static void mark_process(void) {
    has_mark = has_mark || map_wipe_on_fork((uintptr_t)&process, FIRN_PAGE);
    atomic_store_explicit(&process.is_original, 1, memory_order_relaxed);
}

static bool is_copy(void) {
    return has_mark && atomic_load_explicit(&process.is_original, memory_order_relaxed) == 0;
}

// Order matters: with the descriptor still open an ioctl would act on the parent.
void fault_after_fork_in_child(void) {
    const int saved = errno;
    enum fault_engine engine = fault_engine();
    if (engine == FAULT_NONE) {
        return;
    }
    if (engine != FAULT_PROTECT) {
        uffd_close(); // its protection does not reach the child
    }
    signals_after_fork_in_child();
    pin_after_fork_in_child();
    for (unsigned i = 0; i < FAULT_RANGES; i++) {
        uintptr_t address = atomic_load_explicit(&staged[i].address, memory_order_relaxed);
        size_t bytes = atomic_load_explicit(&staged[i].bytes, memory_order_relaxed);
        if (address != 0 && bytes != 0 && engine == FAULT_PROTECT) {
            // Refused: it is a mapping that children do not get.
            map_allow_writes(address, bytes);
        }
        atomic_store_explicit(&staged[i].address, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&ranges, 0, memory_order_relaxed);
    atomic_store_explicit(&waiters, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&epoch, 1, memory_order_relaxed);
    atomic_store_explicit(&is_starting, false, memory_order_relaxed);
    if (engine != FAULT_PROTECT) {
        atomic_store_explicit(&engine_now, FAULT_NONE, memory_order_relaxed);
    }
    mark_process();
    errno = saved;
}

// ---- the handler of `protect` ---------------------------------------------------------------------

// Sequentially consistent: against leave and pin_is_any, see there.
static bool is_staged(uintptr_t address, size_t bytes) {
    for (unsigned i = 0; i < FAULT_RANGES && atomic_load(&ranges) > 0; i++) {
        uintptr_t start = atomic_load(&staged[i].address);
        size_t n = atomic_load(&staged[i].bytes);
        if (start != 0 && start < address + bytes && address < start + n) {
            return true;
        }
    }
    return false;
}

bool fault_is_staged(uintptr_t address, size_t bytes) {
    return is_staged(address, bytes);
}

// False when no part of the range is staged.
static bool wait_while_staged(uintptr_t address, size_t bytes) {
    bool has_waited = false;
    for (;;) {
        uint32_t seen = atomic_load(&epoch);
        if (!is_staged(address, bytes)) {
            return has_waited;
        }
        has_waited = true;
        atomic_fetch_add_explicit(&waits, 1, memory_order_relaxed);
        atomic_fetch_add(&waiters, 1);
        futex_wait(&epoch, seen);
        atomic_fetch_sub(&waiters, 1);
    }
}

// signals_claim_fn
static bool claim(uintptr_t address) {
    if (address - managed_base >= managed_bytes) {
        return false;
    }
    if (is_copy()) {
        fault_after_fork_in_child();
        return true;
    }
    if (wait_while_staged(address, 1)) {
        last_touch.address = 0;
        return true;
    }
    return signals_is_late(&last_touch, address, atomic_load(&epoch));
}

void fault_wait(uintptr_t address, size_t bytes) {
    if (atomic_load(&ranges) == 0 || fault_engine() == FAULT_EVENT) {
        return;
    }
    if (is_copy()) {
        fault_after_fork_in_child();
    }
    (void)wait_while_staged(address, bytes);
}

// ---- start --------------------------------------------------------------------------------------

static const char *const names[] = {
    [FAULT_NONE] = "none",
    [FAULT_EVENT] = "event",
    [FAULT_SIGNAL] = "signal",
    [FAULT_PROTECT] = "protect",
};

const char *fault_engine_name(enum fault_engine engine) {
    return engine <= FAULT_PROTECT ? names[engine] : names[FAULT_NONE];
}

void fault_choose(enum fault_engine engine) {
    wanted = engine;
}

enum fault_engine fault_engine(void) {
    return (enum fault_engine)atomic_load_explicit(&engine_now, memory_order_acquire);
}

static bool try_descriptor(bool is_full) {
    if (!caps_has(is_full ? CAP_FAULT_EVENT : CAP_FAULT_SIGNAL) || !uffd_open(is_full)) {
        return false;
    }
    // A sparse reservation has holes, in which others may have settled: there each range is registered
    // when it is first staged.
    uffd_register(managed_base, managed_bytes);
    return true;
}

static enum fault_engine probe(void) {
    if (wanted <= FAULT_EVENT && try_descriptor(true)) {
        return FAULT_EVENT;
    }
    if (!pin_is_announced()) {
        return FAULT_NONE;
    }
    if (wanted <= FAULT_SIGNAL && try_descriptor(false)) {
        return FAULT_SIGNAL;
    }
    signals_arm(claim);
    return FAULT_PROTECT;
}

static bool start(void) {
    if (atomic_exchange_explicit(&is_starting, true, memory_order_acquire)) {
        return false; // another thread is at it
    }
    atomic_store_explicit(&engine_now, (int)probe(), memory_order_release);
    atomic_store_explicit(&is_starting, false, memory_order_release);
    return fault_engine() != FAULT_NONE;
}

bool fault_start(uintptr_t address, size_t bytes) {
    const int saved = errno;
    if (managed_bytes != 0) {
        FIRN_ENSURE(address >= managed_base && bytes <= managed_bytes &&
                    address - managed_base <= managed_bytes - bytes);
        return fault_engine() != FAULT_NONE || start();
    }
    managed_base = address;
    managed_bytes = bytes;
    mark_process();
    bool is_started = start();
    errno = saved;
    return is_started;
}

// What is asked for, plus what hardening adds: at most a size class more.
bool fault_may_be_buffer(size_t slot_bytes) {
    static const size_t buffers[] = {1024, 4096, 8192};
    bool is_one = false;
    for (unsigned i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        is_one |= slot_bytes >= buffers[i] && slot_bytes <= buffers[i] + buffers[i] / 4;
    }
    return is_one;
}

bool fault_can_hold(size_t slot_bytes) {
    enum fault_engine engine = fault_engine();
    bool is_stack = slot_bytes >= FAULT_STACK_LEAST && engine == FAULT_PROTECT;
    bool is_buffer = engine != FAULT_EVENT && fault_may_be_buffer(slot_bytes);
    return engine != FAULT_NONE && !is_stack && !is_buffer;
}

// ---- staging ------------------------------------------------------------------------------------

static struct staged *enter(uintptr_t address, size_t bytes) {
    for (unsigned i = 0; i < FAULT_RANGES; i++) {
        uintptr_t none = 0;
        if (atomic_load_explicit(&staged[i].address, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong(&staged[i].address, &none, address)) {
            atomic_store(&staged[i].bytes, bytes);
            atomic_fetch_add(&ranges, 1);
            return &staged[i];
        }
    }
    return NULL;
}

// Sequentially consistent: either a waiter sees the new epoch before it sleeps, or we see it waiting.
static void leave(struct staged *s) {
    atomic_store(&s->bytes, 0);
    atomic_store(&s->address, 0);
    atomic_fetch_sub(&ranges, 1);
    atomic_fetch_add(&epoch, 1);
    if (atomic_load(&waiters) > 0) {
        futex_wake(&epoch, INT_MAX);
    }
}

static struct staged *find(uintptr_t address, size_t bytes) {
    unsigned i = 0;
    while (i < FAULT_RANGES &&
           (atomic_load_explicit(&staged[i].address, memory_order_relaxed) != address ||
            atomic_load_explicit(&staged[i].bytes, memory_order_relaxed) != bytes)) {
        i++;
    }
    FIRN_ENSURE(i < FAULT_RANGES);
    return &staged[i];
}

// The program closed our descriptor, or this is a child that has none yet.
static bool is_usable(void) {
    if (is_copy()) {
        fault_after_fork_in_child();
    }
    if (fault_engine() == FAULT_PROTECT) {
        return signals_is_ready();
    }
    if (fault_engine() != FAULT_NONE && uffd_is_open()) {
        return true;
    }
    return start();
}

static bool deny_writes(uintptr_t address, size_t bytes) {
    return fault_engine() == FAULT_PROTECT ? map_deny_writes(address, bytes)
                                           : uffd_deny_writes(address, bytes);
}

static _Atomic(fault_taken_fn *) taken_fn;

void fault_set_taken(fault_taken_fn *is_taken) {
    atomic_store_explicit(&taken_fn, is_taken, memory_order_release);
}

static bool is_taken(uintptr_t address, size_t bytes) {
    fault_taken_fn *ask = atomic_load_explicit(&taken_fn, memory_order_acquire);
    return ask != NULL && (ask(address) || ask(address + bytes - 1));
}

// A stack may lie in a block of the program's (coroutines have them there). Who stages his own waits for himself,
// for ever. So far to each side is more than the largest block that lies in the range, and more than is in use.
static bool is_own_stack(uintptr_t address, size_t bytes) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    return address < here + OWN_STACK_BYTES && here < address + bytes + OWN_STACK_BYTES;
}

bool fault_stage(uintptr_t address, size_t bytes) {
    const int saved = errno;
    struct staged *s = NULL;
    FIRN_ENSURE(address >= managed_base && bytes > 0 && bytes <= managed_bytes &&
                address - managed_base <= managed_bytes - bytes);
    if (!is_own_stack(address, bytes) && is_usable()) {
        s = enter(address, bytes);
    }
    // In this order: a call that begins now sees the range in the table and waits.
    bool is_pinned = s != NULL && fault_engine() != FAULT_EVENT && pin_is_any(address, bytes);
    if (s != NULL && (is_pinned || is_taken(address, bytes) || !deny_writes(address, bytes))) {
        leave(s);
        s = NULL;
    }
    atomic_fetch_add_explicit(s != NULL ? &stages : &refused, 1, memory_order_relaxed);
    errno = saved;
    return s != NULL;
}

void fault_publish(uintptr_t address, size_t bytes) {
    const int saved = errno;
    leave(find(address, bytes));
    if (fault_engine() != FAULT_PROTECT) {
        uffd_wake(address, bytes);
    }
    errno = saved;
}

void fault_open(uintptr_t address, size_t bytes) {
    const int saved = errno;
    if (fault_engine() == FAULT_PROTECT) {
        FIRN_ENSURE(map_allow_writes(address, bytes));
    } else {
        uffd_allow_writes(address, bytes);
    }
    errno = saved;
}

bool fault_can_empty(void) {
    return fault_engine() == FAULT_EVENT && purge_has_lists();
}

bool fault_empty(uintptr_t address, size_t bytes, const struct purge_list *parts) {
    return uffd_deny_reads(address, bytes) && purge_withdraw(parts);
}

// Without the descriptor nobody waits any more. For want of memory it is tried again: what was there until now
// has just been given back.
void fault_fill(uintptr_t address, uintptr_t from) {
    enum { TRIES = 10000, BETWEEN_NS = 1000000 };
    for (unsigned i = 0; !uffd_fill(address, from); i++) {
        if (!uffd_is_open()) {
            memcpy((void *)address, (const void *)from, FIRN_PAGE);
            break;
        }
        FIRN_ENSURE(i < TRIES);
        thread_sleep(BETWEEN_NS);
    }
    purge_restore(address, FIRN_PAGE);
}

void fault_uncover(uintptr_t address, size_t bytes) {
    uffd_release(address, bytes);
}

void fault_release(uintptr_t address, size_t bytes) {
    struct staged *s = find(address, bytes);
    fault_open(address, bytes);
    leave(s);
}

void fault_adopt(uintptr_t address, size_t bytes) {
    if (fault_engine() == FAULT_EVENT || fault_engine() == FAULT_SIGNAL) {
        uffd_register(address, bytes);
    }
}

bool fault_yield(uintptr_t address, size_t bytes) {
    enum fault_engine engine = fault_engine();
    return (engine != FAULT_EVENT && engine != FAULT_SIGNAL) || uffd_leave(address, bytes);
}

void fault_regain(uintptr_t address, size_t bytes) {
    if (fault_engine() == FAULT_EVENT || fault_engine() == FAULT_SIGNAL) {
        uffd_come_back(address, bytes);
    }
}

void fault_figures(struct fault_figures *out) {
    out->stages = atomic_load_explicit(&stages, memory_order_relaxed);
    out->refused = atomic_load_explicit(&refused, memory_order_relaxed);
    out->waits = atomic_load_explicit(&waits, memory_order_relaxed);
    out->replaced = signals_replaced();
}
