// Size classes: the arithmetic every pointer depends on, against its definition.
//
// Input: groups of 16 bytes, a size, an alignment (log2 in the low bits of a byte), an offset.
#include "src/meta/size_class.h"
#include "fuzz/fuzz.h"
#include "src/heap/life.h"
#include "src/meta/root.h"
#include "src/span/span.h"

#include <stdbool.h>

static void check_class_of(size_t size) {
    unsigned c = size_class_of(size);
    FUZZ_ENSURE(c < SIZE_CLASSES);
    size_t bytes = size_class_bytes(c);
    FUZZ_ENSURE(bytes >= size && bytes % 16 == 0 && bytes <= SMALL_MAX);
    FUZZ_ENSURE(c == 0 || size_class_bytes(c - 1) < size);
    FUZZ_ENSURE(size_class_of(bytes) == c);
    FUZZ_ENSURE(size == 0 || size_class_of(size - 1) <= c);
    if (size > 64) {
        FUZZ_ENSURE((bytes - size) * 5 <= bytes); // "never above 20 % past 64 bytes"
    }
}

static void check_aligned(size_t size, size_t align) {
    unsigned c = size_class_aligned(size, align);
    FUZZ_ENSURE(c <= SIZE_CLASSES);
    bool is_possible = size <= SMALL_MAX && align <= FIRN_PAGE;
    FUZZ_ENSURE(is_possible == (c < SIZE_CLASSES));
    for (unsigned i = 0; is_possible && i < SIZE_CLASSES; i++) {
        bool fits = size_class_bytes(i) >= size && size_class_bytes(i) % align == 0;
        FUZZ_ENSURE(i < c ? !fits : i > c || fits);
    }
}

// What every free computes: which slot an offset is in, and whether it is a slot's start.
static void check_geometry(unsigned c, size_t offset) {
    const struct class_info *info = &FIRN_ROOT.classes[c];
    size_t bytes = size_class_bytes(c);
    size_t span = (size_t)1 << size_class_span_shift(c);
    FUZZ_ENSURE(info->bytes == bytes && info->span_mask == span - 1);
    FUZZ_ENSURE(span >= FIRN_PAGE && span <= 128 << 10 && span >= bytes);
    FUZZ_ENSURE(info->slots == span / bytes && info->slots >= 1);
    FUZZ_ENSURE(info->slots <= SPAN_MAX_SLOTS);
    FUZZ_ENSURE(info->capacity >= 8 && info->capacity <= 256);
    FUZZ_ENSURE(span_slot(info, offset) == (offset & info->span_mask) / bytes);
    uint64_t product = (offset & info->span_mask) * (uint64_t)info->reciprocal;
    bool is_start = (offset & info->span_mask) % bytes == 0;
    FUZZ_ENSURE(((uint32_t)product < info->reciprocal) == is_start);
    uint64_t slots = 0;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        slots += (unsigned)__builtin_popcountll(span_word_mask(info, w));
    }
    FUZZ_ENSURE(slots == info->slots);
}

int firn_fuzz_size_class(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    life_start();
    FUZZ_ENSURE(life_has_started());
    FUZZ_ENSURE(size_class_bytes(SIZE_CLASSES - 1) == SMALL_MAX);
    while (in.left > 0) {
        size_t asked = input_bytes(&in, 7);
        size_t align = (size_t)1 << (input_u8(&in) & 63);
        size_t offset = input_u64(&in);
        check_aligned(asked, align);
        check_aligned(asked % (SMALL_MAX + 1), align);
        check_aligned(asked % (SMALL_MAX + 1), (align & (2 * FIRN_PAGE - 1)) | (align >> 13 != 0));
        check_class_of(asked % (SMALL_MAX + 1));
        check_geometry(size_class_of(asked % (SMALL_MAX + 1)), offset);
    }
    return 0;
}
