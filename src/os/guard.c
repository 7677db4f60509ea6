// A table of page addresses in buckets of one cache line. An address has two buckets: one shared
// with its 64 KiB neighbourhood, so that a small heap touches little of the table, and one chosen by
// a hash, for neighbourhoods that collide. When both are full the guard is refused, which is allowed.
#include "src/os/guard.h"

#include "src/os/caps.h"

#include <stdatomic.h>

enum { BUCKETS = 8192, SLOTS = 8, NEIGHBOURHOOD_SHIFT = 16 };
// Half of what the table holds: few guards are refused for want of a slot.
enum { GUARDS_MOST = BUCKETS * SLOTS / 2 };

struct bucket {
    _Alignas(FIRN_CACHE_LINE) _Atomic uintptr_t slot[SLOTS]; // page address, 0: free
};

static struct bucket table[BUCKETS];
static _Atomic size_t count; // records, and those about to be made

// Neighbourhoods of one class follow each other; the upper bits keep classes apart, whose regions
// begin at multiples of large powers of two.
static struct bucket *near_bucket(uintptr_t address) {
    uintptr_t neighbourhood = address >> NEIGHBOURHOOD_SHIFT;
    uintptr_t region = (address >> 32) * UINT64_C(0x9e3779b97f4a7c15) >> 40;
    return &table[(neighbourhood + region) % BUCKETS];
}

static struct bucket *far_bucket(uintptr_t address) {
    return &table[((address >> FIRN_PAGE_SHIFT) * UINT64_C(0xd6e8feb86659fd93) >> 32) % BUCKETS];
}

// Orderings here are relaxed: the table says nothing about the content of the pages, and calls for
// one page are ordered by the caller.
static bool replace_in(struct bucket *b, uintptr_t from, uintptr_t to) {
    for (unsigned i = 0; i < SLOTS; i++) {
        uintptr_t expected = from;
        if (atomic_load_explicit(&b->slot[i], memory_order_relaxed) == from &&
            atomic_compare_exchange_strong_explicit(&b->slot[i], &expected, to,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static bool bucket_holds(const struct bucket *b, uintptr_t address) {
    for (unsigned i = 0; i < SLOTS; i++) {
        if (atomic_load_explicit(&b->slot[i], memory_order_relaxed) == address) {
            return true;
        }
    }
    return false;
}

bool guard_note(uintptr_t address) {
    size_t before = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if ((before + 1) * GUARD_VMAS <= guard_vma_budget() &&
        (replace_in(near_bucket(address), 0, address) ||
         replace_in(far_bucket(address), 0, address))) {
        return true;
    }
    atomic_fetch_sub_explicit(&count, 1, memory_order_relaxed);
    return false;
}

static bool forget_one(uintptr_t address) {
    return replace_in(near_bucket(address), address, 0) ||
           replace_in(far_bucket(address), address, 0);
}

static bool holds(uintptr_t address) {
    return bucket_holds(near_bucket(address), address) ||
           bucket_holds(far_bucket(address), address);
}

// For ranges of more pages than the table has slots, going through the table is the shorter way.
static bool is_longer_than_table(size_t bytes) {
    return bytes >> FIRN_PAGE_SHIFT > (size_t)BUCKETS * SLOTS;
}

// Counts the guards that begin in the range, and removes them if told to.
static size_t search_table(uintptr_t address, size_t bytes, bool remove) {
    size_t found = 0;
    for (size_t b = 0; b < BUCKETS; b++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            uintptr_t at = atomic_load_explicit(&table[b].slot[i], memory_order_relaxed);
            if (at != 0 && at - address < bytes && (!remove || replace_in(&table[b], at, 0))) {
                found++;
            }
        }
    }
    return found;
}

size_t guard_forget(uintptr_t address, size_t bytes) {
    size_t forgotten = 0;
    if (atomic_load_explicit(&count, memory_order_relaxed) == 0) {
        return 0;
    }
    if (is_longer_than_table(bytes)) {
        forgotten = search_table(address, bytes, true);
    } else {
        for (size_t at = 0; at < bytes; at += FIRN_PAGE) {
            forgotten += forget_one(address + at);
        }
    }
    atomic_fetch_sub_explicit(&count, forgotten, memory_order_relaxed);
    return forgotten;
}

bool guard_is_in(uintptr_t address, size_t bytes) {
    if (atomic_load_explicit(&count, memory_order_relaxed) == 0) {
        return false;
    }
    if (is_longer_than_table(bytes)) {
        return search_table(address, bytes, false) > 0;
    }
    for (size_t at = 0; at < bytes; at += FIRN_PAGE) {
        if (holds(address + at)) {
            return true;
        }
    }
    return false;
}

size_t guard_vmas(void) {
    return atomic_load_explicit(&count, memory_order_relaxed) * GUARD_VMAS;
}

size_t guard_vma_budget(void) {
    size_t quarter = caps_limits()->max_map_count / 4;
    size_t most = (size_t)GUARDS_MOST * GUARD_VMAS;
    return quarter < most ? quarter : most;
}
