// The heap as a whole, against a model of it: every live block has its own memory and its content,
// whatever was allocated, freed, resized or trimmed in between.
// firn-test: timeout=240
#include "src/heap/heap.h"

#include "src/base/fatal.h"
#include "src/meta/size_class.h"
#include "src/span/large_heap.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
enum { BLOCKS = 3000, STEPS = 60000, SITES = 40 };

static const uintptr_t site = 0x408000;

struct block {
    unsigned char *p;
    size_t size, align;
    unsigned char mark;
    bool is_sized; // freed with its size
};

static struct block blocks[BLOCKS];
static uint64_t seed = 1;

static uint64_t draw(uint64_t bound) {
    return small_draw(&seed, bound);
}

static size_t draw_size(void) {
    switch (draw(12)) {
    case 0:
        return draw(SMALL_MAX + 1);
    case 1:
        return draw(8) * 4096 + draw(3);
    case 2:
        return SMALL_MAX + draw(100000);
    case 3:
        return draw(50) == 0 ? 2 * MIB + draw(MIB) : draw(2048);
    default:
        return draw(600);
    }
}

// First, last, and some between: enough to notice overlap, cheap enough for large ones.
static void mark(const struct block *b, size_t size) {
    if (size <= 4096) {
        memset(b->p, b->mark, size);
        return;
    }
    memset(b->p, b->mark, 1024);
    memset(b->p + size - 1024, b->mark, 1024);
    b->p[size / 2] = b->mark;
}

static bool is_marked(const struct block *b, size_t size) {
    for (size_t i = 0; i < size; i += i < 1024 || i + 1024 >= size || size <= 4096 ? 1 : 1024) {
        bool is_written = size <= 4096 || i < 1024 || i + 1024 >= size;
        if (is_written && b->p[i] != b->mark) {
            return false;
        }
    }
    return true;
}

static void fill(struct block *b) {
    b->size = draw_size();
    b->align = 16;
    b->mark = (unsigned char)(1 + draw(255));
    b->is_sized = draw(3) == 0;
    uintptr_t where = site + draw(SITES) * 16;
    switch (draw(5)) {
    case 0:
        b->p = heap_alloc_zeroed(b->size, where);
        assert_true(b->p == NULL || memory_is_zero(b->p, b->size));
        break;
    case 1:
        b->align = (size_t)1 << draw(16);
        b->p = heap_alloc_aligned(b->align, b->size, where);
        break;
    default:
        b->p = heap_alloc(b->size, where);
        break;
    }
    assert_non_null(b->p);
    assert_int_equal((uintptr_t)b->p % (b->align > 16 ? b->align : 16), 0);
    assert_true(heap_usable(b->p, where) >= b->size);
    mark(b, b->size);
}

static void empty(struct block *b) {
    assert_true(is_marked(b, b->size));
    errno = 4711;
    if (b->is_sized) {
        heap_free_sized(b->p, &(struct heap_call){"free_sized", site, b->size, b->align});
    } else {
        heap_free(b->p, site);
    }
    assert_int_equal(errno, 4711);
    b->p = NULL;
}

static void resize(struct block *b) {
    size_t size = draw_size() + 1;
    assert_true(is_marked(b, b->size));
    size_t kept = b->size < size ? b->size : size;
    unsigned char *p = heap_resize(b->p, size, site);
    assert_non_null(p);
    b->p = p;
    for (size_t i = 0; i < kept && i < 1024; i++) {
        assert_int_equal(p[i], b->mark);
    }
    b->size = size;
    b->align = 16;
    assert_true(heap_usable(p, site) >= size);
    mark(b, size);
}

static int by_address(const void *a, const void *b) {
    const struct block *x = *(const struct block *const *)a;
    const struct block *y = *(const struct block *const *)b;
    return x->p < y->p ? -1 : x->p > y->p;
}

// No two blocks overlap, to the last usable byte; the figures agree.
static void check_all(void) {
    static struct block *live[BLOCKS];
    size_t n = 0, large = 0, small_bytes = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].p != NULL) {
            assert_true(is_marked(&blocks[i], blocks[i].size));
            live[n++] = &blocks[i];
            bool is_large = (uintptr_t)blocks[i].p - FIRN_ROOT.small_base >= FIRN_ROOT.small_bytes;
            large += is_large;
            small_bytes += is_large ? 0 : span_class(small_span(blocks[i].p))->bytes;
        }
    }
    qsort(live, n, sizeof *live, by_address);
    for (size_t i = 1; i < n; i++) {
        assert_true(live[i - 1]->p + heap_usable(live[i - 1]->p, site) <= live[i]->p);
    }
    struct heap_stats stats;
    heap_stats(&stats);
    assert_int_equal(stats.small_live, n - large);
    assert_int_equal(stats.large_live, large);
    assert_int_equal(stats.small_allocated, small_bytes);
    small_check();
    large_check();
}

static void agrees_with_a_model(void **state) {
    (void)state;
    unsigned steps = memory_is_sanitized() ? STEPS / 4 : STEPS;
    for (unsigned step = 0; step < steps; step++) {
        struct block *b = &blocks[draw(BLOCKS)];
        if (b->p == NULL) {
            fill(b);
        } else if (draw(4) == 0) {
            resize(b);
        } else {
            empty(b);
        }
        if (step % 10000 == 0) {
            check_all();
        }
        if (step % 7000 == 0) {
            (void)heap_trim();
        }
    }
    check_all();
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].p != NULL) {
            empty(&blocks[i]);
        }
    }
    check_all();
}

// Runs after the one above: nothing is live.
static void trim_gives_everything_back(void **state) {
    (void)state;
    struct heap_stats stats;
    enum { N = 20000 };
    static void *p[N];
    for (unsigned i = 0; i < N; i++) {
        p[i] = heap_alloc(200, site);
        memset(p[i], 1, 200);
    }
    for (unsigned i = 0; i < N; i++) {
        heap_free(p[i], site);
    }
    heap_stats(&stats);
    assert_int_equal(stats.small_live, 0);
    assert_true(heap_trim());
    heap_stats(&stats);
    assert_int_equal(stats.dirty, 0);
    assert_int_equal(stats.active, 0);
    assert_int_equal(stats.allocated, 0);
    assert_true(stats.retained > 0);
    assert_false(heap_trim());
    for (unsigned i = 0; i < N && !small_is_rationed(); i++) {
        assert_true(memory_is_zero(p[i], 200));
    }
    small_check();
}

static void impossible_sizes_fail_with_enomem(void **state) {
    (void)state;
    static const size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 4095,
                                   (size_t)1 << 62};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = 0;
        assert_null(heap_alloc(sizes[i], site));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(heap_alloc_zeroed(sizes[i], site));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(heap_alloc_aligned(64, sizes[i], site));
        assert_int_equal(errno, ENOMEM);
    }
    errno = 0;
    assert_null(heap_alloc_aligned((size_t)1 << 62, 16, site));
    assert_int_equal(errno, ENOMEM);
}

static void zeroed_memory_is_zero_when_used_again(void **state) {
    (void)state;
    for (size_t size = 1; size < 200000; size = size * 3 / 2 + 1) {
        for (unsigned i = 0; i < 100; i++) {
            unsigned char *p = heap_alloc_zeroed(size, site);
            assert_non_null(p);
            assert_true(memory_is_zero(p, size));
            memset(p, 0xa5, heap_usable(p, site));
            heap_free(p, site);
        }
    }
}

static void every_alignment_is_kept(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 24, 100, 1000, 5000, 32768, 32769, 200000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t align = 1; align <= 4 * MIB; align *= 2) {
            void *p[8];
            for (unsigned k = 0; k < 8; k++) {
                p[k] = heap_alloc_aligned(align, sizes[i], site);
                assert_non_null(p[k]);
                assert_int_equal((uintptr_t)p[k] % (align > 16 ? align : 16), 0);
                assert_true(heap_usable(p[k], site) >= sizes[i]);
            }
            for (unsigned k = 0; k < 8; k++) {
                heap_free_sized(p[k],
                                &(struct heap_call){"free_aligned_sized", site, sizes[i], align});
            }
        }
    }
    small_check();
    large_check();
}

struct mismatch {
    size_t size, named, align;
};

static void free_mismatched(void *context) {
    const struct mismatch *m = context;
    void *p = heap_alloc(m->size, site);
    NEED(p != NULL);
    heap_free_sized(p, &(struct heap_call){"free_sized", site, m->named, m->align});
}

static void wrong_sizes_are_found(void **state) {
    (void)state;
    static struct mismatch cases[] = {
        {100, 50, 0},      {100, 113, 0},     {100, 0, 0},          {8, 17, 0},
        {100, 40000, 0},   {40000, 100, 0},   {40000, 40961, 0},    {40000, 36864, 0},
        {32760, 32769, 0}, {100, 100, 65536}, {40000, SIZE_MAX, 0}, {100, SIZE_MAX - 1, 0},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool is_named = cases[i].named != FATAL_SIZE_UNKNOWN;
        bool is_found =
            FIRN_CHECK_FREE && is_named
                ? small_run_aborts(free_mismatched, &cases[i], "firn: size-mismatch: free_sized(")
                : small_run(free_mismatched, &cases[i]);
        if (!is_found) {
            fail_msg("case %u", i);
        }
    }
    // Any size of the class, or of the same number of pages, is right.
    static struct mismatch right[] = {{100, 97, 0},      {100, 104, 0},     {0, 8, 0},
                                      {40000, 36865, 0}, {40000, 40960, 0}, {120, 120, 64}};
    for (unsigned i = 0; i < sizeof right / sizeof *right; i++) {
        assert_true(small_run(free_mismatched, &right[i]));
    }
}

// Blocks of different partitions never share a span.
static void partitions_do_not_share_spans(void **state) {
    (void)state;
    if (FIRN_PARTITIONS < 2) {
        skip();
    }
    for (unsigned i = 0; i < 4000; i++) {
        uintptr_t where = site + draw(SITES) * 16;
        void *p = heap_alloc(64, where);
        assert_int_equal(small_span(p)->cell, small_cell(64, where));
        if (draw(2) == 0) {
            heap_free(p, site);
        }
    }
    small_check();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_model),
        cmocka_unit_test(trim_gives_everything_back),
        cmocka_unit_test(impossible_sizes_fail_with_enomem),
        cmocka_unit_test(zeroed_memory_is_zero_when_used_again),
        cmocka_unit_test(every_alignment_is_kept),
        cmocka_unit_test(wrong_sizes_are_found),
        cmocka_unit_test(partitions_do_not_share_spans),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
