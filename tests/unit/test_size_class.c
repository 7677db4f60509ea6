// Size classes: every size, every class, every offset.
#include "src/meta/size_class.h"

#include "src/heap/life.h"
#include "src/meta/root.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

static int start(void **state) {
    (void)state;
    life_start();
    return life_has_started() ? 0 : -1;
}

static void every_size_gets_the_smallest_class_that_fits(void **state) {
    (void)state;
    for (size_t size = 0; size <= SMALL_MAX; size++) {
        unsigned c = size_class_of(size);
        assert_in_range(c, 0, SIZE_CLASSES - 1);
        assert_true(size_class_bytes(c) >= size);
        if (c > 0) {
            assert_true(size_class_bytes(c - 1) < size);
        }
    }
    assert_int_equal(size_class_of(0), 0);
    assert_int_equal(size_class_of(SMALL_MAX), SIZE_CLASSES - 1);
    assert_int_equal(size_class_bytes(SIZE_CLASSES - 1), SMALL_MAX);
}

static void classes_are_growing_multiples_of_16(void **state) {
    (void)state;
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        assert_int_equal(size_class_bytes(c) % 16, 0);
        assert_true(size_class_bytes(c) > (c > 0 ? size_class_bytes(c - 1) : 0));
        assert_true(c < 1u << SIZE_CLASS_SHIFT);
    }
}

static void every_power_of_two_is_a_class(void **state) {
    (void)state;
    for (size_t bytes = 16; bytes <= SMALL_MAX; bytes *= 2) {
        assert_int_equal(size_class_bytes(size_class_of(bytes)), bytes);
    }
}

// Of the bytes in slots, the part nobody asked for when each size is asked for once, in millionths.
static uint64_t total_waste(size_t from, size_t to) {
    uint64_t waste = 0, slots = 0;
    for (size_t size = from; size <= to; size++) {
        size_t bytes = size_class_bytes(size_class_of(size));
        waste += bytes - size;
        slots += bytes;
    }
    return waste * 1000000 / slots;
}

// The same as an average of each size's own part, which small sizes dominate.
static uint64_t average_waste(size_t from, size_t to) {
    uint64_t sum = 0;
    for (size_t size = from; size <= to; size++) {
        size_t bytes = size_class_bytes(size_class_of(size));
        sum += (bytes - size) * 1000000 / bytes;
    }
    return sum / (to - from + 1);
}

// What the header and the documents say.
static void waste_is_bounded(void **state) {
    (void)state;
    assert_true(total_waste(16, 512) < 50000);
    assert_true(average_waste(16, 512) <= 200000);
    assert_true(average_waste(16, SMALL_MAX) <= 200000);
    for (size_t size = 65; size <= SMALL_MAX; size++) {
        size_t bytes = size_class_bytes(size_class_of(size));
        assert_true((bytes - size) * 5 <= bytes);
    }
}

static bool is_aligned_class(unsigned c, size_t size, size_t align) {
    return size_class_bytes(c) >= size && size_class_bytes(c) % align == 0;
}

static void aligned_lookup_finds_the_smallest(void **state) {
    (void)state;
    for (size_t align = 1; align <= FIRN_PAGE; align *= 2) {
        for (size_t size = 0; size <= SMALL_MAX; size++) {
            unsigned expected = 0;
            while (expected < SIZE_CLASSES && !is_aligned_class(expected, size, align)) {
                expected++;
            }
            assert_int_equal(size_class_aligned(size, align), expected);
            // Slots of a class that is a power of two or a multiple of it are aligned for ever.
            assert_true(expected < SIZE_CLASSES);
        }
    }
}

static void what_no_class_serves_is_refused(void **state) {
    (void)state;
    assert_int_equal(size_class_aligned(SMALL_MAX + 1, 16), SIZE_CLASSES);
    assert_int_equal(size_class_aligned(SIZE_MAX, 16), SIZE_CLASSES);
    assert_int_equal(size_class_aligned(16, 2 * FIRN_PAGE), SIZE_CLASSES);
    assert_int_equal(size_class_aligned(0, (size_t)1 << 63), SIZE_CLASSES);
}

static void spans_are_the_largest_with_256_slots(void **state) {
    (void)state;
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        unsigned shift = size_class_span_shift(c);
        size_t slots = ((size_t)1 << shift) / size_class_bytes(c);
        assert_in_range(shift, FIRN_PAGE_SHIFT, 17);
        assert_in_range(slots, 1, 256);
        if (shift < 17) {
            assert_true(((size_t)2 << shift) / size_class_bytes(c) > 256);
        }
    }
}

// slot = offset * reciprocal >> 32 is the quotient, and the low half is below the reciprocal just
// when there is no remainder: for every class and every offset that a span can have.
static void division_is_exact(void **state) {
    (void)state;
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        const struct class_info *info = &FIRN_ROOT.classes[c];
        assert_int_equal(info->bytes, size_class_bytes(c));
        uint32_t quotient = 0, remainder = 0;
        for (uint64_t offset = 0; offset < (uint64_t)1 << 17; offset++) {
            uint64_t product = offset * info->reciprocal;
            if (product >> 32 != quotient ||
                ((uint32_t)product < info->reciprocal) != (remainder == 0)) {
                fail_msg("class %u, offset %u", info->bytes, (unsigned)offset);
            }
            remainder++;
            if (remainder == info->bytes) {
                remainder = 0;
                quotient++;
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_gets_the_smallest_class_that_fits),
        cmocka_unit_test(classes_are_growing_multiples_of_16),
        cmocka_unit_test(every_power_of_two_is_a_class),
        cmocka_unit_test(waste_is_bounded),
        cmocka_unit_test(aligned_lookup_finds_the_smallest),
        cmocka_unit_test(what_no_class_serves_is_refused),
        cmocka_unit_test(spans_are_the_largest_with_256_slots),
        cmocka_unit_test(division_is_exact),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
