// The record of mprotect guards: exact counts, the budget, and ranges larger than the table.
// firn-test: share=2
#include "src/os/guard.h"

#include "src/os/caps.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HEAP ((uintptr_t)0x200000000000)

static int start(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    (void)guard_forget(0, (size_t)1 << 62);
    assert_int_equal(guard_vmas(), 0);
    return 0;
}

static void notes_and_forgets(void **state) {
    (void)state;
    assert_true(guard_note(HEAP));
    assert_true(guard_note(HEAP + 8 * FIRN_PAGE));
    assert_int_equal(guard_vmas(), 4);
    assert_true(guard_is_in(HEAP, FIRN_PAGE));
    assert_false(guard_is_in(HEAP + FIRN_PAGE, 7 * FIRN_PAGE));
    assert_true(guard_is_in(HEAP + FIRN_PAGE, 8 * FIRN_PAGE));
    assert_int_equal(guard_forget(HEAP + FIRN_PAGE, 7 * FIRN_PAGE), 0);
    assert_int_equal(guard_forget(HEAP, 64 * FIRN_PAGE), 2);
    assert_int_equal(guard_vmas(), 0);
    assert_false(guard_is_in(HEAP, 64 * FIRN_PAGE));
}

static void huge_ranges(void **state) {
    (void)state;
    assert_true(guard_note(HEAP));
    assert_true(guard_note(HEAP + ((uintptr_t)1 << 40)));
    assert_true(guard_note(HEAP + ((uintptr_t)2 << 40)));
    assert_true(guard_is_in(HEAP, (size_t)2 << 40));
    assert_int_equal(guard_forget(HEAP, (size_t)2 << 40), 2);
    assert_false(guard_is_in(HEAP, (size_t)2 << 40));
    assert_int_equal(guard_vmas(), 2);
    assert_int_equal(guard_forget(HEAP, (size_t)1 << 46), 1);
}

// Whatever the distance between guards, few are refused before the budget is spent.
static void fills_the_budget(void **state) {
    (void)state;
    static const size_t strides[] = {2, 16, 17, 256, 512, 4096, (size_t)1 << 20};
    for (size_t s = 0; s < sizeof(strides) / sizeof(strides[0]); s++) {
        size_t stride = strides[s] * FIRN_PAGE, most = guard_vma_budget() / GUARD_VMAS, noted = 0;
        for (size_t i = 0; i < most; i++) {
            noted += guard_note(HEAP + i * stride);
        }
        assert_true(noted >= most - most / 10);
        assert_int_equal(guard_vmas(), noted * GUARD_VMAS);
        assert_int_equal(guard_forget(HEAP, most * stride), noted);
        assert_int_equal(guard_vmas(), 0);
    }
}

static void budget_is_the_end(void **state) {
    (void)state;
    size_t noted = 0;
    for (size_t i = 0; i < guard_vma_budget(); i++) {
        noted += guard_note(HEAP + 2 * i * FIRN_PAGE);
    }
    assert_int_equal(noted, guard_vma_budget() / GUARD_VMAS);
    assert_false(guard_note(HEAP - 2 * FIRN_PAGE));
    assert_int_equal(guard_forget(HEAP, FIRN_PAGE), 1);
    assert_true(guard_note(HEAP - 2 * FIRN_PAGE));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(notes_and_forgets, start),
        cmocka_unit_test_setup(huge_ranges, start),
        cmocka_unit_test_setup(fills_the_budget, start),
        cmocka_unit_test_setup(budget_is_the_end, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
