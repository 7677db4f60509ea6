// The age at which pages go follows what comes back.
// firn-test: levels=2
#include "src/cold/refault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PAGES = 100000, ALLOWED = PAGES / REFAULT_PARTS, SECOND = 1000 };

static void test_nothing_comes_back(void **state) {
    (void)state;
    struct refault r = {.age = 0};
    for (uint64_t now = 1; now < 600 * SECOND; now += SECOND) {
        assert_int_equal(refault_note(&r, now, 7, PAGES), REFAULT_ONE);
        assert_int_equal(refault_last_minute(&r, 7), 0);
    }
}

static void test_what_is_allowed_changes_nothing(void **state) {
    (void)state;
    struct refault r = {.age = 0};
    for (uint64_t s = 0; s < 600; s++) { // 0.15 % a minute
        uint64_t total = s * ALLOWED * 3 / 4 / 60;
        assert_int_equal(refault_note(&r, 1 + s * SECOND, total, PAGES), REFAULT_ONE);
        assert_true(refault_last_minute(&r, total) <= ALLOWED);
    }
}

// Twice what is allowed, all the time: doubled again and again, up to the most.
static void test_too_much_comes_back(void **state) {
    (void)state;
    struct refault r = {.age = 0};
    unsigned age = REFAULT_ONE, last = REFAULT_ONE, changes = 0;
    for (uint64_t s = 0; s < 600; s++) {
        age = refault_note(&r, 1 + s * SECOND, s * ALLOWED * 2 / 60, PAGES);
        assert_true(age == last || age == 2 * last);
        changes += age != last;
        last = age;
    }
    assert_int_equal(age, REFAULT_MOST);
    assert_int_equal(changes, 4);
    uint64_t total = (uint64_t)600 * ALLOWED * 2 / 60; // and then it stops
    for (uint64_t s = 600; s < 629; s++) {
        assert_int_equal(refault_note(&r, 1 + s * SECOND, total, PAGES), REFAULT_MOST);
    }
    unsigned minutes = 0;
    for (uint64_t s = 660; age > REFAULT_ONE; s += 60, minutes++) {
        unsigned less = refault_note(&r, 1 + s * SECOND, total, PAGES);
        assert_true(less < age && less >= age * 3 / 4 && minutes < 20);
        age = less;
    }
    assert_true(minutes >= 8);
}

// One burst is one reason.
static void test_a_burst_doubles_once(void **state) {
    (void)state;
    struct refault r = {.age = 0};
    assert_int_equal(refault_note(&r, 1, 0, PAGES), REFAULT_ONE);
    for (uint64_t s = 1; s < 59; s++) {
        assert_int_equal(refault_note(&r, 1 + s * SECOND, (uint64_t)50 * ALLOWED, PAGES),
                         2 * REFAULT_ONE);
    }
}

// A small program may have some, and a long sleep is no minute.
static void test_few_pages_and_long_sleeps(void **state) {
    (void)state;
    struct refault r = {.age = 0};
    assert_int_equal(refault_note(&r, 1, 0, 10), REFAULT_ONE);
    assert_int_equal(refault_note(&r, 2, REFAULT_FEW, 10), REFAULT_ONE);
    assert_int_equal(refault_note(&r, 3, REFAULT_FEW + 1, 10), 2 * REFAULT_ONE);
    assert_int_equal(refault_note(&r, 3600 * SECOND, REFAULT_FEW + 1, 10), 24);
    assert_int_equal(refault_last_minute(&r, REFAULT_FEW + 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_comes_back),
        cmocka_unit_test(test_what_is_allowed_changes_nothing),
        cmocka_unit_test(test_too_much_comes_back),
        cmocka_unit_test(test_a_burst_doubles_once),
        cmocka_unit_test(test_few_pages_and_long_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
