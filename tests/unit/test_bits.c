// Bit counting, against the definition, for every power of two and its neighbours.
// firn-test: share=2
#include "src/base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void single_bits(void **state) {
    (void)state;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t v = UINT64_C(1) << i;
        assert_int_equal(bits_lowest(v), i);
        assert_int_equal(bits_highest(v), i);
        assert_int_equal(bits_log2_up(v), i);
        assert_int_equal(bits_count(v), 1);
    }
}

static void neighbours(void **state) {
    (void)state;
    for (unsigned i = 2; i < 64; i++) {
        uint64_t v = UINT64_C(1) << i;
        assert_int_equal(bits_highest(v - 1), i - 1);
        assert_int_equal(bits_log2_up(v - 1), i);
        assert_int_equal(bits_log2_up(v + 1), i + 1);
        assert_int_equal(bits_lowest(v + 1), 0);
        assert_int_equal(bits_count(v - 1), i);
    }
    assert_int_equal(bits_log2_up(UINT64_MAX), 64);
}

static void masks(void **state) {
    (void)state;
    assert_int_equal(bits_mask(0), 0);
    assert_int_equal(bits_mask(1), 1);
    assert_int_equal(bits_mask(63), UINT64_MAX >> 1);
    assert_true(bits_mask(64) == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_bits),
        cmocka_unit_test(neighbours),
        cmocka_unit_test(masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
