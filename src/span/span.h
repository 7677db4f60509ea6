// Spans: runs of pages cut into equal slots, each with a descriptor far away from its slots.
//
// For every slot exactly one of these holds:
//   live      its bit in `live`                       the program has it
//   free      its bit in `free`                       available; nobody has it
//   in hand   neither                                in its owner's shuffle vector, or in quarantine
// Bits, and no list through the slots: what is written to a free slot is followed by nobody. P-LINK-NONE.
// A live slot may also have its bit in `remote`: another thread freed it, the owner
// has not yet taken it back.
//
// Who writes: a span with an owner belongs to that thread's cache: only that thread writes lines
// 0 and 2, and all but `live` under its owner's lock (slab/owner.h), but for `mesh`. Without an owner
// it belongs to whoever holds its class's lock. The mesher takes the lock that applies, and writes
// `mesh` only.
// `remote`, `pending` and `pending_next` are everybody's, atomically. `owner` changes only from the
// owner to NULL, or from NULL to a new owner, both with the class lock held.
#ifndef FIRN_SPAN_SPAN_H
#define FIRN_SPAN_SPAN_H

#include "src/base/compiler.h"
#include "src/base/list.h"
#include "src/meta/root.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SPAN_WORDS = 4, SPAN_MAX_SLOTS = 256, SPAN_PENDING_SHIFT = 32 };

enum span_state {
    SPAN_UNUSED, // never used, or address space that somebody else took (descriptor all zero)
    SPAN_ACTIVE, // has an owner, or is on one of the central lists by occupancy
    SPAN_DIRTY,  // no live slot, pages still there
    SPAN_CLEAN,  // no live slot, pages given back: reads as zeros
    SPAN_PURGING // between the two, on nobody's list
};

// What the mesher has to do with a span.
enum span_mesh {
    SPAN_MESHED =
        1 << 0, // some of its pages share frames: its free slots may be in use there, so it is
                // not allocated from any more
    SPAN_TOUCHED = 1 << 1, // slots were taken from it since the mesher looked last
    SPAN_DROPPED =
        1 << 2, // pages were given back with slots on them that other threads freed: tags of
                // what waits in `remote` may read as zeros
    SPAN_KEPT =
        1 << 3 // the program has changed pages of it (mprotect and its like): never meshed again
};

struct cache;

struct span {
    // Line 0: what every malloc and free of its owner looks at.
    _Atomic uint64_t live[SPAN_WORDS];
    struct list links; // owner's or central list, by state and bucket
    union {
        uint64_t secret;     // keys its links; new at each (re)use
        uint64_t emptied_ms; // SPAN_DIRTY, which has no links: since when
    };
    uint16_t cell;
    uint16_t free_count;   // bits set in `free`
    _Atomic uint8_t state; // enum span_state
    uint8_t bucket;        // the list by occupancy it is on
    _Atomic uint8_t mesh;  // enum span_mesh; of whoever may write `free`
    bool is_torn;          // recovered in a forked child: slots as their dead owner left them
    // Line 1: other threads'. Who frees what another thread owns touches no other line to do so.
    _Atomic uint64_t remote[SPAN_WORDS];
    // Low half: the owner's number, 0 when central. High half, *pending*: firn_span_mark when on the
    // owner's queue of spans with remote frees, or on its way to one. In one word, so that one
    // comparison tells a thread that the span is its own and that nobody else freed in it.
    _Atomic uint64_t owner_word;
    _Atomic(struct cache *) owner; // NULL: central
    _Atomic(struct span *) pending_next;
    uint64_t padding_1;
    // Line 2: the slow paths'.
    uint64_t free[SPAN_WORDS];
    uint64_t virgin[SPAN_WORDS]; // subset of `free`: never handed out
    // Slots that begin at or behind this were in nobody's hand since the span's pages were fresh, or last given back:
    // pages that begin there are not there. Of others it says nothing.
    uint32_t reached_bytes;
    // A power of two: the fast paths' way from an address to its descriptor is shorter.
    uint32_t padding_3[15];
};
_Static_assert(sizeof(struct span) == 1 << ROOT_SPAN_SHIFT, "root.c computes with this");

// What `pending` is in this process: 1, and one more in every forked child. A thread that was about to
// queue a span when another one forked is not in the child: its mark, which nobody there would ever
// take back, must not look like that of a thread that is. Changes only while there is one thread.
extern uint32_t firn_span_mark;

// Bytes of free slots in spans in use: memory that nobody has and nobody else can have. Kept by the slow
// paths, for all classes; approximate in a forked child.
extern _Atomic int64_t firn_span_idle_bytes;
// Bytes of spans that wait for their owner to take back what others freed in them. Approximate likewise.
extern _Atomic int64_t firn_span_pending_bytes;

FIRN_INLINE const struct class_info *span_class(const struct span *s) {
    return &FIRN_ROOT.classes[root_cell_class(s->cell)];
}

// Descriptor of a cell's `index`-th span.
FIRN_INLINE struct span *span_by_index(unsigned cell, uintptr_t index) {
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    return (struct span *)(c->spans + (index << c->step_shift)) + root_cell_partition(cell);
}

// Descriptor of the span that contains the address `offset` bytes into the small regions, which is
// not before its cell's first span.
FIRN_INLINE struct span *span_at(uintptr_t offset, const struct class_info *c) {
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    return span_by_index(cell, (offset - root_cell_offset(cell)) >> c->span_shift);
}

// Address of a span's first slot, relative to the small regions.
uintptr_t span_offset(const struct span *s);
FIRN_INLINE uintptr_t span_base(const struct span *s) {
    return FIRN_ROOT.small_base + span_offset(s);
}

// `slots` more of the span's, or fewer, are free now.
FIRN_INLINE void span_note_idle(const struct span *s, int64_t slots) {
    atomic_fetch_add_explicit(&firn_span_idle_bytes, slots * (int64_t)span_class(s)->bytes,
                              memory_order_relaxed);
}

FIRN_INLINE void span_note_pending(const struct span *s, int64_t spans) {
    atomic_fetch_add_explicit(&firn_span_pending_bytes,
                              spans * ((int64_t)span_class(s)->span_mask + 1),
                              memory_order_relaxed);
}

FIRN_INLINE uint64_t span_bit(unsigned slot) {
    return (uint64_t)1 << (slot & 63);
}

FIRN_INLINE bool span_is_live(const struct span *s, unsigned slot) {
    return (atomic_load_explicit(&s->live[slot >> 6], memory_order_relaxed) & span_bit(slot)) != 0;
}

FIRN_INLINE bool span_is_remote(const struct span *s, unsigned slot) {
    return (atomic_load_explicit(&s->remote[slot >> 6], memory_order_relaxed) & span_bit(slot)) !=
           0;
}

// Owner or lock holder. Plain load and store: other threads only read `live`.
FIRN_INLINE void span_set_live(struct span *s, unsigned slot) {
    _Atomic uint64_t *w = &s->live[slot >> 6];
    uint64_t v = atomic_load_explicit(w, memory_order_relaxed);
    atomic_store_explicit(w, v | span_bit(slot), memory_order_relaxed);
}

FIRN_INLINE void span_clear_live(struct span *s, unsigned slot) {
    _Atomic uint64_t *w = &s->live[slot >> 6];
    uint64_t v = atomic_load_explicit(w, memory_order_relaxed);
    atomic_store_explicit(w, v & ~span_bit(slot), memory_order_relaxed);
}

FIRN_INLINE unsigned span_slot(const struct class_info *c, uintptr_t offset) {
    return (unsigned)((offset & c->span_mask) * (uint64_t)c->reciprocal >> 32);
}

// Slots that exist, as a word of bits.
FIRN_INLINE uint64_t span_word_mask(const struct class_info *c, unsigned word) {
    unsigned slots = c->slots;
    return slots >= (word + 1) * 64 ? ~(uint64_t)0
           : slots <= word * 64     ? 0
                                    : ((uint64_t)1 << (slots & 63)) - 1;
}

FIRN_INLINE unsigned span_state(const struct span *s) {
    return atomic_load_explicit(&s->state, memory_order_relaxed);
}

// All slots free and virgin, no owner, a new secret. The caller holds the class lock and has taken
// the span off every list.
void span_set_up(struct span *s, unsigned cell, uint64_t secret);

// Names the owner, by address and by number. The caller holds the class lock.
void span_set_owner(struct span *s, struct cache *owner, uint64_t number);

// Puts a slot that is in hand back among the free ones.
FIRN_INLINE void span_put_free(struct span *s, unsigned slot, bool is_virgin) {
    s->free[slot >> 6] |= span_bit(slot);
    s->free_count++;
    if (is_virgin) {
        s->virgin[slot >> 6] |= span_bit(slot);
    }
}

// Whoever may write `mesh`. Plain load and store: frees by other threads only read it.
FIRN_INLINE void span_set_mesh(struct span *s, unsigned set, unsigned clear) {
    unsigned v = atomic_load_explicit(&s->mesh, memory_order_relaxed);
    atomic_store_explicit(&s->mesh, (uint8_t)((v & ~clear) | set), memory_order_relaxed);
}

FIRN_INLINE bool span_has_mesh(const struct span *s, enum span_mesh flag) {
    return (atomic_load_explicit(&s->mesh, memory_order_relaxed) & flag) != 0;
}

FIRN_INLINE bool span_is_meshed(const struct span *s) {
    return span_has_mesh(s, SPAN_MESHED);
}

// What central and bins sort by: 0 nearly empty … 3 nearly full, 4 full; 5 not to be taken from. The
// mesher marks a span wherever it is listed; whoever comes across it there files it anew.
enum { SPAN_BUCKETS = 6, SPAN_FULL = 4, SPAN_WITHDRAWN = 5 };
FIRN_INLINE unsigned span_bucket(const struct span *s) {
    unsigned slots = span_class(s)->slots;
    unsigned used = slots - s->free_count;
    return span_is_meshed(s) ? SPAN_WITHDRAWN : used == slots ? SPAN_FULL : used * 4 / slots;
}

// Whoever has removed the span from its queue (and nobody else: a span must not be queued twice)
// says so before looking at `remote`: a free that comes later queues the span again, one that came
// before has its bit in the words that are then read.
FIRN_INLINE void span_unqueue(struct span *s) {
    uint64_t was = atomic_fetch_and_explicit(&s->owner_word, UINT32_MAX, memory_order_seq_cst);
    if (was >> SPAN_PENDING_SHIFT == firn_span_mark) {
        span_note_pending(s, -1);
    }
}

// What is wrong with a slot that another thread freed.
enum span_fault { SPAN_FINE, SPAN_NOT_LIVE, SPAN_BAD_LINK };

FIRN_INLINE uint32_t span_owner_number(const struct span *s) {
    return (uint32_t)atomic_load_explicit(&s->owner_word, memory_order_relaxed);
}

FIRN_INLINE uint32_t span_pending(const struct span *s) {
    return (uint32_t)(atomic_load_explicit(&s->owner_word, memory_order_seq_cst) >>
                      SPAN_PENDING_SHIFT);
}

// Marks the span as pending. True if it was not: then the caller queues it.
bool span_mark_pending(struct span *s) FIRN_CHECKED;

// Takes over what other threads freed: clears `live`, sets `free`. Owner or lock holder. Each slot
// passes `check` first (P-LINK) unless that is NULL. *bad is the address of the slot at fault.
typedef bool span_check_fn(const struct span *s, unsigned slot, uintptr_t address);
enum span_fault span_take_remote(struct span *s, span_check_fn *check, uintptr_t *bad) FIRN_CHECKED;

// Live slots, as the bits say. Any thread; exact when nothing else runs.
unsigned span_count_live(const struct span *s);

#endif
