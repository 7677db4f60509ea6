#include "src/cold/table.h"

#include "src/meta/arena.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"

enum {
    LEAF_BITS = 11,
    ROOT_BITS = 12, // 16 TiB, the largest small regions
};

struct leaf {
    _Atomic(struct chunk *) chunks[1 << LEAF_BITS];
};

static _Atomic(struct leaf *) leaves[1 << ROOT_BITS];
static _Atomic(struct chunk *) first;

struct lock cold_lock = LOCK_INIT(LOCK_COLD);

static uintptr_t number_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    return offset < FIRN_ROOT.small_bytes ? offset >> CHUNK_SHIFT : UINTPTR_MAX;
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

struct chunk *table_make(uintptr_t address) {
    struct chunk *c = table_find(address);
    uintptr_t number = number_of(address);
    if (c != NULL || number >> LEAF_BITS >= (uintptr_t)1 << ROOT_BITS) {
        return c;
    }
    struct leaf *leaf = atomic_load_explicit(&leaves[number >> LEAF_BITS], memory_order_relaxed);
    if (leaf == NULL) {
        leaf = arena_alloc(sizeof *leaf, FIRN_CACHE_LINE);
        if (leaf == NULL) {
            return NULL;
        }
        atomic_store_explicit(&leaves[number >> LEAF_BITS], leaf, memory_order_release);
    }
    c = arena_alloc(sizeof *c, FIRN_CACHE_LINE);
    uintptr_t base = address & ~(CHUNK_BYTES - 1);
    if (c == NULL || !page_state_prepare(base, CHUNK_BYTES)) {
        return NULL;
    }
    c->base = base;
    c->next = atomic_load_explicit(&first, memory_order_relaxed);
    atomic_store_explicit(&first, c, memory_order_release);
    atomic_store_explicit(&leaf->chunks[number & ((1u << LEAF_BITS) - 1)], c, memory_order_release);
    return c;
}

struct chunk *table_first(void) {
    return atomic_load_explicit(&first, memory_order_acquire);
}
