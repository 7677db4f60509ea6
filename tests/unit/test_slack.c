// P-SLACK, P-LARGE-SLACK: the size asked for is remembered, and what is left over is watched.
#include "hardening/slack.h"

#include "src/heap/extent.h"
#include "src/heap/find.h"
#include "src/heap/heap.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uintptr_t site = 0x40c000;

static int start(void **state) {
    return small_start(state) == 0 && small_attach() != NULL ? 0 : -1;
}

static size_t slot_bytes(const void *p) {
    return span_class(small_span(p))->bytes;
}

static bool is_whole(void *p) {
    struct found f;
    find_pointer(p, &f);
    find_check(&f);
    return f.kind != FOUND_BAD;
}

static void every_size_is_known(void **state) {
    (void)state;
    if (!FIRN_SLACK) {
        skip();
    }
    for (size_t size = 0; size <= SMALL_MAX - FIRN_SLOT_EXTRA; size += size < 3000 ? 1 : 97) {
        char *p = heap_alloc(size, site);
        assert_non_null(p);
        assert_int_equal(slack_size((uintptr_t)p, slot_bytes(p)), size);
        assert_int_equal(heap_usable(p, site), size);
        assert_int_equal(heap_extent(p), size);
        memset(p, 0xff, size);
        assert_true(is_whole(p));
        heap_free(p, site);
    }
}

static void every_byte_is_watched(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 9, 24, 100, 260, 3000};
    if (!FIRN_SLACK) {
        skip();
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = heap_alloc(sizes[i], site);
        for (size_t at = sizes[i]; at < slot_bytes(p); at++) {
            char was = p[at];
            assert_int_not_equal(was, 0);
            // Nor is it anything that a text could hold.
            assert_true(at >= slot_bytes(p) - CANARY_BYTES || ((unsigned char)was & 0x80) != 0);
            p[at] = 0;
            bool is_noticed = !is_whole(p);
            p[at] = was;
            // The three bytes that hold the size give away what they can.
            size_t in_canary = at - (slot_bytes(p) - CANARY_BYTES);
            assert_true(is_noticed || (in_canary >= 2 && in_canary <= 4));
            assert_true(is_whole(p));
        }
        heap_free(p, site);
    }
}

static void a_block_is_resized_within_its_slot(void **state) {
    (void)state;
    if (!FIRN_SLACK) {
        skip();
    }
    char *p = heap_alloc(279, site);
    memset(p, 'x', 279);
    assert_ptr_equal(heap_resize(p, 262, site), p);
    assert_int_equal(heap_usable(p, site), 262);
    assert_true(is_whole(p));
    assert_ptr_equal(heap_resize(p, 280, site), p);
    for (size_t i = 0; i < 280; i++) {
        assert_int_equal(p[i], i < 262 ? 'x' : 0);
    }
    assert_true(is_whole(p));
    heap_free(p, site);
}

static void a_moved_block_keeps_its_bytes(void **state) {
    (void)state;
    char *p = heap_alloc(100, site);
    memset(p, 'x', 100);
    p = heap_resize(p, 2000, site);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(p[i], 'x');
    }
    p = heap_resize(p, 30, site);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_equal(p[i], 'x');
    }
    assert_true(is_whole(p));
    heap_free(p, site);
}

static void aligned_blocks_too(void **state) {
    (void)state;
    for (size_t align = 32; align <= 4096; align *= 2) {
        char *p = heap_alloc_aligned(align, 5, site);
        assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 1, heap_usable(p, site));
        assert_true(!FIRN_SLACK || heap_usable(p, site) == 5);
        assert_true(is_whole(p));
        heap_free(p, site);
    }
}

static void large_blocks(void **state) {
    (void)state;
    if (!FIRN_LARGE_SLACK) {
        skip();
    }
    char *p = heap_alloc(100000, site);
    assert_int_equal(heap_usable(p, site), 100000);
    assert_int_equal(heap_extent(p), 100000);
    memset(p, 'x', 100000);
    assert_true(is_whole(p));
    p[100000] = 0;
    assert_false(is_whole(p));
    slack_fill((uintptr_t)p + 100000, large_page_end((uintptr_t)p, 100000));
    static const size_t sizes[] = {99999, 102399, 102400, 102401, 300000, 40000, 100001};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t old = heap_usable(p, site);
        p = heap_resize(p, sizes[i], site);
        assert_non_null(p);
        for (size_t at = old; at < sizes[i]; at++) {
            assert_int_equal(p[at], 0);
        }
        memset(p, 'x', sizes[i]);
        assert_true(is_whole(p));
    }
    p = heap_resize(p, 100, site);
    assert_int_equal(p[99], 'x');
    heap_free(p, site);
    unsigned char *z = heap_alloc_zeroed(50000, site);
    for (unsigned i = 0; i < 50000; i++) {
        assert_int_equal(z[i], 0);
    }
    assert_true(is_whole(z));
    heap_free(z, site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_size_is_known, start),
        cmocka_unit_test_setup(every_byte_is_watched, start),
        cmocka_unit_test_setup(a_block_is_resized_within_its_slot, start),
        cmocka_unit_test_setup(a_moved_block_keeps_its_bytes, start),
        cmocka_unit_test_setup(aligned_blocks_too, start),
        cmocka_unit_test_setup(large_blocks, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
