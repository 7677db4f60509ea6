#include "src/cache/remote.h"

#include "hardening/link.h"
#include "hardening/slot.h"
#include "src/base/config.h"
#include "src/cache/quarantine.h"
#include "src/os/sys.h"
#include "src/slab/central.h"

#include <string.h>

struct span firn_closed_queue;

static bool push(struct cache *owner, struct span *s) {
    struct span *head = atomic_load_explicit(&owner->pending, memory_order_seq_cst);
    do {
        if (head == CACHE_CLOSED) {
            return false;
        }
        atomic_store_explicit(&s->pending_next, head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&owner->pending, &head, s, memory_order_seq_cst,
                                                    memory_order_seq_cst));
    return true;
}

void remote_deliver(struct span *s) {
    for (;;) {
        struct cache *owner = atomic_load_explicit(&s->owner, memory_order_seq_cst);
        if (owner == NULL) {
            central_rebuild_if_due(root_cell_class(s->cell));
            if (central_deliver(s)) {
                return;
            }
        } else if (push(owner, s)) {
            return;
        } else if (atomic_load_explicit(&owner->is_dead, memory_order_relaxed)) {
            // Forked child: the owner's thread is not here. This makes the span ownerless and takes
            // over its remote frees.
            central_rebuild_if_due(root_cell_class(s->cell));
        } else {
            sys_yield(); // between its becoming ownerless and our seeing it: instructions
        }
    }
}

bool cache_free_remote(struct span *s, uintptr_t address) {
    unsigned slot = span_slot(span_class(s), address - FIRN_ROOT.small_base);
    if (FIRN_CHECK_FREE && span_is_remote(s, slot)) {
        return false; // before the tag overwrites what somebody else may be using
    }
    slot_wipe(address, span_class(s)->bytes);
    if (FIRN_SAFE_LINK) {
        link_store(address, link_encode(slot, address, s->secret));
    }
    uint64_t before =
        atomic_fetch_or_explicit(&s->remote[slot >> 6], span_bit(slot), memory_order_seq_cst);
    if (FIRN_CHECK_FREE && (before & span_bit(slot)) != 0) {
        return false;
    }
    if (span_mark_pending(s)) {
        remote_deliver(s);
    }
    return true;
}

// What is free in `s` and was not before goes into quarantine. (Nothing is free but in hand until the last
// of it is there: what leaves meanwhile cannot make the span empty.)
static void hold_taken(struct cache *c, struct span *s, const uint64_t *before) {
    uintptr_t base = span_base(s);
    uint32_t bytes = span_class(s)->bytes;
    uint64_t taken[SPAN_WORDS];
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        taken[w] = s->free[w] & ~before[w];
        s->free[w] = before[w];
        s->free_count = (uint16_t)(s->free_count - bits_count(taken[w]));
    }
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        for (uint64_t rest = taken[w]; rest != 0; rest &= rest - 1) {
            unsigned slot = w * 64 + (unsigned)__builtin_ctzll(rest);
            quarantine_add(c, s->cell, cache_entry(base + slot * (uintptr_t)bytes, slot));
        }
    }
}

static void take_over(struct cache *c, struct span *s) {
    uint64_t before[SPAN_WORDS];
    memcpy(before, s->free, sizeof before);
    span_unqueue(s);
    central_take_remote(s);
    if (FIRN_QUARANTINE != 0) {
        hold_taken(c, s, before);
    }
    cache_settle(c, s);
}

void remote_settle(struct cache *c, struct span *s) {
    uint32_t pending = span_pending(s);
    if (pending != 0 && pending != firn_span_mark) {
        take_over(c, s);
    }
}

void remote_drain(struct cache *c) {
    if (atomic_load_explicit(&c->pending, memory_order_relaxed) == NULL) {
        return;
    }
    struct span *s = atomic_exchange_explicit(&c->pending, NULL, memory_order_seq_cst);
    while (s != NULL) {
        // Read before the span is unqueued: from then on it may be queued again.
        struct span *next = atomic_load_explicit(&s->pending_next, memory_order_relaxed);
        if (atomic_load_explicit(&s->owner, memory_order_relaxed) == c) {
            take_over(c, s);
        } else {
            remote_deliver(s);
        }
        s = next;
    }
}

void remote_close(struct cache *c) {
    struct span *s = atomic_exchange_explicit(&c->pending, CACHE_CLOSED, memory_order_seq_cst);
    while (s != NULL && s != CACHE_CLOSED) {
        struct span *next = atomic_load_explicit(&s->pending_next, memory_order_relaxed);
        remote_deliver(s);
        s = next;
    }
}
