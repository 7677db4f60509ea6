#include "src/cache/quarantine.h"

#include "src/meta/arena.h"

struct quarantine {
    _Atomic uint32_t closed; // segments; one of the others is open
    uint32_t oldest;         // of them
    _Atomic size_t bytes;    // in them; each has QUARANTINE_SEGMENT_BYTES or more
    struct {
        uint32_t slots, bytes;
    } segments[QUARANTINE_SEGMENTS];
    uint64_t entries[QUARANTINE_SEGMENTS][QUARANTINE_SEGMENT_SLOTS];
};

// Acquire, with make: who sees it sees it empty, not unmade.
static struct quarantine *queue_of(const struct cache *c) {
    return atomic_load_explicit(&c->quarantine, memory_order_acquire);
}

static uint32_t closed_count(const struct quarantine *q) {
    return atomic_load_explicit(&q->closed, memory_order_relaxed);
}

static size_t closed_bytes(const struct quarantine *q) {
    return atomic_load_explicit(&q->bytes, memory_order_relaxed);
}

static size_t open_bytes(const struct cache *c) {
    int64_t left = atomic_load_explicit(&c->held_left, memory_order_relaxed);
    return (size_t)(QUARANTINE_SEGMENT_BYTES - left);
}

static uint32_t place_of(const struct quarantine *q, uint32_t index) {
    return (q->oldest + index) % QUARANTINE_SEGMENTS;
}

// Opens the place after the closed segments.
static void open_next(struct cache *c) {
    struct quarantine *q = queue_of(c);
    c->held_place = q->entries[place_of(q, closed_count(q))];
    atomic_store_explicit(&c->held_left, QUARANTINE_SEGMENT_BYTES, memory_order_relaxed);
}

static void close_open(struct cache *c) {
    struct quarantine *q = queue_of(c);
    uint32_t place = place_of(q, closed_count(q));
    q->segments[place].slots = (uint32_t)(c->held_place - q->entries[place]);
    q->segments[place].bytes = (uint32_t)open_bytes(c);
    size_t bytes = closed_bytes(q) + q->segments[place].bytes;
    atomic_store_explicit(&q->bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&q->closed, closed_count(q) + 1, memory_order_relaxed);
}

// Takes out the oldest segment; its entries stay where they are until it is open again.
static const uint64_t *take_oldest(struct quarantine *q, uint32_t *slots) {
    uint32_t place = q->oldest;
    *slots = q->segments[place].slots;
    q->oldest = place_of(q, 1);
    atomic_store_explicit(&q->bytes, closed_bytes(q) - q->segments[place].bytes,
                          memory_order_relaxed);
    atomic_store_explicit(&q->closed, closed_count(q) - 1, memory_order_relaxed);
    return q->entries[place];
}

// Of the others are enough left that each of its slots has waited for what it has to.
static bool can_spare_oldest(const struct quarantine *q) {
    return closed_bytes(q) >= QUARANTINE_KEPT_BYTES + q->segments[q->oldest].bytes;
}

static bool make(struct cache *c) {
    struct quarantine *q = arena_alloc(sizeof *q, FIRN_CACHE_LINE);
    if (q == NULL) {
        return false;
    }
    // Before it is there: a statistic without it counts nothing.
    atomic_store_explicit(&c->held_left, QUARANTINE_SEGMENT_BYTES, memory_order_relaxed);
    atomic_store_explicit(&c->quarantine, q, memory_order_release);
    open_next(c);
    return true;
}

void quarantine_add(struct cache *c, unsigned cell, uint64_t entry) {
    uint32_t slot_bytes = c->cells[cell].slot_bytes;
    // One larger than what is kept would only empty the queue; without memory for one there is none: then
    // the mixer has to do.
    if (FIRN_QUARANTINE == 0 || slot_bytes > QUARANTINE_KEPT_BYTES ||
        (queue_of(c) == NULL && !make(c))) {
        cache_release(c, entry);
        return;
    }
    cache_make_noise(c);
    if (cache_hold(c, entry, slot_bytes)) {
        return;
    }
    *c->held_place++ = entry;
    atomic_fetch_sub_explicit(&c->held_left, slot_bytes, memory_order_relaxed);
    close_open(c);
    while (can_spare_oldest(queue_of(c))) {
        uint32_t slots;
        const uint64_t *entries = take_oldest(queue_of(c), &slots);
        cache_release_all(c, entries, slots);
    }
    open_next(c);
}

void quarantine_flush(struct cache *c) {
    if (queue_of(c) == NULL) {
        return;
    }
    close_open(c);
    while (closed_count(queue_of(c)) > 0) {
        uint32_t slots;
        const uint64_t *entries = take_oldest(queue_of(c), &slots);
        for (uint32_t i = 0; i < slots; i++) {
            cache_put_back(c, entries[i]);
        }
    }
    open_next(c);
}

// ---- for those who look -----------------------------------------------------------------------

size_t quarantine_bytes(const struct cache *c) {
    return queue_of(c) == NULL ? 0 : closed_bytes(queue_of(c)) + open_bytes(c);
}

const uint64_t *quarantine_segment(const struct cache *c, unsigned index, uint32_t *slots) {
    const struct quarantine *q = queue_of(c);
    if (q == NULL || index > closed_count(q)) {
        return NULL;
    }
    uint32_t place = place_of(q, index);
    const uint64_t *entries = q->entries[place];
    uint32_t n =
        index < closed_count(q) ? q->segments[place].slots : (uint32_t)(c->held_place - entries);
    // Of another thread, both may be of different moments.
    *slots = n < QUARANTINE_SEGMENT_SLOTS ? n : QUARANTINE_SEGMENT_SLOTS;
    return entries;
}

bool quarantine_has(const struct cache *c, uintptr_t address) {
    const uint64_t *entries;
    uint32_t slots;
    for (unsigned i = 0; (entries = quarantine_segment(c, i, &slots)) != NULL; i++) {
        for (uint32_t k = 0; k < slots; k++) {
            if ((entries[k] & ENTRY_ADDRESS) == address) {
                return true;
            }
        }
    }
    return false;
}
