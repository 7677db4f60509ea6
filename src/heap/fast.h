// The fast paths, inlined into malloc, free and the C++ operators: no lock, no atomic
// read-modify-write, no system call.
#ifndef FIRN_HEAP_FAST_H
#define FIRN_HEAP_FAST_H

#include "hardening/slot.h"
#include "src/base/config.h"
#include "src/cache/cache.h"
#include "src/heap/heap.h"
#include "src/meta/size_class.h"
#include "src/span/region.h"

// Everything else: the first allocation, an empty vector, large sizes, errors. Any size.
void *heap_alloc_slow(size_t size, uintptr_t site);
// Everything else: full vectors, large blocks, other threads' slots, and all misuse.
void heap_free_slow(void *p, const struct heap_call *call);
// The same for plain free, which can then be a tail call.
void heap_free_plain_slow(void *p, uintptr_t site);

FIRN_INLINE void *heap_alloc_fast(size_t size, uintptr_t site) {
    if (FIRN_UNLIKELY(size > SMALL_MAX - FIRN_SLOT_EXTRA)) {
        return heap_alloc_slow(size, site);
    }
    unsigned class_index = size_class_of(size + FIRN_SLOT_EXTRA);
    uintptr_t address = cache_pop(firn_cache, root_cell(class_index, partition_of(site)));
    if (FIRN_UNLIKELY(address == 0)) {
        return heap_alloc_slow(size, site);
    }
    slot_on_alloc((void *)address, FIRN_ROOT.classes[class_index].bytes, FIRN_ROOT.slot_key);
    return (void *)address;
}

// Puts a live slot of this thread's own into circulation. Its vector is not full; there is noise.
FIRN_INLINE void heap_put_local(struct cache *c, struct cache_cell *e, struct span *s,
                                unsigned slot, uintptr_t address) {
    span_clear_live(s, slot);
    unsigned class_index = root_cell_class((unsigned)(e - c->cells));
    if (slot_on_free((void *)address, FIRN_ROOT.classes[class_index].bytes, FIRN_ROOT.slot_key)) {
        cache_push(c, e, cache_entry(address, slot));
    }
}

// Frees `p` if this thread owns its span, nothing is wrong and nothing has to be made room for;
// false (and nothing done) otherwise. Calls nothing, so that it needs no stack frame.
FIRN_INLINE bool heap_free_local(void *p) {
    uintptr_t address = (uintptr_t)p;
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (FIRN_UNLIKELY(offset >= FIRN_ROOT.small_bytes)) {
        return false;
    }
    struct cache *c = firn_cache;
    struct cache_cell *e = &c->cells[offset >> FIRN_ROOT.cell_shift];
    uintptr_t within = address - e->base;
    if (FIRN_UNLIKELY(within >= e->bytes)) {
        return false;
    }
    struct span *s = &e->spans[within >> e->span_shift];
    // Only this thread makes itself owner or stops being it: the answer "mine" stays true.
    if (FIRN_UNLIKELY(atomic_load_explicit(&s->owner_number, memory_order_relaxed) != c->number)) {
        return false;
    }
    uint64_t product = (within & e->span_mask) * (uint64_t)e->reciprocal;
    unsigned slot = (unsigned)(product >> 32);
    if (FIRN_CHECK_FREE) {
        // The low half is below the reciprocal just when the offset is a multiple of the slot size
        // (Lemire, Kaser, Kurz 2019; exhaustively tested for every class).
        uint64_t live = atomic_load_explicit(&s->live[slot >> 6], memory_order_relaxed);
        uint64_t remote = atomic_load_explicit(&s->remote[slot >> 6], memory_order_relaxed);
        if (FIRN_UNLIKELY((uint32_t)product >= e->reciprocal ||
                          ((live & ~remote) >> (slot & 63) & 1) == 0)) {
            return false;
        }
    }
    if (FIRN_UNLIKELY(*e->top == VECTOR_END || *c->noise_at == 0)) {
        return false;
    }
    heap_put_local(c, e, s, slot, address);
    return true;
}

FIRN_INLINE void heap_free_fast(void *p, uintptr_t site) {
    if (FIRN_UNLIKELY(!heap_free_local(p))) {
        heap_free_plain_slow(p, site);
    }
}

#endif
