// A run: a tile of a region, holding at most one large object.
//
//      start          body        object              end = start of the next run
//        | guard pages | (slack)    | the object       |
//
// Runs tile a region without holes from its base to its frontier, so the guard pages of a run also
// guard the end of the run before it. The object always ends where the run ends: an overflow meets
// the next run's guard at the first byte past the last page.
//
//   base <= start < body <= object < end <= frontier;  all page aligned;
//   object is meaningful for RUN_LIVE and RUN_LEAVING only;
//   body == end in a free run at the frontier that is all guard;
//   start == body in a lost one.
#ifndef FIRN_SPAN_RUN_H
#define FIRN_SPAN_RUN_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum run_state {
    RUN_FREE,    // reads as zeros, in the bins of its space; never beside another RUN_FREE, but
                 // when the guard between them could not be removed
    RUN_CACHED,  // freed, content still there, or zeros (FIRN_LARGE_RETIRE), in the reuse cache
    RUN_CLOSED,  // freed, all of it inaccessible, in the queue of such runs (closed.h)
    RUN_BUSY,    // freed, being wiped or purged outside of the lock; nobody else may touch it
    RUN_LIVE,    // holds an object
    RUN_LEAVING, // holds an object whose pages are being moved away outside of the lock
    RUN_LOST     // sparse regions: somebody else took these addresses; never used again
};

struct run {
    uintptr_t start;
    uintptr_t body;
    uintptr_t object;
    uintptr_t end;
    size_t size;      // bytes the program asked for (live)
    uint64_t free_ns; // when it entered the reuse cache
    struct run *prev; // neighbours in its bin (free or cached); next also links spare descriptors
    struct run *next;
    struct run *older; // reuse cache or closed runs, by age
    struct run *newer;
    uint16_t bin;     // which bin, while in one
    uint8_t state;    // enum run_state
    uint8_t region;   // index in the space
    uint8_t pieces;   // mappings map_move left in the body; it must be renewed before it merges
    bool is_guarded;  // every page of [start, body) is inaccessible
    bool is_resident; // every page of [body, end) is in memory, or was (live, cached)
    bool is_reused;   // it came out of the reuse cache before (live, cached)
};

FIRN_INLINE size_t run_body_bytes(const struct run *run) {
    return run->end - run->body;
}

FIRN_INLINE size_t run_object_bytes(const struct run *run) {
    return run->end - run->object;
}

#endif
