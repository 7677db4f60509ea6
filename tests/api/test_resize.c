// realloc, reallocarray: contents, nulls, zeros, failure.
#include "tests/api/api.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const size_t sizes[] = {1,     15,    16,    17,    33,     64,     100,    128,
                               255,   256,   257,   300,   511,    512,    513,    800,
                               1023,  1024,  1025,  2000,  2048,   3000,   4095,   4096,
                               4097,  6000,  8192,  12000, 16384,  24000,  32767,  32768,
                               32769, 36864, 40000, 65536, 131072, 200000, 262144, 1048577};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

// A pattern in which no two neighbouring pages are alike.
static unsigned char byte_at(size_t i, size_t seed) {
    return (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 12) * 31 + seed);
}

static void fill(unsigned char *p, size_t n, size_t seed) {
    for (size_t i = 0; i < n; i++) {
        p[i] = byte_at(i, seed);
    }
}

static void expect_filled(const unsigned char *p, size_t n, size_t seed, const char *when) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != byte_at(i, seed)) {
            fail_msg("%s (%zu): byte %zu of %zu changed", when, seed, i, n);
        }
    }
}

static void test_contents_survive_every_change(void **state) {
    (void)state;
    for (size_t from = 0; from < SIZES; from++) {
        for (size_t to = 0; to < SIZES; to++) {
            const size_t seed = from * SIZES + to;
            unsigned char *p = malloc(sizes[from]);
            assert_non_null(p);
            fill(p, sizes[from], seed);
            p = realloc(p, sizes[to]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 16, 0);
            assert_true(malloc_usable_size(p) >= sizes[to]);
            const size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            expect_filled(p, kept, seed, "realloc");
            memset(p, 0xee, sizes[to]); // all of it is ours
            free(p);
        }
    }
}

static void test_contents_survive_growth_in_steps(void **state) {
    (void)state;
    unsigned char *p = NULL;
    size_t n = 0;
    for (size_t next = 1; next < 3000000; next += next / 5 + 1) {
        p = realloc(p, next);
        assert_non_null(p);
        expect_filled(p, n, 3, "growing");
        fill(p, next, 3);
        n = next;
    }
    while (n > 1) {
        n -= n / 4 + 1;
        p = realloc(p, n + 1);
        assert_non_null(p);
        expect_filled(p, n + 1, 3, "shrinking");
    }
    free(p);
}

static void test_aligned_blocks_can_be_resized(void **state) {
    (void)state;
    for (size_t align = 16; align <= 65536; align *= 4) {
        unsigned char *p = aligned_alloc(align, 5000);
        assert_non_null(p);
        fill(p, 5000, align);
        p = realloc(p, 300000);
        assert_non_null(p);
        expect_filled(p, 5000, align, "aligned, growing");
        p = realloc(p, 77);
        assert_non_null(p);
        expect_filled(p, 77, align, "aligned, shrinking");
        free(p);
    }
}

static void test_null_means_malloc(void **state) {
    (void)state;
    void *p = realloc(NULL, 100);
    void *q = realloc(NULL, 0);
    void *r = reallocarray(NULL, 10, 10);
    void *s = reallocarray(NULL, 0, 10);
    assert_non_null(p);
    assert_non_null(q);
    assert_non_null(r);
    assert_non_null(s);
    assert_ptr_not_equal(q, s);
    free(p);
    free(q);
    free(r);
    free(s);
}

static void test_zero_means_free(void **state) {
    (void)state;
    static const size_t from[] = {0, 1, 100, 5000, 100000};
    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        errno = 4321;
        assert_null(realloc(malloc(from[i]), 0));
        assert_null(reallocarray(malloc(from[i]), 0, 10));
        assert_null(reallocarray(malloc(from[i]), 10, 0));
        assert_int_equal(errno, 4321);
    }
}

// Freed indeed: a leak of a million blocks of 1,000 bytes would show.
static void test_zero_does_not_leak(void **state) {
    (void)state;
    const size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 1000000; i++) {
        assert_null(realloc(malloc(1000), 0));
    }
    const size_t after = mallinfo2().uordblks;
    assert_true(after < before + 50000000);
}

// P-SIZE
static void test_failure_keeps_the_block(void **state) {
    (void)state;
    static const size_t too_much[] = {SIZE_MAX, SIZE_MAX / 2 + 1, PTRDIFF_MAX, (size_t)1 << 60};
    static const size_t from[] = {1, 100, 5000, 32768, 100000, 1000000};
    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        unsigned char *p = malloc(from[i]);
        fill(p, from[i], i);
        for (size_t k = 0; k < sizeof(too_much) / sizeof(too_much[0]); k++) {
            errno = 0;
            assert_null(realloc(p, too_much[k]));
            assert_int_equal(errno, ENOMEM);
            errno = 0;
            assert_null(reallocarray(p, too_much[k], 4));
            assert_int_equal(errno, ENOMEM);
            expect_filled(p, from[i], i, "after failure");
        }
        p = realloc(p, from[i] + 1);
        assert_non_null(p);
        expect_filled(p, from[i], i, "resized after failure");
        free(p);
    }
}

static void test_reallocarray_multiplies(void **state) {
    (void)state;
    unsigned char *p = reallocarray(NULL, 100, 7);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) >= 700);
    fill(p, 700, 9);
    p = reallocarray(p, 100, 70);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) >= 7000);
    expect_filled(p, 700, 9, "reallocarray");
    free(p);
}

static void test_shrinking_gives_memory_back(void **state) {
    (void)state;
    unsigned char *p = malloc(8000000);
    memset(p, 1, 8000000);
    p = realloc(p, 100000);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) < 400000);
    p = realloc(p, 10);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) < 1000);
    free(p);
}

int main(void) {
    api_require_firn("test_resize");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contents_survive_every_change),
        cmocka_unit_test(test_contents_survive_growth_in_steps),
        cmocka_unit_test(test_aligned_blocks_can_be_resized),
        cmocka_unit_test(test_null_means_malloc),
        cmocka_unit_test(test_zero_means_free),
        cmocka_unit_test(test_zero_does_not_leak),
        cmocka_unit_test(test_failure_keeps_the_block),
        cmocka_unit_test(test_reallocarray_multiplies),
        cmocka_unit_test(test_shrinking_gives_memory_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
