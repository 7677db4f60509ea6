// malloc, calloc, free: sizes, zeros, alignment, errno.
#include "tests/api/api.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

// Around every place where a size class, a page count or a sign changes.
static const size_t sizes[] = {
    0,     1,     2,      7,      8,      15,      16,      17,     24,    31,    32,
    33,    48,    63,     64,     65,     100,     127,     128,    129,   240,   255,
    256,   257,   288,    500,    511,    512,     513,     1000,   1023,  1024,  1025,
    1279,  2047,  2048,   2049,   4000,   4095,    4096,    4097,   5000,  8191,  8192,
    8193,  10240, 16384,  20000,  28672,  32767,   32768,   32769,  36864, 40960, 65535,
    65536, 65537, 100000, 131072, 262145, 1000000, 1048576, 3000001};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

// P-SIZE
static const size_t impossible[] = {(size_t)PTRDIFF_MAX + 1, // 2^63
                                    (size_t)PTRDIFF_MAX +
                                        2, // 2^63 + 1: rounding it up to pages must not wrap
                                    SIZE_MAX / 2 + 4096,
                                    SIZE_MAX - 65536,
                                    SIZE_MAX - 4096,
                                    SIZE_MAX - 4095,
                                    SIZE_MAX - 16,
                                    SIZE_MAX - 15,
                                    SIZE_MAX - 8,
                                    SIZE_MAX - 1,
                                    SIZE_MAX,
                                    PTRDIFF_MAX, // allowed by the rules, available nowhere
                                    PTRDIFF_MAX - 4096,
                                    (size_t)1 << 62};
enum { IMPOSSIBLE = sizeof(impossible) / sizeof(impossible[0]) };

static void expect_refusal(void *p) {
    assert_null(p);
    assert_int_equal(errno, ENOMEM);
    errno = 0;
}

static void test_zero_is_unique(void **state) {
    (void)state;
    void *p[64];
    for (int i = 0; i < 64; i++) {
        p[i] = i % 4 == 0 ? calloc(0, 8) : i % 4 == 1 ? calloc(8, 0) : malloc(0);
        assert_non_null(p[i]);
        for (int j = 0; j < i; j++) {
            assert_ptr_not_equal(p[i], p[j]);
        }
    }
    for (int i = 0; i < 64; i++) {
        free(p[i]);
    }
}

static void test_impossible_sizes_fail_first(void **state) {
    (void)state;
    errno = 0;
    for (int i = 0; i < IMPOSSIBLE; i++) {
        expect_refusal(malloc(impossible[i]));
        expect_refusal(calloc(1, impossible[i]));
        expect_refusal(calloc(impossible[i], 1));
        expect_refusal(realloc(NULL, impossible[i]));
        expect_refusal(reallocarray(NULL, impossible[i], 1));
        expect_refusal(aligned_alloc(16, impossible[i]));
        expect_refusal(memalign(4096, impossible[i]));
        expect_refusal(valloc(impossible[i]));
        expect_refusal(pvalloc(impossible[i]));
    }
}

static void test_overflow_is_enomem(void **state) {
    (void)state;
    static const size_t pairs[][2] = {{SIZE_MAX, SIZE_MAX},
                                      {SIZE_MAX / 2 + 1, 2},
                                      {SIZE_MAX / 4, 5},
                                      {(size_t)1 << 32, (size_t)1 << 32},
                                      {((size_t)1 << 32) + 1, ((size_t)1 << 32) + 1},
                                      {3, SIZE_MAX / 2},
                                      {SIZE_MAX / 16 + 2, 16}};
    errno = 0;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        expect_refusal(calloc(pairs[i][0], pairs[i][1]));
        expect_refusal(calloc(pairs[i][1], pairs[i][0]));
        expect_refusal(reallocarray(NULL, pairs[i][0], pairs[i][1]));
        expect_refusal(reallocarray(NULL, pairs[i][1], pairs[i][0]));
    }
}

static void test_everything_is_aligned_to_16(void **state) {
    (void)state;
    for (size_t n = 0; n <= 5000; n++) {
        void *p = malloc(n);
        void *q = calloc(1, n);
        void *r = realloc(malloc(1), n + 1);
        assert_int_equal((uintptr_t)p % 16, 0);
        assert_int_equal((uintptr_t)q % 16, 0);
        assert_int_equal((uintptr_t)r % 16, 0);
        free(p);
        free(q);
        free(r);
    }
    for (int i = 0; i < SIZES; i++) {
        void *p = malloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        free(p);
    }
}

static void test_usable_size_may_be_written(void **state) {
    (void)state;
    assert_int_equal(malloc_usable_size(NULL), 0);
    for (int i = 0; i < SIZES; i++) {
        unsigned char *p = malloc(sizes[i]);
        const size_t usable = malloc_usable_size(p);
        assert_true(usable >= sizes[i]);
        memset(p, 0x5a, usable);
        assert_int_equal(malloc_usable_size(p), usable);
        // What was written in the slack counts as content.
        unsigned char *q = realloc(p, usable + 1);
        assert_non_null(q);
        for (size_t k = 0; k < usable; k++) {
            if (q[k] != 0x5a) {
                fail_msg("size %zu: byte %zu of %zu was lost", sizes[i], k, usable);
            }
        }
        free(q);
    }
}

static void test_blocks_do_not_overlap(void **state) {
    (void)state;
    enum { BLOCKS = 4000 };
    unsigned char **p = calloc(BLOCKS, sizeof(*p));
    unsigned *n = calloc(BLOCKS, sizeof(*n));
    unsigned seed = 1;
    for (unsigned round = 0; round < 4 * BLOCKS; round++) {
        seed = seed * 1664525u + 1013904223u;
        const unsigned i = (seed >> 8) % BLOCKS;
        for (unsigned k = 0; k < n[i]; k++) {
            if (p[i][k] != (unsigned char)i) {
                fail_msg("block %u changed at byte %u", i, k);
            }
        }
        free(p[i]);
        n[i] = (seed >> 20) % 3 == 0 ? (seed >> 4) % 9000 : (seed >> 4) % 300;
        p[i] = malloc(n[i]);
        assert_non_null(p[i]);
        memset(p[i], (int)(unsigned char)i, n[i]);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        free(p[i]);
    }
    free(p);
    free(n);
}

static void test_calloc_is_zero_after_dirty_reuse(void **state) {
    (void)state;
    enum { EACH = 40 };
    for (int i = 0; i < SIZES; i++) {
        unsigned char *p[EACH];
        for (int round = 0; round < 3; round++) {
            for (int k = 0; k < EACH; k++) {
                p[k] = malloc(sizes[i]);
                memset(p[k], 0xa5, malloc_usable_size(p[k]));
            }
            for (int k = 0; k < EACH; k++) {
                free(p[k]);
            }
            for (int k = 0; k < EACH; k++) {
                p[k] = k % 2 == 0 ? calloc(1, sizes[i]) : calloc(sizes[i], 1);
                for (size_t b = 0; b < sizes[i]; b++) {
                    if (p[k][b] != 0) {
                        fail_msg("calloc of %zu: byte %zu is not zero", sizes[i], b);
                    }
                }
            }
            for (int k = 0; k < EACH; k++) {
                free(p[k]);
            }
        }
    }
}

static void test_free_keeps_errno(void **state) {
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        void *p = malloc(sizes[i]);
        errno = 4321;
        free(p);
        assert_int_equal(errno, 4321);
    }
    // Enough large blocks to overflow whatever keeps freed ones, so that the kernel is called.
    void *large[64];
    for (int i = 0; i < 64; i++) {
        large[i] = malloc(3000000);
        memset(large[i], 1, 3000000);
    }
    for (int i = 0; i < 64; i++) {
        errno = 4321;
        free(large[i]);
        assert_int_equal(errno, 4321);
    }
}

static void test_free_of_null(void **state) {
    (void)state;
    errno = 4321;
    free(NULL);
    assert_int_equal(errno, 4321);
}

// A program that got NULL once must be able to go on.
static void test_refusal_leaves_no_trace(void **state) {
    (void)state;
    for (int i = 0; i < 20000; i++) {
        assert_null(malloc(SIZE_MAX));
        assert_null(calloc(SIZE_MAX, 2));
        assert_null(malloc(PTRDIFF_MAX));
    }
    void *p = malloc(100);
    assert_non_null(p);
    free(p);
}

// Above 2 GiB, where ints end. What a plain mapping can have, malloc must have.
static void test_more_than_an_int_counts(void **state) {
    (void)state;
    const size_t n = ((size_t)9 << 28) + 12345;
    void *probe = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) {
        expect_refusal(malloc(n));
        return;
    }
    munmap(probe, n);
    unsigned char *p = malloc(n);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) >= n);
    p[0] = 1;
    p[n / 2] = 2;
    p[n - 1] = 3;
    assert_int_equal(p[0] + p[n / 2] + p[n - 1], 6);
    free(p);
    p = calloc(1, n);
    assert_non_null(p);
    assert_int_equal(p[0] + p[n / 2] + p[n - 1], 0);
    free(p);
}

int main(void) {
    api_require_firn("test_alloc");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_is_unique),
        cmocka_unit_test(test_impossible_sizes_fail_first),
        cmocka_unit_test(test_overflow_is_enomem),
        cmocka_unit_test(test_everything_is_aligned_to_16),
        cmocka_unit_test(test_usable_size_may_be_written),
        cmocka_unit_test(test_blocks_do_not_overlap),
        cmocka_unit_test(test_calloc_is_zero_after_dirty_reuse),
        cmocka_unit_test(test_free_keeps_errno),
        cmocka_unit_test(test_free_of_null),
        cmocka_unit_test(test_refusal_leaves_no_trace),
        cmocka_unit_test(test_more_than_an_int_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
