// Three-state futex mutex: the waker needs a system call only when somebody may be asleep.
#include "src/os/lock.h"

#include "src/base/compiler.h"
#include "src/base/config.h"
#include "src/base/fatal.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FREE, HELD, CONTENDED };
enum { SPINS = 64, HELD_MOST = 160 };

// What this thread holds, in the order of acquisition. Debug builds only. A thread about to fork
// holds every lock there is, one per size class among them.
static FIRN_TLS struct lock *held[FIRN_DEBUG ? HELD_MOST : 1];
static FIRN_TLS unsigned held_count;

static FIRN_TLS bool has_all;
// Locks this thread holds. Volatile: a signal handler of the same thread reads it.
static FIRN_TLS volatile unsigned depth;

static void check_rank(const struct lock *l) {
    for (unsigned i = 0; i < held_count; i++) {
        FIRN_ENSURE(held[i]->rank < l->rank || (held[i]->rank == l->rank && held[i] < l));
    }
}

static void note_held(struct lock *l) {
    FIRN_ENSURE(held_count < HELD_MOST);
    held[held_count++] = l;
}

static void note_released(const struct lock *l) {
    unsigned i = held_count;
    while (i > 0 && held[i - 1] != l) {
        i--;
    }
    FIRN_ENSURE(i > 0);
    for (; i < held_count; i++) {
        held[i - 1] = held[i];
    }
    held_count--;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Acquire pairs with the release in lock_release, here and below.
static bool take(struct lock *l) {
    uint32_t expected = FREE;
    return atomic_compare_exchange_strong_explicit(&l->state, &expected, HELD, memory_order_acquire,
                                                   memory_order_relaxed);
}

static FIRN_NOINLINE void wait_for(struct lock *l) {
    int saved = errno;
    // Critical sections are tens of nanoseconds: the holder is usually done before a system call
    // would have begun, unless it was preempted.
    for (unsigned i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == FREE && take(l)) {
            return;
        }
        relax();
    }
    // Whoever takes the lock from here on marks it contended: it cannot know that it was the last
    // one to wait, and a wake-up too many is cheaper than one too few.
    while (atomic_exchange_explicit(&l->state, CONTENDED, memory_order_acquire) != FREE) {
        syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, CONTENDED, NULL, NULL, 0);
    }
    errno = saved;
}

void lock_acquire(struct lock *l) {
    if (FIRN_UNLIKELY(has_all)) {
        return;
    }
    if (FIRN_DEBUG) {
        check_rank(l);
    }
    depth++; // before: a handler that came between the two would wait for itself
    if (FIRN_UNLIKELY(!take(l))) {
        wait_for(l);
    }
    if (FIRN_DEBUG) {
        note_held(l);
    }
}

// Out of rank order is fine here: what does not wait cannot deadlock.
bool lock_try(struct lock *l) {
    if (FIRN_UNLIKELY(has_all)) {
        return true;
    }
    depth++;
    bool taken = take(l);
    depth -= taken ? 0 : 1;
    if (FIRN_DEBUG && taken) {
        note_held(l);
    }
    return taken;
}

void lock_release(struct lock *l) {
    if (FIRN_UNLIKELY(has_all)) {
        return;
    }
    if (FIRN_DEBUG) {
        note_released(l);
    }
    if (atomic_exchange_explicit(&l->state, FREE, memory_order_release) == CONTENDED) {
        int saved = errno;
        syscall(SYS_futex, &l->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        errno = saved;
    }
    depth -= depth > 0; // none are counted after lock_set_all_held
}

void lock_set_all_held(bool is_held) {
    has_all = is_held;
    depth = 0;
}

bool lock_is_any_held(void) {
    return depth > 0;
}

static bool holds(const struct lock *l) {
    for (unsigned i = 0; i < held_count; i++) {
        if (held[i] == l) {
            return true;
        }
    }
    return false;
}

void lock_reset(struct lock *l) {
    if (FIRN_DEBUG && holds(l)) {
        note_released(l); // the thread that forked held it, and lives on in the child
    }
    atomic_store_explicit(&l->state, FREE, memory_order_release);
}
