// P-LARGE-RETIRE: wiping and checking leave alone what is not in memory.
#include "src/span/retire.h"

#include "src/os/caps.h"
#include "src/os/map.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { PAGES = 1100 }; // more than are asked about in one call
#define BYTES ((size_t)PAGES * FIRN_PAGE)

static struct reservation range;

static unsigned char *at(size_t page) {
    return (unsigned char *)range.base + page * FIRN_PAGE; // NOLINT(performance-no-int-to-ptr)
}

static int start(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    return map_reserve(&range, BYTES, FIRN_PAGE, 47, false) && map_commit(&range, range.base, BYTES)
               ? 0
               : -1;
}

static int empty(void **state) {
    (void)state;
    map_purge(range.base, BYTES);
    return 0;
}

static size_t count_resident(void) {
    static unsigned char residence[PAGES];
    size_t n = 0;
    assert_true(map_find_resident(range.base, BYTES, residence));
    for (size_t i = 0; i < PAGES; i++) {
        n += residence[i] & 1;
    }
    return n;
}

static void untouched_pages_stay_so(void **state) {
    (void)state;
    errno = 7;
    assert_false(retire_wipe(range.base, range.base + BYTES, false));
    assert_int_equal(retire_find_change(range.base, BYTES, false), BYTES);
    assert_int_equal(count_resident(), 0);
    assert_int_equal(errno, 7);
}

static void what_was_used_is_wiped(void **state) {
    (void)state;
    memset(at(3), 0x5a, 2 * FIRN_PAGE);
    memset(at(PAGES - 1), 0x5a, FIRN_PAGE);
    assert_false(retire_wipe(range.base, range.base + BYTES, false));
    assert_int_equal(count_resident(), 3);
    assert_true(memory_is_zero(at(0), BYTES));
}

static void pages_used_here_and_there(void **state) {
    (void)state;
    for (size_t i = 0; i < PAGES; i += 3) {
        memset(at(i), 0x5a, FIRN_PAGE);
    }
    assert_false(retire_wipe(range.base, range.base + BYTES, false));
    assert_true(memory_is_zero(at(0), BYTES));
}

static void says_when_all_is_there(void **state) {
    (void)state;
    memset(at(0), 0x5a, BYTES);
    assert_true(retire_wipe(range.base, range.base + BYTES, false));
    memset(at(0), 0x5a, BYTES);
    assert_true(retire_wipe(range.base, range.base + BYTES, true));
    assert_true(memory_is_zero(at(0), BYTES));
    assert_int_equal(count_resident(), PAGES);
}

static void finds_the_first_change(void **state) {
    (void)state;
    static const size_t places[] = {0, 1, 7, 8, 4095, 4096, 700 * FIRN_PAGE + 9, BYTES - 1};
    for (unsigned all = 0; all < 2; all++) {
        for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
            map_purge(range.base, BYTES);
            at(0)[places[i]] = 1;
            if (places[i] + 9 * FIRN_PAGE < BYTES) {
                at(0)[places[i] + 9 * FIRN_PAGE] = 1;
            }
            assert_int_equal(retire_find_change(range.base, BYTES, all != 0), places[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(untouched_pages_stay_so, empty),
        cmocka_unit_test_setup(what_was_used_is_wiped, empty),
        cmocka_unit_test_setup(pages_used_here_and_there, empty),
        cmocka_unit_test_setup(says_when_all_is_there, empty),
        cmocka_unit_test_setup(finds_the_first_change, empty),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
