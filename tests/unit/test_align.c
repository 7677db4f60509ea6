// Rounding, at the edges where unchecked arithmetic would wrap.
// firn-test: share=2
#include "src/base/align.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void powers(void **state) {
    (void)state;
    assert_false(align_is_power(0));
    assert_true(align_is_power(1));
    assert_false(align_is_power(3));
    assert_true(align_is_power(UINT64_C(1) << 63));
    assert_false(align_is_power(UINT64_MAX));
}

static void rounding(void **state) {
    (void)state;
    assert_int_equal(align_up(0, 16), 0);
    assert_int_equal(align_up(1, 16), 16);
    assert_int_equal(align_up(16, 16), 16);
    assert_int_equal(align_up(4097, 4096), 8192);
    assert_int_equal(align_down(4095, 4096), 0);
    assert_int_equal(align_down(8191, 4096), 4096);
    assert_true(align_is_aligned(8192, 4096));
    assert_false(align_is_aligned(8200, 4096));
}

static void overflow(void **state) {
    (void)state;
    size_t out = 7;
    assert_true(align_up_checked(SIZE_MAX - 4095, 4096, &out));
    assert_int_equal(out, SIZE_MAX - 4095);
    out = 7;
    assert_false(align_up_checked(SIZE_MAX - 4094, 4096, &out));
    assert_false(align_up_checked(SIZE_MAX, 2, &out));
    assert_int_equal(out, 7);
    assert_true(align_up_checked(0, 4096, &out));
    assert_int_equal(out, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(powers),
        cmocka_unit_test(rounding),
        cmocka_unit_test(overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
