// Checked memory and string functions: may these bytes be read, may those be written? P-BOUNDS.
//
// What libfirn-strict.so and the -checked libraries do before they copy (preload/checked.c). Memory that
// is not Firn's always passes. Any thread, any context, before start, too: no lock, no allocation,
// errno untouched.
#ifndef FIRN_FRONT_BOUNDS_H
#define FIRN_FRONT_BOUNDS_H

#include "src/base/compiler.h"
#include "src/heap/extent.h"

#include <stddef.h>
#include <stdint.h>

// The call in progress, for the report.
struct bounds_call {
    const char *api;  // "memcpy"
    uintptr_t caller; // return address of the program's call
    size_t size;      // bytes it named, or FATAL_SIZE_UNKNOWN
};

// The ways out; neither returns (`out-of-bounds`).
FIRN_NORETURN FIRN_COLD void bounds_die_reading(const void *p, size_t n,
                                                const struct bounds_call *call);
FIRN_NORETURN FIRN_COLD void bounds_die_writing(const void *p, size_t n,
                                                const struct bounds_call *call);

// Bytes from p to the end of the live block it lies in, as heap_extent. Memory outside of the heap,
// stacks and constants, is told from a few bounds, as long as there is only the main reservation.
FIRN_INLINE size_t bounds_room(const void *p) {
    uintptr_t address = (uintptr_t)p;
    if (address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes) {
        return heap_extent_small(address);
    }
    if (sample_contains(address)) {
        return sample_extent(address);
    }
    bool is_outside =
        address - FIRN_ROOT.data.base >= FIRN_ROOT.data.bytes && !large_has_more_tracts();
    return is_outside ? SIZE_MAX : large_extent(address);
}

// n bytes at p are about to be read, or written. n == 0 passes, wherever p points.
FIRN_INLINE void bounds_read(const void *p, size_t n, const struct bounds_call *call) {
    if (FIRN_UNLIKELY(bounds_room(p) < n)) {
        bounds_die_reading(p, n, call);
    }
}

FIRN_INLINE void bounds_write(const void *p, size_t n, const struct bounds_call *call) {
    if (FIRN_UNLIKELY(bounds_room(p) < n)) {
        bounds_die_writing(p, n, call);
    }
}

// strlen, for a string that must end within its object.
size_t bounds_length(const char *s, const struct bounds_call *call);
// The same for at most `most` bytes of it, as strnlen.
size_t bounds_length_most(const char *s, size_t most, const struct bounds_call *call);

#endif
