// How far the large object around an address reaches, without a lock: for signal handlers, and for
// checks that run on every copy.
#ifndef FIRN_SPAN_LARGE_EXTENT_H
#define FIRN_SPAN_LARGE_EXTENT_H

#include "src/span/large_heap.h"

#include "src/span/large_heap.h"

#include <stddef.h>
#include <stdint.h>

#define LARGE_EXTENT_FOREIGN SIZE_MAX

// Bytes from `address` to the end of the pages of the live large object that contains it (with
// FIRN_LARGE_SLACK to the end of what was asked for); 0 when it lies in a large region but in no live
// object; LARGE_EXTENT_FOREIGN when it lies in none.
// Any thread and context; needs no start. Exact as long as that object is neither freed nor resized
// meanwhile; else any of these answers.
size_t large_extent(uintptr_t address);

// True when large objects may lie outside of the main reservation.
FIRN_INLINE bool large_has_more_tracts(void) {
    // relaxed: who asks about a pointer into a new tract got it from somebody who saw it added.
    return atomic_load_explicit(&firn_large.space.count, memory_order_relaxed) > 1;
}

#endif
