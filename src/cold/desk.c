#include "src/cold/desk.h"

#include "src/base/align.h"
#include "src/base/bits.h"
#include "src/cold/pack.h"
#include "src/meta/arena.h"
#include "src/os/caps.h"
#include "src/os/futex.h"
#include "src/os/map.h"
#include "src/os/secret.h"

#include <stdatomic.h>
#include <string.h>

// On a page that reads as zeros in a forked child: there all desks are free, and what threads that do
// not exist left on them is made anew.
struct desk_use {
    _Atomic uint64_t
        busy[DESK_KINDS]; // acquire when a bit is set pairs with release when it is cleared
    _Atomic uint64_t made[DESK_KINDS]; // only looked at by whoever has the desk
    _Atomic uint32_t left;             // counts up whenever a desk becomes free
    _Atomic uint32_t waiting;
};
static struct desk_use *use;

static struct {
    uintptr_t first;
    size_t bytes; // of one
    unsigned count;
} desks[DESK_KINDS];

static size_t desk_bytes(size_t context) {
    return align_up(sizeof(struct desk) + context, FIRN_PAGE);
}

bool desk_start(void) {
    desks[DESK_OPENING].bytes = desk_bytes(pack_decompressor_bytes());
    desks[DESK_OPENING].count = DESK_OPENING_MOST;
    desks[DESK_PACKING].bytes = desk_bytes(pack_compressor_bytes());
    desks[DESK_PACKING].count = DESK_PACKING_MOST;
    size_t opening = desks[DESK_OPENING].bytes * DESK_OPENING_MOST;
    size_t all = opening + desks[DESK_PACKING].bytes * DESK_PACKING_MOST;
    unsigned limit_bits = caps_has(CAP_WIDE_ADDRESS) ? 47 : 39;
    struct reservation range;
    use = arena_alloc(FIRN_PAGE, FIRN_PAGE);
    if (use == NULL || !map_reserve(&range, all, FIRN_PAGE, limit_bits, !caps_has(CAP_RESERVE)) ||
        !map_commit(&range, range.base, all)) {
        return false;
    }
    (void)map_exclude_from_dump(range.base, all);
    // Where the kernel cannot, desk_after_fork_in_child does it for children that libc made.
    bool is_wiped = map_wipe_on_fork((uintptr_t)use, FIRN_PAGE);
    (void)is_wiped;
    desks[DESK_OPENING].first = range.base;
    desks[DESK_PACKING].first = range.base + opening;
    return true;
}

static struct desk *desk_at(enum desk_kind kind, unsigned i) {
    return (struct desk *)(desks[kind].first + i * desks[kind].bytes);
}

// The lowest free one: its memory is likely in the cache. -1: none.
static int claim(enum desk_kind kind) {
    uint64_t all = bits_mask(desks[kind].count);
    uint64_t busy = atomic_load_explicit(&use->busy[kind], memory_order_relaxed);
    while (busy != all) {
        unsigned i = bits_lowest(~busy);
        if (atomic_compare_exchange_weak_explicit(&use->busy[kind], &busy, busy | UINT64_C(1) << i,
                                                  memory_order_acquire, memory_order_relaxed)) {
            return (int)i;
        }
    }
    return -1;
}

// Sequentially consistent, here and in desk_leave: either the one who leaves sees that somebody waits,
// or the one who waits sees that a desk was left.
static unsigned wait_for_one(enum desk_kind kind) {
    int i;
    atomic_fetch_add(&use->waiting, 1);
    for (;;) {
        uint32_t seen = atomic_load(&use->left);
        i = claim(kind);
        if (i >= 0) {
            break;
        }
        futex_wait(&use->left, seen);
    }
    atomic_fetch_sub(&use->waiting, 1);
    return (unsigned)i;
}

struct desk *desk_take(enum desk_kind kind) {
    int found = claim(kind);
    unsigned i = FIRN_LIKELY(found >= 0) ? (unsigned)found : wait_for_one(kind);
    struct desk *d = desk_at(kind, i);
    uint64_t bit = UINT64_C(1) << i;
    if (FIRN_UNLIKELY((atomic_load_explicit(&use->made[kind], memory_order_relaxed) & bit) == 0)) {
        if (kind == DESK_PACKING) {
            pack_make_compressor(d->context);
        } else {
            pack_make_decompressor(d->context);
        }
        atomic_fetch_or_explicit(&use->made[kind], bit, memory_order_relaxed);
    }
    return d;
}

void desk_after_fork_in_child(void) {
    if (use != NULL) {
        memset(use, 0, sizeof *use);
    }
}

void desk_leave(enum desk_kind kind, struct desk *d) {
    size_t i = ((uintptr_t)d - desks[kind].first) / desks[kind].bytes;
    secret_wipe(&d->blob, sizeof d->blob.bound + d->blob.bound.bytes);
    atomic_fetch_and_explicit(&use->busy[kind], ~(UINT64_C(1) << i), memory_order_release);
    atomic_fetch_add(&use->left, 1);
    if (FIRN_UNLIKELY(atomic_load(&use->waiting) > 0)) {
        futex_wake(&use->left, 1 << 20);
    }
}
