// Size classes: 16-byte steps to 256, then eight per doubling to 1 KiB, then four per doubling to
// 32 KiB. Average internal waste of sizes drawn evenly from 16..512 is under 5 %, and never above
// 20 % past 64 bytes. Every class is a multiple of 16; every power of two is a class, so that a small
// request aligned to at most a page finds one.
#ifndef FIRN_META_SIZE_CLASS_H
#define FIRN_META_SIZE_CLASS_H

#include "src/base/compiler.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SIZE_CLASSES = 52,
    SIZE_CLASS_SHIFT = 6, // classes fit 6 bits
    SMALL_MAX = 32768,    // bytes; larger requests are runs of pages
    SIZE_TABLE_MAX = 1024 // bytes; up to here the class comes from a table
};

// Indexed by (size + 15) / 16.
extern const uint8_t size_class_table[SIZE_TABLE_MAX / 16 + 1];

// Class of `size`, which is at most SMALL_MAX. 0 is served by the smallest class.
FIRN_INLINE unsigned size_class_of(size_t size) {
    if (FIRN_LIKELY(size <= SIZE_TABLE_MAX)) {
        return size_class_table[(size + 15) >> 4];
    }
    unsigned doubling = 63u - (unsigned)__builtin_clzll((uint64_t)size - 1);
    return 32u + (doubling - 10u) * 4u + (unsigned)(((size - 1) >> (doubling - 2u)) & 3u);
}

// Slot size in bytes of class `index` (< SIZE_CLASSES).
size_t size_class_bytes(unsigned index);

// Smallest class that holds `size` and whose slots are aligned to `align` (a power of two);
// SIZE_CLASSES when there is none. Spans are aligned to pages, so slots can be, too, but no more.
unsigned size_class_aligned(size_t size, size_t align);

// Geometry of a class's spans: the largest power of two up to 128 KiB that has at most 256 slots.
unsigned size_class_span_shift(unsigned index);

#endif
