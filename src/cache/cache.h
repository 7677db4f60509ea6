// Per-thread caches: for each cell a shuffle vector of slots in hand.
//
// A vector is filled in random order. What the thread frees does not go straight back on top: it
// takes a random place in the cell's *mixer* and pushes out what stood there. So neither the next
// slot nor the fate of a freed one can be predicted, and the next allocation never gets the slot
// that was just freed (P-NEXT). Before that, where there is a quarantine, it waits until enough was freed
// after it (cache/quarantine.h). The slots come from spans this cache owns. Only the owning thread touches a
// cache, but for `pending`, where other threads queue spans in which they freed something.
#ifndef FIRN_CACHE_CACHE_H
#define FIRN_CACHE_CACHE_H

#include "hardening/slot.h"
#include "src/base/bits.h"
#include "src/base/config.h"
#include "src/cache/noise.h"
#include "src/cache/partition.h"
#include "src/span/span.h"

#include <stddef.h>

// A vector is a 0, the entries, then VECTOR_END. A cache keeps, for each cell, the place after the
// last entry: what stands before it is the next slot or 0 (empty), what stands at it is VECTOR_END
// (full) or stale. So neither pop nor push needs a count.
#define VECTOR_END (~(uint64_t)0)
enum { MIXER = 32 };

// An entry: the slot's index in the top byte, its address in the lower 48 bits, and a flag where
// addresses have zeros.
#define ENTRY_VIRGIN ((uint64_t)1) // never handed out since its span was set up
#define ENTRY_ADDRESS ((((uint64_t)1 << 48) - 1) & ~(uint64_t)15)
enum { ENTRY_SLOT_SHIFT = 56 };

FIRN_INLINE uint64_t cache_entry(uintptr_t address, unsigned slot) {
    return (uint64_t)slot << ENTRY_SLOT_SHIFT | address;
}

// What a cell's vector and owned spans need besides: the slow paths' part.
struct bin {
    uint64_t *entries; // of the vector
    struct cache *cache;
    uint32_t cell;
    uint32_t capacity;               // of the vector: small at first
    uint32_t taken;                  // slots fetched so far, up to two vectors' worth
    uint32_t stash;                  // entries put out of the fast paths' sight
    bool is_paused;                  // they may come back as they are; else they are shuffled anew
    struct list lists[SPAN_BUCKETS]; // owned spans by occupancy
};

// A cell as the fast paths need it, in one line. All zero until first used: then every address is
// beyond it.
struct cache_cell {
    _Alignas(FIRN_CACHE_LINE) uintptr_t top; // cache_place
    uintptr_t base;                          // address of the cell
    uintptr_t bytes;                         // how much of it had descriptors when last looked at
    uintptr_t spans; // where the descriptor of the span at address 0 would be (cache_span)
    uint64_t *mixer; // freed slots, or 0
    // What of an address, or of an entry, is its span's: all bits but those within the span and, for entries,
    // those above addresses.
    uint64_t span_keep;
    uint32_t reciprocal; // class_info's
    uint32_t step_down;  // cache_span
    uint32_t slot_bytes;
    uint32_t mixer_mask; // places in use - 1: fewer where slots are large
};
_Static_assert(sizeof(struct cache_cell) == 1 << CELL_LINE_SHIFT, "cache_cell_at shifts by this");

struct quarantine;

struct cache {
    const uint8_t *noise_at; // next byte
    uint64_t *held_place;    // in the quarantine: where the next freed slot goes
    // Bytes that still fit there; 0 before there is one. Other threads read it.
    _Atomic int64_t held_left;
    uint64_t number; // 32 bits, never 0, never reused by another cache
    // What the fast paths need of the root: here, next to the rest, it is one load away. 0 in the
    // empty cache.
    uintptr_t small_base;
    uint32_t line_shift;
    uint32_t ticks; // slow operations, paces upkeep
    struct noise *noise;
    _Atomic(struct quarantine *) quarantine; // NULL until first used; statistics read it
    uint32_t sample_left; // allocations until the next guarded sample is due; 0: not drawn yet
    uint8_t samples_due;  // the next allocations that take the slow path
    uint8_t sample_tries; // how often cache_pause may still help it
    _Atomic(struct span *) pending; // CACHE_CLOSED when nobody takes care of it
    struct cache *next;             // registry of all caches ever made
    struct cache *next_idle;
    _Atomic bool is_used;
    _Atomic bool is_dead; // in a forked child: its thread stayed in the parent
    uint64_t nothing;     // 0: the vector of cells not used yet
    // size_class_table with each class's first cell in place of the class, in bytes from here. In the
    // empty cache all lead to its beginning, where zeros stand, there and in each further line, as in its cells.
    uint32_t first_cells[SIZE_TABLE_MAX / 16 + 1];
    struct cache_cell cells[CELLS];
    struct bin *bins[CELLS]; // NULL until first used
};

// Where in `cells` the cell of an address is, in bytes. For an address that is not in the small
// regions it names some cell or other, of which the address is then not part. (On
// the chain from one free to the next malloc, through `top`: two operations, no multiplication. The
// shift is loaded whole: clang would load its lowest byte into a register whose rest then has to be
// waited for, 5 % of churn.)
FIRN_INLINE uintptr_t cache_cell_at(const struct cache *c, uintptr_t address) {
    return (address - c->small_base) >> FIRN_OPAQUE(c->line_shift) &
           (((uintptr_t)CELLS - 1) << CELL_LINE_SHIFT);
}

FIRN_INLINE struct cache_cell *cache_cell(struct cache *c, uintptr_t at) {
    return (struct cache_cell *)((uintptr_t)c->cells + at);
}

// A class's first cell, in bytes from the beginning of a cache.
FIRN_INLINE uintptr_t cache_first_cell(unsigned class_index) {
    return offsetof(struct cache, cells) +
           ((uintptr_t)class_index << (CELL_LINE_SHIFT + FIRN_PARTITION_BITS));
}

// The cell of a class, given its first one, that a call at `site` takes from. (The hash is moved to its
// place by one shift. What else follows from the class is in the table: of a malloc, each instruction is
// one in forty.)
FIRN_INLINE struct cache_cell *cache_cell_for(struct cache *c, uintptr_t first, uintptr_t site) {
    uintptr_t further;
    if (FIRN_PARTITION_MODE == 1) {
        // The root's key: it need not wait for `c`, which two loads lead to.
        further = site * root_site_key() >> (64 - FIRN_PARTITION_BITS - CELL_LINE_SHIFT) &
                  (uintptr_t)(FIRN_PARTITIONS - 1) << CELL_LINE_SHIFT;
    } else {
        further = (uintptr_t)partition_of(site, root_site_key()) << CELL_LINE_SHIFT;
    }
    return (struct cache_cell *)((uintptr_t)c + FIRN_OPAQUE(first + further));
}

// The thread's cache. Never NULL: a thread without one has the shared empty cache, which has no
// vectors and owns no span, so that the fast paths need no test of their own.
extern FIRN_TLS struct cache *firn_cache;
extern struct cache firn_empty_cache;

// Descriptor of the span of the cell that begins at `start`. (Cells begin at multiples of every span's
// size: so the cell's beginning need not be taken off first.) A span is larger than what its descriptor is
// away from the next one, or made so by CACHE_STEP_UP: one shift does.
enum {
    CACHE_STEP_UP = ROOT_SPAN_SHIFT + FIRN_PARTITION_BITS > FIRN_PAGE_SHIFT
                        ? ROOT_SPAN_SHIFT + FIRN_PARTITION_BITS - FIRN_PAGE_SHIFT
                        : 0
};
FIRN_INLINE struct span *cache_span(const struct cache_cell *e, uintptr_t start) {
    return (struct span *)(e->spans + (start >> FIRN_OPAQUE(e->step_down) << CACHE_STEP_UP));
}

// The place after a vector's last entry, given the cell's `top`, which counts from behind `nothing`: a cell
// that is all zero then has an empty vector, and malloc need not ask whether it has one at all.
FIRN_INLINE uint64_t *cache_place(const struct cache *c, uintptr_t top) {
    return (uint64_t *)((uintptr_t)(&c->nothing + 1) + top);
}

FIRN_INLINE uintptr_t cache_top_at(const struct cache *c, const uint64_t *place) {
    return (uintptr_t)place - (uintptr_t)(&c->nothing + 1);
}

// The next entry of a vector, given the cell's `top`, or 0 if there is none; it stays there until
// cache_take.
FIRN_INLINE uint64_t cache_peek(const struct cache *c, uintptr_t top) {
    return cache_place(c, top)[-1];
}

// Takes the entry that was peeked at below `top` and marks its slot live. Returns its address.
// (Stores what it is given: a signal handler may have forked in between, and in the child, which goes
// on here with the parent's registers, the cell's own top now names something else; bin_unstash.)
FIRN_INLINE uintptr_t cache_take(struct cache_cell *e, uintptr_t top, uint64_t entry) {
    e->top = top - sizeof(uint64_t);
    uintptr_t address = entry & ENTRY_ADDRESS;
    struct span *s = cache_span(e, entry & e->span_keep);
    _Atomic uint64_t *w = &s->live[entry >> (ENTRY_SLOT_SHIFT + 6)];
    uint64_t live = atomic_load_explicit(w, memory_order_relaxed);
    atomic_store_explicit(w, bits_set(live, entry >> ENTRY_SLOT_SHIFT), memory_order_relaxed);
    return address;
}

// Puts an entry of a span this cache owns into circulation. `top` is e->top, where the vector is not
// full; `noise` is the byte at c->noise_at, not 0. (The caller has looked at both; loaded again here
// they would cost three loads more, since no compiler can know that they have not changed.)
FIRN_INLINE void cache_push(struct cache *c, uintptr_t at, uintptr_t top, uint64_t noise,
                            uint64_t entry) {
    struct cache_cell *e = cache_cell(c, at);
    uint64_t *place = &e->mixer[noise & e->mixer_mask];
    uint64_t out = *place;
    *place = entry;
    *cache_place(c, top) = out;
    // A branch, not arithmetic: the next top must not wait for `out` to be loaded.
    if (FIRN_LIKELY(out != 0)) {
        if (FIRN_VERIFY) {
            slot_expect(out & ENTRY_ADDRESS); // the next to be handed out
        }
        e->top = top + sizeof(uint64_t);
    }
}

// Puts the slot of `slot_bytes` just freed in quarantine. False if the fast way is full, or there is no
// noise, by which a forked child notices that it is one: then quarantine_add.
FIRN_INLINE bool cache_hold(struct cache *c, uint64_t entry, uint32_t slot_bytes) {
    int64_t left = atomic_load_explicit(&c->held_left, memory_order_relaxed) - slot_bytes;
    if (FIRN_UNLIKELY(left <= 0) || FIRN_UNLIKELY(*c->noise_at == 0)) {
        return false;
    }
    uint64_t *place = c->held_place;
    *place = entry;
    c->held_place = place + 1;
    atomic_store_explicit(&c->held_left, left, memory_order_relaxed);
    return true;
}

// Puts a slot into circulation, or back among its span's free ones; both with the owner's lock.
void cache_release(struct cache *c, uint64_t entry);
void cache_release_all(struct cache *c, const uint64_t *entries, uint32_t n);
void cache_put_back(struct cache *c, uint64_t entry);

// Fetches more noise if there is none left.
void cache_make_noise(struct cache *c);

// Entries of a bin's vector, the stashed ones too.
uint32_t cache_count_entries(const struct bin *b);

// A guarded sample is due: lets the next allocation from the cell take its slow path.
void cache_pause(struct cache *c, unsigned cell);

// After an owned span's counts changed: files it by its occupancy, or gives it to central if nothing
// of it is live or in hand.
void cache_settle(struct cache *c, struct span *s);

// Fetches at least one entry for the cell; drains, grows. False: no memory. The thread has a cache
// of its own.
bool cache_refill(struct cache *c, unsigned cell) FIRN_CHECKED;

// Gives this thread a cache. False on ENOMEM.
bool cache_attach(void) FIRN_CHECKED;
// At thread exit: everything goes back to central; the cache waits for another thread.
void cache_detach(struct cache *c);
// Puts everything in hand back among the free slots and gives empty spans to central.
void cache_flush_all(struct cache *c);

// A slot of a span this thread does not own, checked live: freed for its owner.
// False: some other thread had freed it before.
bool cache_free_remote(struct span *s, uintptr_t address) FIRN_CHECKED;

// Was the slot never handed out? For reports; exact for the owner and for central spans.
bool cache_is_virgin(const struct span *s, uintptr_t address);

void cache_before_fork(void);
// True if other threads' caches were in use: their spans are to be recovered.
bool cache_after_fork(bool in_child);
void cache_count(size_t *made, size_t *used);
// All caches ever made, by `next`: for the validator.
struct cache *cache_first(void);

#endif
