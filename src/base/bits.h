// Bit counting on 64-bit words.
#ifndef FIRN_BASE_BITS_H
#define FIRN_BASE_BITS_H

#include "src/base/compiler.h"

#include <stdint.h>

// Index of the lowest set bit; v is not 0.
FIRN_INLINE unsigned bits_lowest(uint64_t v) {
    return (unsigned)__builtin_ctzll(v);
}

// Index of the highest set bit, that is floor(log2(v)); v is not 0.
FIRN_INLINE unsigned bits_highest(uint64_t v) {
    return 63u - (unsigned)__builtin_clzll(v);
}

// ceil(log2(v)); v is not 0.
FIRN_INLINE unsigned bits_log2_up(uint64_t v) {
    return v == 1 ? 0 : bits_highest(v - 1) + 1;
}

FIRN_INLINE unsigned bits_count(uint64_t v) {
    return (unsigned)__builtin_popcountll(v);
}

// A word whose lowest n bits are set, n from 0 to 64.
FIRN_INLINE uint64_t bits_mask(unsigned n) {
    return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

#endif
