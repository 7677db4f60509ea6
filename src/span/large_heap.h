// The state behind large.h, for its validator and tests. Everything is guarded by the lock but
// due_ns.
#ifndef FIRN_SPAN_LARGE_HEAP_H
#define FIRN_SPAN_LARGE_HEAP_H

#include "src/os/lock.h"
#include "src/span/closed.h"
#include "src/span/reuse.h"
#include "src/span/space.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct large_heap {
    struct lock lock;
    struct reuse reuse;
    struct closed closed;
    size_t live; // objects, and their whole pages
    size_t live_bytes;
    size_t busy;       // runs being purged or moved by some thread, outside of the lock
    size_t busy_bytes; // the bodies of those being purged
    size_t pieces;     // of all live and cached runs: mappings that do not merge
    size_t most_pieces;
    uint64_t delay_ns;
    // When the oldest cached run is due for purging; UINT64_MAX if there is none. Written under the
    // lock, read without, relaxed: a stale value delays upkeep by one call at most.
    _Atomic uint64_t due_ns;
    struct space space; // last, for what it ends with
};

extern struct large_heap firn_large;

// Checks every invariant of run.h, tract.h and of the counters above; fatal if one does not hold.
// Takes the lock. Costs a walk over all runs: for debug builds and tests.
void large_check(void);

#endif
