// The fast paths, inlined into malloc, free and the C++ operators: no lock, no atomic
// read-modify-write, no system call.
#ifndef FIRN_HEAP_FAST_H
#define FIRN_HEAP_FAST_H

#include "hardening/slack.h"
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

// For `site`: the return address of the function that the fast path is inlined into. It is read where it
// is needed: of a free, only where something is wrong or full.
#define HEAP_SITE_HERE ((uintptr_t)0)
FIRN_INLINE uintptr_t heap_site(uintptr_t site) {
    return __builtin_constant_p(site) && site == HEAP_SITE_HERE ? FIRN_CALLER() : site;
}

FIRN_INLINE void *heap_alloc_fast(size_t size, uintptr_t site) {
    struct cache *c = firn_cache;
    uintptr_t first;
    if (FIRN_LIKELY(size <= SIZE_TABLE_MAX - FIRN_SLOT_EXTRA)) {
        first = FIRN_OPAQUE((uintptr_t)c->first_cells[(size + FIRN_SLOT_EXTRA + 15) >> 4]);
    } else if (size <= SMALL_MAX - FIRN_SLOT_EXTRA) {
        first = cache_first_cell(size_class_of(size + FIRN_SLOT_EXTRA));
    } else {
        return heap_alloc_slow(size, heap_site(site));
    }
    struct cache_cell *e = cache_cell_for(c, first, heap_site(site));
    uintptr_t top = e->top;
    uint64_t entry = cache_peek(c, top);
    if (FIRN_UNLIKELY(entry == 0)) {
        return heap_alloc_slow(size, heap_site(site));
    }
    uintptr_t address = cache_take(e, top, entry);
    size_t slot_bytes = e->slot_bytes;
    size_t before_bytes = entry >> ENTRY_SLOT_SHIFT != 0 ? slot_bytes : 0;
    void *p =
        slot_issue(address, slot_bytes, before_bytes, (entry & ENTRY_VIRGIN) != 0, heap_site(site));
    slack_note(address, slot_bytes, size);
    return p;
}

// Puts a slot that was just freed into circulation where room or noise is missing, and retires it.
// Any thread with a cache of its own. Keeps errno.
void heap_retire_slow(struct cache *c, uintptr_t at, uint64_t entry, const char *api,
                      uintptr_t site);

// Puts a slot that was just freed into quarantine, or into circulation. False: the fast way is full.
FIRN_INLINE bool heap_circulate(struct cache *c, uintptr_t at, uint64_t entry) {
    struct cache_cell *e = cache_cell(c, at);
    if (FIRN_QUARANTINE != 0) {
        return cache_hold(c, entry, e->slot_bytes);
    }
    uintptr_t top = e->top;
    const uint8_t *noise_at = c->noise_at;
    uint64_t noise = FIRN_OPAQUE((uint64_t)*noise_at);
    if (FIRN_UNLIKELY(*cache_place(c, top) == VECTOR_END) || FIRN_UNLIKELY(noise == 0)) {
        return false;
    }
    c->noise_at = noise_at + 1;
    cache_push(c, at, top, noise, entry);
    return true;
}

// Frees `p` if this thread owns its span and nothing is wrong; false (and nothing done) otherwise. Any
// pointer, NULL too. What it calls it calls last, so that it needs no stack frame. With `pending` 0,
// also false when other threads' frees wait in the span; with UINT64_MAX the caller knows that `p` is
// not one of them. `api` and `site`: for the report of a broken canary.
FIRN_INLINE bool heap_free_owned(void *p, uint64_t pending, const char *api, uintptr_t site) {
    uintptr_t address = (uintptr_t)p;
    struct cache *c = firn_cache;
    uintptr_t at = cache_cell_at(c, address);
    struct cache_cell *e = cache_cell(c, at);
    uintptr_t within = address - e->base;
    if (FIRN_UNLIKELY(within >= e->bytes)) {
        return false;
    }
    uintptr_t start = address & e->span_keep;
    uintptr_t offset = address - start;
    struct span *s = FIRN_OPAQUE(cache_span(e, start));
    // Only this thread makes itself owner or stops being it: the answer "mine" stays true.
    uint64_t word = atomic_load_explicit(&s->owner_word, memory_order_relaxed);
    if (FIRN_UNLIKELY((pending == 0 ? word : (uint32_t)word) != c->number)) {
        return false;
    }
    uint32_t reciprocal = e->reciprocal;
    uint64_t product = offset * (uint64_t)reciprocal;
    unsigned slot = (unsigned)(product >> 32);
    // The low half is below the reciprocal just when the offset is a multiple of the slot size
    // (Lemire, Kaser, Kurz 2019; exhaustively tested for every class).
    if (FIRN_CHECK_FREE && FIRN_UNLIKELY((uint32_t)product >= reciprocal)) {
        return false;
    }
    _Atomic uint64_t *w = &s->live[slot >> 6];
    uint64_t live = atomic_load_explicit(w, memory_order_relaxed);
    bool was_live = bits_test_clear(&live, slot);
    if (FIRN_CHECK_FREE && FIRN_UNLIKELY(!was_live)) {
        return false;
    }
    atomic_store_explicit(w, live, memory_order_relaxed);
    uint64_t entry = cache_entry(address, slot);
    if (FIRN_LIKELY(heap_circulate(c, at, entry))) {
        size_t slot_bytes = e->slot_bytes;
        slack_retire(address, slot_bytes, api, heap_site(site));
        slot_retire(address, slot_bytes, slot != 0 ? slot_bytes : 0, api, heap_site(site));
    } else {
        heap_retire_slow(c, at, entry, api, heap_site(site));
    }
    return true;
}

FIRN_INLINE bool heap_free_local(void *p, const char *api, uintptr_t site) {
    return heap_free_owned(p, 0, api, site);
}

FIRN_INLINE void heap_free_fast(void *p, uintptr_t site) {
    if (FIRN_UNLIKELY(!heap_free_local(p, "free", site))) {
        heap_free_plain_slow(p, heap_site(site));
    }
}

#endif
