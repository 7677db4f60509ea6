// realloc: when a block stays, what it keeps, and what failure leaves.
#include "src/heap/heap.h"
#include "tests/support/small_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static const uintptr_t site = 0x40a000;

static unsigned char *make(size_t size) {
    unsigned char *p = heap_alloc(size, site);
    assert_non_null(p);
    for (size_t i = 0; i < size; i++) {
        p[i] = (unsigned char)(i * 31 + (i >> 8));
    }
    return p;
}

static void assert_kept(const unsigned char *p, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (p[i] != (unsigned char)(i * 31 + (i >> 8))) {
            fail_msg("byte %zu of %zu", i, size);
        }
    }
}

static bool is_small(const void *p) {
    return (uintptr_t)p - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes;
}

static void a_block_of_the_same_class_stays(void **state) {
    (void)state;
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        size_t most = SMALL_FIT(size_class_bytes(c));
        size_t least = c > 0 ? SMALL_FIT(size_class_bytes(c - 1)) + 1 : 1;
        unsigned char *p = make(least);
        assert_ptr_equal(heap_resize(p, most, site), p);
        assert_kept(p, least);
        assert_ptr_equal(heap_resize(p, least, site), p);
        assert_kept(p, least);
        heap_free(p, site);
    }
}

static void a_block_of_another_class_moves(void **state) {
    (void)state;
    for (unsigned c = 0; c + 1 < SIZE_CLASSES; c++) {
        size_t size = SMALL_FIT(size_class_bytes(c));
        unsigned char *p = make(size);
        unsigned char *q = heap_resize(p, size + 1, site);
        assert_non_null(q);
        assert_ptr_not_equal(q, p);
        assert_kept(q, size);
        assert_int_equal(root_cell_class(small_span(q)->cell), c + 1);
        assert_false(span_is_live(small_span(p), small_slot(p)));
        // And back: shrinking gives memory back.
        unsigned char *r = heap_resize(q, size, site);
        assert_ptr_not_equal(r, q);
        assert_kept(r, size);
        assert_int_equal(root_cell_class(small_span(r)->cell), c);
        heap_free(r, site);
    }
    small_check();
}

static void content_survives_every_way(void **state) {
    (void)state;
    static const size_t sizes[] = {1,     16,    17,    512,    4096,   32768,
                                   32769, 40960, 40961, 300000, 2 * MIB};
    enum { N = sizeof sizes / sizeof *sizes };
    for (unsigned i = 0; i < N; i++) {
        for (unsigned k = 0; k < N; k++) {
            unsigned char *p = make(sizes[i]);
            unsigned char *q = heap_resize(p, sizes[k], site);
            assert_non_null(q);
            assert_int_equal(is_small(q), sizes[k] <= SMALL_MOST);
            assert_true(heap_usable(q, site) >= sizes[k]);
            assert_kept(q, sizes[i] < sizes[k] ? sizes[i] : sizes[k]);
            memset(q, 0x11, heap_usable(q, site));
            heap_free(q, site);
        }
    }
    small_check();
}

static void a_block_of_the_same_pages_stays(void **state) {
    (void)state;
    unsigned char *p = make(40000);
    for (size_t size = 36865; size <= 40960; size += 64) {
        assert_ptr_equal(heap_resize(p, size, site), p);
    }
    assert_kept(p, 36865);
    heap_free(p, site);
}

static void growing_by_steps_keeps_everything(void **state) {
    (void)state;
    unsigned char *p = make(1);
    size_t have = 1;
    for (size_t size = 2; size < 200000; size += 1 + size / 16) {
        unsigned char *q = heap_resize(p, size, site);
        assert_non_null(q);
        assert_kept(q, have);
        for (size_t i = have; i < size; i++) {
            q[i] = (unsigned char)(i * 31 + (i >> 8));
        }
        p = q;
        have = size;
    }
    heap_free(p, site);
    struct heap_stats stats;
    heap_stats(&stats);
    assert_int_equal(stats.small_live + stats.large_live, 0);
}

static void failure_leaves_the_block(void **state) {
    (void)state;
    static const size_t sizes[] = {100, 100000};
    static const size_t impossible[] = {(size_t)1 << 62, (size_t)PTRDIFF_MAX + 1, SIZE_MAX};
    for (unsigned i = 0; i < 2; i++) {
        unsigned char *p = make(sizes[i]);
        for (unsigned k = 0; k < 3; k++) {
            errno = 0;
            assert_null(heap_resize(p, impossible[k], site));
            assert_int_equal(errno, ENOMEM);
            assert_kept(p, sizes[i]);
        }
        heap_free(p, site);
    }
}

// Another thread's block moves to this one's cache; the old one goes back to its owner.
static void another_threads_block_can_be_resized(void **state) {
    (void)state;
    struct cache *mine = firn_cache;
    unsigned char *p = make(64);
    struct cache *other = small_attach();
    assert_non_null(other);
    assert_ptr_equal(heap_resize(p, 60, site), p);
    unsigned char *q = heap_resize(p, 200, site);
    assert_kept(q, 60);
    assert_ptr_equal(atomic_load(&small_span(q)->owner), other);
    assert_true(span_is_remote(small_span(p), small_slot(p)));
    heap_free(q, site);
    cache_detach(other);
    small_act_as(mine);
    cache_flush_all(mine);
    assert_false(span_is_live(small_span(p), small_slot(p)));
    small_check();
}

static void resize_freed(void *context) {
    unsigned char *p = heap_alloc(*(size_t *)context, site);
    heap_free(p, site);
    (void)heap_resize(p, 10, site);
}

static void resize_interior(void *context) {
    unsigned char *p = heap_alloc(*(size_t *)context, site);
    (void)heap_resize_as(p + 32, &(struct heap_call){"reallocarray", site, 2048, 0});
}

static void misuse_is_fatal_and_named(void **state) {
    (void)state;
    size_t sizes[] = {100, 100000};
    for (unsigned i = 0; i < 2; i++) {
        assert_true(small_run_aborts(resize_freed, &sizes[i], "firn: double-free: realloc("));
        assert_true(
            small_run_aborts(resize_interior, &sizes[i], "firn: interior-pointer: reallocarray("));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_of_the_same_class_stays),
        cmocka_unit_test(a_block_of_another_class_moves),
        cmocka_unit_test(content_survives_every_way),
        cmocka_unit_test(a_block_of_the_same_pages_stays),
        cmocka_unit_test(growing_by_steps_keeps_everything),
        cmocka_unit_test(failure_leaves_the_block),
        cmocka_unit_test(another_threads_block_can_be_resized),
        cmocka_unit_test(misuse_is_fatal_and_named),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
