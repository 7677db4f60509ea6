// The queue of freed runs that are inaccessible: first in, first out, bounded by count and by bytes of
// address space. They hold no memory, but where commit charge is rationed their share of it.
// P-LARGE-CLOSE. Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_CLOSED_H
#define FIRN_SPAN_CLOSED_H

#include "src/span/run.h"

// Valid when zero-filled.
struct closed {
    struct run *oldest;
    struct run *newest;
    size_t runs;
    size_t bytes; // sum of the bodies
};

// Takes in a run that is in no list and whose body is inaccessible: RUN_CLOSED.
void closed_put(struct closed *closed, struct run *run);

// Takes out the oldest, still inaccessible, as RUN_BUSY; NULL when empty.
struct run *closed_take(struct closed *closed);

// Whether there are more than should be kept, given the bytes of all live objects.
bool closed_is_over(const struct closed *closed, size_t live_bytes, bool is_scarce);

#endif
