// A bump pointer over reservations of its own. Descriptors are never given back here: recycling by
// type keeps a stale descriptor pointer from ever seeing an object of another type.
#include "src/meta/arena.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/lock.h"
#include "src/os/map.h"

#include <errno.h>
#include <stdatomic.h>

// Never committed at either end: an overrun of user data that reaches us, or of ours, faults.
#define EDGE_BYTES ((size_t)64 << 10)
#define RESERVE_MOST ((size_t)64 << 30)
#define RESERVE_LEAST ((size_t)64 << 20)
#define STEP_LEAST ((size_t)64 << 10)
#define STEP_MOST ((size_t)1 << 20)

// Invariant: next <= committed <= end; [next, committed) is readable, writable and zero. All zero
// before first use. Guarded by arena_lock.
static struct {
    struct reservation range;
    uintptr_t next, committed, end;
    size_t step; // bytes of the next commit
} arena;

// The rest of the page that arena_alloc_wiped took last. Guarded by arena_lock.
static struct {
    uintptr_t next;
    size_t left;
    bool is_wiped;
} wiped;

static struct lock arena_lock = LOCK_INIT(LOCK_ARENA);
static _Atomic size_t committed_bytes; // written under the lock, read without: relaxed, a statistic

// A reservation for at least `bytes`. Small programs and large ones get the same: what is not
// committed costs nothing. Smaller ones are tried where the kernel refuses, chosen ones at last.
static bool reserve(size_t bytes) {
    unsigned limit_bits = caps_has(CAP_WIDE_ADDRESS) ? 47 : 39;
    size_t need = bytes + 2 * EDGE_BYTES;
    size_t most = need > RESERVE_MOST ? need : RESERVE_MOST;
    struct reservation range;
    bool is_reserved = false;
    for (size_t size = most; !is_reserved && size >= RESERVE_LEAST && size >= need; size /= 4) {
        is_reserved =
            caps_has(CAP_RESERVE) && map_reserve(&range, size, EDGE_BYTES, limit_bits, false);
    }
    for (size_t size = most; !is_reserved && size >= RESERVE_LEAST && size >= need; size /= 4) {
        is_reserved = map_reserve(&range, size, EDGE_BYTES, limit_bits, true);
    }
    if (is_reserved) {
        arena.range = range;
        arena.next = arena.committed = range.base + EDGE_BYTES;
        arena.end = range.base + range.bytes - EDGE_BYTES;
    }
    return is_reserved;
}

// Commits up to `until` at least. Steps double, so that a small program touches little and a large
// one makes few calls.
static bool commit(uintptr_t until) {
    size_t room = arena.end - arena.committed;
    size_t need = align_up(until - arena.committed, FIRN_PAGE);
    size_t step = arena.step < STEP_LEAST ? STEP_LEAST : arena.step;
    size_t bytes = need > step ? need : step;
    bytes = bytes < room ? bytes : room;
    if (!map_commit(&arena.range, arena.committed, bytes)) {
        // Under a tight limit the step may be what is refused, not the need.
        bytes = need;
        if (need == step || !map_commit(&arena.range, arena.committed, bytes)) {
            return false;
        }
    }
    arena.committed += bytes;
    arena.step = step < STEP_MOST ? step * 2 : STEP_MOST;
    atomic_fetch_add_explicit(&committed_bytes, bytes, memory_order_relaxed);
    return true;
}

static void *take(size_t bytes, size_t align) {
    uintptr_t at = align_up(arena.next, align);
    if (arena.end == 0 || at > arena.end || bytes > arena.end - at) {
        return NULL;
    }
    if (at + bytes > arena.committed && !commit(at + bytes)) {
        return NULL;
    }
    arena.next = at + bytes;
    return (void *)at;
}

// With the lock.
static void *alloc(size_t rounded, size_t align) {
    errno = 0;
    void *p = take(rounded, align);
    // None yet, or full; or, in a sparse reservation, somebody else took the next piece. What is
    // left of the old reservation is given up.
    if (p == NULL && (errno == 0 || (arena.range.is_sparse && errno == EEXIST)) &&
        reserve(rounded)) {
        p = take(rounded, align);
    }
    return p;
}

void *arena_alloc(size_t bytes, size_t align) {
    int saved = errno;
    size_t rounded;
    FIRN_ENSURE(align_is_power(align) && align >= 16 && align <= FIRN_PAGE);
    if (bytes > PTRDIFF_MAX || !align_up_checked(bytes, align, &rounded)) {
        return NULL;
    }
    lock_acquire(&arena_lock);
    void *p = alloc(rounded, align);
    lock_release(&arena_lock);
    errno = saved;
    return p;
}

void *arena_alloc_wiped(size_t bytes, bool *is_wiped) {
    int saved = errno;
    size_t rounded = align_up(bytes, FIRN_CACHE_LINE);
    FIRN_ENSURE(bytes > 0 && bytes <= FIRN_PAGE);
    lock_acquire(&arena_lock);
    if (wiped.left < rounded) {
        void *page = alloc(FIRN_PAGE, FIRN_PAGE);
        wiped.next = (uintptr_t)page;
        wiped.left = page != NULL ? FIRN_PAGE : 0;
        wiped.is_wiped = page != NULL && map_wipe_on_fork(wiped.next, FIRN_PAGE);
    }
    void *p = NULL;
    if (wiped.left >= rounded) {
        p = (void *)wiped.next;
        wiped.next += rounded;
        wiped.left -= rounded;
    }
    *is_wiped = wiped.is_wiped;
    lock_release(&arena_lock);
    errno = saved;
    return p;
}

void arena_release(void) {
    struct reservation *r = &arena.range;
    if (arena.end != 0 && !r->is_sparse) {
        map_give_up(r, r->base, r->base + EDGE_BYTES);
        map_give_up(r, arena.committed, r->base + r->bytes);
        map_begin_sparse(r);
    }
}

size_t arena_committed_bytes(void) {
    return atomic_load_explicit(&committed_bytes, memory_order_relaxed);
}

void arena_before_fork(void) {
    lock_acquire(&arena_lock);
}

void arena_after_fork(bool in_child) {
    if (in_child) {
        lock_reset(&arena_lock);
    } else {
        lock_release(&arena_lock);
    }
}
