// libc makes setgroups in every thread of the process, with the program's list; the cold tier's threads wait for
// nothing that they would have to bring back themselves. As root, where the cold tier can run.
#include "tests/api/api.h"

#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#pragma weak firn_hint_cold
void firn_hint_cold(const void *p, size_t bytes);

enum { LISTS = 400, AWAY_LEAST = 20, GROUPS = 500, PAGE = 4096, TRIES = 150, PATIENCE_S = 30 };

static gid_t *lists[LISTS];

static bool is_there(const void *p) {
    uint64_t entry = 0;
    FILE *f = fopen("/proc/self/pagemap", "rb");
    bool is_read = f != NULL &&
                   fseek(f, (long)((uintptr_t)p / PAGE * sizeof entry), SEEK_SET) == 0 &&
                   fread(&entry, sizeof entry, 1, f) == 1;
    if (f != NULL) {
        fclose(f);
    }
    return !is_read || entry >> 62 != 0;
}

static unsigned count_away(void) {
    unsigned n = 0;
    for (unsigned i = 0; i < LISTS; i++) {
        n += !is_there(lists[i]);
    }
    return n;
}

static void rest(void) {
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

// Writes the lists, and waits until some of them are away: one is enough to wait for. False: they stay.
static bool send_away(void) {
    for (unsigned i = 0; i < LISTS; i++) {
        lists[i] = malloc(GROUPS * sizeof(gid_t));
        assert_non_null(lists[i]);
        for (unsigned k = 0; k < GROUPS; k++) {
            lists[i][k] = 1000 + i + k;
        }
    }
    for (unsigned i = 0; i < TRIES && count_away() < AWAY_LEAST; i++) {
        for (unsigned k = 0; k < LISTS; k++) {
            free(malloc(100000)); // large: time passes for upkeep, which starts the cold tier
            firn_hint_cold((const void *)((uintptr_t)lists[k] & ~(uintptr_t)(PAGE - 1)), 2 * PAGE);
        }
        rest();
    }
    return count_away() >= AWAY_LEAST;
}

static void test_setgroups(void **state) {
    (void)state;
    gid_t now[GROUPS];
    if (geteuid() != 0 || !send_away()) {
        skip();
    }
    alarm(PATIENCE_S); // a list that Firn's own threads wait for is waited for ever
    for (unsigned i = 0; i < LISTS; i++) {
        assert_int_equal(setgroups(GROUPS, lists[i]), 0);
        assert_int_equal(getgroups(GROUPS, now), GROUPS);
        assert_int_equal(now[0], 1000 + i);
        assert_int_equal(now[GROUPS - 1], 1000 + i + GROUPS - 1);
    }
    alarm(0);
}

static void test_initgroups(void **state) {
    (void)state;
    gid_t named[100], now[100];
    int n = 100;
    if (geteuid() != 0) {
        skip();
    }
    assert_true(getgrouplist("root", 4321, named, &n) >= 0);
    assert_int_equal(initgroups("root", 4321), 0);
    assert_int_equal(getgroups(100, now), n);
    for (int i = 0; i < n; i++) {
        bool is_found = false;
        for (int k = 0; k < n; k++) {
            is_found |= now[k] == named[i];
        }
        assert_true(is_found);
    }
    assert_int_equal(setgroups(0, NULL), 0);
    assert_int_equal(getgroups(0, NULL), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_setgroups),
        cmocka_unit_test(test_initgroups),
    };
    api_require_firn("test_groups");
    if (argc == 1) {
        setenv("FIRN_OPTIONS", "cold=on:cold_after=1", 1);
        execl("/proc/self/exe", argv[0], "again", NULL);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
