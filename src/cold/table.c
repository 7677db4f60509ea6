#include "src/cold/table.h"

#include "src/meta/arena.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"

enum {
    LEAF_BITS = 11,
    ROOT_BITS = 13, // 32 TiB, the largest reservation
};

struct leaf {
    _Atomic(struct chunk *) chunks[1 << LEAF_BITS];
};

static _Atomic(struct leaf *) leaves[1 << ROOT_BITS];
static _Atomic(struct chunk *) first;

struct lock cold_lock = LOCK_INIT(LOCK_COLD);
_Atomic uint32_t table_holds;

static uintptr_t number_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.data.base;
    return offset < FIRN_ROOT.data.bytes ? offset >> CHUNK_SHIFT : UINTPTR_MAX;
}

// Acquire, here and below: pairs with the release of table_make.
struct chunk *table_find(uintptr_t address) {
    uintptr_t number = number_of(address);
    if (number >> LEAF_BITS >= (uintptr_t)1 << ROOT_BITS) {
        return NULL;
    }
    struct leaf *leaf = atomic_load_explicit(&leaves[number >> LEAF_BITS], memory_order_acquire);
    return leaf != NULL ? atomic_load_explicit(&leaf->chunks[number & ((1u << LEAF_BITS) - 1)],
                                               memory_order_acquire)
                        : NULL;
}

// A thread that comes second leaves what it made unused, here and below: rare, and a few KiB.
static struct leaf *make_leaf(uintptr_t index) {
    struct leaf *seen = atomic_load_explicit(&leaves[index], memory_order_acquire);
    struct leaf *made = seen == NULL ? arena_alloc(sizeof *made, FIRN_CACHE_LINE) : NULL;
    if (made == NULL) {
        return seen;
    }
    bool is_mine = atomic_compare_exchange_strong_explicit(
        &leaves[index], &seen, made, memory_order_acq_rel, memory_order_acquire);
    return is_mine ? made : seen;
}

static void link(struct chunk *c) {
    c->next = atomic_load_explicit(&first, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&first, &c->next, c, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

struct chunk *table_make(uintptr_t address) {
    struct chunk *c = table_find(address);
    uintptr_t number = number_of(address);
    if (c != NULL || number >> LEAF_BITS >= (uintptr_t)1 << ROOT_BITS) {
        return c;
    }
    uintptr_t base = address & ~(CHUNK_BYTES - 1);
    struct leaf *leaf = make_leaf(number >> LEAF_BITS);
    c = leaf != NULL ? arena_alloc(sizeof *c, FIRN_CACHE_LINE) : NULL;
    if (c == NULL || !page_state_prepare(base, CHUNK_BYTES)) {
        return NULL;
    }
    c->base = base;
    struct chunk *seen = NULL;
    if (!atomic_compare_exchange_strong_explicit(&leaf->chunks[number & ((1u << LEAF_BITS) - 1)],
                                                 &seen, c, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        return seen;
    }
    link(c);
    return c;
}

struct chunk *table_first(void) {
    return atomic_load_explicit(&first, memory_order_acquire);
}
