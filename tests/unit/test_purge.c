// firn-test: share=2
#include "src/os/purge.h"

#include "src/base/compiler.h"
#include "src/os/caps.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { PAGES = 2 * PURGE_MOST };

static unsigned char *area;
static struct purge_list list;

static int make_area(void **state) {
    (void)state;
    caps_probe(~0u);
    void *p =
        mmap(NULL, PAGES * FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area = p;
    return p != MAP_FAILED ? 0 : -1;
}

static size_t resident_pages(void) {
    unsigned char pages[PAGES];
    size_t n = 0;
    assert_int_equal(mincore(area, PAGES * FIRN_PAGE, pages), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        n += pages[i] & 1;
    }
    return n;
}

// Every second page is purged; the others stay.
static void purge_half(void) {
    memset(area, 7, PAGES * FIRN_PAGE);
    for (unsigned i = 0; i < PAGES; i += 2) {
        purge_add(&list, (uintptr_t)area + i * (uintptr_t)FIRN_PAGE, FIRN_PAGE);
    }
    assert_int_equal(list.count, PURGE_MOST);
    errno = 4321;
    purge_all(&list);
    assert_int_equal(errno, 4321);
    assert_int_equal(list.count, 0);
}

static void need_half(void) {
    for (unsigned i = 0; i < PAGES; i++) {
        assert_int_equal(area[i * (size_t)FIRN_PAGE], i % 2 == 0 ? 0 : 7);
    }
}

static void test_a_list_is_purged(void **state) {
    (void)state;
    purge_half();
    assert_int_equal(resident_pages(), PAGES / 2);
    need_half();
}

static void test_without_the_call(void **state) {
    (void)state;
    caps_forget(CAP_PURGE_LIST);
    purge_half();
    assert_int_equal(resident_pages(), PAGES / 2);
    need_half();
    caps_probe(~0u);
}

// Memory that is locked in the middle of the list: what comes after it is purged all the same.
static void test_locked_memory(void **state) {
    (void)state;
    if (mlock(area + 4 * (size_t)FIRN_PAGE, FIRN_PAGE) != 0) {
        skip();
    }
    purge_half();
    need_half();
    assert_int_equal(munlock(area + 4 * (size_t)FIRN_PAGE, FIRN_PAGE), 0);
}

static void test_neighbours_are_one_range(void **state) {
    (void)state;
    memset(area, 7, PAGES * FIRN_PAGE);
    purge_add(&list, (uintptr_t)area, FIRN_PAGE);
    purge_add(&list, (uintptr_t)area + FIRN_PAGE, 2 * FIRN_PAGE);
    assert_int_equal(list.count, 1);
    purge_all(&list);
    assert_int_equal(resident_pages(), PAGES - 3);
    purge_all(&list); // nothing
    assert_int_equal(resident_pages(), PAGES - 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_purged),
        cmocka_unit_test(test_without_the_call),
        cmocka_unit_test(test_locked_memory),
        cmocka_unit_test(test_neighbours_are_one_range),
    };
    return cmocka_run_group_tests(tests, make_area, NULL);
}
