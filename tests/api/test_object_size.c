// firn_object_size: from every kind of block, and from a signal handler that interrupts malloc.
#include "tests/api/api.h"

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/time.h>

#include <cmocka.h>

static size_t (*object_size)(const void *);

static void test_it_agrees_with_usable_size(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 16, 100, 1000, 5000, 32768, 32769, 200000, 9000000};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = malloc(sizes[i]);
        const size_t usable = malloc_usable_size(p);
        assert_int_equal(object_size(p), usable);
        for (size_t offset = 1; offset < usable; offset += 1 + usable / 100) {
            assert_int_equal(object_size(p + offset), usable - offset);
        }
        free(p);
        assert_int_equal(object_size(p), 0);
    }
}

static void test_it_follows_realloc_and_alignment(void **state) {
    (void)state;
    char *p = malloc(10);
    p = realloc(p, 100000);
    assert_int_equal(object_size(p + 10), malloc_usable_size(p) - 10);
    p = realloc(p, 10);
    assert_int_equal(object_size(p), malloc_usable_size(p));
    free(p);
    char *q = aligned_alloc(1 << 21, 1000);
    assert_int_equal(object_size(q + 999), malloc_usable_size(q) - 999);
    free(q);
}

static void test_it_knows_what_is_not_in_the_heap(void **state) {
    (void)state;
    static char global[16];
    char local[16];
    assert_true(object_size(NULL) == SIZE_MAX);
    assert_true(object_size(global) == SIZE_MAX);
    assert_true(object_size(local) == SIZE_MAX);
    assert_true(object_size((void *)(uintptr_t)-1) == SIZE_MAX);
    void *symbol = api_symbol("malloc");
    assert_true(object_size(symbol) == SIZE_MAX);
}

enum { LARGE_BYTES = 200704 }; // whole pages
static char *small_block, *large_block;
static size_t small_bytes;
static volatile sig_atomic_t right, wrong;

static void ask(int signal) {
    (void)signal;
    const int is_right = object_size(small_block + 3) == small_bytes - 3 &&
                         object_size(large_block + 100000) == LARGE_BYTES - 100000;
    right += is_right;
    wrong += !is_right;
}

// The signal arrives within malloc and free of large blocks, where locks are held.
static void test_it_works_in_a_signal_handler(void **state) {
    (void)state;
    small_block = malloc(50);
    small_bytes = malloc_usable_size(small_block);
    large_block = malloc(LARGE_BYTES);
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = ask;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    const struct itimerval every = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    void *p[16] = {NULL};
    for (unsigned i = 0; right + wrong < 300; i++) {
        free(p[i % 16]);
        p[i % 16] = malloc(40000 + i * 7919 % 300000);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    for (unsigned i = 0; i < 16; i++) {
        free(p[i]);
    }
    assert_int_equal(wrong, 0);
    free(small_block);
    free(large_block);
}

int main(void) {
    api_require_firn("test_object_size");
    void *symbol = api_symbol("firn_object_size");
    memcpy(&object_size, &symbol, sizeof(symbol));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_agrees_with_usable_size),
        cmocka_unit_test(test_it_follows_realloc_and_alignment),
        cmocka_unit_test(test_it_knows_what_is_not_in_the_heap),
        cmocka_unit_test(test_it_works_in_a_signal_handler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
