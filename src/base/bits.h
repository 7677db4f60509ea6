// Bit counting on 64-bit words.
#ifndef FIRN_BASE_BITS_H
#define FIRN_BASE_BITS_H

#include "src/base/compiler.h"

#include <stdbool.h>
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

// Sets the bit (index modulo 64), and clears it: whether it was set before. One instruction each,
// which compilers do not find by themselves.
FIRN_INLINE uint64_t bits_set(uint64_t v, uint64_t index) {
    __asm__("btsq %1, %0" : "+r"(v) : "r"(index) : "cc");
    return v;
}

FIRN_INLINE bool bits_test_clear(uint64_t *v, uint64_t index) {
    bool was;
    __asm__("btrq %2, %0" : "+r"(*v), "=@ccc"(was) : "r"(index));
    return was;
}

#endif
