#include "src/meta/size_class.h"

enum { MAX_SPAN_SHIFT = 17, MAX_SLOTS = 256 };

// clang-format off
const uint8_t size_class_table[SIZE_TABLE_MAX / 16 + 1] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, // to 256, by 16
    16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23,    // to 512, by 32
    24, 24, 24, 24, 25, 25, 25, 25, 26, 26, 26, 26, 27, 27, 27, 27,    // to 768, by 64
    28, 28, 28, 28, 29, 29, 29, 29, 30, 30, 30, 30, 31, 31, 31, 31,    // to 1024, by 64
};
// clang-format on

size_t size_class_bytes(unsigned index) {
    if (index < 16) {
        return ((size_t)index + 1) * 16;
    }
    if (index < 32) {
        size_t start = index < 24 ? 256 : 512;
        return start + ((size_t)index % 8 + 1) * (start / 8);
    }
    size_t start = (size_t)1024 << ((index - 32) / 4);
    return start + ((size_t)index % 4 + 1) * (start / 4);
}

unsigned size_class_aligned(size_t size, size_t align) {
    if (size > SMALL_MAX || align > FIRN_PAGE) {
        return SIZE_CLASSES;
    }
    unsigned index = size_class_of(size);
    while (index < SIZE_CLASSES && size_class_bytes(index) % align != 0) {
        index++;
    }
    return index;
}

unsigned size_class_span_shift(unsigned index) {
    unsigned shift = MAX_SPAN_SHIFT;
    size_t bytes = size_class_bytes(index);
    while (shift > FIRN_PAGE_SHIFT && ((size_t)1 << shift) / bytes > MAX_SLOTS) {
        shift--;
    }
    return shift;
}
