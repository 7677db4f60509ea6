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

// The ways out; none returns (`out-of-bounds`). `room`: bytes from p to the end of its object.
FIRN_NORETURN FIRN_COLD void bounds_die_reading(const void *p, size_t n, size_t room,
                                                const struct bounds_call *call);
FIRN_NORETURN FIRN_COLD void bounds_die_writing(const void *p, size_t n, size_t room,
                                                const struct bounds_call *call);

// n bytes at p are about to be read, or written. n == 0 passes, wherever p points.
FIRN_INLINE void bounds_read(const void *p, size_t n, const struct bounds_call *call) {
    size_t room = heap_extent(p);
    if (FIRN_UNLIKELY(room < n)) {
        bounds_die_reading(p, n, room, call);
    }
}

FIRN_INLINE void bounds_write(const void *p, size_t n, const struct bounds_call *call) {
    size_t room = heap_extent(p);
    if (FIRN_UNLIKELY(room < n)) {
        bounds_die_writing(p, n, room, call);
    }
}

// strlen, for a string that must end within its object.
size_t bounds_length(const char *s, const struct bounds_call *call);
// The same for at most `most` bytes of it, as strnlen.
size_t bounds_length_most(const char *s, size_t most, const struct bounds_call *call);

#endif
