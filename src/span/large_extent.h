// How far the large object around an address reaches, without a lock: for signal handlers, and for
// checks that run on every copy.
#ifndef FIRN_SPAN_LARGE_EXTENT_H
#define FIRN_SPAN_LARGE_EXTENT_H

#include <stddef.h>
#include <stdint.h>

#define LARGE_EXTENT_FOREIGN SIZE_MAX

// Bytes from `address` to the end of the pages of the live large object that contains it; 0 when it
// lies in a large region but in no live object; LARGE_EXTENT_FOREIGN when it lies in none.
// Any thread and context; needs no start. Exact as long as that object is neither freed nor resized
// meanwhile; else any of these answers.
size_t large_extent(uintptr_t address);

#endif
