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
// Everything else: NULL, full vectors, large blocks, other threads' slots, and all misuse.
void heap_free_slow(void *p, const struct heap_call *call);
// The same for plain free, which can then be a tail call.
void heap_free_plain_slow(void *p, uintptr_t site);

FIRN_INLINE void *heap_alloc_fast(size_t size, uintptr_t site) {
    unsigned class_index;
    if (FIRN_LIKELY(size <= SIZE_TABLE_MAX - FIRN_SLOT_EXTRA)) {
        class_index = size_class_table[(size + FIRN_SLOT_EXTRA + 15) >> 4];
    } else if (size <= SMALL_MAX - FIRN_SLOT_EXTRA) {
        class_index = size_class_of(size + FIRN_SLOT_EXTRA);
    } else {
        return heap_alloc_slow(size, site);
    }
    struct cache_cell *e = &firn_cache->cells[root_cell(class_index, partition_of(site))];
    uint64_t entry = cache_peek(e);
    if (FIRN_UNLIKELY(entry == 0)) {
        return heap_alloc_slow(size, site);
    }
    uintptr_t address = cache_take(e, entry);
    slot_on_alloc((void *)address, FIRN_ROOT.classes[class_index].bytes, FIRN_ROOT.slot_key);
    return (void *)address;
}

// Frees `p` if this thread owns its span, nothing is wrong and nothing has to be made room for;
// false (and nothing done) otherwise. Any pointer, NULL too. Calls nothing, so that it needs no
// stack frame.
FIRN_INLINE bool heap_free_local(void *p) {
    uintptr_t address = (uintptr_t)p;
    struct cache *c = firn_cache;
    uintptr_t at = cache_cell_at(address - FIRN_ROOT.small_base);
    struct cache_cell *e = cache_cell(c, at);
    uintptr_t within = address - e->base;
    if (FIRN_UNLIKELY(within >= e->bytes)) {
        return false;
    }
    struct span *s = cache_span(e, within);
    // Only this thread makes itself owner or stops being it: the answer "mine" stays true.
    if (FIRN_UNLIKELY(atomic_load_explicit(&s->owner_number, memory_order_relaxed) != c->number)) {
        return false;
    }
    uint32_t reciprocal = e->reciprocal;
    uint64_t product = (within & e->span_mask) * (uint64_t)reciprocal;
    unsigned slot = (unsigned)(product >> 32);
    if (FIRN_CHECK_FREE) {
        // The low half is below the reciprocal just when the offset is a multiple of the slot size
        // (Lemire, Kaser, Kurz 2019; exhaustively tested for every class).
        uint64_t live = atomic_load_explicit(&s->live[slot >> 6], memory_order_relaxed);
        uint64_t remote = atomic_load_explicit(&s->remote[slot >> 6], memory_order_relaxed);
        if (FIRN_UNLIKELY((uint32_t)product >= reciprocal ||
                          ((live & ~remote) >> (slot & 63) & 1) == 0)) {
            return false;
        }
    }
    uint64_t *top = e->top;
    const uint8_t *noise = c->noise_at;
    if (FIRN_UNLIKELY(*top == VECTOR_END || *noise == 0)) {
        return false;
    }
    span_clear_live(s, slot);
    if (slot_on_free(p, FIRN_ROOT.classes[root_cell_class((unsigned)(at >> CELL_LINE_SHIFT))].bytes,
                     FIRN_ROOT.slot_key)) {
        cache_push(c, at, top, noise, cache_entry(address, slot));
    }
    return true;
}

FIRN_INLINE void heap_free_fast(void *p, uintptr_t site) {
    if (FIRN_UNLIKELY(!heap_free_local(p))) {
        heap_free_plain_slow(p, site);
    }
}

#endif
