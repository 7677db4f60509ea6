// P-BOUNDS: what a copy may touch, and the words in which it dies.
#include "src/front/bounds.h"

#include "src/base/fatal.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "tests/support/child.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const size_t sizes[] = {1, 16, 100, 1280, 32768, 32769, 1 << 20};
enum { SIZES = sizeof sizes / sizeof *sizes };
static const struct bounds_call call = {"memcpy", 0, 123};
static const struct bounds_call unsized = {"strcpy", 0, FATAL_SIZE_UNKNOWN};

static char *block(size_t size, size_t *usable) {
    char *p = heap_alloc(size, 0x405000);
    assert_non_null(p);
    *usable = heap_extent(p);
    assert_true(*usable >= size && *usable != SIZE_MAX);
    return p;
}

static void ranges_inside_pass(void **state) {
    (void)state;
    char here[8] = "here";
    for (unsigned i = 0; i < SIZES; i++) {
        size_t n;
        char *p = block(sizes[i], &n);
        bounds_read(p, n, &call);
        bounds_write(p + n - 1, 1, &call);
        bounds_read(p + n, 0, &call);
        bounds_write(p + n, 0, &call);
        heap_free(p, 0);
        bounds_write(p, 0, &call);
    }
    bounds_read(here, SIZE_MAX, &call);
    bounds_write(NULL, 100, &call);
}

struct attempt {
    char *p;
    size_t n;
};

static void reads(void *context) {
    const struct attempt *a = context;
    bounds_read(a->p, a->n, &call);
}

static void writes(void *context) {
    const struct attempt *a = context;
    bounds_write(a->p, a->n, &call);
}

static void measures(void *context) {
    const struct attempt *a = context;
    bounds_length(a->p, &unsized);
}

static void measures_some(void *context) {
    const struct attempt *a = context;
    bounds_length_most(a->p, a->n, &call);
}

static void assert_dies(void (*body)(void *), const struct attempt *a, const char *found) {
    struct child c;
    child_run(&c, body, (void *)(uintptr_t)a);
    assert_true(child_died_of(&c, SIGABRT));
    if (strncmp(c.said, "firn: out-of-bounds: ", 21) != 0 || strstr(c.said, found) == NULL) {
        fail_msg("said \"%s\", not \"%s\"", c.said, found);
    }
}

static void ranges_that_leave_die(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZES; i++) {
        char found[128];
        struct attempt a = {0};
        a.p = block(sizes[i], &a.n);
        size_t room = a.n++;
        const char *class_name = sizes[i] > 32768 ? "class=large size=123" : "size=123";
        snprintf(found, sizeof found, "%s found: read of %zu bytes, %zu left in the object; ",
                 class_name, a.n, room);
        assert_dies(reads, &a, found);
        a.n = SIZE_MAX;
        snprintf(found, sizeof found, "%s found: write of %zu bytes, %zu left in the object; ",
                 class_name, a.n, room);
        assert_dies(writes, &a, found);
        heap_free(a.p, 0);
        a.n = 1;
        assert_dies(writes, &a, "found: write of 1 bytes, no live object there; ");
    }
}

static void strings_end_inside(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZES; i++) {
        char found[128];
        struct attempt a = {0};
        a.p = block(sizes[i], &a.n);
        memset(a.p, 'x', a.n);
        assert_int_equal(bounds_length_most(a.p, a.n, &call), a.n);
        assert_int_equal(bounds_length_most(a.p, 0, &call), 0);
        snprintf(found, sizeof found, "size=? found: string without an end, %zu left in the object",
                 a.n);
        assert_dies(measures, &a, found);
        a.n++;
        assert_dies(measures_some, &a, strstr(found, "found"));
        a.p[a.n - 2] = '\0';
        assert_int_equal(bounds_length(a.p, &unsized), a.n - 2);
        assert_int_equal(bounds_length_most(a.p, SIZE_MAX, &call), a.n - 2);
        heap_free(a.p, 0);
    }
    assert_int_equal(bounds_length("elsewhere", &unsized), 9);
    assert_int_equal(bounds_length_most("elsewhere", 4, &unsized), 4);
    assert_int_equal(bounds_length_most("elsewhere", SIZE_MAX, &unsized), 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_inside_pass),
        cmocka_unit_test(ranges_that_leave_die),
        cmocka_unit_test(strings_end_inside),
    };
    life_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
