// Aligned allocation, and freeing with a size.
#include "tests/api/api.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

// Not in this libc's headers.
void free_sized(void *p, size_t size) __attribute__((weak));
void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));

static const size_t sizes[] = {0,    1,    8,     16,    17,    48,    100,    256,    257,
                               1000, 4095, 4096,  4097,  10000, 32768, 32769,  65536,  100001,
                               300,  700,  20000, 40000, 5000,  31000, 262144, 1000000};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

// A value the compiler cannot see through, so that it does not judge the call itself.
static size_t hidden(size_t n) {
    volatile size_t copy = n;
    return copy;
}

static void expect_block(void *p, size_t align, size_t size) {
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % align, 0);
    assert_int_equal((uintptr_t)p % 16, 0);
    assert_true(malloc_usable_size(p) >= size);
    memset(p, 0x77, malloc_usable_size(p));
}

static void test_every_power_of_two(void **state) {
    (void)state;
    for (size_t align = sizeof(void *); align <= (size_t)4 << 20; align *= 2) {
        for (int i = 0; i < SIZES; i++) {
            void *p = (void *)1;
            assert_int_equal(posix_memalign(&p, align, sizes[i]), 0);
            void *q = aligned_alloc(align, sizes[i]);
            void *r = memalign(align, sizes[i]);
            expect_block(p, align, sizes[i]);
            expect_block(q, align, sizes[i]);
            expect_block(r, align, sizes[i]);
            free(p);
            free(q);
            free(r);
        }
    }
}

static void test_blocks_stay_apart(void **state) {
    (void)state;
    enum { BLOCKS = 200 };
    unsigned char *p[BLOCKS];
    for (size_t align = 32; align <= 8192; align *= 4) {
        for (int i = 0; i < BLOCKS; i++) {
            p[i] = aligned_alloc(align, 100);
            expect_block(p[i], align, 100);
            memset(p[i], i, 100);
        }
        for (int i = 0; i < BLOCKS; i++) {
            for (int k = 0; k < 100; k++) {
                assert_int_equal(p[i][k], i);
            }
            free(p[i]);
        }
    }
}

// Mesh and others spent a mapping or pages on each: here they come from the size classes.
static void test_small_aligned_blocks_are_cheap(void **state) {
    (void)state;
    enum { BLOCKS = 10000 };
    static void *p[BLOCKS];
    const struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < BLOCKS; i++) {
        p[i] = aligned_alloc(64, 64);
        assert_non_null(p[i]);
    }
    const struct mallinfo2 after = mallinfo2();
    assert_true(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + BLOCKS * 200);
    for (int i = 0; i < BLOCKS; i++) {
        free(p[i]);
    }
}

static void test_posix_memalign_refuses(void **state) {
    (void)state;
    static const size_t bad[] = {
        0, 1, 2, 3, 4, 7, 12, 15, 24, 48, 4095, 4097, SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        void *p = &p;
        errno = 4321;
        assert_int_equal(posix_memalign(&p, bad[i], 100), EINVAL);
        assert_ptr_equal(p, &p);
        assert_int_equal(errno, 4321);
    }
    static const size_t too_much[] = {SIZE_MAX, SIZE_MAX / 2 + 1, PTRDIFF_MAX, SIZE_MAX - 4096};
    for (size_t i = 0; i < sizeof(too_much) / sizeof(too_much[0]); i++) {
        for (size_t align = 8; align != 0; align *= 2) {
            void *p = &p;
            errno = 4321;
            assert_int_equal(posix_memalign(&p, align, too_much[i]), ENOMEM);
            assert_ptr_equal(p, &p);
            assert_int_equal(errno, 4321);
        }
    }
    void *p = &p;
    errno = 4321;
    assert_int_equal(posix_memalign(&p, (size_t)1 << 63, 1), ENOMEM);
    assert_int_equal(posix_memalign(&p, (size_t)1 << 62, 1), ENOMEM);
    assert_ptr_equal(p, &p);
    assert_int_equal(errno, 4321);
    assert_int_equal(posix_memalign(&p, 64, 1), 0);
    assert_int_equal(errno, 4321);
    free(p);
}

static void test_aligned_alloc_refuses(void **state) {
    (void)state;
    static const size_t bad[] = {0, 3, 5, 6, 7, 24, 48, 4095, 4097, SIZE_MAX, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        errno = 0;
        assert_null(aligned_alloc(bad[i], 100));
        assert_int_equal(errno, EINVAL);
    }
    for (size_t align = 1; align <= 8; align *= 2) {
        void *p = aligned_alloc(align, 100);
        expect_block(p, align, 100);
        free(p);
    }
    errno = 0;
    assert_null(aligned_alloc(hidden((size_t)1 << 63), 16));
    assert_int_equal(errno, ENOMEM);
}

static void test_memalign_rounds_as_glibc(void **state) {
    (void)state;
    static const size_t pairs[][2] = {{0, 16},  {1, 16},    {3, 16},      {17, 32},    {24, 32},
                                      {33, 64}, {100, 128}, {4095, 4096}, {5000, 8192}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        for (int k = 0; k < 50; k++) {
            void *p = memalign(pairs[i][0], 24);
            expect_block(p, pairs[i][1], 24);
            free(p);
        }
    }
    errno = 0;
    assert_null(memalign(hidden(SIZE_MAX / 2 + 2), 1));
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_null(memalign(hidden(SIZE_MAX / 2 + 1), 1));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(memalign(4096, SIZE_MAX - 100));
    assert_int_equal(errno, ENOMEM);
}

static void test_page_functions(void **state) {
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        void *p = valloc(sizes[i]);
        void *q = pvalloc(sizes[i]);
        expect_block(p, 4096, sizes[i]);
        expect_block(q, 4096, sizes[i] == 0 ? 4096 : (sizes[i] + 4095) / 4096 * 4096);
        free(p);
        free(q);
    }
}

static void test_sized_frees_accept_the_truth(void **state) {
    (void)state;
    assert_true(free_sized != NULL && free_aligned_sized != NULL);
    errno = 4321;
    free_sized(NULL, 0);
    free_sized(NULL, SIZE_MAX);
    free_aligned_sized(NULL, 0, 0);
    free_aligned_sized(NULL, 3, SIZE_MAX);
    for (size_t n = 0; n < 70000; n = n < 3000 ? n + 1 : n + 97) {
        free_sized(malloc(n), n);
        free_sized(calloc(1, n), n);
        free_sized(realloc(malloc(100), n + 1), n + 1);
    }
    for (int i = 0; i < SIZES; i++) {
        free_sized(malloc(sizes[i]), sizes[i]);
    }
    assert_int_equal(errno, 4321);
}

// Blocks resized in place, grown and shrunk, have their last size.
static void test_sized_frees_follow_realloc(void **state) {
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        for (int k = 0; k < SIZES; k++) {
            if (sizes[k] != 0) {
                free_sized(realloc(malloc(sizes[i]), sizes[k]), sizes[k]);
            }
        }
    }
}

static void test_aligned_sized_frees_accept_the_truth(void **state) {
    (void)state;
    for (size_t align = 1; align <= (size_t)1 << 20; align *= 2) {
        for (int i = 0; i < SIZES; i++) {
            free_aligned_sized(aligned_alloc(align, sizes[i]), align, sizes[i]);
        }
    }
}

int main(void) {
    api_require_firn("test_aligned");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_power_of_two),
        cmocka_unit_test(test_blocks_stay_apart),
        cmocka_unit_test(test_small_aligned_blocks_are_cheap),
        cmocka_unit_test(test_posix_memalign_refuses),
        cmocka_unit_test(test_aligned_alloc_refuses),
        cmocka_unit_test(test_memalign_rounds_as_glibc),
        cmocka_unit_test(test_page_functions),
        cmocka_unit_test(test_sized_frees_accept_the_truth),
        cmocka_unit_test(test_sized_frees_follow_realloc),
        cmocka_unit_test(test_aligned_sized_frees_accept_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
