// All tracts together: the slice of the main reservation, and those reserved when it does not do.
// Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_SPACE_H
#define FIRN_SPAN_SPACE_H

#include "src/span/carve.h"
#include "src/span/tract.h"

#include <stdatomic.h>

enum { SPACE_TRACTS = 64 };

// Valid when zero-filled, but for shared.random.
struct space {
    struct tract_shared shared;
    _Atomic unsigned
        count;        // tracts below it are whole; also read without the lock (large_extent.c)
    bool is_rationed; // commit charge is limited: every tract commits exactly
    struct tract tracts[SPACE_TRACTS]; // last: of most nothing is ever touched
};

// Adds a tract; false when there are too many or descriptor memory is exhausted.
bool space_add(struct space *space, const struct reservation *range) FIRN_CHECKED;

// The tract that contains an address; NULL for a foreign one.
struct tract *space_find(struct space *space, uintptr_t address);
struct tract *space_tract_of(struct space *space, const struct run *run);

// A RUN_LIVE of zeros for the request. NULL with ENOMEM when no memory can be had.
struct run *space_take(struct space *space, const struct carve_request *request);

#endif
