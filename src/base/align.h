// Rounding to powers of two, with the overflow that attackers aim for checked.
#ifndef FIRN_BASE_ALIGN_H
#define FIRN_BASE_ALIGN_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

FIRN_INLINE bool align_is_power(uint64_t v) {
    return v != 0 && (v & (v - 1)) == 0;
}

// `align` is a power of two.
FIRN_INLINE bool align_is_aligned(uintptr_t v, size_t align) {
    return (v & (align - 1)) == 0;
}

FIRN_INLINE uintptr_t align_down(uintptr_t v, size_t align) {
    return v & ~(uintptr_t)(align - 1);
}

// For values known not to overflow: an address of ours, a size already checked.
FIRN_INLINE uintptr_t align_up(uintptr_t v, size_t align) {
    return (v + (align - 1)) & ~(uintptr_t)(align - 1);
}

// For values that come from outside. False, and *out untouched, when the result does not fit.
FIRN_CHECKED FIRN_INLINE bool align_up_checked(size_t v, size_t align, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(v, align - 1, &sum)) {
        return false;
    }
    *out = sum & ~(align - 1);
    return true;
}

#endif
