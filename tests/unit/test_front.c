// The semantics that do not depend on who calls: exact errors, and that nothing is touched on
// failure. From outside, and in more breadth, tests/api looks at the same.
#include "src/front/front.h"

#include "src/base/config.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uintptr_t site(void) {
    return (uintptr_t)__builtin_return_address(0);
}

static void expect_error(void *p, int error) {
    assert_null(p);
    assert_int_equal(errno, error);
    errno = 0;
}

static void test_limits_of_size(void **state) {
    (void)state;
    errno = 0;
    expect_error(front_refuse(), ENOMEM);
    expect_error(front_alloc((size_t)PTRDIFF_MAX + 1, site()), ENOMEM);
    expect_error(front_alloc(SIZE_MAX, site()), ENOMEM);
    expect_error(front_alloc_zeroed(SIZE_MAX, SIZE_MAX, site()), ENOMEM);
    expect_error(front_alloc_zeroed(2, (size_t)1 << 62, site()), ENOMEM);
    expect_error(front_resize(NULL, SIZE_MAX, site()), ENOMEM);
    expect_error(front_resize_array(NULL, (size_t)1 << 33, (size_t)1 << 33, site()), ENOMEM);
    expect_error(front_aligned_alloc(64, SIZE_MAX - 63, site()), ENOMEM);
    expect_error(front_aligned_alloc((size_t)1 << 63, PTRDIFF_MAX, site()), ENOMEM);
    expect_error(front_memalign((size_t)1 << 62, (size_t)1 << 62, site()), ENOMEM);
    expect_error(front_valloc(SIZE_MAX, site()), ENOMEM);
    expect_error(front_pvalloc(PTRDIFF_MAX, site()), ENOMEM);
    expect_error(front_pvalloc(SIZE_MAX - 1, site()), ENOMEM);
}

static void test_limits_of_alignment(void **state) {
    (void)state;
    void *out = &out;
    errno = 4321;
    assert_int_equal(front_posix_memalign(&out, 0, 8, site()), EINVAL);
    assert_int_equal(front_posix_memalign(&out, 4, 8, site()), EINVAL);
    assert_int_equal(front_posix_memalign(&out, 24, 8, site()), EINVAL);
    assert_int_equal(front_posix_memalign(&out, 8, SIZE_MAX, site()), ENOMEM);
    assert_ptr_equal(out, &out);
    assert_int_equal(errno, 4321);
    expect_error(front_aligned_alloc(0, 8, site()), EINVAL);
    expect_error(front_aligned_alloc(12, 8, site()), EINVAL);
    expect_error(front_memalign(SIZE_MAX, 8, site()), EINVAL);
    void *p = front_memalign(33, 8, site());
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    front_free(p, site());
}

static void test_failure_keeps_the_block(void **state) {
    (void)state;
    char *p = front_alloc(100, site());
    assert_non_null(p);
    memset(p, 'a', 100);
    errno = 0;
    expect_error(front_resize(p, SIZE_MAX, site()), ENOMEM);
    expect_error(front_resize_array(p, SIZE_MAX, 2, site()), ENOMEM);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(p[i], 'a');
    }
    assert_null(front_resize(p, 0, site()));
    assert_int_equal(errno, 0);
}

static void test_nulls(void **state) {
    (void)state;
    errno = 4321;
    front_free(NULL, site());
    front_free_as(NULL, "cfree", site());
    front_free_sized(NULL, 100, "free_sized", site());
    front_free_sized(NULL, SIZE_MAX, "free_sized", site());
    front_free_checked(NULL, &(struct heap_call){"free_aligned_sized", site(), SIZE_MAX, 3});
    assert_int_equal(front_usable(NULL, site()), 0);
    assert_int_equal(errno, 4321);
}

static void test_free_preserves_errno(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 300, 5000, 40000, 5000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *p = front_alloc(sizes[i], site());
        void *q = front_alloc(sizes[i], site());
        void *r = front_alloc(sizes[i], site());
        assert_true(p != NULL && q != NULL && r != NULL);
        errno = 4321;
        front_free(p, site());
        front_free_as(q, "operator delete", site());
        front_free_sized(r, sizes[i], "free_sized", site());
        assert_int_equal(errno, 4321);
    }
}

// The named size or alignment is wrong in a way that no heap has to be asked about.
static void test_impossible_names_are_fatal(void **state) {
    (void)state;
    static const size_t named[][2] = {
        {SIZE_MAX, 0}, {SIZE_MAX / 2 + 1, 0}, {100, 24}, {100, SIZE_MAX}, {PTRDIFF_MAX, 64}};
    for (size_t i = 0; FIRN_CHECK_FREE && i < sizeof(named) / sizeof(named[0]); i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            close(2);
            void *p = front_alloc(100, site());
            front_free_checked(
                p, &(struct heap_call){"free_aligned_sized", site(), named[i][0], named[i][1]});
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

static void test_mallopt(void **state) {
    (void)state;
    assert_int_equal(front_mallopt(M_MMAP_THRESHOLD, 1), 1);
    assert_int_equal(front_mallopt(M_ARENA_MAX, 1), 1);
    assert_int_equal(front_mallopt(12345, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_of_size),
        cmocka_unit_test(test_limits_of_alignment),
        cmocka_unit_test(test_failure_keeps_the_block),
        cmocka_unit_test(test_nulls),
        cmocka_unit_test(test_free_preserves_errno),
        cmocka_unit_test(test_impossible_names_are_fatal),
        cmocka_unit_test(test_mallopt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
