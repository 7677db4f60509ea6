// Statistics: sums that agree with what was done, and with each other.
#include "src/heap/heap.h"

#include "src/meta/size_class.h"
#include "src/os/map.h"
#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCKS = 500 };

static const uintptr_t site = 0x40b000;

static struct heap_stats now(void) {
    struct heap_stats s;
    heap_stats(&s);
    return s;
}

static void assert_sums(const struct heap_stats *s) {
    assert_int_equal(s->allocated, s->small_allocated + s->large_allocated);
    assert_true(s->allocated <= s->active);
    assert_true(s->resident >= s->active + s->dirty);
    // Rationed, what is retained is addresses only.
    size_t retained = small_is_rationed() ? 0 : s->retained;
    assert_true(s->active + s->dirty + retained <= s->mapped);
    assert_true(s->mapped + s->metadata <= s->reserved);
    assert_true(s->caches_in_use <= s->caches);
    assert_int_equal(s->guard_vmas, map_guard_vmas());
}

static void nothing_is_live_at_first(void **state) {
    (void)state;
    struct heap_stats s = now();
    assert_sums(&s);
    assert_int_equal(s.allocated, 0);
    assert_int_equal(s.small_live + s.large_live, 0);
    assert_int_equal(s.mapped, 0);
    assert_true(s.reserved > (size_t)1 << 30);
}

static void small_blocks_count_by_slot_size(void **state) {
    (void)state;
    static void *p[BLOCKS];
    size_t bytes = 0;
    struct heap_stats before = now();
    for (unsigned i = 0; i < BLOCKS; i++) {
        p[i] = heap_alloc(i * 7, site);
        bytes += size_class_bytes(small_class(i * 7));
        struct heap_stats s = now();
        assert_int_equal(s.small_live, before.small_live + i + 1);
        assert_int_equal(s.small_allocated, before.small_allocated + bytes);
        assert_int_equal(s.large_live, before.large_live);
        assert_sums(&s);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(p[i], site);
    }
    struct heap_stats s = now();
    assert_int_equal(s.small_live, before.small_live);
    assert_int_equal(s.small_allocated, before.small_allocated);
    assert_sums(&s);
}

static void large_blocks_count_by_pages(void **state) {
    (void)state;
    struct heap_stats before = now();
    void *p = heap_alloc(100000, site);
    struct heap_stats s = now();
    assert_int_equal(s.large_live, before.large_live + 1);
    assert_int_equal(s.large_allocated, before.large_allocated + 102400);
    assert_int_equal(s.small_live, before.small_live);
    assert_sums(&s);
    p = heap_resize(p, 500000, site);
    assert_int_equal(now().large_allocated, before.large_allocated + 503808);
    heap_free(p, site);
    s = now();
    assert_int_equal(s.large_live, before.large_live);
    assert_int_equal(s.large_allocated, before.large_allocated);
    assert_sums(&s);
}

// What another thread freed is not live, though its owner has not taken it back.
static void remote_frees_count_at_once(void **state) {
    (void)state;
    struct cache *mine = firn_cache;
    void *p = heap_alloc(64, site);
    size_t live = now().small_live;
    struct cache *other = small_attach();
    heap_free(p, site);
    assert_int_equal(now().small_live, live - 1);
    cache_detach(other);
    small_act_as(mine);
    assert_int_equal(now().small_live, live - 1);
}

static void freed_memory_moves_from_dirty_to_retained(void **state) {
    (void)state;
    static void *p[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        p[i] = heap_alloc(4000, site);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(p[i], site);
    }
    cache_flush_all(firn_cache);
    struct heap_stats s = now();
    assert_int_equal(s.active, 0);
    assert_true(s.dirty > 0);
    assert_sums(&s);
    size_t idle = s.dirty + s.retained;
    assert_true(heap_trim());
    s = now();
    assert_int_equal(s.dirty, 0);
    // And what lay between the large ones.
    assert_in_range(s.retained, idle, idle + ((size_t)1 << 20));
    assert_sums(&s);
}

static void classes_add_up(void **state) {
    (void)state;
    static void *p[BLOCKS];
    uint64_t seed = 5;
    for (unsigned i = 0; i < BLOCKS; i++) {
        p[i] = heap_alloc(small_draw(&seed, 33000), site + small_draw(&seed, 40) * 16);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        heap_free(p[i], site);
    }
    struct heap_stats s = now();
    struct heap_class_stats c;
    size_t live = 0, allocated = 0;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        assert_true(heap_class_stats(i, &c));
        assert_int_equal(c.slot_bytes, size_class_bytes(i));
        assert_int_equal(c.span_bytes, (size_t)1 << size_class_span_shift(i));
        assert_true(c.live * c.slot_bytes <= c.spans * c.span_bytes);
        live += c.live;
        allocated += c.live * c.slot_bytes;
    }
    assert_int_equal(live, s.small_live);
    assert_int_equal(allocated, s.small_allocated);
    assert_false(heap_class_stats(SIZE_CLASSES, &c));
    assert_int_equal(c.live + c.slot_bytes + c.spans, 0);
}

static void *allocate_once(void *unused) {
    (void)unused;
    heap_free(heap_alloc(64, site), site);
    return (void *)now().caches_in_use;
}

static void caches_are_counted(void **state) {
    (void)state;
    pthread_t thread;
    void *seen;
    struct heap_stats before = now();
    assert_int_equal(pthread_create(&thread, NULL, allocate_once, NULL), 0);
    assert_int_equal(pthread_join(thread, &seen), 0);
    assert_int_equal((size_t)seen, before.caches_in_use + 1);
    struct heap_stats after = now();
    assert_int_equal(after.caches_in_use, before.caches_in_use);
    assert_in_range(after.caches, before.caches, before.caches + 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_live_at_first),
        cmocka_unit_test(small_blocks_count_by_slot_size),
        cmocka_unit_test(large_blocks_count_by_pages),
        cmocka_unit_test(remote_frees_count_at_once),
        cmocka_unit_test(freed_memory_moves_from_dirty_to_retained),
        cmocka_unit_test(classes_add_up),
        cmocka_unit_test(caches_are_counted),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
