#include "src/span/span.h"

uint32_t firn_span_mark = 1;
// Everybody's, and nothing else's line.
_Alignas(FIRN_CACHE_LINE) _Atomic int64_t firn_span_idle_bytes;
_Atomic int64_t firn_span_pending_bytes;

uintptr_t span_offset(const struct span *s) {
    const struct class_info *c = span_class(s);
    uintptr_t index = ((uintptr_t)s - c->spans) >> c->step_shift;
    return root_cell_offset(s->cell) + (index << c->span_shift);
}

void span_set_up(struct span *s, unsigned cell, uint64_t secret) {
    if (s->cell != cell) { // set for good by region_take; other threads may be reading it
        s->cell = (uint16_t)cell;
    }
    const struct class_info *c = span_class(s);
    bool is_fresh = span_state(s) == SPAN_UNUSED;
    if (span_state(s) != SPAN_DIRTY) {
        s->reached_bytes = 0;
    }
    s->secret = secret;
    s->free_count = (uint16_t)c->slots;
    s->bucket = 0;
    // is_torn stays: what it says about free slots is still so.
    list_init(&s->links);
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        s->free[w] = span_word_mask(c, w);
        if (is_fresh) { // else what was handed out before stays so: freeing it is a double free
            s->virgin[w] = s->free[w];
        }
        atomic_store_explicit(&s->live[w], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&s->state, SPAN_ACTIVE, memory_order_relaxed);
    span_note_idle(s, c->slots);
}

void span_set_owner(struct span *s, struct cache *owner, uint64_t number) {
    uint64_t word = atomic_load_explicit(&s->owner_word, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &s->owner_word, &word, word >> SPAN_PENDING_SHIFT << SPAN_PENDING_SHIFT | number,
        memory_order_relaxed, memory_order_relaxed)) {
    }
    atomic_store_explicit(&s->owner, owner, memory_order_seq_cst);
}

bool span_mark_pending(struct span *s) {
    uint64_t word = atomic_load_explicit(&s->owner_word, memory_order_seq_cst);
    uint64_t mark = firn_span_mark;
    do {
        if (word >> SPAN_PENDING_SHIFT == mark) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&s->owner_word, &word,
                                                    mark << SPAN_PENDING_SHIFT | (uint32_t)word,
                                                    memory_order_seq_cst, memory_order_seq_cst));
    span_note_pending(s, 1);
    return true;
}

enum span_fault span_take_remote(struct span *s, span_check_fn *check, uintptr_t *bad) {
    uintptr_t base = span_base(s);
    size_t bytes = span_class(s)->bytes;
    unsigned before = s->free_count;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        if (atomic_load_explicit(&s->remote[w], memory_order_seq_cst) == 0) {
            continue;
        }
        uint64_t bits = atomic_exchange_explicit(&s->remote[w], 0, memory_order_seq_cst);
        uint64_t live = atomic_load_explicit(&s->live[w], memory_order_relaxed);
        for (uint64_t rest = bits; rest != 0; rest &= rest - 1) {
            unsigned slot = w * 64 + (unsigned)__builtin_ctzll(rest);
            *bad = base + slot * bytes;
            if ((live & span_bit(slot)) == 0) {
                return SPAN_NOT_LIVE;
            }
            if (check != NULL && !check(s, slot, *bad)) {
                return SPAN_BAD_LINK;
            }
        }
        atomic_store_explicit(&s->live[w], live & ~bits, memory_order_relaxed);
        s->free[w] |= bits;
        s->free_count = (uint16_t)(s->free_count + __builtin_popcountll(bits));
    }
    span_note_idle(s, (int64_t)s->free_count - before);
    if (FIRN_UNLIKELY(span_has_mesh(s, SPAN_DROPPED))) {
        span_set_mesh(s, 0, SPAN_DROPPED);
    }
    return SPAN_FINE;
}

unsigned span_count_live(const struct span *s) {
    unsigned n = 0;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        uint64_t live = atomic_load_explicit(&s->live[w], memory_order_relaxed) &
                        ~atomic_load_explicit(&s->remote[w], memory_order_relaxed);
        n += (unsigned)__builtin_popcountll(live);
    }
    return n;
}
