// Guarded samples: now and then a small block lies alone on pages of its own, so that it begins or
// ends at an inaccessible page, and everything about it is recorded. A bug that needs luck to be found
// elsewhere is found there by the first byte, with the stacks of the allocation and of the free. P-SAMPLE.
//
// A pool of SAMPLE_SLOTS slots in a reservation of its own; a freed sample is inaccessible until its
// slot, the one that has been free for longest, is used again. No lock: a slot belongs to whoever has
// moved its state, so that a forked child loses at most the slots that other threads were changing.
//
// To open and to close pages costs microseconds, and every CPU that runs the program an interrupt: at ten
// million allocations a second one in 10,000 would be a tenth of the time. So closing is kept to one
// part in SAMPLE_SHARE of the time. What is freed meanwhile stays *open*: filled with a pattern, which is
// looked at before the slot is used again or closed after all, so that a write is found then. A read is
// not: it sees the pattern.
//
// Who decides when: cache_note_allocations (src/cache). No sample while memory is rationed, or when a
// guard cannot be had.
#ifndef FIRN_HARDENING_SAMPLE_H
#define FIRN_HARDENING_SAMPLE_H

#include "src/base/compiler.h"
#include "src/base/config.h"
#include "src/os/random.h"
#include "src/span/large.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SAMPLE_SLOTS = 128,
    SAMPLE_PAGES = 8, // the largest block
    SAMPLE_STRIDE = (SAMPLE_PAGES + 2) * (int)FIRN_PAGE,
    SAMPLE_SHARE = 200,
    SAMPLE_OPEN = 16 // so many are freed before the first of them that stayed open is used again
};

// One in so many; 0: none. Set before the first allocation, or in tests.
extern uint32_t firn_sample_rate;
// SAMPLE_SHARE; 0 (tests): everything is closed at once.
extern uint32_t firn_sample_share;

// The pool's first address; 0 before the first sample. Relaxed: who has a sample's address got it from
// somebody who saw this.
extern _Atomic uintptr_t firn_sample_base;

FIRN_INLINE bool sample_contains(uintptr_t address) {
    uintptr_t base = atomic_load_explicit(&firn_sample_base, memory_order_relaxed);
    return FIRN_UNLIKELY(base != 0 && address - base < (uintptr_t)SAMPLE_SLOTS * SAMPLE_STRIDE);
}

// Once, when the heap has started, if firn_sample_rate is not 0: faults on samples are reported from then
// on. Early, for what the program may forbid later.
void sample_watch(void);

// Where a call came from.
struct sample_call {
    uintptr_t site; // the return address of the program's call
    uintptr_t fp;   // the frame of a function below it, for what can be walked of the stack
    int thread;
};

// A block of `size` bytes (at most SMALL_MAX) aligned to `align` (at most a page) that reads as zeros,
// or NULL: no sample now. Preserves errno.
void *sample_alloc(size_t size, size_t align, struct random_stream *random,
                   const struct sample_call *call);

// The functions below are for addresses that sample_contains; kinds are those of large objects.
enum large_kind sample_find(uintptr_t address, struct large_block *block);
// Ends the process when somebody wrote beside the block. LARGE_LIVE: it was, and is freed now. Preserves
// errno.
enum large_kind sample_free(uintptr_t address, const char *api, const struct sample_call *call);
// As large_extent. Any context.
size_t sample_extent(uintptr_t address);
// The size class that a block of that size would have had, in bytes: for reports.
size_t sample_class_bytes(size_t size);

// Closes what was freed before the last call and is still open; with `everything`, all of it. Ends the
// process when somebody wrote to it. Preserves errno.
void sample_close(bool everything);

// Live samples, and their bytes as the program asked for them; address space of the pool.
void sample_stats(size_t *live, size_t *bytes, size_t *reserved);

#endif
