// How far blocks reach, from every byte of them; and what is in no block.
#include "src/heap/extent.h"

#include "src/base/align.h"
#include "src/heap/heap.h"
#include "tests/support/child.h"
#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

static const uintptr_t site = 0x405000;

static size_t at(const void *p, size_t offset) {
    return heap_extent((const void *)((uintptr_t)p + offset));
}

static void small_blocks_from_every_byte(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 16, 24, 48, 100, 700, 1024, 1280, 5000, 32768};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = heap_alloc(sizes[i] - (sizes[i] > 16 ? FIRN_SLOT_EXTRA : 0), site);
        size_t usable = heap_usable(p, site);
        for (size_t offset = 0; offset < usable; offset++) {
            assert_int_equal(at(p, offset), usable - offset);
        }
        for (size_t offset = usable; offset < usable + FIRN_SLOT_EXTRA; offset++) {
            assert_int_equal(at(p, offset), 0);
        }
        heap_free(p, site);
        for (size_t offset = 0; offset < usable; offset++) {
            assert_int_equal(at(p, offset), 0);
        }
    }
}

static void a_block_freed_by_another_thread(void **state) {
    (void)state;
    struct cache *mine = firn_cache;
    void *p = heap_alloc(64 - FIRN_SLOT_EXTRA, site);
    struct cache *other = small_attach();
    heap_free(p, site);
    assert_int_equal(at(p, 8), 0);
    cache_detach(other);
    small_act_as(mine);
    assert_int_equal(at(p, 8), 0);
}

static void large_blocks_to_their_end(void **state) {
    (void)state;
    static const size_t sizes[] = {32769, 65536, 100000, 3 << 20, 40 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = heap_alloc(sizes[i], site);
        size_t usable = heap_usable(p, site);
        assert_int_equal(usable, FIRN_LARGE_SLACK ? sizes[i] : align_up(sizes[i], FIRN_PAGE));
        for (size_t offset = 0; offset < usable; offset += 977) {
            assert_int_equal(at(p, offset), usable - offset);
        }
        assert_int_equal(at(p, usable - 1), 1);
        assert_int_equal(at(p, usable), 0);
        assert_int_equal(at(p, (size_t)-1), 0);
        heap_free(p, site);
        for (size_t offset = 0; offset < usable; offset += 977) {
            assert_int_equal(at(p, offset), 0);
        }
    }
}

static void a_resized_block(void **state) {
    (void)state;
    void *p = heap_alloc(1 << 20, site);
    p = heap_resize(p, 2 << 20, site);
    assert_int_equal(at(p, 4096), (2 << 20) - 4096);
    p = heap_resize(p, 40 << 10, site);
    assert_int_equal(at(p, 4096), (40 << 10) - 4096);
    assert_int_equal(at(p, 40 << 10), 0);
    assert_int_equal(at(p, 1 << 20), 0);
    heap_free(p, site);
}

static void beyond_the_main_reservation(void **state) {
    (void)state;
    size_t bytes = (size_t)20 << 40; // more than all of it: reserved apart
    void *p = heap_alloc(bytes, site);
    if (p == NULL) {
        skip();
    }
    assert_int_equal(at(p, 0), bytes);
    assert_int_equal(at(p, 1 << 20), bytes - (1 << 20));
    heap_free(p, site);
    assert_int_equal(at(p, 0), 0);
}

static void what_is_in_no_block(void **state) {
    (void)state;
    static char global[64];
    char local[64];
    assert_int_equal(at(global, 1), SIZE_MAX);
    assert_int_equal(at(local, 1), SIZE_MAX);
    assert_int_equal(at(NULL, 0), SIZE_MAX);
    assert_int_equal(at(NULL, (size_t)-1), SIZE_MAX);
    assert_int_equal(at((void *)FIRN_ROOT.meta.base, 0), SIZE_MAX);
    assert_int_equal(at((void *)FIRN_ROOT.data.base, FIRN_ROOT.data.bytes), SIZE_MAX);
    // In the heap, never handed out: a class nobody uses, the end of the large half.
    assert_int_equal(at((void *)root_cell_base(small_cell(20480, site)), 100), 0);
    assert_int_equal(at((void *)FIRN_ROOT.data.base, FIRN_ROOT.data.bytes - 1), 0);
    assert_int_equal(at((void *)FIRN_ROOT.data.base, FIRN_ROOT.data.bytes / 2), 0);
}

// The rest of a span behind its last slot: 131,072 is not a multiple of 1,280.
static void behind_the_last_slot(void **state) {
    (void)state;
    void *p[200];
    for (unsigned i = 0; i < 200; i++) {
        p[i] = heap_alloc(1280 - FIRN_SLOT_EXTRA, site);
        assert_non_null(p[i]);
    }
    const struct span *s = small_span(p[0]);
    uintptr_t end = span_base(s) + span_class(s)->slots * (uintptr_t)1280;
    assert_true(end < span_base(s) + span_class(s)->span_mask);
    assert_int_equal(heap_extent((void *)end), 0);
    for (unsigned i = 0; i < 200; i++) {
        heap_free(p[i], site);
    }
}

// Others come and go around a block while its extent is asked for.
static _Atomic bool is_over;

static void *come_and_go(void *context) {
    uint64_t seed = (uintptr_t)context;
    void *p[16] = {0};
    while (!atomic_load(&is_over)) {
        unsigned k = (unsigned)small_draw(&seed, 16);
        if (p[k] != NULL) {
            heap_free(p[k], site);
        }
        p[k] = heap_alloc(33000 + (size_t)small_draw(&seed, 1 << 20), site);
    }
    for (unsigned k = 0; k < 16; k++) {
        if (p[k] != NULL) {
            heap_free(p[k], site);
        }
    }
    return NULL;
}

static void neighbours_come_and_go(void **state) {
    (void)state;
    pthread_t threads[2];
    atomic_store(&is_over, false);
    for (uintptr_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    }
    uint64_t seed = 7;
    unsigned rounds = test_is_thorough() ? 2000 : 200;
    for (unsigned round = 0; round < rounds; round++) {
        size_t size = 33000 + (size_t)small_draw(&seed, 1 << 20);
        void *p = heap_alloc(size, site);
        size_t usable = FIRN_LARGE_SLACK ? size : align_up(size, FIRN_PAGE);
        for (unsigned i = 0; i < 20; i++) {
            size_t offset = (size_t)small_draw(&seed, size);
            assert_int_equal(at(p, offset), usable - offset);
        }
        heap_free(p, site);
    }
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_blocks_from_every_byte),
        cmocka_unit_test(a_block_freed_by_another_thread),
        cmocka_unit_test(large_blocks_to_their_end),
        cmocka_unit_test(a_resized_block),
        cmocka_unit_test(beyond_the_main_reservation),
        cmocka_unit_test(what_is_in_no_block),
        cmocka_unit_test(behind_the_last_slot),
        cmocka_unit_test(neighbours_come_and_go),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
