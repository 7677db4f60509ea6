// How many pages are set aside at a time where each is a guess.
#include "src/cold/trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LOOK_MS = 1000 };
#define ALL UINT64_MAX

static uint64_t take_all(struct trial *t) {
    uint64_t taken = 0;
    for (uint64_t some; (some = trial_take(t, ALL)) != 0;) {
        taken += (uint64_t)__builtin_popcountll(some);
    }
    return taken;
}

static void test_an_idle_heap_goes_ever_faster(void **state) {
    (void)state;
    struct trial t = {0};
    uint64_t expected = TRIAL_FIRST;
    for (unsigned look = 0; look < 40; look++) {
        trial_begin(&t, LOOK_MS, 0);
        assert_int_equal(take_all(&t), expected);
        expected = expected < TRIAL_MOST ? 2 * expected : TRIAL_MOST;
    }
}

// More cannot be said of a heap of which nothing more was idle.
static void test_what_was_not_taken_up_does_not_grow(void **state) {
    (void)state;
    struct trial t = {0};
    trial_begin(&t, LOOK_MS, 0);
    assert_int_equal(trial_take(&t, 0x8421), 0x8421);
    trial_begin(&t, LOOK_MS, 0);
    assert_int_equal(take_all(&t), TRIAL_FIRST);
}

static void test_a_busy_heap_is_left_alone(void **state) {
    (void)state;
    struct trial t = {0};
    uint64_t returns = 0, taken = 0;
    for (unsigned look = 0; look < 10; look++) {
        trial_begin(&t, LOOK_MS, returns);
        taken = take_all(&t);
        returns += taken; // all of them
    }
    assert_in_range(taken, TRIAL_LEAST, 2 * TRIAL_RETURNS);
    // Bearable: as many as that, and no more, come back.
    trial_begin(&t, LOOK_MS, returns + TRIAL_RETURNS);
    uint64_t before = take_all(&t);
    trial_begin(&t, LOOK_MS, returns + 2 * TRIAL_RETURNS);
    assert_true(take_all(&t) >= before);
}

static void test_the_lowest_go_first(void **state) {
    (void)state;
    struct trial t = {.most = 3, .left = 3};
    assert_int_equal(trial_take(&t, 0xf0f0), 0x70);
    assert_int_equal(trial_take(&t, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_heap_goes_ever_faster),
        cmocka_unit_test(test_what_was_not_taken_up_does_not_grow),
        cmocka_unit_test(test_a_busy_heap_is_left_alone),
        cmocka_unit_test(test_the_lowest_go_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
