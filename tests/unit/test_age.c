// When a page is idle, and what changes that.
// firn-test: levels=2
#include "src/cold/age.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct age_figures figures(void) {
    struct age_figures f;
    age_figures(&f);
    return f;
}

static void test_as_asked_for(void **state) {
    (void)state;
    age_configure(120000);
    assert_int_equal(age_look_ms(), 30000);
    assert_false(age_is_idle(1, 1000));
    assert_true(age_is_idle(2, 1000));
    assert_int_equal(age_due_ms(1000), 61000);
    assert_false(age_is_over(3, 1000));
    assert_true(age_is_over(4, 1000));
    assert_int_equal(figures().idle_ms, 120000);
    age_configure(1);
    assert_int_equal(age_look_ms(), 100); // no more often
}

static void test_memory_is_short(void **state) {
    (void)state;
    age_configure(120000);
    age_press(5000);
    assert_true(age_is_idle(1, 6000));
    assert_false(age_is_idle(0, 6000));
    assert_true(age_is_over(1, 6000));
    assert_false(age_is_over(0, 6000));
    assert_int_equal(age_due_ms(6000), 7000);
    assert_true(age_step_ms(6000) <= 500);
    assert_false(age_is_idle(1, 15000)); // for ten seconds
    assert_int_equal(age_due_ms(15000), 75000);
    assert_int_equal(figures().presses, 1);
}

static void test_pages_come_back(void **state) {
    (void)state;
    age_configure(40000);
    age_note(100000, 0, 50000);
    age_note(101000, 101, 50000); // 100 are allowed
    assert_int_equal(figures().last_minute, 101);
    assert_int_equal(figures().idle_ms, 80000);
    assert_false(age_is_idle(3, 101000));
    assert_true(age_is_idle(4, 101000));
    assert_false(age_is_over(7, 101000));
    assert_true(age_is_over(8, 101000));
    assert_int_equal(age_due_ms(101000), 141000);
    age_press(101000); // comes first
    assert_true(age_is_idle(1, 101000));
    age_note(170000, 101, 50000);
    assert_int_equal(figures().last_minute, 0);
    assert_int_equal(figures().idle_ms, 60000);
    age_note(240000, 101, 50000);
    assert_int_equal(figures().idle_ms, 45000);
    age_note(310000, 101, 50000);
    assert_int_equal(figures().idle_ms, 40000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_asked_for),
        cmocka_unit_test(test_memory_is_short),
        cmocka_unit_test(test_pages_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
