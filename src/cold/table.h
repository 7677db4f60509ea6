// What the cold tier knows of the pages of the heap (the small regions, and the large objects of the main
// reservation): 512 at a time, a *chunk* of 2 MiB (which
// is what the kernel is told about), made when Firn first looks at it and kept.
//
// The state of each page is its byte in meta/page_state.h. Here is what belongs to a state: where a
// staged page lies, where a frozen one is stored, how long a tracked one has been idle.
//
// Who may touch what: everything here is changed under the cold tier's one lock (cold_lock), by the
// thread that thaws and the one that freezes, which never wait for a page of the heap. The exception is
// page_state_release (in any thread of the program, with locks of the allocator held, perhaps on a stack
// that is itself a frozen block, so that it may wait for nobody who waits for a page): it moves a state
// from STAGED or FROZEN to FRESH by compare-and-swap, and leaves what belonged to it for the next
// sweep. Hence every change of a state is a compare-and-swap that may fail.
#ifndef FIRN_COLD_TABLE_H
#define FIRN_COLD_TABLE_H

#include "src/base/compiler.h"
#include "src/cold/store.h"
#include "src/cold/trial.h"
#include "src/meta/root.h"
#include "src/os/lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK_SHIFT = 21, CHUNK_PAGES = 1 << (CHUNK_SHIFT - FIRN_PAGE_SHIFT) };
enum { CHUNK_WORDS = CHUNK_PAGES / 64 };
#define CHUNK_BYTES ((size_t)1 << CHUNK_SHIFT)

// What is in `at`.
enum page_holds {
    HOLDS_NOTHING,
    HOLDS_SLOT,
    HOLDS_BLOB,
    HOLDS_SWAP // nothing of ours: the kernel has put the page into swap (swapper.h)
};

struct cold_page {
    union {
        uint32_t slot;         // HOLDS_SLOT: of the staging area
        struct cold_blob blob; // HOLDS_BLOB
    } at;
    uint32_t generation; // how often it was frozen: a stored page is only ever taken for itself
    uint8_t holds;
    uint8_t idle; // looks since it was last written
    uint8_t rest; // looks for which it is left alone
    uint8_t heat; // log2 of the next rest: touched while staged, or not worth its place
};

struct chunk {
    uintptr_t base;
    struct chunk *next; // made before this one
    // The kernel tells us of touches; no merge may begin here. Sequentially consistent: see claim.
    _Atomic bool is_claimed;
    // The freezing thread's alone.
    uint8_t wait, rest; // looks until it may be registered; the next such wait
    uint64_t used;      // spans in use at the last look; of large objects, their fingerprint
    size_t registered;  // bytes from the base on; 0: none
    // Changed under the lock.
    _Atomic uint32_t filled;      // pages of zeros given since the last look
    _Atomic uint32_t away;        // pages staged or frozen
    uint32_t poor;                // pages in a row that did not get smaller
    uint32_t asked;               // pages that somebody waited for, in a row
    uint64_t asked_ns;            // the last time
    uint32_t recent;              // of the last touches that brought a page of any chunk back
    uint64_t marked[CHUNK_WORDS]; // pages with a guard marker (cold/mark.h), if they are away
    // A bit a page, set by any thread of the program (cold/hint.h). Sequentially consistent, but for `wished`.
    _Atomic uint64_t
        excluded[CHUNK_WORDS];            // is never taken away; cleared when the page is released
    _Atomic uint64_t wished[CHUNK_WORDS]; // the program does not need it for long
    _Atomic uint64_t wanted[CHUNK_WORDS]; // it counts as touched
    // It is not away any more, and still inaccessible, for want of mappings (engine `protect`).
    _Atomic uint64_t shut[CHUNK_WORDS];
    // Under `protect`, where writes are not noted: what of the page was in use at the last look (claim_fingerprint).
    uint16_t uses[CHUNK_PAGES];
    struct trial trial;       // the freezing thread's
    _Atomic uint64_t returns; // pages that came back from the staging area, so far
    struct cold_page pages[CHUNK_PAGES];
};

extern struct lock cold_lock;

// NULL: not looked at yet, or not in the heap's main reservation. Any thread; signal-safe.
struct chunk *table_find(uintptr_t address);
// Made if need be; NULL: no memory, or not in it. Any thread that holds no lock of a higher
// rank. Takes LOCK_ARENA.
struct chunk *table_make(uintptr_t address);
// The youngest; the others by `next`. Any thread.
struct chunk *table_first(void);

FIRN_INLINE uint32_t table_away(const struct chunk *c) {
    return atomic_load_explicit(&c->away, memory_order_relaxed);
}

// With cold_lock; before the page is marked, so that a chunk with none has none that is about to go.
FIRN_INLINE void table_count_away(struct chunk *c, int more) {
    atomic_fetch_add(&c->away, (uint32_t)more);
}

// With cold_lock. The page is not to be taken away for a while, longer each time.
FIRN_INLINE void table_leave_alone(struct cold_page *p, unsigned looks) {
    enum { HEAT_MOST = 6 };
    p->heat = (uint8_t)(p->heat < HEAT_MOST ? p->heat + 1 : HEAT_MOST);
    unsigned rest = looks << p->heat;
    p->rest = (uint8_t)(rest < UINT8_MAX ? rest : UINT8_MAX);
}

FIRN_INLINE struct cold_page *table_page(struct chunk *c, uintptr_t address) {
    return &c->pages[(address - c->base) >> FIRN_PAGE_SHIFT];
}

FIRN_INLINE unsigned table_index(const struct chunk *c, uintptr_t address) {
    return (unsigned)((address - c->base) >> FIRN_PAGE_SHIFT);
}

FIRN_INLINE bool table_has_excluded(struct chunk *c) {
    uint64_t any = 0;
    for (unsigned w = 0; w < CHUNK_WORDS; w++) {
        any |= atomic_load_explicit(&c->excluded[w], memory_order_relaxed);
    }
    return any != 0;
}

// While anybody holds, no page goes that is not away yet. Sequentially consistent: who marks a page as
// staged looks at the holds afterwards, and who holds at the pages: one of the two sees the other.
extern _Atomic uint32_t table_holds;

FIRN_INLINE bool table_is_large(uintptr_t address) {
    return address - FIRN_ROOT.small_base >= FIRN_ROOT.small_bytes;
}

FIRN_INLINE bool table_has_bit(_Atomic uint64_t *words, unsigned i) {
    return (atomic_load(&words[i / 64]) >> i % 64 & 1) != 0;
}

FIRN_INLINE bool table_is_wanted(struct chunk *c, uintptr_t address) {
    return table_has_bit(c->wanted, table_index(c, address));
}

FIRN_INLINE bool table_is_excluded(struct chunk *c, uintptr_t address) {
    return table_has_bit(c->excluded, table_index(c, address));
}

#endif
