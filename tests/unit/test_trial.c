// How many pages are set aside at a time where each is a guess.
#include "src/cold/trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { FIRST = 1024, LEAST = 64, MOST = 1 << 24, BEARABLE = 200 };
static const struct trial_limits limits = {FIRST, LEAST, MOST};

static void begin(struct trial *t, uint64_t returns) {
    trial_begin(t, &limits, BEARABLE, returns);
}

static uint64_t take_all(struct trial *t) {
    struct trial other = {.left = UINT32_MAX};
    uint64_t taken = 0;
    for (uint64_t some; (some = trial_take(t, &other, UINT64_MAX)) != 0;) {
        taken += (uint64_t)__builtin_popcountll(some);
    }
    return taken;
}

static void test_an_idle_heap_goes_ever_faster(void **state) {
    (void)state;
    struct trial t = {0};
    uint64_t expected = FIRST;
    for (unsigned look = 0; look < 20; look++) {
        begin(&t, 0);
        assert_int_equal(take_all(&t), expected);
        expected = expected < MOST ? 2 * expected : MOST;
    }
}

// More cannot be said of a heap of which nothing more was idle.
static void test_what_was_not_taken_up_does_not_grow(void **state) {
    (void)state;
    struct trial t = {0}, other = {.left = 64};
    begin(&t, 0);
    assert_int_equal(trial_take(&t, &other, 0x8421), 0x8421);
    begin(&t, 0);
    assert_int_equal(take_all(&t), FIRST);
}

static void test_a_busy_heap_is_left_alone(void **state) {
    (void)state;
    struct trial t = {0};
    uint64_t returns = 0, taken = 0;
    for (unsigned look = 0; look < 10; look++) {
        begin(&t, returns);
        taken = take_all(&t);
        returns += taken; // all of them
    }
    assert_in_range(taken, LEAST, 2 * BEARABLE);
    // Bearable: as many as that, and no more, come back.
    begin(&t, returns + BEARABLE);
    uint64_t before = take_all(&t);
    begin(&t, returns + 2 * BEARABLE);
    assert_true(take_all(&t) >= before);
}

static void test_the_lowest_go_first_while_both_have_some(void **state) {
    (void)state;
    struct trial t = {.most = 5, .left = 5}, other = {.most = 3, .left = 3};
    assert_int_equal(trial_take(&t, &other, 0xf0f0), 0x70);
    assert_int_equal(trial_take(&t, &other, 1), 0);
    other.left = 64;
    assert_int_equal(trial_take(&t, &other, UINT64_MAX), 3);
    assert_int_equal(trial_take(&t, &other, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_heap_goes_ever_faster),
        cmocka_unit_test(test_what_was_not_taken_up_does_not_grow),
        cmocka_unit_test(test_a_busy_heap_is_left_alone),
        cmocka_unit_test(test_the_lowest_go_first_while_both_have_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
