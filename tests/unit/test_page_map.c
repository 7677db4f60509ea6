// The page map against a plain array, and searches across what was never made.
#include "src/span/page_map.h"

#include "src/meta/arena.h"
#include "src/os/caps.h"
#include "src/span/run.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define BASE ((uintptr_t)1 << 45)
#define TIB ((size_t)1 << 40)

static int start(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    return 0;
}

static uintptr_t page(size_t index) {
    return BASE + index * FIRN_PAGE;
}

static void against_an_array(void **state) {
    (void)state;
    enum { PAGES = 5000 };
    static struct run runs[PAGES];
    static struct run *shadow[PAGES];
    struct page_map map;
    uint64_t seed = 42;
    assert_true(page_map_start(&map, BASE, (size_t)PAGES * FIRN_PAGE));
    for (unsigned i = 0; i < 3 * PAGES; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (seed >> 33) % PAGES;
        assert_true(page_map_prepare(&map, page(at)));
        shadow[at] = (seed >> 20) % 16 == 0 ? &runs[at] : NULL;
        page_map_set(&map, page(at), shadow[at]);
    }
    struct run *before = NULL;
    for (size_t at = 0; at < PAGES; at++) {
        before = shadow[at] != NULL ? shadow[at] : before;
        assert_ptr_equal(page_map_get(&map, page(at)), shadow[at]);
        assert_ptr_equal(page_map_get_before(&map, page(at)), before);
        assert_ptr_equal(page_map_get_before(&map, page(at) + FIRN_PAGE - 1), before);
    }
}

// Two entries 16 TiB apart cost a few pages, and each is found from the other.
static void far_apart(void **state) {
    (void)state;
    static struct run first, last;
    struct page_map map;
    size_t pages = 16 * TIB / FIRN_PAGE;
    size_t before = arena_committed_bytes();
    assert_true(page_map_start(&map, BASE, 16 * TIB));
    assert_null(page_map_get(&map, page(pages / 2)));
    assert_null(page_map_get_before(&map, page(pages - 1)));
    assert_true(page_map_prepare(&map, page(0)));
    page_map_set(&map, page(0), &first);
    assert_ptr_equal(page_map_get_before(&map, page(pages - 1)), &first);
    assert_true(page_map_prepare(&map, page(pages - 2)));
    page_map_set(&map, page(pages - 2), &last);
    assert_ptr_equal(page_map_get_before(&map, page(pages - 1)), &last);
    assert_ptr_equal(page_map_get_before(&map, page(pages - 3)), &first);
    page_map_set(&map, page(pages - 2), NULL);
    assert_ptr_equal(page_map_get_before(&map, page(pages - 1)), &first);
    page_map_set(&map, page(0), NULL);
    assert_null(page_map_get_before(&map, page(pages - 1)));
    assert_true(arena_committed_bytes() - before <= (size_t)512 << 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(against_an_array, start),
        cmocka_unit_test(far_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
